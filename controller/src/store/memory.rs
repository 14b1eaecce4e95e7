//! A store in memory, for simulations: what etcd promises, and what it does to those who use it.
//!
//! It keeps revisions, leases, watches and a history that can be compacted; it can be copied, and set back to an older copy
//! as an operator's restore does. It never waits for anything but a change and the end of a lease, so that virtual time
//! stands still while it works, and it wakes watches in the order in which they began to wait.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::{
    Change, Commit, Entry, LeaseId, Outcome, Range, Revision, Store, StoreError, Txn, Watch,
    check_bounds,
};

/// What etcd takes unless it is told otherwise.
const MAX_OPERATIONS: usize = 128;
/// The shortest lease.
const SHORTEST_LEASE: Duration = Duration::from_secs(1);

/// A store that ends with the process. Clones are the same store.
#[derive(Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    data: Mutex<Data>,
    /// Told of every commit, of every lease, and when the store is set back.
    changed: Notify,
}

/// Everything that a [`MemoryStore`] holds at one moment, without the history.
#[derive(Clone, Debug)]
pub struct Backup {
    revision: Revision,
    entries: BTreeMap<String, Held>,
    leases: BTreeMap<LeaseId, Lease>,
}

#[derive(Clone, Debug)]
struct Held {
    revision: Revision,
    value: Vec<u8>,
    lease: Option<LeaseId>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    ttl: Duration,
    ends: Instant,
}

#[derive(Default)]
struct Data {
    revision: Revision,
    entries: BTreeMap<String, Held>,
    leases: BTreeMap<LeaseId, Lease>,
    last_lease: i64,
    /// The last commits, in order.
    history: VecDeque<Commit>,
    /// The last revision that is not in the history any more.
    compacted: Revision,
    /// How often the store was set back: a watch of an earlier life has nothing to say.
    life: u64,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
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
            leases: data.leases.clone(),
        }
    }

    /// Sets the store back to a copy: revisions go on from there, leases begin anew, and every watch ends.
    pub fn restore(&self, backup: Backup) {
        let mut data = self.data();
        let now = Instant::now();
        let begun = |(id, Lease { ttl, .. })| {
            let ends = now + ttl;
            (id, Lease { ttl, ends })
        };
        *data = Data {
            revision: backup.revision,
            entries: backup.entries,
            leases: backup.leases.into_iter().map(begun).collect(),
            last_lease: data.last_lease,
            history: VecDeque::new(),
            compacted: backup.revision,
            life: data.life + 1,
        };
        drop(data);
        self.shared.changed.notify_waiters();
    }

    /// The data as of this moment, without what leases held that have ended.
    fn data(&self) -> MutexGuard<'_, Data> {
        // No operation leaves the data half changed.
        let data = self.shared.data.lock();
        let mut data = data.unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let over = |(id, lease): (&LeaseId, &Lease)| (lease.ends <= now).then_some(*id);
        let over: Vec<LeaseId> = data.leases.iter().filter_map(over).collect();
        for id in over {
            data.end_lease(id);
            self.shared.changed.notify_waiters();
        }
        data
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
            entries: found.map(|(key, held)| entry(key, held)).collect(),
        })
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        check_bounds(&txn, MAX_OPERATIONS)?;
        let outcome = self.data().commit(txn);
        self.shared.changed.notify_waiters();
        outcome
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let data = self.data();
        data.reaches(from.max(1))?;
        Ok(Box::new(MemoryWatch {
            store: self.clone(),
            life: data.life,
            prefix: prefix.to_owned(),
            next: from.max(1),
        }))
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let mut data = self.data();
        data.last_lease += 1;
        let id = LeaseId(data.last_lease);
        let ttl = ttl.max(SHORTEST_LEASE);
        let ends = Instant::now() + ttl;
        data.leases.insert(id, Lease { ttl, ends });
        drop(data);
        self.shared.changed.notify_waiters();
        Ok(id)
    }

    async fn keep_lease(&self, lease: LeaseId) -> Result<bool, StoreError> {
        let mut data = self.data();
        let Some(lease) = data.leases.get_mut(&lease) else {
            return Ok(false);
        };
        lease.ends = Instant::now() + lease.ttl;
        Ok(true)
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.data().end_lease(lease);
        self.shared.changed.notify_waiters();
        Ok(())
    }

    fn max_operations(&self) -> usize {
        MAX_OPERATIONS
    }
}

