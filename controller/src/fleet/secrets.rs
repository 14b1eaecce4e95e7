//! The generations of the shared secret and the keys of nonces: which are made, which retire, which end.
//!
//! A secret is active (credentials are minted with it, and accepted) and then retiring (accepted until every credential made
//! with it has ended). Nonce keys are replaced every day; the highest id signs, the one before it still verifies.

use std::collections::BTreeMap;

use turnfleet_proto::credentials::SharedSecret;

use super::record::{NonceKey, Record, RecordKey, SecretGeneration, SecretState};

/// Seconds that a retiring secret is still accepted: the longest ttl of a credential and two minutes of clocks and skew.
const RETIRING_SECONDS: u64 = 86_400 + 120;
/// Generations of the secret that relays accept at once; the oldest retiring one makes room.
const MAX_SECRETS: usize = 32;
/// Seconds after which a nonce key is followed by another.
const NONCE_KEY_SECONDS: u64 = 86_400;
/// Nonce keys that verify: the signing one and its predecessor, whose nonces ended long before it does.
const NONCE_KEYS: usize = 2;
/// A secret that the operator gives should not be shorter: 128 bits.
pub const WEAK_SECRET_BYTES: usize = 16;

pub(super) type Secrets = BTreeMap<u32, SecretGeneration>;
pub(super) type NonceKeys = BTreeMap<u32, NonceKey>;

/// Puts and deletes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) puts: Vec<Record>,
    pub(super) deletes: Vec<RecordKey>,
}

/// The secret that credentials are minted with.
pub(super) fn active(secrets: &Secrets) -> Option<&SecretGeneration> {
    secrets
        .values()
        .rev()
        .find(|secret| secret.state == SecretState::Active)
}

/// What relays shall accept: the active one first, then the retiring ones, newest first.
pub(super) fn accepted(secrets: &Secrets) -> impl Iterator<Item = &SecretGeneration> {
    let retiring = secrets
        .values()
        .rev()
        .filter(|secret| secret.state != SecretState::Active);
    active(secrets).into_iter().chain(retiring)
}

/// Makes `given` the active secret, or keeps the one there is, or makes one of `random`.
pub(super) fn adopt(
    secrets: &Secrets,
    given: Option<&SharedSecret>,
    unix: u64,
    random: impl FnOnce() -> SharedSecret,
) -> Changes {
    let current = active(secrets);
    let wanted = match (current, given) {
        (Some(_), None) => return Changes::default(),
        (Some(current), Some(given)) if current.secret == *given => return Changes::default(),
        (_, Some(given)) => given.clone(),
        (None, None) => random(),
    };
    let mut changes = Changes::default();
    if let Some(current) = current {
        let state = SecretState::Retiring {
            accept_until: unix + RETIRING_SECONDS,
        };
        changes.puts.push(Record::Secret(SecretGeneration {
            state,
            ..current.clone()
        }));
    }
    // A secret that comes back while it retires is not accepted twice.
    let same = secrets.values().find(|known| known.secret == wanted);
    changes
        .deletes
        .extend(same.map(|known| RecordKey::Secret(known.id)));
    let id = secrets.keys().next_back().map_or(1, |last| last + 1);
    changes.puts.push(Record::Secret(SecretGeneration {
        id,
        secret: wanted,
        state: SecretState::Active,
    }));
    let retiring = secrets
        .values()
        .filter(|secret| secret.state != SecretState::Active);
    let surplus = (secrets.len() + 1).saturating_sub(MAX_SECRETS);
    let oldest = retiring
        .take(surplus)
        .map(|secret| RecordKey::Secret(secret.id));
    for key in oldest {
        if !changes.deletes.contains(&key) {
            changes.deletes.push(key);
        }
    }
    changes
}

