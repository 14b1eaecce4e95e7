//! The fleet and the store in step: what the watch brings is folded into the fleet, what the fleet plans is committed, and
//! nothing counts as done before it has come back by the watch.

use std::collections::BTreeSet;
use std::sync::Arc;

use prost::Message as _;
use turnfleet_proto::store::{EpochRecord, SchemaRecord};
use turnfleet_turn::Now;

use crate::error::FleetError;
use crate::fleet::record::{Epoch, Record, RecordKey};
use crate::fleet::{Event, Fleet, Plan, Settings};
use crate::store::{
    Commit, Compare, Entry, Outcome, Put, Range, Revision, Sealer, Store, StoreError, Txn, Watch,
    codec, keys,
};

/// The version of keys and values that this code reads and writes.
const SCHEMA: u32 = 1;
/// How often a plan is made again after it lost against a concurrent one.
const ATTEMPTS: u32 = 8;

/// The fleet with its store.
pub(super) struct Mirror {
    store: Arc<dyn Store>,
    sealer: Sealer,
    fleet: Fleet,
    watch: Box<dyn Watch>,
    /// The fleet holds everything up to this revision.
    seen: Revision,
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
        let mut range = store.range(keys::PREFIX).await?;
        if check_schema(&range)?.is_none() {
            write_schema(&*store, epoch).await?;
            range = store.range(keys::PREFIX).await?;
        }
        let watch = store.watch(keys::PREFIX, range.revision + 1).await?;
        let seen = range.revision;
        let mut mirror = Self {
            store,
            sealer,
            fleet: Fleet::new(settings),
            watch,
            seen,
        };
        for entry in range.entries {
            mirror.fold(now, entry)?;
        }
        Ok(mirror)
    }

    /// The fleet.
    #[must_use]
    pub(super) fn fleet(&self) -> &Fleet {
        &self.fleet
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
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn follow(&mut self, now: impl Fn() -> Now) -> Result<(), StoreError> {
        match self.watch.next().await {
            Ok(commit) => self.absorb(now(), commit),
            Err(StoreError::Compacted { .. }) => self.read_again(now()).await,
            Err(error) => Err(error),
        }
    }

    /// Reads the whole store again: after the watch broke, or fell behind the history.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn read_again(&mut self, now: Now) -> Result<(), StoreError> {
        let range = self.store.range(keys::PREFIX).await?;
        self.watch = self.store.watch(keys::PREFIX, range.revision + 1).await?;
        let there: BTreeSet<_> = range
            .entries
            .iter()
            .filter_map(|entry| keys::parse(&entry.key))
            .collect();
        let gone: Vec<_> = self
            .fleet
            .keys()
            .filter(|key| !there.contains(key))
            .cloned()
            .collect();
        for key in gone {
            let event = Event::Stored {
                key,
                record: None,
                revision: range.revision,
            };
            self.fleet.apply(now, event);
        }
        for entry in range.entries {
            self.fold(now, entry)?;
        }
        self.seen = range.revision;
        Ok(())
    }

    /// Commits what `plan` makes of the fleet, and returns when the fleet holds it. A plan that lost against a concurrent
    /// change is made again.
    ///
    /// # Errors
    /// The plan's own, the store's, or [`FleetError::Contended`].
    pub(super) async fn carry_out(
        &mut self,
        now: Now,
        plan: impl Fn(&Fleet) -> Result<Plan, FleetError>,
    ) -> Result<(), FleetError> {
        for _ in 0..ATTEMPTS {
            let plan = plan(&self.fleet)?;
            if plan.is_empty() {
                return Ok(());
            }
            match self.store.commit(self.txn(&plan)?).await? {
                Outcome::Committed { revision } => {
                    return Ok(self.catch_up(now, revision).await?);
                }
                Outcome::Conflict { revision, .. } => self.catch_up(now, revision).await?,
            }
        }
        Err(FleetError::Contended { attempts: ATTEMPTS })
    }

    async fn catch_up(&mut self, now: Now, revision: Revision) -> Result<(), StoreError> {
        while self.seen < revision {
            match self.watch.next().await {
                Ok(commit) => self.absorb(now, commit)?,
                Err(error) if error.is_retryable() => self.read_again(now).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn absorb(&mut self, now: Now, commit: Commit) -> Result<(), StoreError> {
        let mod_revision = commit.revision;
        for change in commit.changes {
            match change.value {
                Some(value) => self.fold(
                    now,
                    Entry {
                        key: change.key,
                        value,
                        mod_revision,
                    },
                )?,
                None => {
                    if let Some(key) = keys::parse(&change.key) {
                        let event = Event::Stored {
                            key,
                            record: None,
                            revision: mod_revision,
                        };
                        self.fleet.apply(now, event);
                    }
                }
            }
        }
        self.seen = mod_revision;
        Ok(())
    }

    fn fold(&mut self, now: Now, entry: Entry) -> Result<(), StoreError> {
        if let Some(record) = codec::decode(&entry, &self.sealer)? {
            let (key, revision) = (record.key(), entry.mod_revision);
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

    fn txn(&self, plan: &Plan) -> Result<Txn, StoreError> {
        let compare = |(key, revision): &(RecordKey, Revision)| Compare {
            key: keys::path(key),
            mod_revision: *revision,
        };
        let encode = |record: &Record| -> Result<Put, StoreError> {
            let (key, value) = codec::encode(record, &self.sealer)?;
            Ok(Put {
                key,
                value,
                lease: None,
            })
        };
        Ok(Txn {
            compares: plan.compares.iter().map(compare).collect(),
            puts: plan.puts.iter().map(encode).collect::<Result<_, _>>()?,
            deletes: plan.deletes.iter().map(keys::path).collect(),
        })
    }
}

fn check_schema(range: &Range) -> Result<Option<u32>, StoreError> {
    let Some(entry) = range.entries.iter().find(|entry| entry.key == keys::SCHEMA) else {
        return Ok(None);
    };
    let damaged = |reason| StoreError::Damaged {
        key: keys::SCHEMA.to_owned(),
        reason,
    };
    let message =
        SchemaRecord::decode(entry.value.as_slice()).map_err(|_| damaged("not a schema"))?;
    if message.version == SCHEMA {
        Ok(Some(message.version))
    } else {
        Err(damaged("written by another version of the controller"))
    }
}

async fn write_schema(store: &dyn Store, epoch: Epoch) -> Result<(), StoreError> {
    let version = SchemaRecord { version: SCHEMA }.encode_to_vec();
    let txn = Txn {
        compares: vec![Compare {
            key: keys::SCHEMA.to_owned(),
            mod_revision: 0,
        }],
        puts: vec![
            Put {
                key: keys::SCHEMA.to_owned(),
                value: version,
                lease: None,
            },
            Put {
                key: keys::EPOCH.to_owned(),
                value: EpochRecord {
                    epoch: epoch.to_vec(),
                }
                .encode_to_vec(),
                lease: None,
            },
        ],
        deletes: Vec::new(),
    };
    // Another controller that was first has named the epoch.
    store.commit(txn).await.map(drop)
}
