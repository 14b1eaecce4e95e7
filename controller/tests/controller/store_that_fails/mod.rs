//! A store that fails after so many transactions, and takes few operations in each.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use turnfleet_controller::store::{
    LeaseId, Outcome, Range, Revision, Store, StoreError, Txn, Watch,
};

/// See the module.
pub(crate) struct FailingStore<S> {
    inner: S,
    left: AtomicUsize,
}

impl<S> FailingStore<S> {
    pub(crate) fn after(inner: S, transactions: usize) -> Self {
        Self {
            inner,
            left: AtomicUsize::new(transactions),
        }
    }
}

#[async_trait]
impl<S: Store> Store for FailingStore<S> {
    async fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        self.inner.range(prefix).await
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        let order = Ordering::Relaxed;
        let left = self
            .left
            .fetch_update(order, order, |left| left.checked_sub(1));
        if left.is_err() {
            return Err(StoreError::Away);
        }
        self.inner.commit(txn).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.inner.watch(prefix, from).await
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.inner.grant_lease(ttl).await
    }

    async fn keep_lease(&self, lease: LeaseId) -> Result<bool, StoreError> {
        self.inner.keep_lease(lease).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner.revoke_lease(lease).await
    }

    fn max_operations(&self) -> usize {
        3
    }
}
