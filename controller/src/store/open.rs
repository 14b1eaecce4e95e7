//! Opening the store that the configuration names, with the key that seals its secrets.

use std::sync::Arc;
use std::time::Duration;

use super::{EmbeddedStore, EtcdStore, Sealer, Store, StoreError, exists, keys, make_state_dir};
use crate::config::Config;

/// The rest before an etcd that does not answer is tried again.
pub(crate) const RETRY: Duration = Duration::from_secs(1);
/// How many failures are told by one line of the log.
const TELL_EACH: u32 = 10;

/// A store with the key of its secrets.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sealer: Sealer,
}

/// Opens the store, and makes its key where neither is there yet. Waits for an etcd that does not answer.
///
/// # Errors
/// When the directory, a file or the store cannot be used.
pub(crate) async fn open(config: &Config) -> Result<Opened, StoreError> {
    make_state_dir(&config.state_dir)?;
    let key_file = &config.store.key_file;
    if let Some(etcd) = &config.store.etcd {
        let store = EtcdStore::new(etcd)?;
        let fresh = is_fresh(&store, &etcd.endpoints).await?;
        let sealer = Sealer::open(key_file, fresh)?;
        let store = Arc::new(store);
        return Ok(Opened { store, sealer });
    }
    let sealer = Sealer::open(key_file, !exists(&config.state_dir))?;
    let store = Arc::new(EmbeddedStore::open(&config.state_dir).await?);
    Ok(Opened { store, sealer })
}

/// Whether etcd holds no fleet yet.
async fn is_fresh(store: &EtcdStore, endpoints: &[String]) -> Result<bool, StoreError> {
    let mut failures = 0;
    loop {
        match store.range(keys::META).await {
            Ok(range) => return Ok(range.entries.is_empty()),
            Err(error) if error.is_worth_waiting() => {
                tell(endpoints, &error, failures);
                failures += 1;
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Says that etcd does not answer at the start, now and then.
pub(crate) fn tell(endpoints: &[String], error: &StoreError, failures: u32) {
    if failures.is_multiple_of(TELL_EACH) {
        let (cause, endpoints) = (error.cause(), endpoints.join(", "));
        tracing::warn!(
            endpoints,
            %error,
            cause,
            "etcd does not answer (store.etcd.endpoints); the start goes on when it does"
        );
    }
}
