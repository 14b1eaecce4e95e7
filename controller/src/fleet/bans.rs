//! Bans: who is not let in, and which peers nothing is relayed to. Every relay has all of them, whatever a rollout says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use ipnet::IpNet;
use turnfleet_proto::credentials::EphemeralUsername;
use turnfleet_proto::fleet as wire;

use super::record::{Record, RecordKey, TokenHash, token_hash};
use super::tenants::{DEFAULT_NAME, DEFAULT_TENANT, TenantError, Tenants};
use super::{Fleet, Plan};
use crate::error::FleetError;
use crate::store::keys::hex;

/// The most bans of a fleet.
pub const MAX_BANS: usize = 10_000;
/// The longest user that can be banned: no username is longer (RFC 8489 §14.3).
pub const MAX_USER_BYTES: usize = 508;
/// The longest reason.
pub const MAX_REASON_BYTES: usize = 256;
/// A network with a shorter prefix is so wide that its ban may be a mistake: a 256th of IPv4.
const WIDEST_V4: u8 = 8;
/// The same of IPv6: as much as one registry gave the largest providers.
const WIDEST_V6: u8 = 19;
/// Bans that one round of the upkeep removes: what is left is due in the next one.
const ENDED_AT_ONCE: usize = 64;
/// The fewest digits that name a ban.
const SHORTEST_ID: usize = 8;

/// What is banned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Whom {
    /// A user.
    User {
        /// The number of its tenant.
        tenant: u32,
        /// The username without its time and tenant.
        user: String,
    },
    /// Every user of the tenant of that number.
    Tenant(u32),
    /// Clients from this network.
    Source(IpNet),
    /// Peers in this network.
    Peer(IpNet),
}

impl Whom {
    /// Every kind there is.
    pub const KINDS: [&str; 4] = ["user", "tenant", "source", "peer"];

    /// Its name in API and log.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::User { .. } => "user",
            Self::Tenant(_) => "tenant",
            Self::Source(_) => "source",
            Self::Peer(_) => "peer",
        }
    }

    /// The banned network, where it is one.
    #[must_use]
    pub fn network(&self) -> Option<IpNet> {
        match self {
            Self::User { .. } | Self::Tenant(_) => None,
            Self::Source(network) | Self::Peer(network) => Some(*network),
        }
    }

    /// The number of the tenant that it concerns.
    #[must_use]
    pub fn tenant(&self) -> Option<u32> {
        match self {
            Self::User { tenant, .. } | Self::Tenant(tenant) => Some(*tenant),
            Self::Source(_) | Self::Peer(_) => None,
        }
    }

    /// What names the ban: store keys hold no text that a user chose.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        token_hash(&match self {
            Self::User { tenant, user } => format!("user\n{tenant}\n{user}"),
            Self::Tenant(tenant) => format!("tenant\n{tenant}"),
            Self::Source(network) => format!("source\n{network}"),
            Self::Peer(network) => format!("peer\n{network}"),
        })
    }

    /// For log and audit, with the names of tenants.
    #[must_use]
    pub fn shown<'w>(&'w self, tenants: &'w Tenants) -> impl fmt::Display + 'w {
        Shown(self, tenants)
    }
}

struct Shown<'w>(&'w Whom, &'w Tenants);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |id| self.1.name(id).unwrap_or("a removed tenant");
        match self.0 {
            Whom::User { tenant, user } if *tenant == DEFAULT_TENANT => {
                write!(f, "user {}", user.escape_debug())
            }
            Whom::User { tenant, user } => {
                write!(f, "user {} of {}", user.escape_debug(), name(*tenant))
            }
            Whom::Tenant(tenant) => write!(f, "tenant {}", name(*tenant)),
            Whom::Source(network) => write!(f, "source {network}"),
            Whom::Peer(network) => write!(f, "peer {network}"),
        }
    }
}

/// One ban.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// What is banned.
    pub whom: Whom,
    /// Why.
    pub reason: String,
    /// The name of the API token, or of the rule.
    pub by: String,
    /// Unix seconds.
    pub since: u64,
    /// The first Unix second at which it holds no longer; `None` without an end.
    pub until: Option<u64>,
    /// Placed by a rule, and not by an operator.
    pub automatic: bool,
}

impl Ban {
    /// Whether it holds no longer.
    #[must_use]
    pub fn has_ended(&self, unix: u64) -> bool {
        self.until.is_some_and(|end| end <= unix)
    }

