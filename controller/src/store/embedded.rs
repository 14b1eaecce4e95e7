//! The embedded back end: one redb file, for a fleet with one controller.
//!
//! Beside the entries it keeps the changes of the last revisions, which is what watches read: a watch holds a position and
//! no queue, so a slow reader costs nothing, and one that falls behind the kept history is told. Commits are durable when
//! they are answered, and a crash leaves a whole commit or none. All work on the file happens on blocking threads.
//! Leases end with the process at the latest: what an earlier one wrote with a lease is deleted when the store is opened.

mod leases;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::time::Duration;

use async_trait::async_trait;
use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, Table, TableDefinition,
    WriteTransaction,
};
use tokio::sync::watch;

use super::{
    Change, Commit, Compare, Entry, LeaseId, Outcome, Range, Revision, Store, StoreError, Txn,
    Watch, check_bounds,
};
use leases::Leases;

/// The file in the state directory.
const FILE: &str = "store.redb";
/// The file while it is made.
const PART: &str = "store.redb.part";
/// The revisions that watches can go back.
const HISTORY: Revision = 10_000;
/// The most commits that a watch reads at once.
const WATCH_BATCH: usize = 64;
/// Enough for a start at which every user and every API token is replaced.
const MAX_OPERATIONS: usize = 6 * 1024;

/// Key to revision and value.
const ENTRIES: TableDefinition<'_, &str, (Revision, &[u8])> = TableDefinition::new("entries");
/// Revision and key to value.
const CHANGES: TableDefinition<'_, (Revision, &str), Option<&[u8]>> =
    TableDefinition::new("changes");
/// Key to the lease that its entry was written with.
const LEASED: TableDefinition<'_, &str, i64> = TableDefinition::new("leased");
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
    /// `None` once it is closed. Whoever uses it holds the lock until its transaction has ended.
    database: RwLock<Option<Database>>,
    history: Revision,
    last: watch::Sender<Revision>,
    leases: Arc<Leases>,
}

