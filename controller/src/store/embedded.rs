//! The embedded back end: one redb file, for a fleet with one controller.
//!
//! Beside the entries it keeps the changes of the last revisions, which is what watches read: a watch holds a position and
//! no queue, so a slow reader costs nothing, and one that falls behind the kept history is told. Commits are durable when
//! they are answered, and a crash leaves a whole commit or none. All work on the file happens on blocking threads.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, Table, TableDefinition,
    WriteTransaction,
};
use tokio::sync::watch;

use super::{
    Change, Commit, Compare, Entry, Outcome, Range, Revision, Store, StoreError, Txn, Watch,
    check_bounds,
};

/// The file in the state directory.
const FILE: &str = "store.redb";
/// The revisions that watches can go back.
const HISTORY: Revision = 10_000;
/// The most commits that a watch reads at once.
const WATCH_BATCH: usize = 64;

/// Key to revision and value.
const ENTRIES: TableDefinition<'_, &str, (Revision, &[u8])> = TableDefinition::new("entries");
/// Revision and key to value.
const CHANGES: TableDefinition<'_, (Revision, &str), Option<&[u8]>> =
    TableDefinition::new("changes");
/// The revision of the last commit, and that of the last one whose changes are gone.
const META: TableDefinition<'_, &str, Revision> = TableDefinition::new("meta");
const LAST: &str = "revision";
const COMPACTED: &str = "compacted";

/// A store in one file.
#[derive(Clone)]
pub struct EmbeddedStore {
    file: Arc<StoreFile>,
    last: watch::Receiver<Revision>,
}

struct StoreFile {
    database: Database,
    history: Revision,
    last: watch::Sender<Revision>,
}

impl EmbeddedStore {
    /// Opens the store in `state_dir`, which is made where it is missing, both for their owner only.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process has it open.
    pub async fn open(state_dir: &Path) -> Result<Self, StoreError> {
        Self::open_with_history(state_dir, HISTORY).await
    }

    /// As [`Self::open`], keeping the changes of `history` revisions for watches; at least one.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_with_history(
        state_dir: &Path,
        history: Revision,
    ) -> Result<Self, StoreError> {
        let path = state_dir.join(FILE);
        let (database, last) = blocking("opening the store", move || open_file(&path)).await?;
        let (sender, receiver) = watch::channel(last);
        let file = StoreFile {
            database,
            history: history.max(1),
            last: sender,
        };
        Ok(Self {
            file: Arc::new(file),
            last: receiver,
        })
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        let (file, prefix) = (Arc::clone(&self.file), prefix.to_owned());
        blocking("reading the store", move || file.range(&prefix)).await
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        check_bounds(&txn)?;
        let file = Arc::clone(&self.file);
        blocking("writing the store", move || file.commit(&txn)).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let mut watch = EmbeddedWatch {
            file: Arc::clone(&self.file),
            last: self.last.clone(),
            prefix: prefix.to_owned(),
            next: from.max(1),
            read: Vec::new().into_iter(),
        };
        // Says at once that the history does not reach so far.
        watch.read_on().await?;
        Ok(Box::new(watch))
    }
}

struct EmbeddedWatch {
    file: Arc<StoreFile>,
    last: watch::Receiver<Revision>,
    prefix: String,
    /// The first revision that has not been read.
    next: Revision,
    read: std::vec::IntoIter<Commit>,
}

#[async_trait]
impl Watch for EmbeddedWatch {
    async fn next(&mut self) -> Result<Commit, StoreError> {
        loop {
            if let Some(commit) = self.read.next() {
                return Ok(commit);
            }
            let next = self.next;
            // The sender lives in the file that this watch holds.
            let _ = self.last.wait_for(|last| *last >= next).await;
            self.read_on().await?;
        }
    }
}

impl EmbeddedWatch {
    async fn read_on(&mut self) -> Result<(), StoreError> {
        let (file, prefix, next) = (Arc::clone(&self.file), self.prefix.clone(), self.next);
        let read = move || file.changes(&prefix, next);
        let (commits, next) = blocking("reading the history", read).await?;
        self.read = commits.into_iter();
        self.next = next;
        Ok(())
    }
}

impl StoreFile {
    fn range(&self, prefix: &str) -> Result<Range, Failure> {
        let txn = self.database.begin_read()?;
        let entries = txn.open_table(ENTRIES)?;
        let mut found = Vec::new();
        for item in entries.range(prefix..)? {
            let (key, value) = item?;
            if !key.value().starts_with(prefix) {
                break;
            }
            let (mod_revision, value) = value.value();
            let (key, value) = (key.value().to_owned(), value.to_vec());
            found.push(Entry {
                key,
                value,
                mod_revision,
            });
        }
        let revision = read_meta(&txn.open_table(META)?, LAST)?;
        Ok(Range {
            revision,
            entries: found,
        })
    }

    fn commit(&self, asked: &Txn) -> Result<Outcome, Failure> {
        let txn = self.database.begin_write()?;
        let outcome = write(&txn, asked, self.history)?;
        match outcome {
            Written::Changed(revision) => {
                txn.commit()?;
                self.last.send_replace(revision);
                Ok(Outcome::Committed { revision })
            }
            Written::Nothing(outcome) => {
                txn.abort()?;
                Ok(outcome)
            }
        }
    }

