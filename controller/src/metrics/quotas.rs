//! Who has come to the end of what it may use, in metrics.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use prometheus::{IntCounter, IntCounterVec};

use super::Maker;
use crate::usage::UsageDesk;

/// Tenants that have metrics of their own.
const MAX_TENANTS: usize = 100;

/// Counted when it is told.
#[derive(Debug)]
pub(crate) struct QuotaCounters {
    exceeded: IntCounterVec,
    users_missed: IntCounter,
    /// The tenants that have metrics of their own.
    named: Mutex<BTreeSet<String>>,
}

impl QuotaCounters {
    pub(super) fn new(make: &Maker) -> Self {
        Self {
            exceeded: make.counters(
                "quota_exceeded_total",
                "How often a tenant, or a user of it, came to the end of what it may use, by the name of the quota: the first hundred tenants by name, the others as `*`.",
                &["tenant", "what"],
            ),
            users_missed: make.counter(
                "quota_users_missed_total",
                "How often bytes of a user were not counted towards what it may use in a day, because there were too many users.",
            ),
            named: Mutex::default(),
        }
    }

    /// Counts that `tenant`, or a user of it, came to the end of `what`.
    pub(crate) fn exceeded(&self, tenant: &str, what: &str) {
        let named = self.named.lock();
        let mut named = named.unwrap_or_else(PoisonError::into_inner);
        if named.len() < MAX_TENANTS && !named.contains(tenant) {
            named.insert(tenant.to_owned());
        }
        let name = if named.contains(tenant) { tenant } else { "*" };
        self.exceeded.with_label_values(&[name, what]).inc();
    }

    pub(super) fn set(&self, usage: &UsageDesk) {
        let missed = usage.missed().saturating_sub(self.users_missed.get());
        self.users_missed.inc_by(missed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_beyond_the_first_hundred_are_counted_together() {
        let counters = QuotaCounters::new(&Maker::default());
        for tenant in 0..150 {
            counters.exceeded(&tenant.to_string(), "allocations");
        }
        counters.exceeded("7", "allocations");
        let count = |tenant| {
            counters
                .exceeded
                .with_label_values(&[tenant, "allocations"])
        };
        assert_eq!((count("7").get(), count("*").get()), (2, 50));
    }
}
