//! What rules judge: what all relays together tell of users and networks.

use std::collections::BTreeMap;

use ipnet::IpNet;
use turnfleet_turn::usage::Spread;

/// One user, as far as relays watch it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserSignals {
    /// How many relays tell of it.
    pub nodes: u32,
    /// Application bytes from its peers within the last minute.
    pub bytes_back: u64,
    /// Addresses that it made allocations from, within the last five to ten minutes.
    pub addresses: Spread,
    /// Networks of these.
    pub networks: Spread,
    /// IP addresses of peers that it asked for, within the last five to ten minutes.
    pub peers: Spread,
    /// Addresses with ports of peers.
    pub endpoints: Spread,
    /// Peers that it asked for and had not asked for before, within the last minute.
    pub new_peers: u64,
    /// Peers that the policy refused, within the last minute.
    pub denied: u64,
    /// Allocations that it opened within the last minute.
    pub opened: u64,
}

/// One network of clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkSignals {
    /// How many relays tell of it.
    pub nodes: u32,
    /// Requests with bad credentials, within the last minute.
    pub failures: u64,
    /// Challenges by UDP, within the last minute.
    pub challenges: u64,
    /// Those of them that led to nothing.
    pub unanswered: u64,
    /// Users that were at their own limits, within the last five to ten minutes.
    pub limited_users: Spread,
    /// How often they were refused, within the last minute.
    pub limited: u64,
}

/// Everything that is known at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// By tenant and user; users without a name are not among them.
    pub users: BTreeMap<(u32, String), UserSignals>,
    /// By network.
    pub networks: BTreeMap<IpNet, NetworkSignals>,
    /// Requests with bad credentials within the last minute, by the user that they name.
    pub claims: BTreeMap<String, u64>,
}
