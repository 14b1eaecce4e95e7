//! A store in memory, for simulations: what etcd promises, and what it does to those who use it.
//!
//! It keeps revisions, watches and a history that can be compacted; it can be copied, and set back to an older copy as an
//! operator's restore does. It never waits for anything but a change, so that virtual time stands still while it works.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{
    Change, Commit, Entry, Outcome, Range, Revision, Store, StoreError, Txn, Watch, check_bounds,
};

/// A store that ends with the process. Clones are the same store.
#[derive(Clone)]
pub struct MemoryStore {
    data: Arc<Mutex<Data>>,
    state: watch::Sender<State>,
}

/// Everything that a [`MemoryStore`] holds at one moment, without the history.
#[derive(Clone, Debug)]
pub struct Backup {
    revision: Revision,
    entries: BTreeMap<String, (Revision, Vec<u8>)>,
}

/// What watches wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    revision: Revision,
    /// How often the store was set back: a watch of an earlier life has nothing to say.
    life: u64,
}

#[derive(Default)]
struct Data {
    revision: Revision,
    entries: BTreeMap<String, (Revision, Vec<u8>)>,
    /// The last commits, in order.
    history: VecDeque<Commit>,
    /// The last revision that is not in the history any more.
    compacted: Revision,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        let state = State {
            revision: 0,
            life: 0,
        };
        Self {
            data: Arc::default(),
            state: watch::Sender::new(state),
        }
    }

    /// The revision of the last commit.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.data().revision
    }

    /// Forgets the changes of every revision up to `revision`, as far as there are any.
    pub fn compact(&self, revision: Revision) {
        let mut data = self.data();
        let last = revision.min(data.revision);
        while (data.history.front()).is_some_and(|commit| commit.revision <= last) {
            data.history.pop_front();
        }
        data.compacted = data.compacted.max(last);
    }

    /// A copy of what is there.
    #[must_use]
    pub fn backup(&self) -> Backup {
        let data = self.data();
        Backup {
            revision: data.revision,
            entries: data.entries.clone(),
        }
    }

    /// Sets the store back to a copy: revisions go on from there, and every watch ends.
    pub fn restore(&self, backup: Backup) {
        let revision = backup.revision;
        *self.data() = Data {
            revision,
            entries: backup.entries,
            history: VecDeque::new(),
            compacted: revision,
        };
        self.state.send_modify(|state| {
            state.revision = revision;
            state.life += 1;
        });
    }

    fn data(&self) -> MutexGuard<'_, Data> {
        // No operation leaves the data half changed.
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        let data = self.data();
        let found = data
            .entries
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix));
        Ok(Range {
            revision: data.revision,
            entries: found.map(|(key, value)| entry(key, value)).collect(),
        })
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        check_bounds(&txn)?;
        let outcome = self.data().commit(txn);
        if let Outcome::Committed { revision } = outcome {
            self.state.send_if_modified(|state| {
                let changed = state.revision != revision;
                state.revision = revision;
                changed
            });
        }
        Ok(outcome)
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let state = self.state.subscribe();
        let life = state.borrow().life;
        self.data().reaches(from.max(1))?;
        Ok(Box::new(MemoryWatch {
            store: self.clone(),
            state,
            life,
            prefix: prefix.to_owned(),
            next: from.max(1),
        }))
    }
}

impl Data {
    fn commit(&mut self, txn: Txn) -> Outcome {
        let failed = txn.compares.iter().filter_map(|compare| {
            let held = self.entries.get(&compare.key);
            let revision = held.map_or(0, |(revision, _)| *revision);
            (revision != compare.mod_revision).then(|| {
                (
                    compare.key.clone(),
                    held.map(|held| entry(&compare.key, held)),
                )
            })
        });
        let seen: Vec<_> = failed.collect();
        if !seen.is_empty() {
            let revision = self.revision;
            return Outcome::Conflict { revision, seen };
        }
        let revision = self.revision + 1;
        let mut changes = BTreeMap::new();
        for key in txn.deletes {
            if self.entries.remove(&key).is_some() {
                changes.insert(key, None);
            }
        }
        for (key, value) in txn.puts {
            self.entries.insert(key.clone(), (revision, value.clone()));
            changes.insert(key, Some(value));
        }
        if changes.is_empty() {
            return Outcome::Committed {
                revision: self.revision,
            };
        }
        self.revision = revision;
        let changes = changes
            .into_iter()
            .map(|(key, value)| Change { key, value })
            .collect();
        self.history.push_back(Commit { revision, changes });
        Outcome::Committed { revision }
    }

    /// Whether the history holds every change from `from` on.
    fn reaches(&self, from: Revision) -> Result<(), StoreError> {
        if from > self.compacted {
            return Ok(());
        }
        Err(StoreError::Compacted {
            asked: from,
            oldest: self.compacted + 1,
        })
    }

    /// The first commit from `from` on that touched `prefix`.
    fn first(&self, prefix: &str, from: Revision) -> Option<Commit> {
        let start = self
            .history
            .partition_point(|commit| commit.revision < from);
        self.history.range(start..).find_map(|commit| {
            let changes = (commit.changes.iter()).filter(|change| change.key.starts_with(prefix));
            let changes: Vec<_> = changes.cloned().collect();
            let revision = commit.revision;
            (!changes.is_empty()).then_some(Commit { revision, changes })
        })
    }
}

struct MemoryWatch {
    store: MemoryStore,
    state: watch::Receiver<State>,
    life: u64,
    prefix: String,
    next: Revision,
}

#[async_trait]
impl Watch for MemoryWatch {
    async fn next(&mut self) -> Result<Commit, StoreError> {
        loop {
            let state = *self.state.borrow_and_update();
            if state.life != self.life {
                return Err(StoreError::Backend {
                    doing: "watching the store",
                    retryable: true,
                    source: "the store was set back to a copy".into(),
                });
            }
            if let Some(commit) = self.read_on()? {
                return Ok(commit);
            }
            // The sender lives in the store that this watch holds.
            let _ = self.state.changed().await;
        }
    }
}

impl MemoryWatch {
    fn read_on(&mut self) -> Result<Option<Commit>, StoreError> {
        let data = self.store.data();
        data.reaches(self.next)?;
        let found = data.first(&self.prefix, self.next);
        let read = found
            .as_ref()
            .map_or(data.revision, |commit| commit.revision);
        self.next = self.next.max(read + 1);
        Ok(found)
    }
}

fn entry(key: &str, (mod_revision, value): &(Revision, Vec<u8>)) -> Entry {
    Entry {
        key: key.to_owned(),
        value: value.clone(),
        mod_revision: *mod_revision,
    }
}