    /// What names it in the API: 64 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> String {
        hex(&self.whom.hash())
    }
}

/// Why a ban is not placed, or not lifted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BanError {
    /// There is none.
    #[error("there is no such ban")]
    Unknown,
    /// Nobody has such a name.
    #[error("a user has a name of 1 to {MAX_USER_BYTES} bytes")]
    Nobody,
    /// Several bans begin with these digits.
    #[error("several bans begin with these digits: give more of them")]
    Ambiguous,
    /// So many are concerned that it may be a mistake.
    #[error("{0} bans a large part of the internet")]
    Wide(String),
    /// It concerns the fleet itself, or who asks for it.
    #[error("{network} covers {address}, {whose}")]
    Own {
        /// What was to be banned.
        network: IpNet,
        /// An address in it.
        address: IpAddr,
        /// Whose it is.
        whose: String,
    },
    /// A username is named, and not the user in it, as whom relays know its bearer.
    #[error("{username} is a username, and its user is {user}")]
    Username {
        /// What was named.
        username: String,
        /// What relays call it.
        user: String,
    },
    /// There are as many as there can be.
    #[error(
        "there are {limit} bans, which is as many as a fleet has, and none of them was placed by a rule; lift some"
    )]
    TooMany {
        /// The bound.
        limit: usize,
    },
}

/// Every ban.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bans {
    by_hash: BTreeMap<TokenHash, Arc<Ban>>,
    /// When each was placed.
    by_age: BTreeSet<(u64, TokenHash)>,
    /// Those that rules placed.
    automatic: BTreeSet<(u64, TokenHash)>,
    /// Those that end.
    ends: BTreeSet<(u64, TokenHash)>,
    /// What concerns a tenant.
    of_tenants: BTreeSet<(u32, TokenHash)>,
    /// How often they have changed.
    changes: u64,
}

impl Bans {
    pub(super) fn insert(&mut self, ban: Ban) {
        let hash = ban.whom.hash();
        self.remove(&hash);
        self.changes += 1;
        self.by_age.insert((ban.since, hash));
        if ban.automatic {
            self.automatic.insert((ban.since, hash));
        }
        if let Some(until) = ban.until {
            self.ends.insert((until, hash));
        }
        if let Some(tenant) = ban.whom.tenant() {
            self.of_tenants.insert((tenant, hash));
        }
        self.by_hash.insert(hash, Arc::new(ban));
    }

    pub(super) fn remove(&mut self, hash: &TokenHash) {
        let Some(gone) = self.by_hash.remove(hash) else {
            return;
        };
        self.changes += 1;
        self.by_age.remove(&(gone.since, *hash));
        self.automatic.remove(&(gone.since, *hash));
        if let Some(until) = gone.until {
            self.ends.remove(&(until, *hash));
        }
        if let Some(tenant) = gone.whom.tenant() {
            self.of_tenants.remove(&(tenant, *hash));
        }
    }

    /// How often they have changed: what was made of them holds as long as this stays.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// The tenants that bans concern.
    fn tenants(&self) -> impl Iterator<Item = u32> {
        let first = |from| self.of_tenants.range(from..).next().map(|(it, _)| *it);
        std::iter::successors(first((0, [0; 32])), move |tenant| {
            first((tenant.checked_add(1)?, [0; 32]))
        })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_hash.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }

    /// The ban of `whom`.
    #[must_use]
    pub fn of(&self, whom: &Whom) -> Option<&Arc<Ban>> {
        self.by_hash.get(&whom.hash())
    }

    /// Those that were placed before the one of `after`, or all of them, the latest first.
    pub fn latest_first(&self, after: Option<(u64, TokenHash)>) -> impl Iterator<Item = &Arc<Ban>> {
        let end = after.map_or(Bound::Unbounded, Bound::Excluded);
        let placed = self.by_age.range((Bound::Unbounded, end)).rev();
        placed.filter_map(|(_, hash)| self.by_hash.get(hash))
    }

