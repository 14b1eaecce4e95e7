//! Whom nobody is to serve: users, whole tenants, networks of clients and networks of peers.
//!
//! Bans are compiled once a policy into what is found by search. Each ends by the clock that the caller reads, so that none
//! outlasts its time where nobody is there to lift it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::peer_filter::Cidr;
use crate::peer_filter::range_map::{RangeMap, key};
use crate::tenant::TenantId;

/// One ban.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Whom it is for.
    pub target: BanTarget,
    /// Unix seconds at which it ends; `None` for no end.
    pub until: Option<u64>,
}

/// Whom a ban is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BanTarget {
    /// One user.
    User {
        /// Whose user it is.
        tenant: TenantId,
        /// What counts against the limit per user.
        user: Box<str>,
    },
    /// All users of a tenant.
    Tenant(TenantId),
    /// Clients from there.
    Source(Cidr),
    /// Peers there.
    Peer(Cidr),
}

/// What is banned. The variants are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BanKind {
    /// A user.
    User,
    /// A tenant, which may be suspended instead.
    Tenant,
    /// A network of clients.
    Source,
    /// A network of peers.
    Peer,
}

impl BanKind {
    /// Every kind, in the order of their declaration.
    pub const ALL: [Self; 4] = [Self::User, Self::Tenant, Self::Source, Self::Peer];

    /// The metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Tenant => "tenant",
            Self::Source => "source",
            Self::Peer => "peer",
        }
    }
}

/// All bans of a policy. Ends are Unix seconds, [`u64::MAX`] where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bans {
    users: BTreeMap<TenantId, BTreeMap<Box<str>, u64>>,
    tenants: BTreeMap<TenantId, u64>,
    sources: Networks,
    peers: Networks,
}

impl Bans {
    /// Compiles bans. Of several that hold for somebody the last one to end counts.
    #[must_use]
    pub fn new(bans: impl IntoIterator<Item = Ban>) -> Self {
        let mut compiled = Self::default();
        let (mut sources, mut peers) = (Vec::new(), Vec::new());
        for Ban { target, until } in bans {
            let until = until.unwrap_or(u64::MAX);
            let end = match target {
                BanTarget::User { tenant, user } => {
                    let of_tenant = compiled.users.entry(tenant).or_default();
                    of_tenant.entry(user).or_default()
                }
                BanTarget::Tenant(tenant) => compiled.tenants.entry(tenant).or_default(),
                BanTarget::Source(block) => {
                    sources.push((block, until));
                    continue;
                }
                BanTarget::Peer(block) => {
                    peers.push((block, until));
                    continue;
                }
            };
            *end = until.max(*end);
        }
        compiled.sources = Networks::new(&sources);
        compiled.peers = Networks::new(&peers);
        compiled
    }

    /// What of a user of `tenant` is banned at `unix`; without a name it is the tenant only.
    #[must_use]
    pub fn of_user(&self, tenant: TenantId, user: Option<&str>, unix: u64) -> Option<BanKind> {
        let lasts = |until: Option<&u64>| until.is_some_and(|until| *until > unix);
        if lasts(self.tenants.get(&tenant)) {
            return Some(BanKind::Tenant);
        }
        let users = self.users.get(&tenant)?;
        lasts(users.get(user?)).then_some(BanKind::User)
    }

    /// Whether clients from `ip` are banned at `unix`.
    #[must_use]
    pub fn of_source(&self, ip: IpAddr, unix: u64) -> bool {
        self.sources.until(ip.to_canonical()) > unix
    }

    /// Whether the peer at `ip` is banned at `unix`.
    #[must_use]
    pub fn of_peer(&self, ip: IpAddr, unix: u64) -> bool {
        self.peers.until(ip) > unix
    }
}

/// When the ban of each address ends; zero for those that have none.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Networks {
    v4: RangeMap<u64>,
    v6: RangeMap<u64>,
}

impl Default for Networks {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl Networks {
    fn new(bans: &[(Cidr, u64)]) -> Self {
        let of_family = |is_v4: bool| {
            let blocks = bans.iter().copied();
            let blocks = blocks.filter(|(block, _)| block.address().is_ipv4() == is_v4);
            // A network inside of a banned one is banned as long as either says.
            RangeMap::nested_by(blocks, 0, u64::max)
        };
        Self {
            v4: of_family(true),
            v6: of_family(false),
        }
    }

    fn until(&self, ip: IpAddr) -> u64 {
        match ip {
            IpAddr::V4(_) => self.v4.at(key(ip)),
            IpAddr::V6(_) => self.v6.at(key(ip)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ban(target: BanTarget, until: u64) -> Ban {
        let until = Some(until).filter(|until| *until > 0);
        Ban { target, until }
    }

    fn source(block: &str, until: u64) -> Ban {
        ban(BanTarget::Source(block.parse().unwrap()), until)
    }

    fn user(tenant: u32, user: &str, until: u64) -> Ban {
        let tenant = TenantId(tenant);
        let user = user.into();
        ban(BanTarget::User { tenant, user }, until)
    }

    #[test]
    fn a_ban_ends_with_its_second_and_one_without_an_end_never() {
        let bans = Bans::new([user(0, "ann", 100), user(0, "bob", 0)]);
        let banned = |name, unix| bans.of_user(TenantId::DEFAULT, Some(name), unix);
        assert_eq!(banned("ann", 99), Some(BanKind::User));
        assert_eq!(banned("ann", 100), None);
        assert_eq!(banned("bob", u64::MAX - 1), Some(BanKind::User));
    }

    #[test]
    fn a_user_is_banned_under_its_own_tenant_and_with_the_whole_of_it() {
        let bans = Bans::new([user(1, "ann", 0), ban(BanTarget::Tenant(TenantId(2)), 0)]);
        let banned = |tenant, name| bans.of_user(TenantId(tenant), name, 0);
        assert_eq!(banned(1, Some("ann")), Some(BanKind::User));
        assert_eq!(banned(0, Some("ann")), None);
        assert_eq!(banned(1, None), None);
        assert_eq!(banned(2, None), Some(BanKind::Tenant));
    }

    #[test]
    fn the_last_ban_to_end_counts_whichever_network_is_inside_of_which() {
        let bans = Bans::new([
            source("10.0.0.0/8", 100),
            source("10.1.0.0/16", 50),
            source("10.2.0.0/16", 200),
            source("10.2.0.0/16", 20),
            source("2001:db8::/48", 0),
        ]);
        let banned = |ip: &str, unix| bans.of_source(ip.parse().unwrap(), unix);
        for (ip, end) in [("10.0.0.1", 100), ("10.1.0.1", 100), ("10.2.255.255", 200)] {
            assert!(banned(ip, end - 1), "{ip}");
            assert!(!banned(ip, end), "{ip}");
        }
        assert!(banned("::ffff:10.0.0.1", 1));
        assert!(banned("2001:db8::1", u64::MAX - 1));
        assert!(!banned("11.0.0.0", 0));
        assert!(!bans.of_peer("10.0.0.1".parse().unwrap(), 0));
    }
}
