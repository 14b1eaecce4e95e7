//! From the controller's snapshot to what the shards enforce: all of it, or nothing with the reason.

mod bans;
mod key_ring;
mod tenants;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use turnfleet_proto::probe_name::ProbeKey;
use turnfleet_proto::{GrantedRange, PortRange, fleet};
use turnfleet_turn::KeySource;
use turnfleet_turn::peer_filter::{Cidr, FleetRange, PeerFilter, PeerRules};
use turnfleet_turn::policy::{Limits, Policy, TcpRelaying};

use crate::config::NodeLimits;
use key_ring::KeyRing;
pub use key_ring::SecretUses;
pub use tenants::TenantNames;

/// Nonce keys that are accepted at once.
const MAX_NONCE_KEYS: usize = 8;
/// Port grants of one node, and rules about peers.
const MAX_RULES: usize = 16_384;
/// RFC 8489 §14.9: a realm has fewer than 128 characters.
const MAX_REALM_CHARACTERS: usize = 127;
/// RFC 8656 §7.2: a server's largest lifetime is not below the default one.
const MIN_LIFETIME_BOUND: u32 = 600;

/// What the shards enforce. Replaced whole in the [`arc_swap::ArcSwap`] that [`crate::shard::Bound::start`] is given,
/// followed by [`crate::shard::ShardSet::notify_policy`].
pub struct RelayPolicy {
    /// What the core knows of it.
    pub server: Arc<Policy>,
    /// The keys of those who may come.
    pub keys: Box<dyn KeySource + Send + Sync>,
    /// What tenants are called.
    pub tenants: TenantNames,
}

impl fmt::Debug for RelayPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayPolicy").finish_non_exhaustive()
    }
}

/// What a node adds to every snapshot from its own configuration.
#[derive(Clone, Debug)]
pub struct LocalPolicy {
    /// The addresses that peers see: grants for any other are refused.
    pub public_ips: Vec<IpAddr>,
    /// Addresses of the node itself, closed to clients except on ports that the fleet relays on.
    pub own_ips: Vec<IpAddr>,
    /// How long a nonce is good for.
    pub nonce_lifetime: Duration,
    /// Bounds on what the node holds.
    pub limits: NodeLimits,
    /// Allocations that the file descriptors allow.
    pub allocations: u32,
    /// Peer data connections that the file descriptors allow.
    pub connections: u32,
    /// Whether TCP connections go to ports below 1024 of peers, too.
    pub tcp_low_peer_ports: bool,
    /// When each shared secret was last used, across snapshots.
    pub secret_uses: Arc<SecretUses>,
}

impl LocalPolicy {
    /// Allocations that the node takes: what its configuration says, as far as the descriptors go.
    pub(crate) fn allocation_limit(&self) -> u32 {
        self.limits
            .allocations
            .map_or(self.allocations, |bound| bound.min(self.allocations))
    }
}

/// A snapshot that was found good.
#[derive(Debug)]
pub struct Compiled {
    /// Its generation.
    pub generation: u64,
    /// What the shards enforce.
    pub policy: RelayPolicy,
    /// The ports of relayed transport addresses.
    pub granted: Vec<GrantedRange>,
}

/// Why a snapshot is not applied. Travels to the controller, and names no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// A lower generation than the running one.
    #[error("generation {offered} is older than the running generation {running}")]
    Stale {
        /// That of the snapshot.
        offered: u64,
        /// That of the running policy.
        running: u64,
    },
    /// Ports that were granted anew after the snapshot was made.
    #[error(
        "port_grants: the ports {range} of {public} were granted anew since fence {fence}: the controller is behind"
    )]
    Outdated {
        /// The address.
        public: IpAddr,
        /// The ports.
        range: PortRange,
        /// The fence of the snapshot.
        fence: u64,
    },
    /// Nothing is there that could run by a policy.
    #[error("the shards of this node do not run")]
    Stopped,
    /// The system gave no randomness.
    #[error("the system gave no randomness")]
    Random,
    /// A list beyond its bound.
    #[error("{field}: {found} entries are more than {most}")]
    TooMany {
        /// The list.
        field: &'static str,
        /// Its length.
        found: usize,
        /// Its bound.
        most: usize,
    },
    /// A value that is no good.
    #[error("{field}: {expected}")]
    Value {
        /// Where it stands.
        field: &'static str,
        /// What stands there in a good snapshot.
        expected: &'static str,
    },
    /// A text that is no good.
    #[error("{field}: {value:?}: {reason}")]
    Text {
        /// Where it stands.
        field: &'static str,
        /// Its beginning.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl SnapshotError {
    fn text(field: &'static str, value: &str, reason: impl fmt::Display) -> Self {
        Self::Text {
            field,
            value: value.chars().take(80).collect(),
            reason: reason.to_string(),
        }
    }
}

