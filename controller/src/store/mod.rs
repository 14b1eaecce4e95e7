//! Where the fleet's desired state is kept: a small transactional key-value store with revisions, as etcd has it.
//!
//! Every commit that changes something raises the revision by one; every entry knows the revision that wrote it. A
//! transaction compares revisions of entries and then writes, all or nothing. A watch gives every change from a revision
//! on, in order, exactly once, or says that the history no longer reaches so far. An entry that was written with a lease
//! goes when the lease ends. Nothing here knows what the values mean, save `keys` and `codec`, which turn the fleet's records
//! into entries and back.

pub mod archive;
pub mod audit;
pub mod codec;
mod embedded;
mod etcd;
pub mod keys;
mod memory;
mod metered;
pub(crate) mod open;
mod seal;
pub mod transfer;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

pub use embedded::{EmbeddedStore, exists, make_state_dir};
pub use etcd::{EtcdConfig, EtcdStore};
pub use memory::{Backup, MemoryStore};
pub(crate) use metered::MeteredStore;
pub use seal::{SealError, Sealer};

/// The longest key, in bytes.
pub const MAX_KEY: usize = 512;
/// The largest value, in bytes.
pub const MAX_VALUE: usize = 64 * 1024;
/// Counts the commits that changed something; zero is the empty store.
pub type Revision = u64;

/// A back end of the store.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Every entry whose key begins with `prefix`, in the order of keys, as of one revision.
    async fn range(&self, prefix: &str) -> Result<Range, StoreError>;

    /// Writes all of `txn`, durably, if every compare holds, and nothing otherwise.
    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError>;

    /// Every change of a key that begins with `prefix`, from revision `from` on. A range at revision R is continued by a
    /// watch from R + 1.
    async fn watch(&self, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, StoreError>;

    /// Makes a lease that ends after `ttl`, in whole seconds and at least one, unless it is kept.
    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError>;

    /// Lets `lease` begin anew; false where it has ended, and what was written with it is gone or about to go.
    async fn keep_lease(&self, lease: LeaseId) -> Result<bool, StoreError>;

    /// Ends `lease`, and deletes what was written with it. One that has ended already is no error.
    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// The most compares of one transaction, and the most puts and deletes together.
    fn max_operations(&self) -> usize;

    /// Lets go of what another process may wait for, after what is under way. A store that nothing waits for has nothing to do.
    async fn close(&self) {}
}

impl fmt::Debug for dyn Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

/// A stream of changes.
#[async_trait]
pub trait Watch: Send {
    /// The next commit that touched the prefix; waits for one. [`StoreError::Compacted`] where the history was cut before
    /// this watch got there: the reader lists again.
    async fn next(&mut self) -> Result<Commit, StoreError>;
}

/// What [`Store::range`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The revision of the store at that moment.
    pub revision: Revision,
    /// The entries, in the order of keys.
    pub entries: Vec<Entry>,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// The revision that wrote it.
    pub mod_revision: Revision,
}

/// A transaction: if every compare holds, all writes happen, at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// What must hold.
    pub compares: Vec<Compare>,
    /// What to write.
    pub puts: Vec<Put>,
    /// Keys to delete; one that is not there is no error.
    pub deletes: Vec<String>,
}

/// An entry to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Put {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// The lease with which the entry goes; `None` for one that stays. It takes the place of the lease that an earlier put
    /// of the key named.
    pub lease: Option<LeaseId>,
}

/// Names a lease of one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

/// A key and the revision that must have written it; revision zero means that it must not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: String,
    /// The revision that wrote it, or zero.
    pub mod_revision: Revision,
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is written, at this revision. A transaction that changed nothing keeps the revision as it was.
    Committed {
        /// The revision of the store after it.
        revision: Revision,
    },
    /// Some compare did not hold; nothing is written.
    Conflict {
        /// The revision of the store at that moment.
        revision: Revision,
        /// What stands at the keys whose compare failed; a key without an entry does not exist.
        seen: Vec<(String, Option<Entry>)>,
    },
}

/// The changes of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The revision.
    pub revision: Revision,
    /// What it changed, each key once, in the order of keys.
    pub changes: Vec<Change>,
}

