//! Tenants, as the core knows them: by number, each with what holds for its users alone.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::peer_filter::PeerOverlay;
use crate::policy::TcpRelaying;

/// Whose users somebody belongs to. Numbers are given by the fleet and never used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(pub u32);

impl TenantId {
    /// The tenant of everybody who is no other's.
    pub const DEFAULT: Self = Self(0);
    /// Nobody's: the fleet's own controllers, which try whether the relay works. What they do is in no count of use, and has no
    /// quota.
    pub const PROBE: Self = Self(u32::MAX);
}

/// What holds for the users of one tenant in the place of what holds for everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantPolicy {
    /// Allocations of one user on this relay; `None` for [`crate::policy::Limits::allocations_per_user`].
    pub allocations_per_user: Option<u32>,
    /// Whether its clients may have TCP relayed transport addresses (RFC 6062).
    pub tcp_relaying: TcpRelaying,
    /// Its own rules about peers, which go before the operator's.
    pub peers: PeerOverlay,
    /// Its users are refused, and what they have ends, as if all of them were banned.
    pub suspended: bool,
}

/// The policies of all tenants but the default one, for which the policy itself speaks; so it does for a tenant that is not
/// there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tenants(HashMap<TenantId, TenantPolicy, FixedState>);

impl Tenants {
    /// What holds for `tenant` in particular.
    #[must_use]
    pub fn of(&self, tenant: TenantId) -> Option<&TenantPolicy> {
        // Most data is the default tenant's, which needs no look-up.
        match tenant {
            TenantId::DEFAULT => None,
            _ => self.0.get(&tenant),
        }
    }

    /// Whether clients of any tenant may have TCP relayed transport addresses.
    pub(crate) fn relay_tcp(&self) -> bool {
        let mut tenants = self.0.values();
        tenants.any(|tenant| tenant.tcp_relaying != TcpRelaying::Off)
    }
}

impl FromIterator<(TenantId, TenantPolicy)> for Tenants {
    fn from_iter<I: IntoIterator<Item = (TenantId, TenantPolicy)>>(tenants: I) -> Self {
        Self(tenants.into_iter().collect())
    }
}
