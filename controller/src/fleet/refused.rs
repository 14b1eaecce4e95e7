//! Values of the store that are not believed: damaged ones, those that were sealed for another place, and old ones that were put
//! back. What is known at their keys stays, and the leader writes it over them.

use super::Fleet;
use super::record::{Record, RecordKey};

impl Fleet {
    /// How many values of the store are not believed.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused.len()
    }

    /// What stands at `key` since `revision` is the record.
    pub(super) fn believe(&mut self, key: RecordKey, revision: u64) {
        self.refused.remove(&key);
        self.revisions.insert(key, revision);
    }

    /// Nothing stands at `key`.
    pub(super) fn believe_gone(&mut self, key: &RecordKey) {
        self.refused.remove(key);
        self.revisions.remove(key);
    }

    /// What stands at `key` since `revision` is not the record: a plan that writes there compares it all the same.
    pub(super) fn refuse(&mut self, key: RecordKey, revision: u64) {
        self.revisions.insert(key.clone(), revision);
        self.refused.insert(key);
    }

    /// The sealed records that are known, and not what the store holds.
    pub(super) fn amends(&self) -> impl Iterator<Item = Record> {
        self.refused.iter().filter_map(|key| match key {
            RecordKey::Secret(_, id) => self.secrets.find(*id).cloned().map(Record::Secret),
            RecordKey::NonceKey(id) => {
                let mut keys = self.nonce_keys.iter();
                let known = keys.find(|key| key.id == *id);
                known.cloned().map(Record::NonceKey)
            }
            RecordKey::User(hash) => self.users.get(hash).cloned().map(Record::User),
            RecordKey::Setting(setting) => {
                let known = self.kept(*setting)?.to_owned();
                Some(Record::Setting(*setting, known))
            }
            RecordKey::Epoch
            | RecordKey::Leader
            | RecordKey::Controller(_)
            | RecordKey::Generation
            | RecordKey::Policy
            | RecordKey::Rollout
            | RecordKey::Node(_)
            | RecordKey::Desired(_)
            | RecordKey::Grant(..)
            | RecordKey::ApiToken(_)
            | RecordKey::JoinToken(_)
            | RecordKey::LastTenant
            | RecordKey::Tenant(_)
            | RecordKey::Ban(_) => None,
        })
    }
}