/// Ends retiring secrets whose time is over, and lets a nonce key follow one that is a day old.
pub(super) fn upkeep(
    secrets: &Secrets,
    nonce_keys: &NonceKeys,
    unix: u64,
    random: impl FnOnce() -> [u8; 32],
) -> Changes {
    let mut changes = Changes::default();
    let over = |secret: &&SecretGeneration| match secret.state {
        SecretState::Active => false,
        SecretState::Retiring { accept_until } => unix >= accept_until,
    };
    let over = secrets.values().filter(over);
    changes
        .deletes
        .extend(over.map(|secret| RecordKey::Secret(secret.id)));
    let newest = nonce_keys.values().next_back();
    if newest.is_none_or(|key| unix >= key.created_at.saturating_add(NONCE_KEY_SECONDS)) {
        let id = newest.map_or(1, |key| key.id + 1);
        changes.puts.push(Record::NonceKey(NonceKey {
            id,
            key: random(),
            created_at: unix,
        }));
        let kept = NONCE_KEYS - 1;
        let ended = nonce_keys.keys().rev().skip(kept);
        changes
            .deletes
            .extend(ended.map(|id| RecordKey::NonceKey(*id)));
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SharedSecret {
        SharedSecret::new(text)
    }

    fn apply(secrets: &mut Secrets, nonce_keys: &mut NonceKeys, changes: Changes) {
        for key in changes.deletes {
            let gone = if let RecordKey::Secret(id) = key {
                secrets.remove(&id).is_some()
            } else if let RecordKey::NonceKey(id) = key {
                nonce_keys.remove(&id).is_some()
            } else {
                false
            };
            assert!(gone, "{key:?} is there to be deleted");
        }
        for record in changes.puts {
            if let Record::Secret(secret) = record {
                secrets.insert(secret.id, secret);
            } else if let Record::NonceKey(key) = record {
                nonce_keys.insert(key.id, key);
            } else {
                panic!("{record:?} is no secret");
            }
        }
    }

    fn give(secrets: &mut Secrets, text: &str, unix: u64) {
        let changes = adopt(secrets, Some(&secret(text)), unix, || {
            panic!("one is given")
        });
        apply(secrets, &mut NonceKeys::new(), changes);
    }

    fn accepts(secrets: &Secrets) -> Vec<SharedSecret> {
        accepted(secrets)
            .map(|generation| generation.secret.clone())
            .collect()
    }

    #[test]
    fn one_secret_is_made_and_kept() {
        let mut secrets = Secrets::new();
        let made = adopt(&secrets, None, 0, || secret("made"));
        apply(&mut secrets, &mut NonceKeys::new(), made);
        assert_eq!(accepts(&secrets), [secret("made")]);
        let again = adopt(&secrets, None, 9, || panic!("there is one"));
        assert_eq!(again, Changes::default());
    }

    #[test]
    fn a_replaced_secret_is_accepted_until_its_credentials_have_ended() {
        let mut secrets = Secrets::new();
        give(&mut secrets, "one", 1000);
        give(&mut secrets, "one", 1001);
        assert_eq!(secrets.len(), 1);
        give(&mut secrets, "two", 2000);
        assert_eq!(active(&secrets).unwrap().secret, secret("two"));
        assert_eq!(accepts(&secrets), [secret("two"), secret("one")]);
        let mut keys = NonceKeys::new();
        let before = upkeep(&secrets, &keys, 2000 + RETIRING_SECONDS - 1, || [0; 32]);
        assert!(!before.deletes.contains(&RecordKey::Secret(1)));
        let over = upkeep(&secrets, &keys, 2000 + RETIRING_SECONDS, || [0; 32]);
        apply(&mut secrets, &mut keys, over);
        assert_eq!(accepts(&secrets), [secret("two")]);
    }

    #[test]
    fn a_secret_that_comes_back_is_active_again() {
        let mut secrets = Secrets::new();
        give(&mut secrets, "one", 1000);
        give(&mut secrets, "two", 2000);
        give(&mut secrets, "one", 3000);
        assert_eq!(accepts(&secrets), [secret("one"), secret("two")]);
    }

    #[test]
    fn accepted_secrets_are_bounded() {
        let mut secrets = Secrets::new();
        for number in 0..100 {
            give(&mut secrets, &number.to_string(), number);
        }
        assert_eq!(secrets.len(), MAX_SECRETS);
        assert_eq!(accepts(&secrets)[1], secret("98"));
    }

    #[test]
    fn nonce_keys_follow_each_other_daily_and_overlap() {
        let (secrets, mut keys) = (Secrets::new(), NonceKeys::new());
        for day in 0..5u8 {
            let unix = u64::from(day) * NONCE_KEY_SECONDS;
            let changes = upkeep(&secrets, &keys, unix, || [day; 32]);
            apply(&mut Secrets::new(), &mut keys, changes);
            let later = upkeep(&secrets, &keys, unix + NONCE_KEY_SECONDS - 1, || [99; 32]);
            assert_eq!(later, Changes::default());
        }
        let keys: Vec<_> = keys.values().map(|key| key.key[0]).collect();
        assert_eq!(keys, [3, 4]);
    }
}
