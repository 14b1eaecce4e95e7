//! Writing a whole fleet into a store: what travels, in which order, and how a half of it is told from a fleet.
//!
//! A store holds a fleet when it has a schema. A transfer takes the schema away, or finds none, and leaves a mark in the same
//! transaction; it deletes what stood there, writes what is to stand there, reads it back, and then changes the mark for the
//! schema. Each of its transactions compares the mark, so two transfers, or a controller that starts meanwhile, do not mix. One
//! that was cut off leaves the mark: controllers refuse such a store, and the next transfer begins anew.

use std::collections::BTreeMap;

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use turnfleet_proto::store::{
    EpochRecord, FormerEpoch, GenerationRecord, RestoreRecord, SchemaRecord,
};

use super::{
    Compare, Entry, Outcome, Put, Range, Revision, Sealer, Store, StoreError, Txn, codec, keys,
};
use crate::fleet::record::{Epoch, RecordKey};

/// Everything that a fleet keeps begins with it: its records, and the audit log.
const ROOT: &str = "/tf/";
/// The most bytes of the values of one transaction; every back end takes them.
const MAX_BYTES: usize = 512 * 1024;
/// The most former epochs that are remembered; the oldest go.
const MAX_FORMER: usize = 16;

/// What a fleet keeps, without what belongs to running controllers: the leader and their addresses, which end with their
/// leases. The audit log is part of it, and so is what another version of the controller wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content(BTreeMap<String, Vec<u8>>);

/// Why a fleet is not written, or not read.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// There is no fleet to read.
    #[error("it holds no fleet")]
    NoFleet,
    /// There is a fleet already.
    #[error("it holds a fleet already, of {entries} entries: --replace deletes it first")]
    NotEmpty {
        /// How many entries it has.
        entries: usize,
    },
    /// Controllers run on it.
    #[error("controllers run on it: {}. Stop them, and wait 10 s where one was killed", .0.join(", "))]
    InUse(Vec<String>),
    /// Somebody else wrote there meanwhile.
    #[error(
        "somebody else wrote there meanwhile: see that no controller and no other transfer runs, and try again"
    )]
    Disturbed,
    /// What was read back is not what was written.
    #[error(
        "what was read back is not what was written: nothing was made of it, and it can be tried again"
    )]
    Differs,
    /// The store fails, or a value is damaged or does not open.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Content {
    /// Whether a key is one of a fleet's.
    #[must_use]
    pub fn is_within(key: &str) -> bool {
        key.starts_with(ROOT)
    }

    /// The entries in the order of keys.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let entries = self.0.iter();
        entries.map(|(key, value)| (key.as_str(), value.as_slice()))
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds an entry; false where its key does not come after all that are there.
    pub fn push(&mut self, key: String, value: Vec<u8>) -> bool {
        let follows = self.0.last_key_value().is_none_or(|(last, _)| *last < key);
        if follows {
            self.0.insert(key, value);
        }
        follows
    }

    /// SHA-256 of all keys and values.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let mut sum = Sha256::new();
        for (key, value) in &self.0 {
            for part in [key.as_bytes(), value] {
                sum.update(part.len().to_be_bytes());
                sum.update(part);
            }
        }
        sum.finalize().into()
    }

    /// Which fleet it is, by its store.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        let record = EpochRecord::decode(self.0.get(keys::EPOCH)?.as_slice()).ok()?;
        record.epoch.try_into().ok()
    }

    /// The generation of what relays were sent last; zero before anything was.
    #[must_use]
    pub fn generation(&self) -> u64 {
        let value = self.0.get(&keys::path(&RecordKey::Generation));
        let record = value.and_then(|value| GenerationRecord::decode(value.as_slice()).ok());
        record.map_or(0, |record| record.generation)
    }

    /// Makes it the beginning of `epoch`. Unless that is `confirmed`, relays that know more of the former epoch than this are
    /// not told anything before an operator says so.
    pub fn begin_epoch(&mut self, epoch: Epoch, confirmed: bool) {
        let generation = self.generation();
        let value = self.0.get(keys::EPOCH).map(Vec::as_slice);
        let before = EpochRecord::decode(value.unwrap_or_default()).unwrap_or_default();
        let mut former = before.former;
        former.push(FormerEpoch {
            epoch: before.epoch,
            generation,
        });
        let surplus = former.len().saturating_sub(MAX_FORMER);
        former.drain(..surplus);
        if confirmed {
            former.clear();
        }
        let epoch = epoch.to_vec();
        let record = EpochRecord { epoch, former };
        self.0
            .insert(keys::EPOCH.to_owned(), record.encode_to_vec());
    }

    /// Reads every record of it, and opens every secret.
    ///
    /// # Errors
    /// With the first that is damaged, is of another version, or does not open.
    pub fn check(&self, sealer: &Sealer) -> Result<(), StoreError> {
        check_schema(self.0.get(keys::SCHEMA).map(Vec::as_slice))?;
        for (key, value) in &self.0 {
            let entry = Entry {
                key: key.clone(),
                value: value.clone(),
                mod_revision: 0,
            };
            codec::decode(&entry, sealer)?;
        }
        Ok(())
    }

    fn of(range: &Range) -> Self {
        let entries = range.entries.iter().filter(|entry| travels(&entry.key));
        Self(
            entries
                .map(|entry| (entry.key.clone(), entry.value.clone()))
                .collect(),
        )
    }
}

