//! What the operator sets: the fixed configuration of a server and the policy that may change while it runs.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::bans::{BanKind, Bans};
use crate::command::ShardId;
use crate::peer_filter::{Besides, PeerDenied, PeerFilter};
use crate::tenant::{TenantId, Tenants};

/// Fixed for the life of a [`crate::Server`].
#[derive(Clone, Debug)]
pub struct Config {
    /// This server's place among the relay's shards; the first byte of its reservation
    /// tokens and CONNECTION-IDs.
    pub shard: ShardId,
    /// How many shards the relay has; divides budgets that hold per relay.
    pub shards: u8,
    /// The addresses that relayed sockets are opened on, in order of preference within a family; at most 255.
    pub relayed_hosts: Vec<RelayedHost>,
    /// Accept channel numbers up to 0x7FFF, as RFC 5766 had them; 0x4000-0x4FFF otherwise (RFC 8656 §12).
    pub rfc5766_channel_numbers: bool,
    /// Whether the driver sends datagrams with DF where a decision says so; where it cannot, DONT-FRAGMENT is an unknown
    /// attribute (RFC 8656 §7.2).
    pub dont_fragment: bool,
    /// Sources whose unauthenticated answers are not limited: balancers that hide many clients behind one address.
    pub trusted_sources: Vec<crate::peer_filter::Cidr>,
}

impl Config {
    /// A server of one shard. It opens relayed sockets on `hosts`, where clients and peers see them too; what else can be
    /// chosen is as strict as RFC 8656 has it.
    #[must_use]
    pub fn new(hosts: impl IntoIterator<Item = IpAddr>) -> Self {
        let host = |ip| RelayedHost {
            local: ip,
            public: ip,
        };
        Self {
            shard: ShardId(0),
            shards: 1,
            relayed_hosts: hosts.into_iter().map(host).collect(),
            rfc5766_channel_numbers: false,
            dont_fragment: false,
            trusted_sources: Vec::new(),
        }
    }
}

/// Whether clients may have TCP relayed transport addresses (RFC 6062).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcpRelaying {
    /// They get 442, as from a server that has never heard of it.
    #[default]
    Off,
    /// Clients connect to ports from 1024 up: the services below were not made for strangers.
    On,
    /// Clients connect to any port.
    OnWithLowPorts,
}

/// An address for relayed sockets: bound as `local`, told to clients and peers as `public`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayedHost {
    /// An address of this machine.
    pub local: IpAddr,
    /// The address that peers see; differs from `local` behind 1:1 NAT only. Same family.
    pub public: IpAddr,
}

/// What may change while allocations live. Replaced whole.
#[derive(Clone)]
pub struct Policy {
    /// The REALM, RFC 8489 §9.2.
    pub realm: Box<str>,
    /// The keys of nonces, newest first: the first signs, all verify. Shared by the fleet.
    pub nonce_keys: Vec<[u8; 32]>,
    /// How long a nonce is good for; an hour at most (RFC 8656 §5).
    pub nonce_lifetime: Duration,
    /// Which peers may be reached.
    pub peer_filter: PeerFilter,
    /// Bounds on what clients may hold.
    pub limits: Limits,
    /// Whether clients may have TCP relayed transport addresses (RFC 6062). Those that they have outlive a change.
    pub tcp_relaying: TcpRelaying,
    /// The [`crate::Candidate::key_id`] of keys whose allocations end.
    pub revoked_keys: Vec<u32>,
    /// What differs for the users of some tenants.
    pub tenants: Tenants,
    /// Whom nobody serves, and whose allocations end.
    pub bans: Bans,
}

impl Policy {
    /// A policy with one nonce key, nonces that are good for an hour, the default limits, no TCP relaying, and nothing revoked.
    #[must_use]
    pub fn new(realm: &str, nonce_key: [u8; 32], peer_filter: PeerFilter) -> Self {
        Self {
            realm: realm.into(),
            nonce_keys: vec![nonce_key],
            nonce_lifetime: Duration::from_secs(3600),
            peer_filter,
            limits: Limits::default(),
            tcp_relaying: TcpRelaying::Off,
            revoked_keys: Vec::new(),
            tenants: Tenants::default(),
            bans: Bans::default(),
        }
    }