    /// The one whose id begins with these digits.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn by_id(&self, digits: &str) -> Result<&Arc<Ban>, BanError> {
        let is_hex = digits.bytes().all(|it| it.is_ascii_hexdigit());
        if digits.len() < SHORTEST_ID || !is_hex {
            return Err(BanError::Unknown);
        }
        let digits = digits.to_ascii_lowercase();
        let mut first = TokenHash::default();
        for (place, pair) in first.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).unwrap_or_default();
            *place = u8::from_str_radix(pair, 16).unwrap_or_default();
        }
        let from = self.by_hash.range(first..);
        let mut found = from
            .take_while(|(hash, _)| hex(hash) <= digits || hex(hash).starts_with(&digits))
            .filter(|(hash, _)| hex(hash).starts_with(&digits));
        let ban = found.next().ok_or(BanError::Unknown)?.1;
        match found.next() {
            None => Ok(ban),
            Some(_) => Err(BanError::Ambiguous),
        }
    }
}

impl Tenants {
    /// The user that is meant by `user`, of `tenant` where one is named. Without one, `NAME/rest` is a user of the tenant of
    /// that name, as in a username.
    ///
    /// # Errors
    /// When there is no such tenant.
    pub fn banned_user(&self, user: &str, tenant: Option<&str>) -> Result<Whom, TenantError> {
        let (tenant, user) = match (tenant, user.split_once('/')) {
            (Some(name), _) => (self.known(name)?, user),
            (None, Some((name, rest))) if name != DEFAULT_NAME => match self.id(name) {
                Some(id) => (id, rest),
                None => (DEFAULT_TENANT, user),
            },
            (None, _) => (DEFAULT_TENANT, user),
        };
        let user = user.to_owned();
        Ok(Whom::User { tenant, user })
    }
}

impl Fleet {
    /// Every ban.
    #[must_use]
    pub fn bans(&self) -> &Bans {
        &self.bans
    }

    /// Places a ban, in place of one of the same that is there. Where there are too many, the oldest that a rule placed goes.
    /// One that a rule places takes nothing from an operator's.
    ///
    /// # Errors
    /// When there are too many, or its tenant is not known; and without `force`, when it covers so much, or what is the
    /// fleet's own or `asker`'s, that it may be a mistake, or when an operator names a username and not the user in it.
    pub fn plan_ban(
        &self,
        ban: Ban,
        force: bool,
        asker: Option<IpAddr>,
    ) -> Result<Plan, FleetError> {
        if let Some(tenant) = ban.whom.tenant()
            && self.tenants.name(tenant).is_none()
        {
            return Err(TenantError::Unknown(tenant.to_string()).into());
        }
        if let Whom::User { user, .. } = &ban.whom
            && !(1..=MAX_USER_BYTES).contains(&user.len())
        {
            return Err(BanError::Nobody.into());
        }
        if !force {
            self.is_sensible(&ban.whom, asker)?;
        }
        // A rule has seen whom it means.
        if let Whom::User { tenant, user } = &ban.whom
            && !force
            && !ban.automatic
        {
            self.is_user(*tenant, user)?;
        }
        let mut deletes = Vec::new();
        match self.bans.of(&ban.whom) {
            Some(known) if ban.automatic && !known.automatic && !known.has_ended(ban.since) => {
                return Ok(Plan::default());
            }
            Some(_) => {}
            None if self.bans.len() >= MAX_BANS => {
                let limit = MAX_BANS;
                let oldest = self.bans.automatic.first();
                let (_, oldest) = oldest.ok_or(BanError::TooMany { limit })?;
                deletes.push(RecordKey::Ban(*oldest));
            }
            None => {}
        }
        Ok(self.plan(vec![Record::Ban(ban)], deletes))
    }

    /// Lifts a ban.
    ///
    /// # Errors
    /// When there is none.
    pub fn plan_lift(&self, whom: &Whom) -> Result<Plan, FleetError> {
        if self.bans.of(whom).is_none() {
            return Err(BanError::Unknown.into());
        }
        Ok(self.plan(Vec::new(), vec![RecordKey::Ban(whom.hash())]))
    }

