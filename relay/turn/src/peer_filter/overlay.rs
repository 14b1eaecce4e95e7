//! A tenant's own rules about peers: what it has in addition to the operator's, which all tenants share.

use std::net::IpAddr;

use super::cidr::Cidr;
use super::range_map::{RangeMap, key};
use super::{Wish, wishes_of};

/// Compiled rules of one tenant. The default ones say nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerOverlay {
    v4: RangeMap<Wish>,
    v6: RangeMap<Wish>,
}

impl Default for PeerOverlay {
    fn default() -> Self {
        Self::new(&[], &[])
    }
}

impl PeerOverlay {
    /// Compiles the rules: the longest prefix wins, `deny` where both are equal.
    #[must_use]
    pub fn new(allow: &[Cidr], deny: &[Cidr]) -> Self {
        let compile = |is_v4: bool| {
            let wishes = wishes_of(allow, deny);
            let wishes = wishes.filter(|(block, _)| block.address().is_ipv4() == is_v4);
            RangeMap::nested(wishes, Wish::Silent)
        };
        Self {
            v4: compile(true),
            v6: compile(false),
        }
    }

    pub(super) fn wish(&self, ip: IpAddr) -> Wish {
        match ip {
            IpAddr::V4(_) => self.v4.at(key(ip)),
            IpAddr::V6(_) => self.v6.at(key(ip)),
        }
    }
}
