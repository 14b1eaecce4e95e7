//! Whom a node lets in: its static users, and the ring of shared secrets, likeliest first.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use turnfleet_proto::credentials::{EphemeralUsername, SharedSecret};
use turnfleet_proto::fleet;
use turnfleet_proto::fleet::secret_generation::State;
use turnfleet_turn::wire::{LongTermKey, PasswordAlgorithm};
use turnfleet_turn::{Candidate, Candidates, KeySource, Now, TenantId};

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
    fn keep(&self, generations: &[Generation]) {
        self.lock()
            .retain(|id, _| generations.iter().any(|generation| generation.id == *id));
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

/// One shared secret of the ring.
struct Generation {
    id: u32,
    secret: SharedSecret,
    /// Unix seconds; `None` for no end.
    accept_until: Option<u64>,
    last_used: Arc<AtomicU64>,
}

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

/// The static users and the ring of shared secrets, likeliest first.
pub(super) struct KeyRing {
    realm: Box<str>,
    secrets: Vec<Generation>,
    users: HashMap<Box<str>, UserKeys>,
}

impl KeyRing {
    /// The ring of `snapshot`, whose uses are kept in `uses`.
    ///
    /// # Errors
    /// For the first secret or user that does not fit.
    pub(super) fn new(
        realm: Box<str>,
        snapshot: &fleet::Snapshot,
        uses: &SecretUses,
    ) -> Result<Self, SnapshotError> {
        let users = users(&snapshot.users)?;
        let secrets = secrets(&snapshot.secrets, uses)?;
        uses.keep(&secrets);
        Ok(Self {
            realm,
            secrets,
            users,
        })
    }
}

impl KeySource for KeyRing {
    fn candidates(&self, username: &str, now: Now, out: &mut Candidates) {
        let algorithm = out.algorithm();
        let user = self.users.get(username);
        if let Some(key) = user.and_then(|keys| keys.by(algorithm)) {
            out.push(Candidate {
                key,
                user: Some(0..username.len()),
                tenant: TenantId::DEFAULT,
                expires_at: None,
                key_id: 0,
            });
        }
        let Some(parsed) = EphemeralUsername::parse(username) else {
            return;
        };
        let user = parsed
            .user
            .map(|user| username.len() - user.len()..username.len());
        for generation in &self.secrets {
            if generation
                .accept_until
                .is_some_and(|until| now.unix > until)
            {
                continue;
            }
            let password = generation.secret.password(username);
            out.push(Candidate {
                key: LongTermKey::derive_with(algorithm, username, &self.realm, &password),
                user: user.clone(),
                tenant: TenantId::DEFAULT,
                expires_at: Some(parsed.expires_at),
                key_id: generation.id,
            });
        }
    }

    fn used(&self, key_id: u32, now: Now) {
        let generation = self.secrets.iter().find(|known| known.id == key_id);
        if let Some(generation) = generation
            // The line of the cache stays shared but for once a second.
            && generation.last_used.load(Ordering::Relaxed) != now.unix
        {
            generation.last_used.store(now.unix, Ordering::Relaxed);
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

fn secrets(
    list: &[fleet::SecretGeneration],
    uses: &SecretUses,
) -> Result<Vec<Generation>, SnapshotError> {
    bounded("secrets", list, MAX_SECRETS)?;
    if list.iter().any(|generation| generation.secret.is_empty()) {
        return Err(SnapshotError::Value {
            field: "secrets",
            expected: "a secret has at least one byte",
        });
    }
    let mut ranked: Vec<_> = list.iter().collect();
    // A controller of an earlier version says nothing of states, and has them in order.
    if list.iter().any(|it| it.state() != State::Unspecified) {
        ranked.sort_by_key(|generation| (rank(generation.state()), Reverse(generation.id)));
    }
    Ok(ranked
        .into_iter()
        .map(|generation| Generation {
            id: generation.id,
            secret: SharedSecret::new(generation.secret.clone()),
            accept_until: Some(generation.accept_until).filter(|until| *until > 0),
            last_used: uses.of(generation.id),
        })
        .collect())
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
