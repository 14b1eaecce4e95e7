//! Who used the server, and how much: what one shard has counted since it was last asked.
//!
//! The packet path counts in the allocation and in the permission that it looks up anyway. A sweep in slices, and the end
//! of each allocation, move what was counted into a [`Tally`], which the driver takes away. Traffic of tenants is counted
//! to the byte; users and networks are named up to a bound, and what is beyond it is counted without a name.

mod sent_ports;
mod spread;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) use self::sent_ports::SentPorts;
pub use self::spread::Spread;
use crate::addr::{AddressFamily, Transport};
use crate::counters::Flow;
use crate::tenant::TenantId;

/// Names of one kind in a [`Tally`].
const MAX_NAMES: usize = 4096;

/// With so many names a tally is to be taken before the next sweep.
const MANY_NAMES: usize = 1024;

/// Application bytes of both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// From clients to peers.
    pub to_peers: u64,
    /// From peers to clients.
    pub to_clients: u64,
}

impl Bytes {
    /// Adds what `other` has.
    pub fn add(&mut self, other: Self) {
        self.to_peers = self.to_peers.saturating_add(other.to_peers);
        self.to_clients = self.to_clients.saturating_add(other.to_clients);
    }

    /// Both directions together.
    #[must_use]
    pub fn sum(self) -> u64 {
        self.to_peers.saturating_add(self.to_clients)
    }
}

/// Packets and application bytes of both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// From clients to peers.
    pub to_peers: Flow,
    /// From peers to clients.
    pub to_clients: Flow,
}

impl Traffic {
    /// Adds what `other` has.
    pub fn add(&mut self, other: Self) {
        self.to_peers.add(other.to_peers);
        self.to_clients.add(other.to_clients);
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(self) -> Bytes {
        Bytes {
            to_peers: self.to_peers.bytes,
            to_clients: self.to_clients.bytes,
        }
    }
}

/// What a tenant's users did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantTally {
    /// By the transport and the address family of the clients' leg, as [`Transport`] and [`AddressFamily`] number them.
    pub traffic: [[Traffic; 2]; Transport::ALL.len()],
    /// Allocations granted.
    pub opened: u64,
    /// Allocations that ended after they were granted.
    pub closed: u64,
    /// Allocate requests refused after authentication.
    pub refused: u64,
}

impl TenantTally {
    /// Adds what `other` has.
    pub fn add(&mut self, other: &Self) {
        let theirs = other.traffic.as_flattened();
        for (mine, theirs) in self.traffic.as_flattened_mut().iter_mut().zip(theirs) {
            mine.add(*theirs);
        }
        self.opened += other.opened;
        self.closed += other.closed;
        self.refused += other.refused;
    }
}

/// A user of a tenant, as limits know it; empty where a credential names nobody.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct User {
    /// Whose user it is.
    pub tenant: TenantId,
    /// Its name.
    pub name: Box<str>,
}

/// What one user did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserTally {
    /// Application data.
    pub bytes: Bytes,
    /// What its requests show; absent where it made none.
    pub behaviour: Option<Box<Behaviour>>,
}

/// How far a user spreads: the signals of scans and of shared credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// Addresses that it made allocations from.
    pub addresses: Spread,
    /// Networks of these.
    pub networks: Spread,
    /// IP addresses of peers that it asked for.
    pub peers: Spread,
    /// Addresses with ports of peers that it asked for, or sent to where these are many.
    pub endpoints: Spread,
    /// Permissions for peers that the allocation had none for, and TCP connections to peers.
    pub permissions: u64,
    /// Peers that the policy refused it.
    pub denied: u64,
    /// Allocations that it opened.
    pub opened: u64,
}

impl Behaviour {
    /// Adds what `other` has.
    pub fn add(&mut self, other: &Self) {
        self.addresses.add(&other.addresses);
        self.networks.add(&other.networks);
        self.peers.add(&other.peers);
        self.endpoints.add(&other.endpoints);
        self.permissions += other.permissions;
        self.denied += other.denied;
        self.opened += other.opened;
    }
}

/// What those did who have proved nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strangers {
    /// Requests whose credentials are no good, of senders who have read a challenge: nobody fails in another's name.
    pub failures: u64,
    /// Requests by UDP that ask for a challenge, whether it is sent or the reflection budget holds it back, and Binding requests
    /// that it holds back.
    pub challenges: u64,
    /// Requests by UDP whose senders have read a challenge: one that its receiver asked for leads to one.
    pub authentic: u64,
}

impl Strangers {
    /// Adds what `other` has.
    pub fn add(&mut self, other: Self) {
        self.failures += other.failures;
        self.challenges += other.challenges;
        self.authentic += other.authentic;
    }
}

