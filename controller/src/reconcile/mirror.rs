//! The fleet and the store in step: what the watch brings is folded into the fleet, what the fleet plans is committed, and
//! nothing counts as done before it has come back by the watch.
//!
//! While the store does not answer, the fleet stays as it was: it is read again beside the work, and takes its place at
//! once when that is through.

mod reading;
mod seals;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use turnfleet_turn::Now;

use crate::error::FleetError;
use crate::fleet::record::{Epoch, Record, RecordKey};
use crate::fleet::{Event, Fleet, Plan, Settings};
use crate::leader::{Fence, Leadership};
use crate::store::{
    Commit, Compare, Entry, Outcome, Put, Range, Revision, Sealer, Store, StoreError, Txn, audit,
    codec, keys,
};
use reading::Link;
use seals::Seals;

/// How often a plan is made again after it lost against a concurrent one.
const ATTEMPTS: u32 = 8;
/// How long a commit may take to come back by the watch.
const CATCH_UP: Duration = Duration::from_secs(2);

/// The fleet with its store.
pub(super) struct Mirror {
    store: Arc<dyn Store>,
    sealer: Sealer,
    fleet: Fleet,
    leadership: Leadership,
    link: Link,
    /// The fleet holds everything up to this revision.
    seen: Revision,
    seals: Seals,
}

impl Mirror {
    /// Reads the whole store into a fleet, and watches it from there on. An empty store becomes the one of `epoch`.
    ///
    /// # Errors
    /// When the store fails, is of a later version, or holds what cannot be read.
    pub(super) async fn open(
        store: Arc<dyn Store>,
        sealer: Sealer,
        settings: Settings,
        epoch: Epoch,
        now: Now,
    ) -> Result<Self, StoreError> {
        let (range, watch) = reading::open(&*store, epoch).await?;
        let mut mirror = Self {
            store,
            sealer,
            fleet: Fleet::new(settings),
            leadership: Leadership::Sole,
            link: Link::Watching(watch),
            seen: range.revision,
            seals: Seals::default(),
        };
        for entry in range.entries {
            mirror.fold(now, entry)?;
        }
        Ok(mirror)
    }

    /// Leaves the work of a leader to whom `leadership` names.
    pub(super) fn follow_election(&mut self, leadership: Leadership) {
        self.leadership = leadership;
    }

    /// The fleet.
    #[must_use]
    pub(super) fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Whether this controller does the work that one alone may do.
    #[must_use]
    pub(super) fn leads(&self) -> bool {
        self.leadership.leads()
    }

    /// Whether the store does not answer, so that the fleet may be old.
    #[must_use]
    pub(super) fn is_stale(&self) -> bool {
        self.link.is_reading()
    }

    /// Folds what did not come from the store.
    pub(super) fn apply(&mut self, now: Now, event: Event) {
        self.fleet.apply(now, event);
    }

    /// Lets time pass; says whether that changed anybody's health.
    pub(super) fn tick(&mut self, now: Now) -> bool {
        self.fleet.tick(now)
    }

