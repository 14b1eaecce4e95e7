//! Reading the whole store, once or until it answers.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::task::JoinHandle;
use turnfleet_proto::store::{EpochRecord, SchemaRecord};

use crate::fleet::record::Epoch;
use crate::store::transfer::{SCHEMA, check_schema};
use crate::store::{Compare, Put, Range, Store, StoreError, Txn, Watch, keys};

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
    if is_fleet(&opened.0)? {
        return Ok(opened);
    }
    write_schema(store, epoch).await?;
    read(store).await
}

/// Whether there is a fleet.
fn is_fleet(range: &Range) -> Result<bool, StoreError> {
    let found = |key| range.entries.iter().find(|entry| entry.key == key);
    if found(keys::RESTORE).is_some() {
        return Err(StoreError::HalfRestored);
    }
    check_schema(found(keys::SCHEMA).map(|entry| entry.value.as_slice()))
}

async fn write_schema(store: &dyn Store, epoch: Epoch) -> Result<(), StoreError> {
    let put = |key: &str, value| Put {
        key: key.to_owned(),
        value,
        lease: None,
    };
    let absent = |key: &str| Compare {
        key: key.to_owned(),
        mod_revision: 0,
    };
    let schema = SchemaRecord {
        version: SCHEMA,
        ..SchemaRecord::default()
    };
    let epoch = EpochRecord {
        epoch: epoch.to_vec(),
        ..EpochRecord::default()
    };
    let txn = Txn {
        compares: vec![absent(keys::SCHEMA), absent(keys::RESTORE)],
        puts: vec![
            put(keys::SCHEMA, schema.encode_to_vec()),
            put(keys::EPOCH, epoch.encode_to_vec()),
        ],
        deletes: Vec::new(),
    };
    // Another controller that was first has named the epoch.
    store.commit(txn).await.map(drop)
}