    /// Whether `user` is what relays call a user of `tenant`, and no username of it, of which a ban would keep out nobody.
    fn is_user(&self, tenant: u32, user: &str) -> Result<(), BanError> {
        let timed = EphemeralUsername::parse(user).and_then(|parsed| parsed.user);
        let named = timed.unwrap_or(user);
        let prefixed = match self.tenants.name(tenant) {
            Some(name) if tenant != DEFAULT_TENANT => named
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('/')),
            Some(_) | None => None,
        };
        match prefixed.or(timed) {
            Some(inner) => Err(BanError::Username {
                username: user.to_owned(),
                user: inner.to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// Whether a ban concerns neither so many, nor the fleet itself, that it is likely a mistake.
    fn is_sensible(&self, whom: &Whom, asker: Option<IpAddr>) -> Result<(), BanError> {
        let network = match whom {
            Whom::User { .. } => return Ok(()),
            Whom::Tenant(DEFAULT_TENANT) => {
                return Err(BanError::Wide(format!("tenant {DEFAULT_NAME}")));
            }
            Whom::Tenant(_) => return Ok(()),
            Whom::Source(network) | Whom::Peer(network) => *network,
        };
        let widest = match network {
            IpNet::V4(_) => WIDEST_V4,
            IpNet::V6(_) => WIDEST_V6,
        };
        if network.prefix_len() < widest {
            return Err(BanError::Wide(network.to_string()));
        }
        let own = |address: IpAddr, whose: String| BanError::Own {
            network,
            address,
            whose,
        };
        if let (Whom::Source(_), Some(asker)) = (whom, asker)
            && network.contains(&asker)
        {
            return Err(own(asker, "from which this was asked for".to_owned()));
        }
        for (id, node) in &self.nodes {
            let identity = node.identity().into_iter();
            let addresses = identity.flat_map(|identity| {
                let listeners = identity.listeners.iter().map(|it| it.address.ip());
                identity.public_ips.iter().copied().chain(listeners)
            });
            let mut covered = addresses.filter(|ip| network.contains(ip));
            if let Some(address) = covered.next() {
                return Err(own(address, format!("an address of the relay {id}")));
            }
        }
        for controller in self.controllers.values() {
            if let Some(address) = address_of(&controller.http_address)
                && network.contains(&address)
            {
                return Err(own(
                    address,
                    format!("that of the controller {}", controller.id),
                ));
            }
        }
        Ok(())
    }

    /// Bans that have ended, or whose tenant is gone.
    pub(super) fn ended_bans(&self, unix: u64) -> impl Iterator<Item = RecordKey> {
        let ended = self.bans.ends.iter();
        let ended = ended.take_while(move |(until, _)| *until <= unix);
        let gone = self
            .bans
            .tenants()
            .filter(|it| self.tenants.name(*it).is_none());
        let of = |it| {
            self.bans
                .of_tenants
                .range((it, [0; 32])..=(it, [u8::MAX; 32]))
        };
        let orphans = gone.flat_map(of);
        let over = ended
            .map(|(_, hash)| hash)
            .chain(orphans.map(|(_, hash)| hash));
        over.take(ENDED_AT_ONCE).map(|hash| RecordKey::Ban(*hash))
    }

    /// What relays are told of bans, in the order of their hashes, which stand beside them.
    pub(super) fn wire_bans(&self) -> impl Iterator<Item = (&TokenHash, wire::Ban)> {
        let told = self.bans.by_hash.iter();
        told.map(|(hash, ban)| (hash, wire_ban(ban)))
    }
}

fn wire_ban(ban: &Ban) -> wire::Ban {
    use wire::ban::Whom as Told;
    let whom = match &ban.whom {
        Whom::User { tenant, user } => Told::User(wire::BannedUser {
            tenant: *tenant,
            user: user.clone(),
        }),
        Whom::Tenant(tenant) => Told::Tenant(*tenant),
        Whom::Source(network) => Told::Source(network.to_string()),
        Whom::Peer(network) => Told::Peer(network.to_string()),
    };
    wire::Ban {
        whom: Some(whom),
        until: ban.until.unwrap_or(0),
    }
}

/// A network or an address as an operator writes it. An IPv4 network in an IPv6 one is meant as itself.
#[must_use]
pub fn network(text: &str) -> Option<IpNet> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse().ok()?,
    };
    let canonical = match (network.addr().to_canonical(), network.prefix_len()) {
        (IpAddr::V4(inner), length) if network.max_prefix_len() == 128 => {
            IpNet::new(inner.into(), length.checked_sub(96)?).ok()?
        }
        (_, _) => network,
    };
    Some(canonical.trunc())
}

/// The address in `host:port`, where the host is one.
fn address_of(host_port: &str) -> Option<IpAddr> {
    let (host, _) = host_port.rsplit_once(':')?;
    host.trim_matches(['[', ']']).parse().ok()
}

#[cfg(test)]
mod tests;
