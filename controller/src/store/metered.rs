//! A store that counts what another one does. It changes nothing of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::{Commit, LeaseId, Outcome, Range, Revision, Store, StoreError, Txn, Watch};
use crate::metrics::StoreCounters;

/// See the module.
pub(crate) struct MeteredStore {
    inner: Arc<dyn Store>,
    counters: StoreCounters,
}

impl MeteredStore {
    pub(crate) fn new(inner: Arc<dyn Store>, counters: StoreCounters) -> Self {
        Self { inner, counters }
    }

    fn counted<T>(&self, operation: &str, result: Result<T, StoreError>) -> Result<T, StoreError> {
        count(&self.counters, operation, result)
    }
}

fn count<T>(
    counters: &StoreCounters,
    operation: &str,
    result: Result<T, StoreError>,
) -> Result<T, StoreError> {
    if result.is_err() {
        counters.failures.with_label_values(&[operation]).inc();
    }
    result
}

#[async_trait]
impl Store for MeteredStore {
    async fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        self.counted("range", self.inner.range(prefix).await)
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        let begun = Instant::now();
        let result = self.inner.commit(txn).await;
        if result.is_ok() {
            let took = begun.elapsed();
            self.counters.commits.observe(took.as_secs_f64());
        }
        self.counted("commit", result)
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let watch = self.counted("watch", self.inner.watch(prefix, from).await)?;
        Ok(Box::new(MeteredWatch {
            inner: watch,
            counters: self.counters.clone(),
        }))
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.counted("grant_lease", self.inner.grant_lease(ttl).await)
    }

    async fn keep_lease(&self, lease: LeaseId) -> Result<bool, StoreError> {
        self.counted("keep_lease", self.inner.keep_lease(lease).await)
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.counted("revoke_lease", self.inner.revoke_lease(lease).await)
    }

    fn max_operations(&self) -> usize {
        self.inner.max_operations()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

struct MeteredWatch {
    inner: Box<dyn Watch>,
    counters: StoreCounters,
}

#[async_trait]
impl Watch for MeteredWatch {
    async fn next(&mut self) -> Result<Commit, StoreError> {
        count(&self.counters, "watch", self.inner.next().await)
    }
}
