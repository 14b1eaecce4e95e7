//! The keys of nonces, which the whole fleet shares: one follows another every day.
//!
//! A fresh key is staged: it verifies everywhere before anybody signs with it, so a client whose next request reaches another
//! relay behind the same balancer is not asked again. Then it signs, and its predecessor verifies until the next one comes,
//! long after the last nonce that it signed has ended.

use std::collections::BTreeMap;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use turnfleet_proto::probe_name::ProbeKey;
use turnfleet_turn::{Instant, Now};

use super::record::{NonceKey, Record, RecordKey};
use super::secrets::Changes;
use super::{Fleet, Health};

/// Seconds after which a nonce key is followed by another.
const NONCE_KEY_SECONDS: u64 = 86_400;
/// Keys that signed before the one that signs, and still verify.
const PREDECESSORS: usize = 1;
/// How long a staged key waits for relays that do not say that they have it: nonces are not in a hurry.
const PATIENCE: Duration = Duration::from_secs(600);

/// Every key that the store holds.
#[derive(Clone, Debug, Default)]
pub(super) struct NonceKeys {
    by_id: BTreeMap<u32, NonceKey>,
    /// Since when staged ones are known here.
    staged_since: BTreeMap<u32, Instant>,
}

impl NonceKeys {
    pub(super) fn insert(&mut self, now: Instant, key: NonceKey) {
        if key.staged {
            self.staged_since.entry(key.id).or_insert(now);
        } else {
            self.staged_since.remove(&key.id);
        }
        self.by_id.insert(key.id, key);
    }

    pub(super) fn remove(&mut self, id: u32) {
        self.by_id.remove(&id);
        self.staged_since.remove(&id);
    }

    /// What proves that a username is the probe's, to every relay: it goes with the key that signs.
    pub(super) fn probe_key(&self) -> Option<ProbeKey> {
        let signing = self.iter().find(|key| !key.staged)?;
        Some(ProbeKey::of_nonce_key(&signing.key))
    }

    /// Newest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &NonceKey> {
        self.by_id.values().rev()
    }
}

impl Fleet {
    /// Lets a nonce key follow one that is a day old, and sign once every relay has it.
    pub(super) fn nonce_key_upkeep(&self, now: Now, generation: u64, random: [u8; 32]) -> Changes {
        let mut changes = Changes::default();
        let newest = self.nonce_keys.iter().next();
        match newest {
            Some(key) if key.staged => {
                let since = self.nonce_keys.staged_since.get(&key.id);
                let since = since.copied().unwrap_or(now.instant);
                if self.verifies_everywhere(now.instant, key, since) {
                    let staged = false;
                    let key = NonceKey {
                        staged,
                        ..key.clone()
                    };
                    changes.puts.push(Record::NonceKey(key));
                    let ended = self.nonce_keys.iter().skip(1 + PREDECESSORS);
                    changes
                        .deletes
                        .extend(ended.map(|key| RecordKey::NonceKey(key.id)));
                }
            }
            Some(key) if now.unix < key.created_at.saturating_add(NONCE_KEY_SECONDS) => {}
            Some(_) | None => changes.puts.push(Record::NonceKey(NonceKey {
                id: newest.map_or(1, |key| key.id + 1),
                key: Sha256::new_with_prefix(random)
                    .chain_update("nonce key")
                    .finalize()
                    .into(),
                created_at: now.unix,
                // The first one has nobody before it who could sign.
                staged: newest.is_some(),
                since_generation: generation,
            })),
        }
        changes
    }

    /// Whether every relay that is not known to be gone has `key`, or has been waited for long enough.
    fn verifies_everywhere(&self, now: Instant, key: &NonceKey, since: Instant) -> bool {
        let lacks = |node: &super::registry::NodeState| {
            node.liveness.health() != Health::Gone && node.applied_generation < key.since_generation
        };
        now.since(since) >= PATIENCE || !self.nodes.values().any(lacks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PortPlan;
    use crate::fleet::{Event, Settings};

    fn fleet() -> Fleet {
        Fleet::new(Settings {
            region: "north".into(),
            ports: PortPlan {
                range: turnfleet_proto::PortRange::DYNAMIC,
                relays_per_address: 1,
            },
            probe: crate::config::ProbeMode::Off,
            lists: crate::fleet::ListSettings::default(),
            rotate_secrets_every: None,
        })
    }

    fn keep(fleet: &mut Fleet, now: Now, byte: u8) -> Changes {
        let changes = fleet.nonce_key_upkeep(now, fleet.generation + 1, [byte; 32]);
        for record in changes.puts.clone() {
            let key = record.key();
            let record = Some(Box::new(record));
            let revision = 1;
            fleet.apply(
                now,
                Event::Stored {
                    key,
                    record,
                    revision,
                },
            );
        }
        for key in changes.deletes.clone() {
            let (record, revision) = (None, 1);
            fleet.apply(
                now,
                Event::Stored {
                    key,
                    record,
                    revision,
                },
            );
        }
        changes
    }

    fn keys(fleet: &Fleet) -> Vec<(u32, bool)> {
        let keys = fleet.nonce_keys.iter();
        keys.map(|key| (key.id, key.staged)).collect()
    }

    #[test]
    fn nonce_keys_follow_each_other_daily_and_overlap() {
        let mut fleet = fleet();
        for day in 0..5u8 {
            let now = Now {
                unix: u64::from(day) * NONCE_KEY_SECONDS,
                ..Now::default()
            };
            assert!(!keep(&mut fleet, now, day).is_empty());
            if day > 0 {
                let id = u32::from(day) + 1;
                assert_eq!(keys(&fleet)[..2], [(id, true), (id - 1, false)]);
                // No relay is there to wait for.
                assert!(!keep(&mut fleet, now, 99).is_empty());
            }
            let later = Now {
                unix: now.unix + NONCE_KEY_SECONDS - 1,
                ..now
            };
            assert!(keep(&mut fleet, later, 99).is_empty());
        }
        assert_eq!(keys(&fleet), [(5, false), (4, false)]);
    }
}