/// One changed key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// Its value; `None` where it was deleted.
    pub value: Option<Vec<u8>>,
}

/// Why the store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the store open.
    #[error("another process uses {path}: each controller needs a state directory of its own")]
    InUse {
        /// The file.
        path: std::path::PathBuf,
    },
    /// A file cannot be read.
    #[error("the file {path} cannot be read")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The history no longer reaches back so far.
    #[error("the history before revision {oldest} is gone, and {asked} was asked for")]
    Compacted {
        /// The revision asked for.
        asked: Revision,
        /// The oldest one there is.
        oldest: Revision,
    },
    /// A key, a value or a transaction beyond its bound.
    #[error("{what} is beyond {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// The store does not answer at the moment.
    #[error(
        "the store does not answer: what is known is served, and nothing can be changed until it does"
    )]
    Away,
    /// The store refuses what the configuration says of it.
    #[error("{what} ({key})")]
    Refused {
        /// The key of the configuration.
        key: &'static str,
        /// What is wrong with it.
        what: &'static str,
        /// Whether trying again may help, where somebody sets it right on the other side.
        retryable: bool,
        /// What the back end says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store has no room for another write.
    #[error(
        "etcd takes no more writes, because its database is full (alarm NOSPACE): what is known is served. Compact and defragment it, or \
         raise --quota-backend-bytes, and then `etcdctl alarm disarm`"
    )]
    Full,
    /// A put names a lease that has ended.
    #[error("the lease has ended")]
    LeaseEnded,
    /// [`Store::close`] came before.
    #[error("the store is closed")]
    Closed,
    /// A value that does not read as what its key promises.
    #[error("the value at {key} is damaged: {reason}")]
    Damaged {
        /// The key.
        key: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A transfer into this store was begun and not finished.
    #[error(
        "it holds half of a fleet, for a restore or a migration was cut off: do that again, or `turnfleet controller restore` a backup"
    )]
    HalfRestored,
    /// The fleet was moved to another store.
    #[error(
        "its fleet was moved to {to}: name that in `store.etcd`, or restore a backup with --replace to use this one again"
    )]
    Moved {
        /// Where it is.
        to: String,
    },
    /// A sealed value that does not open.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The back end failed.
    #[error("{doing} failed")]
    Backend {
        /// What was tried.
        doing: &'static str,
        /// Whether trying again may help.
        retryable: bool,
        /// What the back end says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// The innermost reason as text, which tells an operator most.
    pub(crate) fn cause(&self) -> String {
        let mut inner: &dyn std::error::Error = self;
        while let Some(source) = inner.source() {
            inner = source;
        }
        inner.to_string()
    }

    /// Whether waiting is the answer to it at the start: whoever configured it wrongly wants to hear of it.
    pub(crate) fn is_worth_waiting(&self) -> bool {
        self.is_retryable() && !matches!(self, Self::Refused { .. })
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Compacted { .. } | Self::Away | Self::Full | Self::LeaseEnded => true,
            Self::Backend { retryable, .. } | Self::Refused { retryable, .. } => *retryable,
            Self::InUse { .. }
            | Self::Closed
            | Self::File { .. }
            | Self::TooLarge { .. }
            | Self::Damaged { .. }
            | Self::HalfRestored
            | Self::Moved { .. }
            | Self::Seal(_) => false,
        }
    }
}

/// Refuses what is beyond the bounds that every back end keeps.
fn check_bounds(txn: &Txn, max_operations: usize) -> Result<(), StoreError> {
    let too_large = |what, limit| Err(StoreError::TooLarge { what, limit });
    let operations = txn.compares.len().max(txn.puts.len() + txn.deletes.len());
    if operations > max_operations {
        return too_large("the number of operations of a transaction", max_operations);
    }
    let compared = txn.compares.iter().map(|compare| &compare.key);
    let written = txn.puts.iter().map(|put| &put.key).chain(&txn.deletes);
    if compared.chain(written).any(|key| key.len() > MAX_KEY) {
        return too_large("the length of a key", MAX_KEY);
    }
    if txn.puts.iter().any(|put| put.value.len() > MAX_VALUE) {
        return too_large("the length of a value", MAX_VALUE);
    }
    Ok(())
}