    /// The commits from revision `from` on that touched `prefix`, a batch of them, and the revision to go on from.
    fn changes(&self, prefix: &str, from: Revision) -> Result<(Vec<Commit>, Revision), Failure> {
        let txn = self.database.begin_read()?;
        let meta = txn.open_table(META)?;
        let compacted = read_meta(&meta, COMPACTED)?;
        if from <= compacted {
            let oldest = compacted + 1;
            return Err(Failure::Store(StoreError::Compacted {
                asked: from,
                oldest,
            }));
        }
        let last = read_meta(&meta, LAST)?;
        let changes = txn.open_table(CHANGES)?;
        let mut commits: Vec<Commit> = Vec::new();
        for item in changes.range((from, "")..)? {
            let (place, value) = item?;
            let (revision, key) = place.value();
            if !key.starts_with(prefix) {
                continue;
            }
            let change = Change {
                key: key.to_owned(),
                value: value.value().map(<[u8]>::to_vec),
            };
            if commits
                .last()
                .is_none_or(|commit| commit.revision != revision)
            {
                if commits.len() == WATCH_BATCH {
                    return Ok((commits, revision));
                }
                commits.push(Commit {
                    revision,
                    changes: Vec::new(),
                });
            }
            if let Some(commit) = commits.last_mut() {
                commit.changes.push(change);
            }
        }
        Ok((commits, from.max(last + 1)))
    }
}

enum Written {
    Changed(Revision),
    Nothing(Outcome),
}

fn write(txn: &WriteTransaction, asked: &Txn, history: Revision) -> Result<Written, Failure> {
    let mut meta = txn.open_table(META)?;
    let mut entries = txn.open_table(ENTRIES)?;
    let mut changes = txn.open_table(CHANGES)?;
    let last = read_meta(&meta, LAST)?;
    let seen = failed_compares(&entries, &asked.compares)?;
    if !seen.is_empty() {
        return Ok(Written::Nothing(Outcome::Conflict {
            revision: last,
            seen,
        }));
    }
    let revision = last + 1;
    let mut changed = false;
    for key in &asked.deletes {
        if entries.remove(key.as_str())?.is_some() {
            changes.insert((revision, key.as_str()), None)?;
            changed = true;
        }
    }
    for (key, value) in &asked.puts {
        entries.insert(key.as_str(), (revision, value.as_slice()))?;
        changes.insert((revision, key.as_str()), Some(value.as_slice()))?;
        changed = true;
    }
    if !changed {
        return Ok(Written::Nothing(Outcome::Committed { revision: last }));
    }
    meta.insert(LAST, revision)?;
    if let Some(gone) = revision.checked_sub(history).filter(|gone| *gone > 0) {
        changes.retain_in((0, "")..(gone + 1, ""), |_, _| false)?;
        meta.insert(COMPACTED, gone)?;
    }
    Ok(Written::Changed(revision))
}

fn failed_compares(
    entries: &Table<'_, &str, (Revision, &[u8])>,
    compares: &[Compare],
) -> Result<Vec<(String, Option<Entry>)>, Failure> {
    let mut seen = Vec::new();
    for compare in compares {
        let entry = entries.get(compare.key.as_str())?.map(|found| {
            let (mod_revision, value) = found.value();
            Entry {
                key: compare.key.clone(),
                value: value.to_vec(),
                mod_revision,
            }
        });
        if entry.as_ref().map_or(0, |entry| entry.mod_revision) != compare.mod_revision {
            seen.push((compare.key.clone(), entry));
        }
    }
    Ok(seen)
}

fn read_meta(
    meta: &impl redb::ReadableTable<&'static str, Revision>,
    name: &str,
) -> Result<Revision, Failure> {
    Ok(meta.get(name)?.map_or(0, |value| value.value()))
}

fn open_file(path: &Path) -> Result<(Database, Revision), Failure> {
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    make_dir(dir)?;
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .append(true)
        .mode(0o600)
        .open(path)?;
    let database = Database::create(path).map_err(|error| {
        if matches!(error, DatabaseError::DatabaseAlreadyOpen) {
            Failure::Store(StoreError::InUse {
                path: path.to_owned(),
            })
        } else {
            Failure::Backend(error.into())
        }
    })?;
    let txn = database.begin_write()?;
    let last = {
        let _ = (txn.open_table(ENTRIES)?, txn.open_table(CHANGES)?);
        read_meta(&txn.open_table(META)?, LAST)?
    };
    txn.commit()?;
    Ok((database, last))
}

/// A failure inside a blocking closure.
enum Failure {
    Store(StoreError),
    Backend(redb::Error),
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Backend(error.into())
    }
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(Failure::Store(error))) => Err(error),
        Ok(Err(Failure::Backend(error))) => Err(StoreError::Backend {
            doing,
            retryable: false,
            source: Box::new(error),
        }),
        // The runtime is going down: the work never ran, or its thread is gone.
        Err(error) => Err(StoreError::Backend {
            doing,
            retryable: true,
            source: Box::new(error),
        }),
    }
}

fn make_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

/// Makes the state directory, for its owner only, where it is missing.
///
/// # Errors
/// When it is neither there nor can be made.
pub fn make_state_dir(state_dir: &Path) -> Result<(), StoreError> {
    make_dir(state_dir).map_err(|source| StoreError::Backend {
        doing: "making the state directory",
        retryable: false,
        source: Box::new(source),
    })
}

/// Whether `state_dir` holds a store already.
#[must_use]
pub fn exists(state_dir: &Path) -> bool {
    fs::metadata(state_dir.join(FILE)).is_ok_and(|file| file.len() > 0)
}
