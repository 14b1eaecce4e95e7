//! Tables of text, and the cells of the API's answers in them.

use std::fmt;

use serde_json::Value as Json;

/// Rows below a header, with their columns two spaces apart.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new<const COLUMNS: usize>(header: [&str; COLUMNS]) -> Self {
        Self {
            rows: vec![header.map(str::to_owned).to_vec()],
        }
    }

    /// Adds rows.
    pub(super) fn with(mut self, rows: impl IntoIterator<Item = Vec<String>>) -> Self {
        self.rows.extend(rows);
        self
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell: &String| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let cells = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// The values of the list at `pointer`.
pub(super) fn list<'j>(value: &'j Json, pointer: &str) -> impl Iterator<Item = &'j Json> {
    let list = value.pointer(pointer).and_then(Json::as_array);
    list.into_iter().flatten()
}

/// A value as text; nothing where it is missing or null.
pub(super) fn cell(value: &Json, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Json::Null) => String::new(),
        Some(Json::String(text)) => text.clone(),
        Some(Json::Bool(yes)) => if *yes { "yes" } else { "no" }.to_owned(),
        Some(other) => other.to_string(),
    }
}

/// What is used of what, where a limit is known.
pub(super) fn gauge(totals: &Json, pointer: &str) -> String {
    let (used, limit) = (
        cell(totals, &format!("{pointer}/used")),
        cell(totals, &format!("{pointer}/limit")),
    );
    if limit.is_empty() {
        used
    } else {
        format!("{used} of {limit}")
    }
}

/// A ratio in percent.
pub(super) fn percent(value: &Json, pointer: &str) -> String {
    let ratio = value.pointer(pointer).and_then(Json::as_f64);
    ratio.map_or_else(String::new, |ratio| format!("{:.0} %", ratio * 100.0))
}

/// A moment in UTC (RFC 3339), of a number that counts `per_second` from 1970 on.
pub(super) fn time(value: &Json, pointer: &str, per_second: u64) -> String {
    let count = value.pointer(pointer).and_then(Json::as_u64);
    count.map_or_else(String::new, |count| moment(count / per_second))
}

/// The civil date by the days since 1970 (Hinnant, "chrono-compatible low-level date algorithms").
fn moment(unix: u64) -> String {
    let (days, second) = (unix / 86_400, unix % 86_400);
    // Years begin in March here, so that the leap day is the last one.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (
        day - (153 * month + 2) / 5 + 1,
        if month < 10 { month + 3 } else { month - 9 },
    );
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The Unix seconds of a moment (RFC 3339), without the parts of its second, or of a number that says them itself.
///
/// # Errors
/// With what would have been right.
pub(super) fn parse_moment(text: &str) -> Result<u64, &'static str> {
    const EXPECTED: &str = "expected a time such as 2026-11-22T05:43:24Z or 2026-11-22T06:43:24+01:00, or Unix seconds";
    if let Ok(unix) = text.parse() {
        return Ok(unix);
    }
    let parts = |text: &str, separator| {
        let parts = text.split(separator).map(|part| part.parse::<u64>().ok());
        parts
            .collect::<Option<Vec<_>>>()
            .and_then(|parts| <[u64; 3]>::try_from(parts).ok())
    };
    let (date, clock) = text.split_once('T').ok_or(EXPECTED)?;
    let (clock, zone) = clock.split_at(clock.find(['Z', '+', '-']).ok_or(EXPECTED)?);
    let east = seconds_east(zone).ok_or(EXPECTED)?;
    let clock = match clock.split_once('.') {
        Some((whole, part)) if !part.is_empty() && part.bytes().all(|it| it.is_ascii_digit()) => {
            whole
        }
        Some(_) | None => clock,
    };
    let ([year, month, day], [hour, minute, second]) =
        parts(date, '-').zip(parts(clock, ':')).ok_or(EXPECTED)?;
    let is_date = (1970..10_000).contains(&year) && (1..=12).contains(&month);
    if !is_date || !(1..=31).contains(&day) || hour.max(minute).max(second) > 59 {
        return Err(EXPECTED);
    }
    // As in `moment`: years begin in March.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let (era, year) = (year / 400, year % 400);
    let days = era * 146_097 + year * 365 + year / 4 - year / 100 + (153 * month + 2) / 5 + day - 1;
    let unix = (days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second;
    // There is no such day or hour where it is told as another one.
    if moment(unix) == format!("{date}T{clock}Z") {
        unix.checked_add_signed(-east).ok_or(EXPECTED)
    } else {
        Err(EXPECTED)
    }
}

/// How far ahead of UTC the clocks of a zone are that is written `Z`, `+HH:MM` or `-HH:MM`.
fn seconds_east(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let (sign, (hours, minutes)) = match zone.strip_prefix('-') {
        Some(rest) => (-1, rest.split_once(':')?),
        None => (1, zone.strip_prefix('+')?.split_once(':')?),
    };
    let number = |text: &str, most: i64| {
        let is_whole = text.len() == 2 && text.bytes().all(|it| it.is_ascii_digit());
        let number: i64 = text.parse().ok().filter(|_| is_whole)?;
        Some(number).filter(|number| *number <= most)
    };
    Some(sign * (number(hours, 23)? * 3600 + number(minutes, 59)? * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_as_it_is_told() {
        for unix in [0, 951_782_399, 951_782_400, 1_709_251_200, 4_102_444_799] {
            assert_eq!(parse_moment(&moment(unix)), Ok(unix));
            assert_eq!(parse_moment(&unix.to_string()), Ok(unix));
        }
        for (text, unix) in [
            ("2000-02-28T23:59:59.999Z", 951_782_399),
            ("2000-02-29T01:00:00+01:00", 951_782_400),
            ("2000-02-28T18:29:59.5-05:30", 951_782_399),
            ("2000-02-29T00:00:00+00:00", 951_782_400),
        ] {
            assert_eq!(parse_moment(text), Ok(unix), "{text}");
        }
        for wrong in [
            "",
            "yesterday",
            "2026-02-29T00:00:00Z",
            "2026-02-28T24:00:00Z",
            "2026-02-28T00:00:00",
            "2026-02-28 00:00:00Z",
            "2026-02-28T00:00:00.xZ",
            "2026-02-28T00:00:00.Z",
            "2026-02-28T00:00:00+1:00",
            "2026-02-28T00:00:00+01",
            "2026-02-28T00:00:00-25:00",
            "2026-02-28T00:00:00ZZ",
            "1969-12-31T00:00:00Z",
            "1970-01-01T00:00:00+01:00",
            "99999999999999999999-01-01T00:00:00Z",
        ] {
            assert!(parse_moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_moment_is_told_in_utc() {
        for (unix, told) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(moment(unix), told);
        }
    }
}
