//! Whom a node lets in: its static users, and whoever has a credential that a shared secret has made.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::rand::{SecureRandom as _, SystemRandom};
use turnfleet_proto::credentials::{EphemeralUsername, SharedSecret};
use turnfleet_proto::fleet;
use turnfleet_proto::fleet::secret_generation::State;
use turnfleet_proto::probe_name::ProbeKey;
use turnfleet_turn::wire::{LongTermKey, PasswordAlgorithm};
use turnfleet_turn::{Candidate, Candidates, Identity, KeySource, Now, TenantId};

use super::tenants::{Belonging, Directory};
use super::{SnapshotError, bounded};

/// Secret generations that are accepted at once, 32 of the fleet and 32 of its region; each costs an HMAC for a bad password.
const MAX_SECRETS: usize = 64;
/// Revoked generations that a snapshot names.
const MAX_REVOKED: usize = 1024;
/// Static users; more belong into an application that mints ephemeral credentials.
const MAX_USERS: usize = 100_000;
/// RFC 8489 §14.3: a username has fewer than 509 bytes.
const MAX_USERNAME_BYTES: usize = 508;

/// When each generation of the shared secret was last used to authenticate, in Unix seconds by this node's clock; zero for
/// never. It outlives the snapshots.
#[derive(Debug, Default)]
pub struct SecretUses(Mutex<BTreeMap<u32, Arc<AtomicU64>>>);

impl SecretUses {
    fn of(&self, id: u32) -> Arc<AtomicU64> {
        Arc::clone(self.lock().entry(id).or_default())
    }

    /// Forgets all but these.
    fn keep(&self, known: &HashMap<u32, Arc<AtomicU64>>) {
        self.lock().retain(|id, _| known.contains_key(id));
    }