/// Turns `snapshot` into what the shards enforce on this node.
///
/// # Errors
/// For the first part that does not fit; nothing of the snapshot may be used then.
pub(crate) fn compile(
    snapshot: &fleet::Snapshot,
    local: &LocalPolicy,
) -> Result<Compiled, SnapshotError> {
    if snapshot.generation == 0 {
        return Err(SnapshotError::Value {
            field: "generation",
            expected: "generations begin at 1",
        });
    }
    let realm = realm("realm", &snapshot.realm)?;
    let granted = granted(&snapshot.port_grants, &local.public_ips)?;
    let peer_rules = peer_rules(snapshot.peer_policy.as_ref(), &local.own_ips)?;
    let known = tenants::tenants(snapshot, local)?;
    let nonce_keys = nonce_keys(&snapshot.nonce_keys)?;
    let probes = nonce_keys.iter().map(|key| ProbeKey::of_nonce_key(key));
    let keys = KeyRing::new(
        realm.clone(),
        snapshot,
        known.directory,
        probes.collect(),
        &local.secret_uses,
    )?;
    let server = Policy {
        realm,
        nonce_keys,
        nonce_lifetime: local.nonce_lifetime,
        peer_filter: PeerFilter::new(peer_rules),
        limits: limits(snapshot.limits.unwrap_or_default(), local)?,
        tcp_relaying: tcp_relaying(snapshot.tenant.unwrap_or_default(), local),
        revoked_keys: key_ring::revoked(&snapshot.revoked_secrets)?,
        tenants: known.policies,
        bans: bans::bans(&snapshot.bans)?,
    };
    Ok(Compiled {
        generation: snapshot.generation,
        policy: RelayPolicy {
            server: Arc::new(server),
            keys: Box::new(keys),
            tenants: known.names,
        },
        granted,
    })
}

fn bounded<T>(field: &'static str, list: &[T], most: usize) -> Result<(), SnapshotError> {
    if list.len() > most {
        return Err(SnapshotError::TooMany {
            field,
            found: list.len(),
            most,
        });
    }
    Ok(())
}

fn realm(field: &'static str, text: &str) -> Result<Box<str>, SnapshotError> {
    let characters = text.chars().count();
    if characters == 0 || characters > MAX_REALM_CHARACTERS || text.chars().any(char::is_control) {
        let reason = "1 to 127 characters without control characters";
        return Err(SnapshotError::text(field, text, reason));
    }
    Ok(text.into())
}

/// Those that may sign before those that may not, newest first: identifiers grow.
fn nonce_keys(list: &[fleet::NonceKey]) -> Result<Vec<[u8; 32]>, SnapshotError> {
    bounded("nonce_keys", list, MAX_NONCE_KEYS)?;
    let wrong = |expected| SnapshotError::Value {
        field: "nonce_keys",
        expected,
    };
    let mut keys = Vec::with_capacity(list.len());
    for key in list {
        let Ok(bytes) = <[u8; 32]>::try_from(&key.key[..]) else {
            return Err(wrong("a nonce key has 32 bytes"));
        };
        keys.push((key.staged, key.id, bytes));
    }
    if keys.is_empty() {
        return Err(wrong("at least one nonce key"));
    }
    keys.sort_by_key(|(staged, id, _)| (*staged, std::cmp::Reverse(*id)));
    Ok(keys.into_iter().map(|(_, _, bytes)| bytes).collect())
}

fn grant(field: &'static str, grant: &fleet::PortGrant) -> Result<GrantedRange, SnapshotError> {
    let text = grant.public_ip.as_str();
    let public = text
        .parse::<IpAddr>()
        .map_err(|error| SnapshotError::text(field, text, error))?;
    let range = grant.range.unwrap_or_default();
    let port = |port: u32| {
        u16::try_from(port).map_err(|_| SnapshotError::text(field, text, "ports end at 65535"))
    };
    let range = PortRange::new(port(range.first)?, port(range.last)?)
        .map_err(|error| SnapshotError::text(field, text, error))?;
    Ok(GrantedRange {
        public,
        range,
        fence: grant.fence,
        not_after: Some(grant.not_after).filter(|end| *end != 0),
    })
}