/// Users of one network who were at their own limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limited {
    /// The users.
    pub users: Spread,
    /// Allocations that were refused them for it.
    pub times: u64,
}

/// A network of the size that one holder usually has: an IPv4 /24, an IPv6 /48.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(IpAddr);

impl Network {
    /// The network of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Ipv4Addr::new(a, b, c, 0).into()
            }
            IpAddr::V6(ip) => {
                let [a, b, c, ..] = ip.segments();
                Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into()
            }
        })
    }
}

impl From<Network> for IpAddr {
    fn from(network: Network) -> Self {
        network.0
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = match self.0 {
            IpAddr::V4(_) => 24,
            IpAddr::V6(_) => 48,
        };
        write!(f, "{}/{len}", self.0)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Tally {
    /// Every tenant that did anything.
    pub tenants: BTreeMap<TenantId, TenantTally>,
    /// Users that did anything.
    pub users: BTreeMap<User, UserTally>,
    /// Where traffic of clients comes from.
    pub sources: BTreeMap<Network, Bytes>,
    /// Where peers with traffic are.
    pub peers: BTreeMap<Network, Bytes>,
    /// Where those are who have proved nothing.
    pub strangers: BTreeMap<Network, Strangers>,
    /// Where users are who are at their own limits.
    pub limited: BTreeMap<Network, Limited>,
    /// What was counted without a name, because there were too many.
    pub unnamed: u64,
}

impl Tally {
    /// Whether it is to be taken soon.
    #[must_use]
    pub fn is_large(&self) -> bool {
        let names = [
            self.users.len(),
            self.sources.len(),
            self.peers.len(),
            self.strangers.len(),
            self.limited.len(),
        ];
        names.iter().any(|len| *len >= MANY_NAMES)
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tenants.is_empty() && self.users.is_empty() && self.strangers.is_empty()
    }

    pub(crate) fn tenant(&mut self, tenant: TenantId) -> &mut TenantTally {
        self.tenants.entry(tenant).or_default()
    }

    pub(crate) fn user(&mut self, tenant: TenantId, name: &str) -> Option<&mut UserTally> {
        let user = User {
            tenant,
            name: name.into(),
        };
        entry(&mut self.users, user, &mut self.unnamed)
    }

    pub(crate) fn behaviour(&mut self, tenant: TenantId, name: &str) -> Option<&mut Behaviour> {
        let user = self.user(tenant, name)?;
        Some(user.behaviour.get_or_insert_default())
    }

    pub(crate) fn source(&mut self, ip: IpAddr) -> Option<&mut Bytes> {
        entry(&mut self.sources, Network::of(ip), &mut self.unnamed)
    }

    pub(crate) fn peer(&mut self, ip: IpAddr) -> Option<&mut Bytes> {
        entry(&mut self.peers, Network::of(ip), &mut self.unnamed)
    }

    pub(crate) fn stranger(&mut self, ip: IpAddr) -> Option<&mut Strangers> {
        entry(&mut self.strangers, Network::of(ip), &mut self.unnamed)
    }

    pub(crate) fn limited(&mut self, ip: IpAddr) -> Option<&mut Limited> {
        entry(&mut self.limited, Network::of(ip), &mut self.unnamed)
    }

    /// Where traffic of a client's leg is counted.
    pub(crate) fn leg(
        &mut self,
        tenant: TenantId,
        transport: Transport,
        family: AddressFamily,
    ) -> &mut Traffic {
        &mut self.tenant(tenant).traffic[transport as usize][family as usize]
    }
}

/// The value of a name; `None`, which is counted, where there are too many others.
fn entry<'a, K: Ord, V: Default>(
    names: &'a mut BTreeMap<K, V>,
    name: K,
    unnamed: &mut u64,
) -> Option<&'a mut V> {
    if names.len() >= MAX_NAMES && !names.contains_key(&name) {
        *unnamed += 1;
        return None;
    }
    Some(names.entry(name).or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_of_the_size_that_one_holder_has() {
        let of = |ip: &str| Network::of(ip.parse().unwrap()).to_string();
        assert_eq!(of("203.0.113.77"), "203.0.113.0/24");
        assert_eq!(of("::ffff:203.0.113.77"), "203.0.113.0/24");
        assert_eq!(of("2001:db8:1:2::3"), "2001:db8:1::/48");
    }

    #[test]
    fn names_beyond_the_bound_are_counted_and_known_ones_go_on() {
        let mut tally = Tally::default();
        for n in 0..MAX_NAMES {
            assert!(tally.user(TenantId(1), &n.to_string()).is_some());
        }
        assert!(tally.is_large());
        assert!(tally.user(TenantId(1), "beyond").is_none());
        assert!(tally.user(TenantId(1), "7").is_some());
        assert_eq!(tally.unnamed, 1);
    }
}
