//! What quotas are computed from, as the fleet knows it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Limits, Subject, Wanted};
use crate::fleet::{Fleet, Health};

impl Fleet {
    /// Who is limited, and the relays that have shares; `exhausted` are those whose bytes of the day are used up, `throttled`
    /// those that a rule of abuse gives less.
    #[must_use]
    pub fn wanted_quotas(
        &self,
        exhausted: Arc<BTreeSet<Subject>>,
        throttled: Arc<BTreeSet<Subject>>,
    ) -> Wanted {
        let nodes = self.nodes.iter().filter_map(|(id, node)| {
            let is_gone = node.liveness.health() == Health::Gone;
            (!is_gone).then(|| (id.clone(), node.liveness.is_connected()))
        });
        Wanted {
            limits: self.limits_where(Limits::is_shared_out),
            exhausted,
            throttled,
            nodes: nodes.collect(),
        }
    }

    /// The tenants with a limit of bytes a day, their own or that of each user.
    #[must_use]
    pub fn daily_quotas(&self) -> BTreeMap<u32, Limits> {
        self.limits_where(|limits| limits.bytes_per_day > 0 || limits.user_bytes_per_day > 0)
    }

    fn limits_where(&self, holds: impl Fn(&Limits) -> bool) -> BTreeMap<u32, Limits> {
        let tenants = self.tenants.by_name();
        let limits = tenants.map(|tenant| (tenant.id, tenant.terms.quotas));
        limits.filter(|(_, limits)| holds(limits)).collect()
    }
}

impl Limits {
    /// Whether relays have shares of any.
    fn is_shared_out(&self) -> bool {
        [self.of_all(), self.of_user()] != [[0; 3]; 2]
    }
}