    /// What has been used since `reported`, which is brought up to date.
    pub(crate) fn report(&self, reported: &mut BTreeMap<u32, u64>) -> Vec<fleet::SecretUse> {
        let uses = self.lock();
        let mut report = Vec::new();
        for (&id, last_used) in &*uses {
            let last_used = last_used.load(Ordering::Relaxed);
            if last_used > 0 && reported.insert(id, last_used) != Some(last_used) {
                report.push(fleet::SecretUse { id, last_used });
            }
        }
        reported.retain(|id, _| uses.contains_key(id));
        report
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<AtomicU64>>> {
        // Each change is one call of the map.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One shared secret.
pub(super) struct Generation {
    id: u32,
    secret: SharedSecret,
    /// Unix seconds; `None` for no end.
    accept_until: Option<u64>,
    last_used: Arc<AtomicU64>,
}

impl Generation {
    fn is_accepted(&self, now: Now) -> bool {
        self.accept_until.is_none_or(|until| now.unix <= until)
    }
}

/// Whose the controllers are that try the relay: nobody's, with no quota that others could use up.
const PROBE: Belonging = Belonging {
    tenant: TenantId::PROBE,
    named: TenantId::DEFAULT,
    user: None,
};

/// The accepted generations of one shared secret, the likeliest first.
pub(super) struct Ring(Vec<Generation>);

/// The keys of one static user. A controller of an earlier version gives the MD5 one only.
struct UserKeys {
    md5: [u8; 16],
    sha256: Option<[u8; 32]>,
}

impl UserKeys {
    fn by(&self, algorithm: PasswordAlgorithm) -> Option<LongTermKey> {
        match algorithm {
            PasswordAlgorithm::Md5 => Some(LongTermKey::Md5(self.md5)),
            PasswordAlgorithm::Sha256 => self.sha256.map(LongTermKey::Sha256),
        }
    }
}

impl Ring {
    /// # Errors
    /// When there are more than `most`, or one is empty.
    pub(super) fn new(
        field: &'static str,
        list: &[fleet::SecretGeneration],
        most: usize,
        uses: &SecretUses,
    ) -> Result<Self, SnapshotError> {
        bounded(field, list, most)?;
        if list.iter().any(|generation| generation.secret.is_empty()) {
            return Err(SnapshotError::Value {
                field,
                expected: "a secret has at least one byte",
            });
        }
        let mut ranked: Vec<_> = list.iter().collect();
        // A controller of an earlier version says nothing of states, and has them in order.
        if list.iter().any(|it| it.state() != State::Unspecified) {
            ranked.sort_by_key(|generation| (rank(generation.state()), Reverse(generation.id)));
        }
        let generations = ranked.into_iter().map(|generation| Generation {
            id: generation.id,
            secret: SharedSecret::new(generation.secret.clone()),
            accept_until: Some(generation.accept_until).filter(|until| *until > 0),
            last_used: uses.of(generation.id),
        });
        Ok(Self(generations.collect()))
    }

    pub(super) fn generations(&self) -> &[Generation] {
        &self.0
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The static users, who are the default tenant's, the tenants with their secrets, and the secrets that are good for users
/// of all of them.
pub(super) struct KeyRing {
    realm: Box<str>,
    shared: Ring,
    users: HashMap<Box<str>, UserKeys>,
    tenants: Directory,
    /// What controllers may have made the probe's username with.
    probes: Vec<ProbeKey>,
    /// When each secret was last used.
    uses: HashMap<u32, Arc<AtomicU64>>,
    /// Has made no credential: it is tried in the place of secrets that a tenant does not have, so that time does not tell
    /// how many it has, or whether there is such a tenant.
    decoy: SharedSecret,
}

impl KeyRing {
    /// The ring of `snapshot`, whose uses are kept in `uses`; `probes` tell the probe's username.
    ///
    /// # Errors
    /// For the first secret or user that does not fit.
    pub(super) fn new(
        realm: Box<str>,
        snapshot: &fleet::Snapshot,
        tenants: Directory,
        probes: Vec<ProbeKey>,
        uses: &SecretUses,
    ) -> Result<Self, SnapshotError> {
        let users = users(&snapshot.users)?;
        let shared = Ring::new("secrets", &snapshot.secrets, MAX_SECRETS, uses)?;
        let secrets = shared.generations().iter().chain(tenants.all_secrets());
        let known = secrets.map(|it| (it.id, Arc::clone(&it.last_used)));
        let known: HashMap<_, _> = known.collect();
        uses.keep(&known);
        let mut decoy = [0; 32];
        SystemRandom::new()
            .fill(&mut decoy)
            .map_err(|_| SnapshotError::Random)?;
        Ok(Self {
            realm,
            shared,
            users,
            tenants,
            probes,
            uses: known,
            decoy: SharedSecret::new(decoy),
        })
    }

    fn push(
        &self,
        (identity, ends): (Identity<'_>, u64),
        generation: &Generation,
        (belonging, home): (&Belonging, TenantId),
        out: &mut Candidates,
    ) {
        let Identity {
            username, realm, ..
        } = identity;
        let password = generation.secret.password(username);
        out.push(Candidate {
            key: LongTermKey::derive_with(out.algorithm(), username, realm, &password),
            user: belonging.user.clone(),
            tenant: belonging.tenant,
            home,
            expires_at: Some(ends),
            key_id: generation.id,
        });
    }

    /// Whether a controller has made the username, to try the relay.
    fn is_probe(&self, username: EphemeralUsername<'_>) -> bool {
        self.probes.iter().any(|key| key.has_made(username))
    }

    /// Adds `count` keys that nobody has.
    fn push_decoys(&self, identity: Identity<'_>, count: usize, out: &mut Candidates) {
        for _ in 0..count {
            let password = self.decoy.password(identity.username);
            let algorithm = out.algorithm();
            out.push(Candidate {
                key: LongTermKey::derive_with(
                    algorithm,
                    identity.username,
                    identity.realm,
                    &password,
                ),
                user: None,
                tenant: TenantId::DEFAULT,
                home: TenantId::DEFAULT,
                expires_at: Some(0),
                key_id: 0,
            });
        }
    }
}

impl KeySource for KeyRing {
    fn candidates(&self, identity: Identity<'_>, now: Now, out: &mut Candidates) {
        let Identity {
            username, realm, ..
        } = identity;
        let user = self.users.get(username).filter(|_| *realm == *self.realm);
        if let Some(key) = user.and_then(|keys| keys.by(out.algorithm())) {
            out.push(Candidate {
                key,
                user: Some(0..username.len()),
                tenant: TenantId::DEFAULT,
                home: TenantId::DEFAULT,
                expires_at: None,
                key_id: 0,
            });
        }
        let Some(parsed) = EphemeralUsername::parse(username) else {
            return;
        };
        let ends = parsed.expires_at;
        let accepted = |it: &&Generation| it.is_accepted(now);
        let shared = self.shared.generations().iter().filter(accepted);
        let most_own = self.tenants.most_secrets();
        let Some(belonging) = self.tenants.belonging(identity, parsed.user) else {
            return self.push_decoys(identity, shared.count() + most_own, out);
        };
        let own = self.tenants.secrets(belonging.tenant);
        let mut tried = 0;
        for generation in own.iter().filter(accepted) {
            let home = belonging.tenant;
            self.push((identity, ends), generation, (&belonging, home), out);
            tried += 1;
        }
        // By a secret of its own a tenant would get out of what holds for it.
        let probe = self.is_probe(parsed).then_some(PROBE);
        let belonging = probe.unwrap_or(belonging);
        // A node that is bound to a tenant is told its secrets twice.
        for generation in shared.filter(|it| own.iter().all(|own| own.id != it.id)) {
            let home = belonging.named;
            self.push((identity, ends), generation, (&belonging, home), out);
        }
        self.push_decoys(identity, most_own - tried, out);
    }

    fn realm(&self, server_name: Option<&str>, asked: Option<&str>) -> Option<&str> {
        self.tenants.realm(server_name, asked)
    }

    fn used(&self, key_id: u32, now: Now) {
        if let Some(last_used) = self.uses.get(&key_id)
            // The line of the cache stays shared but for once a second.
            && last_used.load(Ordering::Relaxed) != now.unix
        {
            last_used.store(now.unix, Ordering::Relaxed);
        }
    }
}

/// What was revoked so that the allocations made with it end.
///
/// # Errors
/// When there are too many.
pub(super) fn revoked(list: &[fleet::RevokedSecret]) -> Result<Vec<u32>, SnapshotError> {
    bounded("revoked_secrets", list, MAX_REVOKED)?;
    let cut = list.iter().filter(|revoked| revoked.cut);
    Ok(cut.map(|revoked| revoked.id).collect())
}

/// Where a state stands in the order in which secrets are tried.
fn rank(state: State) -> u8 {
    match state {
        State::Unspecified | State::Active => 0,
        State::Pinned => 1,
        State::Retiring => 2,
        State::Staged => 3,
    }
}

fn users(list: &[fleet::StaticUser]) -> Result<HashMap<Box<str>, UserKeys>, SnapshotError> {
    bounded("users", list, MAX_USERS)?;
    let mut users = HashMap::with_capacity(list.len());
    for user in list {
        let name = user.username.as_str();
        if name.is_empty() || name.len() > MAX_USERNAME_BYTES {
            return Err(SnapshotError::text("users", name, "1 to 508 bytes"));
        }
        let Ok(md5) = user.key[..].try_into() else {
            return Err(SnapshotError::text("users", name, "a key has 16 bytes"));
        };
        let sha256 =
            match &user.key_sha256[..] {
                [] => None,
                key => Some(key.try_into().map_err(|_| {
                    SnapshotError::text("users", name, "a SHA-256 key has 32 bytes")
                })?),
            };
        match users.entry(name.into()) {
            Entry::Vacant(place) => place.insert(UserKeys { md5, sha256 }),
            Entry::Occupied(_) => {
                return Err(SnapshotError::text("users", name, "named twice"));
            }
        };
    }
    Ok(users)
}