/// Whether an entry belongs to the fleet, and not to the controllers that run or to a transfer.
fn travels(key: &str) -> bool {
    let passing = matches!(
        keys::parse(key),
        Some(RecordKey::Leader | RecordKey::Controller(_))
    );
    !passing && key != keys::RESTORE
}

/// The version of keys and values that this code reads and writes.
pub(crate) const SCHEMA: u32 = 1;

/// Whether `value`, which stands at the key of the schema, is that of a fleet that this version can use.
///
/// # Errors
/// When it is of another version, or the fleet was moved.
pub(crate) fn check_schema(value: Option<&[u8]>) -> Result<bool, StoreError> {
    let Some(value) = value else {
        return Ok(false);
    };
    let damaged = |reason| StoreError::Damaged {
        key: keys::SCHEMA.to_owned(),
        reason,
    };
    let schema = SchemaRecord::decode(value).map_err(|_| damaged("not a schema"))?;
    if !schema.moved_to.is_empty() {
        let to = schema.moved_to;
        return Err(StoreError::Moved { to });
    }
    if schema.version == SCHEMA {
        Ok(true)
    } else {
        Err(damaged("written by another version of the controller"))
    }
}

/// The fleet in `store`, as of one revision.
///
/// # Errors
/// When there is none, only half of one, or one that was moved.
pub async fn read(store: &dyn Store) -> Result<(Revision, Content), TransferError> {
    let range = store.range(ROOT).await?;
    let found = |key| find(&range, key).map(|entry| entry.value.as_slice());
    if found(keys::RESTORE).is_some() {
        return Err(StoreError::HalfRestored.into());
    }
    if !check_schema(found(keys::SCHEMA))? {
        return Err(TransferError::NoFleet);
    }
    Ok((range.revision, Content::of(&range)))
}

/// Writes `content`, of which `source` tells an operator what it is, into a `store` that holds no fleet, or only half of one;
/// with `replace`, in the place of one that no controller runs on. `begun_at` is in Unix seconds.
///
/// # Errors
/// When the store holds a fleet or is in use, and when it fails: then it holds half of a fleet, which no controller takes for
/// a whole one, and the same can be done again.
pub async fn write(
    store: &dyn Store,
    content: &Content,
    source: &str,
    begun_at: u64,
    replace: bool,
) -> Result<(), TransferError> {
    let found = store.range(ROOT).await?;
    check_target(&found, replace)?;
    let mark = RestoreRecord {
        source: source.to_owned(),
        begun_at,
    };
    let mark = done(store.commit(begin(&found, &mark)).await?)?;
    let limit = store.max_operations();
    for txn in clear(&found, limit).into_iter().chain(fill(content, limit)) {
        done(store.commit(fenced(txn, mark)).await?)?;
    }
    let mut back = Content::of(&store.range(ROOT).await?);
    if let Some(schema) = content.0.get(keys::SCHEMA) {
        back.0.insert(keys::SCHEMA.to_owned(), schema.clone());
    }
    if back.hash() != content.hash() {
        return Err(TransferError::Differs);
    }
    done(store.commit(fenced(finish(content), mark)).await?)?;
    Ok(())
}

