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
