//! How long the certificate of a relay's TLS listeners is good for, and what follows for its `turns:` URIs.

use turnfleet_proto::fleet as wire;

const HOUR: u64 = 3600;
/// With less than this left, lists leave `turns:` out while other relays have a better one.
const TOO_LITTLE: u64 = 24 * HOUR;
/// With less than this left it is worth a warning.
const LITTLE: u64 = 7 * 24 * HOUR;

/// When a certificate is valid, in Unix seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Validity {
    /// From then on.
    pub not_before: u64,
    /// Until then.
    pub not_after: u64,
}

/// How a relay's certificate stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CertificateState {
    /// It has none, or does not say.
    #[default]
    Unknown,
    /// Good for a while.
    Good,
    /// Nearer to its end than it should be, and still in lists.
    Ending,
    /// So near to its end that lists leave `turns:` out, or past it.
    Withheld,
}

impl CertificateState {
    /// Every state there is.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Good, Self::Ending, Self::Withheld];

    /// The state of a certificate that ends so; `spared` where lists have another relay's.
    pub(super) fn of(validity: Validity, unix: u64, spared: bool) -> Self {
        if validity.is_over(unix) || (spared && validity.is_short(unix)) {
            Self::Withheld
        } else if validity.is_ending(unix) {
            Self::Ending
        } else {
            Self::Good
        }
    }

    /// Whether lists may carry `turns:`.
    #[must_use]
    pub fn is_good(self) -> bool {
        self != Self::Withheld
    }

    /// The name in API and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Good => "good",
            Self::Ending => "ending",
            Self::Withheld => "withheld",
        }
    }
}

impl Validity {
    /// What a heartbeat says of it; `None` where it says nothing.
    pub(super) fn read(validity: &wire::CertificateValidity) -> Option<Self> {
        let known = validity.not_after > validity.not_before;
        known.then_some(Self {
            not_before: validity.not_before,
            not_after: validity.not_after,
        })
    }

    /// As another controller is told of it.
    pub(super) fn wire(self) -> wire::CertificateValidity {
        wire::CertificateValidity {
            not_before: self.not_before,
            not_after: self.not_after,
        }
    }

    /// Whether less is left than a list that is handed out at `unix` needs: a day, or a third of the whole time of a
    /// certificate that is made for less.
    pub(super) fn is_short(self, unix: u64) -> bool {
        self.left(unix) < TOO_LITTLE.min(self.whole() / 3)
    }

    /// Whether it has ended.
    pub(super) fn is_over(self, unix: u64) -> bool {
        self.left(unix) == 0
    }

    /// Whether its end is near: a week, or half of the whole time of a certificate that is made for less.
    pub(super) fn is_ending(self, unix: u64) -> bool {
        self.left(unix) < LITTLE.min(self.whole() / 2)
    }

    fn left(self, unix: u64) -> u64 {
        self.not_after.saturating_sub(unix)
    }

    fn whole(self) -> u64 {
        self.not_after - self.not_before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_ends_for_lists_a_day_before_its_end() {
        let long = Validity {
            not_before: 0,
            not_after: 90 * 24 * HOUR,
        };
        let at = |left: u64| {
            let unix = long.not_after - left;
            (
                long.is_ending(unix),
                long.is_short(unix),
                long.is_over(unix),
            )
        };
        assert_eq!(at(8 * 24 * HOUR), (false, false, false));
        assert_eq!(at(6 * 24 * HOUR), (true, false, false));
        assert_eq!(at(24 * HOUR - 1), (true, true, false));
        assert_eq!(at(0), (true, true, true));
    }

    #[test]
    fn a_certificate_that_is_made_for_a_day_is_good_for_two_thirds_of_it() {
        let short = Validity {
            not_before: 0,
            not_after: 24 * HOUR,
        };
        assert!(!short.is_short(15 * HOUR));
        assert!(short.is_short(17 * HOUR));
    }
}
