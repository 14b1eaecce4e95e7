//! What quotas are computed from, as the fleet knows it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Limits, Wanted};
use crate::fleet::{Fleet, Health};

impl Fleet {
    /// Who is limited, and the relays that have shares.
    #[must_use]
    pub fn wanted_quotas(&self) -> Wanted {
        let nodes = self.nodes.iter().filter_map(|(id, node)| {
            let is_gone = node.liveness.health() == Health::Gone;
            (!is_gone).then(|| (id.clone(), node.liveness.is_connected()))
        });
        let limits = self.tenants.by_name().filter_map(|tenant| {
            let limits = tenant.terms.quotas;
            limits.is_shared_out().then_some((tenant.id, limits))
        });
        Wanted {
            limits: limits.collect(),
            exhausted: BTreeSet::new(),
            throttled: Arc::default(),
            nodes: nodes.collect(),
        }
    }
}

impl Limits {
    /// Whether relays have shares of any.
    fn is_shared_out(&self) -> bool {
        [self.of_all(), self.of_user()] != [[0; 3]; 2]
    }
}
