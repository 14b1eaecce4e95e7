//! When a certificate is valid: the one field of its DER encoding that is read here (RFC 5280 §4.1).

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The first and the last second of its validity, in Unix time.
pub(super) fn read(certificate: &[u8]) -> Option<(u64, u64)> {
    let (certificate, _) = expect(SEQUENCE, certificate)?;
    let (mut fields, _) = expect(SEQUENCE, certificate)?;
    if fields.first() == Some(&VERSION) {
        (_, _, fields) = element(fields)?;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        (_, _, fields) = element(fields)?;
    }
    let (validity, _) = expect(SEQUENCE, fields)?;
    let (kind, first, rest) = element(validity)?;
    let not_before = time(kind, first)?;
    let (kind, last, _) = element(rest)?;
    Some((not_before, time(kind, last)?))
}

/// The content of the element of that tag, and what follows it.
fn expect(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(bytes)?;
    (found == tag).then_some((content, rest))
}

/// Tag, content and what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    const LONG: u8 = 0x80;
    let (&[tag, length], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = if length < LONG {
        (usize::from(length), rest)
    } else {
        let digits = usize::from(length - LONG);
        let (digits, rest) = rest.split_at_checked(digits).filter(|_| digits <= 4)?;
        let length = digits
            .iter()
            .fold(0, |length, digit| length << 8 | usize::from(*digit));
        (length, rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
fn time(kind: u8, text: &[u8]) -> Option<u64> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |part: &[u8]| {
        part.iter()
            .fold(0, |value, digit| value * 10 + u64::from(digit - b'0'))
    };
    let (year, rest) = match kind {
        UTC_TIME if digits.len() == 12 => {
            let year = number(&digits[..2]);
            (
                if year < 50 { 2000 + year } else { 1900 + year },
                &digits[2..],
            )
        }
        GENERALIZED_TIME if digits.len() == 14 => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let part = |place: usize| number(&rest[place * 2..place * 2 + 2]);
    let days = days_since_1970(year, part(0), part(1))?;
    Some(((days * 24 + part(2)) * 60 + part(3)) * 60 + part(4))
}

/// Days from the first of January 1970 to a date of the Gregorian calendar.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    // From the first of March of the year 0.
    const DAYS_TO_1970: u64 = 719_468;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // A year that begins in March has its leap day at its end.
    let year = if month > 2 {
        year
    } else {
        year.checked_sub(1)?
    };
    let month = (month + 9) % 12;
    let leap_days = year / 4 - year / 100 + year / 400;
    let days = year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1;
    days.checked_sub(DAYS_TO_1970)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_time_are_read() {
        assert_eq!(time(UTC_TIME, b"700101000000Z"), Some(0));
        assert_eq!(time(UTC_TIME, b"240229235959Z"), Some(1_709_251_199));
        assert_eq!(
            time(GENERALIZED_TIME, b"40960101000000Z"),
            Some(67_090_118_400)
        );
        assert_eq!(time(UTC_TIME, b"240229235959"), None);
        assert_eq!(time(GENERALIZED_TIME, b"20241329000000Z"), None);
    }

    #[test]
    fn the_validity_of_a_certificate_is_found() {
        let mut params = rcgen::CertificateParams::new(["relay.example.org".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 2);
        params.not_after = rcgen::date_time_ymd(2051, 3, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        assert_eq!(read(made.der()), Some((1_767_312_000, 2_561_241_600)));
    }

    #[test]
    fn no_bytes_make_it_fail() {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let der = made.cert.der();
        for length in 0..der.len().min(300) {
            assert_eq!(read(&der[..length]), None);
        }
    }
}