    /// The bounds that hold for users of `tenant`.
    pub(crate) fn limits_of(&self, tenant: TenantId) -> Limits {
        let own = self.tenants.of(tenant);
        Limits {
            allocations_per_user: own
                .and_then(|own| own.allocations_per_user)
                .unwrap_or(self.limits.allocations_per_user),
            ..self.limits
        }
    }

    /// Whether clients of `tenant` may have TCP relayed transport addresses.
    pub(crate) fn tcp_relaying_of(&self, tenant: TenantId) -> TcpRelaying {
        self.tenants
            .of(tenant)
            .map_or(self.tcp_relaying, |own| own.tcp_relaying)
    }

    /// Whether any client may have TCP relayed transport addresses.
    pub(crate) fn relays_tcp(&self) -> bool {
        self.tcp_relaying != TcpRelaying::Off || self.tenants.relay_tcp()
    }

    /// The first gate for peers, as clients of `tenant` find it at `unix`.
    pub(crate) fn check_peer_ip(
        &self,
        tenant: TenantId,
        ip: IpAddr,
        unix: u64,
    ) -> Result<(), PeerDenied> {
        self.peer_filter
            .check_ip_for(self.besides(tenant, unix), ip)
    }

    /// The second gate for peers, as clients of `tenant` find it at `unix`.
    pub(crate) fn check_peer(
        &self,
        tenant: TenantId,
        peer: SocketAddr,
        unix: u64,
    ) -> Result<(), PeerDenied> {
        self.peer_filter.check_for(self.besides(tenant, unix), peer)
    }

    /// Why a user of `tenant` is not served at `unix`.
    pub(crate) fn bans_user(
        &self,
        tenant: TenantId,
        user: Option<&str>,
        unix: u64,
    ) -> Option<BanKind> {
        let suspended = self.tenants.of(tenant).is_some_and(|own| own.suspended);
        if suspended {
            return Some(BanKind::Tenant);
        }
        self.bans.of_user(tenant, user, unix)
    }

    /// Whether live allocations may have to end that `former` let be.
    pub(crate) fn ends_more_than(&self, former: &Self) -> bool {
        self.revoked_keys != former.revoked_keys
            || self.bans != former.bans
            || self.tenants != former.tenants
            || self.peer_filter != former.peer_filter
    }

    fn besides(&self, tenant: TenantId, unix: u64) -> Besides<'_> {
        Besides {
            overlay: self.tenants.of(tenant).map(|own| &own.peers),
            bans: Some(&self.bans),
            unix,
        }
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("realm", &self.realm)
            .field("nonce_keys", &self.nonce_keys.len())
            .field("nonce_lifetime", &self.nonce_lifetime)
            .field("peer_filter", &self.peer_filter)
            .field("limits", &self.limits)
            .field("tcp_relaying", &self.tcp_relaying)
            .field("revoked_keys", &self.revoked_keys)
            .field("tenants", &self.tenants)
            .field("bans", &self.bans)
            .finish()
    }
}

/// Bounds on what clients may hold; each refusal is counted.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Allocations of one user on this relay; beyond it 486.
    pub allocations_per_user: u32,
    /// Allocations on this relay; beyond it 508.
    pub allocations: u32,
    /// Permissions of one allocation; beyond it 508 (RFC 8656 §10.2).
    pub permissions_per_allocation: u16,
    /// Channels of one allocation; beyond it 508 (RFC 8656 §12.2).
    pub channels_per_allocation: u16,
    /// Peer data connections of one allocation, those that are being opened included; beyond it 508 (RFC 6062).
    /// Those that peers have opened and nobody has claimed are half of them at most.
    pub connections_per_allocation: u16,
    /// Peer data connections of one user on this relay; beyond it 486.
    pub connections_per_user: u32,
    /// Peer data connections on this relay; beyond it 508.
    pub connections: u32,
    /// The largest lifetime granted (RFC 8656 §7.2).
    pub max_lifetime: Duration,
    /// How long an allocation lives at most, however often it is refreshed; `None` for no end.
    pub max_session: Option<Duration>,
    /// Whether requests about a live allocation are refused once its ephemeral credential has ended, as those for a new one
    /// are; else they go on.
    pub strict_expiry: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            allocations_per_user: 100,
            allocations: u32::MAX,
            permissions_per_allocation: 1024,
            channels_per_allocation: 1024,
            connections_per_allocation: 64,
            connections_per_user: 256,
            connections: u32::MAX,
            max_lifetime: Duration::from_secs(3600),
            max_session: None,
            strict_expiry: false,
        }
    }
}