impl Data {
    fn commit(&mut self, txn: Txn) -> Result<Outcome, StoreError> {
        let failed = txn.compares.iter().filter_map(|compare| {
            let held = self.entries.get(&compare.key);
            let revision = held.map_or(0, |held| held.revision);
            let seen = || held.map(|held| entry(&compare.key, held));
            (revision != compare.mod_revision).then(|| (compare.key.clone(), seen()))
        });
        let seen: Vec<_> = failed.collect();
        if !seen.is_empty() {
            let revision = self.revision;
            return Ok(Outcome::Conflict { revision, seen });
        }
        let ended = |lease| !self.leases.contains_key(&lease);
        if txn.puts.iter().filter_map(|put| put.lease).any(ended) {
            return Err(StoreError::LeaseEnded);
        }
        let revision = self.revision + 1;
        let mut changes = BTreeMap::new();
        for key in txn.deletes {
            if self.entries.remove(&key).is_some() {
                changes.insert(key, None);
            }
        }
        for put in txn.puts {
            let held = Held {
                revision,
                value: put.value.clone(),
                lease: put.lease,
            };
            self.entries.insert(put.key.clone(), held);
            changes.insert(put.key, Some(put.value));
        }
        self.record(changes);
        let revision = self.revision;
        Ok(Outcome::Committed { revision })
    }

    /// Forgets a lease, and deletes what it holds in one commit.
    fn end_lease(&mut self, id: LeaseId) {
        self.leases.remove(&id);
        let held = |held: &Held| held.lease == Some(id);
        let gone: Vec<String> = (self.entries.iter())
            .filter(|(_, entry)| held(entry))
            .map(|(key, _)| key.clone())
            .collect();
        for key in &gone {
            self.entries.remove(key);
        }
        self.record(gone.into_iter().map(|key| (key, None)).collect());
    }

    /// Raises the revision, if anything has changed.
    fn record(&mut self, changes: BTreeMap<String, Option<Vec<u8>>>) {
        if changes.is_empty() {
            return;
        }
        self.revision += 1;
        let changes = changes
            .into_iter()
            .map(|(key, value)| Change { key, value })
            .collect();
        self.history.push_back(Commit {
            revision: self.revision,
            changes,
        });
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
        let start = (self.history).partition_point(|commit| commit.revision < from);
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
    life: u64,
    prefix: String,
    next: Revision,
}

#[async_trait]
impl Watch for MemoryWatch {
    async fn next(&mut self) -> Result<Commit, StoreError> {
        let shared = Arc::clone(&self.store.shared);
        loop {
            let mut changed = pin!(shared.changed.notified());
            changed.as_mut().enable();
            let lease_ends = match self.read_on()? {
                Ok(commit) => return Ok(commit),
                Err(lease_ends) => lease_ends,
            };
            let timer = async {
                match lease_ends {
                    Some(ends) => sleep_until(ends).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = changed => {}
                () = timer => {}
            }
        }
    }
}

impl MemoryWatch {
    /// The next commit; where there is none, when a lease will make one.
    fn read_on(&mut self) -> Result<Result<Commit, Option<Instant>>, StoreError> {
        let data = self.store.data();
        if data.life != self.life {
            return Err(StoreError::Backend {
                doing: "watching the store",
                retryable: true,
                source: "the store was set back to a copy".into(),
            });
        }
        data.reaches(self.next)?;
        let found = data.first(&self.prefix, self.next);
        let read = found
            .as_ref()
            .map_or(data.revision, |commit| commit.revision);
        self.next = self.next.max(read + 1);
        let lease_ends = data.leases.values().map(|lease| lease.ends).min();
        Ok(found.ok_or(lease_ends))
    }
}

fn entry(key: &str, held: &Held) -> Entry {
    Entry {
        key: key.to_owned(),
        value: held.value.clone(),
        mod_revision: held.revision,
    }
}
