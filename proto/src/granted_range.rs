//! What a relay may do with ports that it was granted, and when others may have them: the rule that both sides keep.
//!
//! A grant carries a fence, the generation of the fleet that wrote it, so that an outdated one is known for what it is. On an
//! address that several relays share it ends: the relay stops [`MARGIN_SECONDS`] before, and nobody else begins earlier than
//! [`MARGIN_SECONDS`] after, so that clocks may differ by that much each way.

use std::net::IpAddr;

use crate::PortRange;

/// How far from the end of a grant the relay stops before it, and others begin after it.
pub const MARGIN_SECONDS: u64 = 60;

/// Ports of a public address that the controller has granted to a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GrantedRange {
    /// The address that peers see.
    pub public: IpAddr,
    /// The ports of relayed transport addresses on it.
    pub range: PortRange,
    /// Rises with each grant of the same ports; zero where the controller does not say.
    pub fence: u64,
    /// Unix seconds at which the grant ends; `None` for never.
    pub not_after: Option<u64>,
}

impl GrantedRange {
    /// Whether the relay may open these ports at `unix`. What is open already goes on either way.
    #[must_use]
    pub fn may_open(&self, unix: u64) -> bool {
        self.not_after
            .is_none_or(|end| unix.saturating_add(MARGIN_SECONDS) < end)
    }

    /// Whether `self` is an earlier grant of ports that `held` grants.
    #[must_use]
    pub fn is_outdated_by(&self, held: &Self) -> bool {
        self.fence != 0
            && self.fence < held.fence
            && self.public == held.public
            && self.range.overlaps(held.range)
    }
}

/// Whether a grant that ends at `not_after` binds its relay no longer at `unix`.
#[must_use]
pub fn has_ended(not_after: u64, unix: u64) -> bool {
    unix > not_after.saturating_add(MARGIN_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(range: &str, fence: u64, not_after: Option<u64>) -> GrantedRange {
        GrantedRange {
            public: IpAddr::from([192, 0, 2, 1]),
            range: range.parse().unwrap(),
            fence,
            not_after,
        }
    }

    #[test]
    fn a_relay_stops_well_before_others_begin() {
        let grant = granted("50000-50009", 1, Some(10_000));
        assert!(grant.may_open(9939));
        assert!(!grant.may_open(9940));
        assert!(!has_ended(10_000, 10_060));
        assert!(has_ended(10_000, 10_061));
        assert!(granted("50000-50009", 1, None).may_open(u64::MAX));
    }

    #[test]
    fn an_earlier_grant_of_the_same_ports_is_outdated() {
        let held = granted("50000-50009", 7, None);
        assert!(granted("50005-50019", 6, None).is_outdated_by(&held));
        assert!(!granted("50010-50019", 6, None).is_outdated_by(&held));
        assert!(!granted("50005-50019", 7, None).is_outdated_by(&held));
        assert!(!granted("50005-50019", 0, None).is_outdated_by(&held));
    }
}
