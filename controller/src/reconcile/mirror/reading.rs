//! Reading the whole store, once or until it answers.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::task::JoinHandle;
use turnfleet_proto::store::{EpochRecord, SchemaRecord};

use crate::fleet::record::Epoch;
use crate::store::{Compare, Put, Range, Store, StoreError, Txn, Watch, keys};

/// The version of keys and values that this code reads and writes.
const SCHEMA: u32 = 1;
/// The rest between two readings of a store that fails.
const RETRY: Duration = Duration::from_millis(500);
/// How many failed readings are told by one line of the log.
const TELL_EACH: u32 = 20;

/// How the store is followed.
pub(super) enum Link {
    /// By its changes.
    Watching(Box<dyn Watch>),
    /// It is being read as a whole.
    Reading(JoinHandle<(Range, Box<dyn Watch>)>),
}

impl Link {
    pub(super) fn read_again(store: Arc<dyn Store>) -> Self {
        Self::Reading(tokio::spawn(async move {
            let mut failures = 0;
            loop {
                match read(&*store).await {
                    Ok(read) => {
                        tracing::info!(revision = read.0.revision, "the store answers");
                        return read;
                    }
                    Err(error) => {
                        if failures % TELL_EACH == 0 {
                            let cause = error.cause();
                            tracing::warn!(%error, cause, "the store cannot be read; it is tried again and again");
                        }
                        failures += 1;
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        }))
    }

    pub(super) fn is_reading(&self) -> bool {
        match self {
            Self::Watching(_) => false,
            Self::Reading(_) => true,
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Self::Reading(reading) = self {
            reading.abort();
        }
    }
}

async fn read(store: &dyn Store) -> Result<(Range, Box<dyn Watch>), StoreError> {
    let range = store.range(keys::PREFIX).await?;
    let watch = store.watch(keys::PREFIX, range.revision + 1).await?;
    Ok((range, watch))
}

/// Reads a store, which becomes the one of `epoch` where it is empty.
pub(super) async fn open(
    store: &dyn Store,
    epoch: Epoch,
) -> Result<(Range, Box<dyn Watch>), StoreError> {
    let opened = read(store).await?;
    if check_schema(&opened.0)?.is_some() {
        return Ok(opened);
    }
    write_schema(store, epoch).await?;
    read(store).await
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
    let put = |key: &str, value| Put {
        key: key.to_owned(),
        value,
        lease: None,
    };
    let schema = SchemaRecord { version: SCHEMA }.encode_to_vec();
    let epoch = EpochRecord {
        epoch: epoch.to_vec(),
    };
    let txn = Txn {
        compares: vec![Compare {
            key: keys::SCHEMA.to_owned(),
            mod_revision: 0,
        }],
        puts: vec![
            put(keys::SCHEMA, schema),
            put(keys::EPOCH, epoch.encode_to_vec()),
        ],
        deletes: Vec::new(),
    };
    // Another controller that was first has named the epoch.
    store.commit(txn).await.map(drop)
}