impl Drop for StoreFile {
    fn drop(&mut self) {
        // The task that ends leases sees that there is nothing left to do.
        self.leases.changed.notify_one();
    }
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
        let database = blocking("opening the store", move || open_file(&path)).await?;
        let (sender, receiver) = watch::channel(0);
        let leases = Arc::new(Leases::default());
        let file = Arc::new(StoreFile {
            database: RwLock::new(Some(database)),
            history: history.max(1),
            last: sender,
            leases: Arc::clone(&leases),
        });
        let opened = Arc::clone(&file);
        blocking("opening the store", move || opened.begin()).await?;
        tokio::spawn(end_leases(Arc::downgrade(&file), leases));
        Ok(Self {
            file,
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
        check_bounds(&txn, MAX_OPERATIONS)?;
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

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let lease = self.file.leases.grant(ttl);
        lease.ok_or_else(|| super::SealError::Random.into())
    }

    async fn keep_lease(&self, lease: LeaseId) -> Result<bool, StoreError> {
        Ok(self.file.leases.keep(lease))
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.file.leases.end(lease);
        let file = Arc::clone(&self.file);
        blocking("ending a lease", move || file.delete_leased(&[lease])).await
    }

    fn max_operations(&self) -> usize {
        MAX_OPERATIONS
    }

    async fn close(&self) {
        let file = Arc::clone(&self.file);
        let closed = blocking("closing the store", move || {
            file.close();
            Ok(())
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "the store closes with its process");
        }
    }
}

/// Deletes what was written with a lease when it ends, as long as the store is open.
async fn end_leases(file: Weak<StoreFile>, leases: Arc<Leases>) {
    while file.strong_count() > 0 {
        let changed = leases.changed.notified();
        match leases.next_end() {
            Some(end) => {
                tokio::select! {
                    () = tokio::time::sleep_until(end) => {}
                    () = changed => {}
                }
            }
            None => changed.await,
        }
        let due = leases.end_due();
        let Some(file) = file.upgrade().filter(|_| !due.is_empty()) else {
            continue;
        };
        let deleted = blocking("ending leases", move || file.delete_leased(&due)).await;
        if let Err(error) = deleted {
            tracing::error!(%error, "what was written with an ended lease stays until the next start");
        }
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
    /// Goes on where the last process stopped, without what that one wrote with leases.
    fn begin(&self) -> Result<(), Failure> {
        let ended = self.leased()?;
        self.delete_leased(&ended)
    }

    /// The leases of the last process; tells watches where that one stopped.
    fn leased(&self) -> Result<Vec<LeaseId>, Failure> {
        let open = self.open();
        let txn = opened(&open)?.begin_read()?;
        let last = read_meta(&txn.open_table(META)?, LAST)?;
        self.last.send_replace(last);
        let leased = txn.open_table(LEASED)?;
        let leases = leased.iter()?.map(|item| Ok(LeaseId(item?.1.value())));
        leases.collect()
    }

    fn open(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the transactions that are under way, and lets another process open the file.
    fn close(&self) {
        let mut open = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        drop(open.take());
    }

    /// Deletes what was written with `ended`.
    fn delete_leased(&self, ended: &[LeaseId]) -> Result<(), Failure> {
        let open = self.open();
        let txn = opened(&open)?.begin_write()?;
        let mut deletes = Vec::new();
        for item in txn.open_table(LEASED)?.iter()? {
            let (key, lease) = item?;
            if ended.contains(&LeaseId(lease.value())) {
                deletes.push(key.value().to_owned());
            }
        }
        let deletes = Txn {
            deletes,
            ..Txn::default()
        };
        self.finish(txn, &deletes).map(drop)
    }

    fn range(&self, prefix: &str) -> Result<Range, Failure> {
        let open = self.open();
        let txn = opened(&open)?.begin_read()?;
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
        let open = self.open();
        let txn = opened(&open)?.begin_write()?;
        // A lease that ends from here on is ended by a later write.
        let mut named = asked.puts.iter().filter_map(|put| put.lease);
        if !named.all(|lease| self.leases.is_open(lease)) {
            txn.abort()?;
            return Err(Failure::Store(StoreError::LeaseEnded));
        }
        self.finish(txn, asked)
    }

    fn finish(&self, txn: WriteTransaction, asked: &Txn) -> Result<Outcome, Failure> {
        match write(&txn, asked, self.history)? {
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
        let open = self.open();
        let txn = opened(&open)?.begin_read()?;
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
    let mut leased = txn.open_table(LEASED)?;
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
            leased.remove(key.as_str())?;
            changed = true;
        }
    }
    for put in &asked.puts {
        let (key, value) = (put.key.as_str(), put.value.as_slice());
        entries.insert(key, (revision, value))?;
        changes.insert((revision, key), Some(value))?;
        match put.lease {
            Some(lease) => drop(leased.insert(key, lease.0)?),
            None => drop(leased.remove(key)?),
        }
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

/// Opens the file of a store, and makes it where there is none.
fn open_file(path: &Path) -> Result<Database, Failure> {
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    make_dir(dir)?;
    let database = if is_made(path) {
        open_database(path)?
    } else {
        make_file(dir, path)?
    };
    let txn = database.begin_write()?;
    {
        let _ = (txn.open_table(ENTRIES)?, txn.open_table(CHANGES)?);
        let _ = (txn.open_table(LEASED)?, txn.open_table(META)?);
    }
    txn.commit()?;
    Ok(database)
}

/// Makes the file under another name, and gives it its own when it is whole: a process may be ended at any moment, and redb
/// opens no file of which the beginning was not written.
fn make_file(dir: &Path, path: &Path) -> Result<Database, Failure> {
    // Whoever makes it holds the folder, so that it is made once.
    let folder = File::open(dir)?;
    folder.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => in_use(path),
        TryLockError::Error(error) => Failure::from(error),
    })?;
    if is_made(path) {
        return open_database(path);
    }
    let part = dir.join(PART);
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    let database = open_database(&part)?;
    fs::rename(&part, path)?;
    folder.sync_all()?;
    Ok(database)
}

fn open_database(path: &Path) -> Result<Database, Failure> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .append(true)
        .mode(0o600)
        .open(path)?;
    Database::create(path).map_err(|error| {
        if matches!(error, DatabaseError::DatabaseAlreadyOpen) {
            in_use(path)
        } else {
            Failure::Backend(error.into())
        }
    })
}

fn in_use(path: &Path) -> Failure {
    Failure::Store(StoreError::InUse {
        path: path.to_owned(),
    })
}

/// Whether the file was made; an empty one holds nothing yet.
fn is_made(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.len() > 0)
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

fn opened(open: &Option<Database>) -> Result<&Database, Failure> {
    open.as_ref().ok_or(Failure::Store(StoreError::Closed))
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
    is_made(&state_dir.join(FILE))
}
