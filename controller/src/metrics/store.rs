//! What the store does, in metrics.

use prometheus::{Histogram, IntCounterVec};

use super::Maker;

/// Counted where the store is called; a clone counts in the same place.
#[derive(Clone, Debug)]
pub(crate) struct StoreCounters {
    /// How long transactions took that the store answered.
    pub(crate) commits: Histogram,
    /// By operation.
    pub(crate) failures: IntCounterVec,
}

impl StoreCounters {
    /// What can be asked of a store.
    pub(super) const OPERATIONS: [&str; 6] = [
        "range",
        "commit",
        "watch",
        "grant_lease",
        "keep_lease",
        "revoke_lease",
    ];

    pub(super) fn new(make: &Maker) -> Self {
        Self {
            commits: make.histogram(
                "store_commit_duration_seconds",
                "How long the store took for transactions that it answered.",
                &[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0],
            ),
            failures: make.counters(
                "store_failures_total",
                "Calls of the store that failed, by operation.",
                &["operation"],
            ),
        }
    }
}