    /// Waits for a change that somebody else made, and folds it. May be dropped at any point without losing one.
    pub(super) async fn follow(&mut self, now: impl Fn() -> Now) {
        match &mut self.link {
            Link::Watching(watch) => match watch.next().await {
                Ok(commit) => self.absorb(now(), commit),
                Err(error) => self.lose(&error),
            },
            Link::Reading(reading) => match reading.await {
                Ok((range, watch)) => {
                    self.link = Link::Watching(watch);
                    self.replace(now(), range);
                }
                // The runtime is going down.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Takes what was read anew for the whole truth.
    fn replace(&mut self, now: Now, range: Range) {
        if range.revision < self.seen || self.is_ahead_of(&range) {
            // The store was set back as a whole, which relays show; its old values are the ones that there are.
            self.seals = Seals::default();
        }
        let (epoch, generation) = (self.fleet.epoch(), self.fleet.generation());
        let there: BTreeSet<_> = range
            .entries
            .iter()
            .filter_map(|entry| keys::parse(&entry.key))
            .collect();
        let gone = self.fleet.keys().filter(|key| !there.contains(key));
        for key in gone.cloned().collect::<Vec<_>>() {
            self.forget(now, key, range.revision);
        }
        for entry in range.entries {
            self.fold_or_complain(now, entry);
        }
        self.seen = range.revision;
        self.fleet.look_back(epoch, generation);
    }

    /// Whether the fleet holds a later generation than the store.
    fn is_ahead_of(&self, range: &Range) -> bool {
        let key = keys::path(&RecordKey::Generation);
        let entry = range.entries.iter().find(|entry| entry.key == key);
        let record = entry.and_then(|entry| codec::decode(entry, &self.sealer).ok()?);
        matches!(record, Some(Record::Generation(stored)) if stored < self.fleet.generation())
    }

    /// Commits what `plan` makes of the fleet, and returns when the fleet holds it. A plan that lost against a concurrent
    /// change is made again.
    ///
    /// # Errors
    /// The plan's own, the store's, [`FleetError::NotLeader`] or [`FleetError::Contended`].
    pub(super) async fn carry_out(
        &mut self,
        now: Now,
        plan: impl Fn(&Fleet) -> Result<Plan, FleetError>,
    ) -> Result<(), FleetError> {
        for _ in 0..ATTEMPTS {
            let plan = plan(&self.fleet)?;
            if plan.is_empty() || self.commit(now, &plan).await? {
                return Ok(());
            }
        }
        Err(FleetError::Contended { attempts: ATTEMPTS })
    }

    /// As [`Self::carry_out`], in as many transactions as the store needs: for a plan whose rest is planned again.
    ///
    /// # Errors
    /// As [`Self::carry_out`].
    pub(super) async fn carry_out_in_parts(
        &mut self,
        now: Now,
        plan: impl Fn(&Fleet) -> Result<Plan, FleetError>,
    ) -> Result<(), FleetError> {
        let mut lost = 0;
        while lost < ATTEMPTS {
            let plan = plan(&self.fleet)?.part(self.store.max_operations());
            if plan.is_empty() {
                return Ok(());
            }
            if !self.commit(now, &plan).await? {
                lost += 1;
            }
        }
        Err(FleetError::Contended { attempts: ATTEMPTS })
    }

    /// Whether `plan` was written; if not, the fleet holds what it lost against.
    async fn commit(&mut self, now: Now, plan: &Plan) -> Result<bool, FleetError> {
        if self.is_stale() {
            return Err(StoreError::Away.into());
        }
        if plan.raises_generation() && !plan.begins_epoch() {
            self.fleet.require_current()?;
        }
        let txn = self.txn(plan)?;
        let outcome = match self.store.commit(txn).await {
            Ok(outcome) => outcome,
            Err(error) => {
                // It may have been written all the same.
                if error.is_retryable() && !matches!(error, StoreError::Full) {
                    self.lose(&error);
                }
                return Err(error.into());
            }
        };
        match outcome {
            Outcome::Committed { revision } => {
                self.catch_up(now, |mirror| mirror.seen >= revision).await?;
                Ok(true)
            }
            Outcome::Conflict { revision, seen } => {
                if seen.iter().any(|(key, _)| key == keys::LEADER) {
                    return Err(FleetError::NotLeader);
                }
                self.catch_up(now, |mirror| mirror.agrees(&seen, revision))
                    .await?;
                Ok(false)
            }
        }
    }

    /// Whether the fleet holds what a lost compare saw at `revision`, or what came after it.
    fn agrees(&self, seen: &[(String, Option<Entry>)], revision: Revision) -> bool {
        seen.iter().all(|(path, entry)| {
            let known = keys::parse(path).and_then(|key| self.fleet.revision(&key));
            match entry {
                Some(entry) => known.is_some_and(|known| known >= entry.mod_revision),
                None => known.is_none_or(|known| known > revision),
            }
        })
    }

    async fn catch_up(
        &mut self,
        now: Now,
        is_there: impl Fn(&Self) -> bool,
    ) -> Result<(), StoreError> {
        let deadline = Instant::now() + CATCH_UP;
        while !is_there(self) {
            if timeout_at(deadline, self.follow(|| now)).await.is_err() {
                self.lose(&StoreError::Away);
                return Err(StoreError::Away);
            }
        }
        Ok(())
    }

    /// Reads the store again, from now on beside the work: everything known stays, and is served.
    fn lose(&mut self, error: &StoreError) {
        if !self.is_stale() {
            tracing::warn!(%error, cause = error.cause(), "the store failed; it is read again, and what is known is served");
            self.link = Link::read_again(Arc::clone(&self.store));
        }
    }

    fn absorb(&mut self, now: Now, commit: Commit) {
        let mod_revision = commit.revision;
        for change in commit.changes {
            match change.value {
                Some(value) => {
                    let entry = Entry {
                        key: change.key,
                        value,
                        mod_revision,
                    };
                    self.fold_or_complain(now, entry);
                }
                None => {
                    if let Some(key) = keys::parse(&change.key) {
                        self.forget(now, key, mod_revision);
                    }
                }
            }
        }
        self.seen = mod_revision;
    }

    fn forget(&mut self, now: Now, key: RecordKey, revision: Revision) {
        self.seals.forget(&key);
        let event = Event::Stored {
            key,
            record: None,
            revision,
        };
        self.fleet.apply(now, event);
    }

    /// One damaged value shall not keep the others from being followed; what was known at its key stays, and can be written over
    /// it.
    fn fold_or_complain(&mut self, now: Now, entry: Entry) {
        let (key, revision) = (keys::parse(&entry.key), entry.mod_revision);
        let Err(error) = self.fold(now, entry) else {
            return;
        };
        // What does not read may be a later version's.
        if let (StoreError::Seal(error), Some(key)) = (&error, key) {
            tracing::error!(%error, "a value of the store is not believed, and what was known is written over it: look who writes to the store");
            self.fleet.apply(now, Event::Refused { key, revision });
        } else {
            tracing::error!(%error, "a value of the store is left out");
        }
    }

    fn fold(&mut self, now: Now, entry: Entry) -> Result<(), StoreError> {
        if let Some(record) = codec::decode(&entry, &self.sealer)? {
            let (key, revision) = (record.key(), entry.mod_revision);
            if matches!(&record, Record::Epoch(lineage) if lineage.epoch != self.fleet.epoch()) {
                self.seals = Seals::default();
            }
            if let Some(generation) = codec::sealed_in(&entry) {
                self.seals.admit(&key, &entry.key, generation)?;
            }
            let record = Some(Box::new(record));
            self.fleet.apply(
                now,
                Event::Stored {
                    key,
                    record,
                    revision,
                },
            );
        }
        Ok(())
    }

    fn txn(&self, plan: &Plan) -> Result<Txn, FleetError> {
        let compare = |(key, revision): &(RecordKey, Revision)| Compare {
            key: keys::path(key),
            mod_revision: *revision,
        };
        let generation = plan.generation().unwrap_or_else(|| self.fleet.generation());
        let encode = |record: &Record| -> Result<Put, StoreError> {
            let (key, value) = codec::encode(record, &self.sealer, generation)?;
            Ok(Put {
                key,
                value,
                lease: None,
            })
        };
        let mut compares: Vec<_> = plan.compares.iter().map(compare).collect();
        if plan.as_leader {
            match self.leadership.fence().ok_or(FleetError::NotLeader)? {
                Fence::None => {}
                Fence::Revision(fence) => compares.push(Compare {
                    key: keys::LEADER.to_owned(),
                    mod_revision: fence,
                }),
            }
        }
        let mut puts: Vec<_> = plan.puts.iter().map(encode).collect::<Result<_, _>>()?;
        puts.extend(plan.audit.as_ref().map(audit::encode));
        Ok(Txn {
            compares,
            puts,
            deletes: plan.deletes.iter().map(keys::path).collect(),
        })
    }
}
