//! A range of UDP ports for relayed transport addresses.

use std::fmt;
use std::str::FromStr;

/// Ports `first` to `last`, both included, never empty, never below 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The dynamic ports, which RFC 8656 §7.2 recommends for relayed transport addresses.
    pub const DYNAMIC: Self = Self {
        first: 49152,
        last: 65535,
    };

    /// The range from `first` to `last`.
    ///
    /// # Errors
    /// When the range is empty or reaches below port 1024.
    pub fn new(first: u16, last: u16) -> Result<Self, PortRangeError> {
        if first > last {
            return Err(PortRangeError::Empty { first, last });
        }
        if first < 1024 {
            return Err(PortRangeError::Privileged { first });
        }
        Ok(Self { first, last })
    }

    /// The lowest port.
    #[must_use]
    pub fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    #[must_use]
    pub fn last(self) -> u16 {
        self.last
    }

    /// How many ports there are, at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub fn len(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }

    /// Whether some port belongs to both ranges.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, PortRangeError> {
        let malformed = || PortRangeError::Malformed(text.chars().take(40).collect());
        let (first, last) = text.split_once('-').ok_or_else(malformed)?;
        let port = |text: &str| text.parse::<u16>().map_err(|_| malformed());
        Self::new(port(first)?, port(last)?)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// Why two numbers or a text are not a port range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortRangeError {
    /// Not of the form `FIRST-LAST`.
    #[error("{0:?} is not a port range: expected FIRST-LAST, such as 49152-65535")]
    Malformed(String),
    /// The first port is above the last.
    #[error("the port range {first}-{last} is empty: the first port must not be above the last")]
    Empty {
        /// The lowest port.
        first: u16,
        /// The highest port.
        last: u16,
    },
    /// The range holds ports that belong to well-known services.
    #[error("the port range begins at {first}: relayed ports must be 1024 or above")]
    Privileged {
        /// The lowest port.
        first: u16,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_reads_as_it_is_written() {
        let range: PortRange = "50000-50009".parse().unwrap();
        assert_eq!(
            (range.to_string().as_str(), range.len()),
            ("50000-50009", 10)
        );
    }

    #[test]
    fn bad_ranges_say_what_was_expected() {
        assert!(matches!(
            "5".parse::<PortRange>(),
            Err(PortRangeError::Malformed(_))
        ));
        assert!(matches!(
            "2000-70000".parse::<PortRange>(),
            Err(PortRangeError::Malformed(_))
        ));
        assert_eq!(
            "3000-2000".parse::<PortRange>(),
            Err(PortRangeError::Empty {
                first: 3000,
                last: 2000
            })
        );
        assert_eq!(
            "80-90".parse::<PortRange>(),
            Err(PortRangeError::Privileged { first: 80 })
        );
    }

    #[test]
    fn neighbours_do_not_overlap() {
        let range = |first, last| PortRange::new(first, last).unwrap();
        assert!(!range(2000, 2009).overlaps(range(2010, 2019)));
        assert!(range(2000, 2010).overlaps(range(2010, 2019)));
    }
}