fn granted(
    list: &[fleet::PortGrant],
    public_ips: &[IpAddr],
) -> Result<Vec<GrantedRange>, SnapshotError> {
    const FIELD: &str = "port_grants";
    bounded(FIELD, list, MAX_RULES)?;
    let mut found: Vec<GrantedRange> = Vec::with_capacity(list.len());
    for entry in list {
        let offered = grant(FIELD, entry)?;
        let refuse = |reason| Err(SnapshotError::text(FIELD, &entry.public_ip, reason));
        if !public_ips.contains(&offered.public) {
            return refuse("not an address of this node");
        }
        let twice = |other: &GrantedRange| {
            other.public == offered.public && other.range.overlaps(offered.range)
        };
        if found.iter().any(twice) {
            return refuse("two grants overlap");
        }
        found.push(offered);
    }
    Ok(found)
}

fn blocks(field: &'static str, list: &[String]) -> Result<Vec<Cidr>, SnapshotError> {
    bounded(field, list, MAX_RULES)?;
    let block = |text: &String| {
        text.parse()
            .map_err(|error| SnapshotError::text(field, text, error))
    };
    list.iter().map(block).collect()
}

fn peer_rules(
    policy: Option<&fleet::PeerPolicy>,
    own_ips: &[IpAddr],
) -> Result<PeerRules, SnapshotError> {
    let mut rules = PeerRules::default();
    if let Some(policy) = policy {
        rules.allow = blocks("peer_policy.allow", &policy.allow)?;
        rules.deny = blocks("peer_policy.deny", &policy.deny)?;
        rules.danger_allow_loopback = policy.danger_allow_loopback;
        rules.fleet.reserve_exact(policy.fleet.len());
        for entry in &policy.fleet {
            let GrantedRange { public, range, .. } = grant("peer_policy.fleet", entry)?;
            rules.fleet.push(FleetRange {
                ip: public,
                first: range.first(),
                last: range.last(),
            });
        }
    }
    for &ip in own_ips {
        // Loopback has rules of its own, and the fleet's addresses are closed but for their granted ports.
        let known = ip.is_loopback() || rules.fleet.iter().any(|range| range.ip == ip);
        if !known {
            rules.own.push(ip);
        }
    }
    Ok(rules)
}

/// Zero stands for the default, as it does for a field that is not there.
fn limits(wanted: fleet::Limits, local: &LocalPolicy) -> Result<Limits, SnapshotError> {
    let mut limits = Limits {
        permissions_per_allocation: local.limits.permissions_per_allocation,
        channels_per_allocation: local.limits.channels_per_allocation,
        connections_per_allocation: local.limits.connections_per_allocation,
        connections_per_user: local.limits.connections_per_user,
        connections: local.connections,
        allocations: local.allocation_limit(),
        ..Limits::default()
    };
    if wanted.allocations_per_user > 0 {
        limits.allocations_per_user =
            u32::try_from(wanted.allocations_per_user).unwrap_or(u32::MAX);
    }
    if wanted.max_lifetime_seconds > 0 {
        if wanted.max_lifetime_seconds < MIN_LIFETIME_BOUND {
            return Err(SnapshotError::Value {
                field: "limits.max_lifetime_seconds",
                expected: "600 at least",
            });
        }
        limits.max_lifetime = Duration::from_secs(wanted.max_lifetime_seconds.into());
    }
    if wanted.max_session_seconds > 0 {
        if wanted.max_session_seconds < MIN_LIFETIME_BOUND {
            return Err(SnapshotError::Value {
                field: "limits.max_session_seconds",
                expected: "600 at least, or zero",
            });
        }
        limits.max_session = Some(Duration::from_secs(wanted.max_session_seconds.into()));
    }
    limits.strict_expiry = wanted.strict_expiry;
    Ok(limits)
}

/// A controller of an earlier version says nothing about it, which is no.
fn tcp_relaying(tenant: fleet::TenantRules, local: &LocalPolicy) -> TcpRelaying {
    match (tenant.tcp_relaying, local.tcp_low_peer_ports) {
        (false, _) => TcpRelaying::Off,
        (true, false) => TcpRelaying::On,
        (true, true) => TcpRelaying::OnWithLowPorts,
    }
}

#[cfg(test)]
mod tests;
