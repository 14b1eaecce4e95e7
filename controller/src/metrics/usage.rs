//! What each tenant used, in metrics.

use std::cmp::Reverse;

use prometheus::{IntCounter, IntCounterVec};

use super::Maker;
use crate::api::tenant_name;
use crate::fleet::FleetView;
use crate::usage::UsageDesk;
use crate::usage::aggregate::{By, Filter};

/// Tenants that have metrics of their own.
const MAX_TENANTS: usize = 100;

/// Set from the desk whenever the metrics are rendered.
#[derive(Debug)]
pub(super) struct UsageCounters {
    bytes: IntCounterVec,
    refused: IntCounter,
}

impl UsageCounters {
    pub(super) fn new(make: &Maker) -> Self {
        Self {
            bytes: make.counters(
                "usage_bytes_total",
                "Application bytes that relays have carried since counting began, by tenant: the hundred largest by name, the others as `*`.",
                &["tenant", "direction"],
            ),
            refused: make.counter(
                "usage_reports_refused_total",
                "Reports of relays on their use, or parts of them, that were not taken.",
            ),
        }
    }

    pub(super) fn set(&self, view: &FleetView, usage: &UsageDesk) {
        self.refused.reset();
        self.refused.inc_by(usage.refused());
        let sums = usage.look(view, |usage| usage.sums(By::Tenant, &Filter::default()));
        let mut tenants: Vec<_> = sums.into_iter().collect();
        tenants.sort_by_key(|(_, sum)| Reverse(sum.totals.bytes()));
        self.bytes.reset();
        for (place, (scope, sum)) in tenants.into_iter().enumerate() {
            let name = match scope.tenant {
                Some(id) if place < MAX_TENANTS => tenant_name(view, id),
                Some(_) | None => "*".to_owned(),
            };
            let directions = [
                ("to_peer", sum.totals.bytes_to_peers),
                ("to_client", sum.totals.bytes_to_clients),
            ];
            for (direction, bytes) in directions {
                let counter = self.bytes.with_label_values(&[&name, direction]);
                counter.inc_by(bytes);
            }
        }
    }
}
