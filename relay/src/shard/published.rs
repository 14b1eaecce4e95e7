//! What a shard lets others see of its counts: a copy, made at most once a second.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use turnfleet_turn::Counters;

use crate::driver::counters::DriverCounters;

/// The published side of one shard's counts.
#[derive(Default)]
pub(super) struct Published {
    allocations: AtomicU64,
    /// The orders to end every allocation that were carried out.
    evictions: AtomicU32,
    counts: Mutex<(Counters, DriverCounters)>,
}

impl Published {
    /// Live allocations, as of the latest batch.
    pub(super) fn allocations(&self) -> u64 {
        self.allocations.load(Ordering::Relaxed)
    }

    /// Sets the number of live allocations.
    pub(super) fn set_allocations(&self, count: u64) {
        self.allocations.store(count, Ordering::Relaxed);
    }

    /// The orders to end every allocation that were carried out: whoever reads it sees what was told and counted of their ends.
    pub(super) fn evictions(&self) -> u32 {
        self.evictions.load(Ordering::Acquire)
    }

    /// Sets the number of orders to end every allocation that were carried out.
    pub(super) fn set_evictions(&self, count: u32) {
        self.evictions.store(count, Ordering::Release);
    }

    /// Replaces the published counts.
    pub(super) fn publish(&self, core: &Counters, driver: &DriverCounters) {
        self.set_allocations(core.allocations());
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.0.clone_from(core);
        counts.1 = *driver;
    }

    /// Adds the core's counts to `sum`.
    pub(super) fn add_counters(&self, sum: &mut Counters) {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        sum.add(&counts.0);
    }

    /// Adds the drivers' counts to `sum`.
    pub(super) fn add_driver_counters(&self, sum: &mut DriverCounters) {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        sum.add(&counts.1);
    }
}