/// Says in `store` that its fleet is at `to` from here on, so that no controller starts on it.
///
/// # Errors
/// When the store fails.
pub async fn close(store: &dyn Store, to: &str) -> Result<(), TransferError> {
    let schema = SchemaRecord {
        version: SCHEMA,
        moved_to: to.to_owned(),
    };
    let txn = Txn {
        puts: vec![put(keys::SCHEMA, schema.encode_to_vec())],
        ..Txn::default()
    };
    done(store.commit(txn).await?).map(drop)
}

fn find<'a>(range: &'a Range, key: &str) -> Option<&'a Entry> {
    range.entries.iter().find(|entry| entry.key == key)
}

fn check_target(found: &Range, replace: bool) -> Result<(), TransferError> {
    let controller = |entry: &Entry| {
        if let RecordKey::Controller(id) = keys::parse(&entry.key)? {
            Some(id.to_string())
        } else {
            None
        }
    };
    let running: Vec<_> = found.entries.iter().filter_map(controller).collect();
    if !running.is_empty() {
        return Err(TransferError::InUse(running));
    }
    let entries = found.entries.len();
    if entries > 0 && !replace && find(found, keys::RESTORE).is_none() {
        return Err(TransferError::NotEmpty { entries });
    }
    Ok(())
}

/// Leaves the mark, and takes the schema away.
fn begin(found: &Range, mark: &RestoreRecord) -> Txn {
    let at = |key: &str| Compare {
        key: key.to_owned(),
        mod_revision: find(found, key).map_or(0, |entry| entry.mod_revision),
    };
    Txn {
        compares: vec![at(keys::SCHEMA), at(keys::RESTORE)],
        puts: vec![put(keys::RESTORE, mark.encode_to_vec())],
        deletes: vec![keys::SCHEMA.to_owned()],
    }
}

/// Deletes all else that stood there.
fn clear(found: &Range, limit: usize) -> Vec<Txn> {
    let kept = [keys::SCHEMA, keys::RESTORE];
    let keys = found.entries.iter().map(|entry| &entry.key);
    let keys: Vec<_> = keys.filter(|key| !kept.contains(&key.as_str())).collect();
    let delete = |keys: &[&String]| Txn {
        deletes: keys.iter().map(|key| (*key).clone()).collect(),
        ..Txn::default()
    };
    keys.chunks(limit.max(1)).map(delete).collect()
}

/// Writes everything but the schema.
fn fill(content: &Content, limit: usize) -> Vec<Txn> {
    let mut txns = Vec::new();
    let mut txn = Txn::default();
    let mut bytes = 0;
    for (key, value) in content.entries().filter(|(key, _)| *key != keys::SCHEMA) {
        if !txn.puts.is_empty() && (txn.puts.len() == limit || bytes + value.len() > MAX_BYTES) {
            txns.push(std::mem::take(&mut txn));
            bytes = 0;
        }
        bytes += value.len();
        txn.puts.push(put(key, value.to_vec()));
    }
    txns.push(txn);
    txns
}

/// Changes the mark for the schema.
fn finish(content: &Content) -> Txn {
    let schema = content.0.get(keys::SCHEMA).cloned().unwrap_or_default();
    Txn {
        compares: Vec::new(),
        puts: vec![put(keys::SCHEMA, schema)],
        deletes: vec![keys::RESTORE.to_owned()],
    }
}

fn fenced(mut txn: Txn, mark: Revision) -> Txn {
    let at = |key: &str, mod_revision| Compare {
        key: key.to_owned(),
        mod_revision,
    };
    txn.compares = vec![at(keys::RESTORE, mark), at(keys::SCHEMA, 0)];
    txn
}

fn put(key: &str, value: Vec<u8>) -> Put {
    Put {
        key: key.to_owned(),
        value,
        lease: None,
    }
}

fn done(outcome: Outcome) -> Result<Revision, TransferError> {
    match outcome {
        Outcome::Committed { revision } => Ok(revision),
        Outcome::Conflict { .. } => Err(TransferError::Disturbed),
    }
}
