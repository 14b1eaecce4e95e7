//! The ports that the node was granted, as its clock sees them. On an address that several nodes share a grant ends: from
//! shortly before on the node opens none of its ports, while what is open goes on. A later snapshot renews it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use turnfleet_proto::{GrantedRange, fleet};
use turnfleet_turn::Ledger;
use turnfleet_turn::ledger::GrantedPorts;

/// The granted ports of one node.
pub(crate) struct Grants {
    ledger: Arc<Ledger>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    granted: Vec<GrantedRange>,
    /// Those of them that the ledger may draw from.
    open: Vec<GrantedPorts>,
}

impl Grants {
    pub(crate) fn new(ledger: Arc<Ledger>) -> Self {
        Self {
            ledger,
            held: Mutex::default(),
        }
    }

    /// Goes on with these alone.
    pub(crate) fn replace(&self, granted: &[GrantedRange], unix: u64) {
        let mut held = self.held();
        held.granted = granted.to_vec();
        held.open = open_at(granted, unix);
        self.ledger.set_granted(&held.open);
    }

    /// Opens no ports any longer whose grant has ended.
    pub(crate) fn expire(&self, unix: u64) {
        let mut held = self.held();
        let open = open_at(&held.granted, unix);
        if open != held.open {
            let (before, after) = (held.open.len(), open.len());
            tracing::warn!(
                before,
                after,
                "port grants of a shared address have ended, or not yet"
            );
            self.ledger.set_granted(&open);
            held.open = open;
        }
    }

    /// What the controller hears of each address.
    pub(crate) fn uses(&self) -> Vec<fleet::PortUse> {
        let ranges = |ranges: Vec<(u16, u16)>| {
            let range = |(first, last): (u16, u16)| fleet::PortRange {
                first: first.into(),
                last: last.into(),
            };
            ranges.into_iter().map(range).collect()
        };
        let uses = self.ledger.ports().into_iter();
        uses.map(|ports| fleet::PortUse {
            public_ip: ports.public.to_string(),
            used: ports.used,
            withdrawn: ranges(ports.withdrawn),
            open: ranges(ports.open),
        })
        .collect()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // No operation leaves it half changed.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_at(granted: &[GrantedRange], unix: u64) -> Vec<GrantedPorts> {
    let open = granted.iter().filter(|grant| grant.may_open(unix));
    open.map(|grant| GrantedPorts {
        public: grant.public,
        first: grant.range.first(),
        last: grant.range.last(),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use turnfleet_turn::Instant;
    use turnfleet_turn::ports::PortRequest;

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn grants() -> Grants {
        Grants::new(Arc::new(Ledger::new([0; 32])))
    }

    fn granted(range: &str, fence: u64, not_after: Option<u64>) -> GrantedRange {
        GrantedRange {
            public: ADDRESS,
            range: range.parse().unwrap(),
            fence,
            not_after,
        }
    }

    fn draw(grants: &Grants) -> Option<u16> {
        grants.ledger.draw(ADDRESS, PortRequest::Any, Instant(0))
    }

    #[test]
    fn ports_whose_grant_has_ended_are_opened_no_longer_and_again_when_it_is_renewed() {
        let grants = grants();
        grants.replace(&[granted("50000-50003", 1, Some(10_000))], 9_000);
        assert!(draw(&grants).is_some());
        grants.expire(9_939);
        assert!(draw(&grants).is_some());
        grants.expire(9_940);
        assert_eq!(draw(&grants), None);
        let uses = grants.uses();
        assert_eq!((uses[0].used, uses[0].open.len()), (2, 0));
        assert!(!uses[0].withdrawn.is_empty(), "what is open goes on");
        grants.replace(&[granted("50000-50003", 2, Some(20_000))], 9_940);
        assert!(draw(&grants).is_some());
    }

    #[test]
    fn ports_that_were_given_up_are_reported_until_nothing_uses_them() {
        let grants = grants();
        grants.replace(&[granted("50000-50001", 1, None)], 0);
        let port = draw(&grants).unwrap();
        grants.replace(&[granted("50002-50003", 2, None)], 0);
        let range = |first: u16, last: u16| fleet::PortRange {
            first: first.into(),
            last: last.into(),
        };
        let uses = grants.uses();
        assert_eq!(uses[0].withdrawn, [range(port, port)]);
        assert_eq!(uses[0].open, [range(50002, 50003)]);
        grants.ledger.release((ADDRESS, port).into(), Instant(1));
        assert!(grants.uses()[0].withdrawn.is_empty());
    }
}
