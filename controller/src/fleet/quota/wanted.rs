//! What quotas are computed from, as the fleet knows it.

use std::collections::{BTreeMap, BTreeSet};

use super::Wanted;
use crate::fleet::{Fleet, Health};

impl Fleet {
    /// Who is limited, and the relays that have shares.
    #[must_use]
    pub fn wanted_quotas(&self) -> Wanted {
        let nodes = self.nodes.iter().filter_map(|(id, node)| {
            let is_gone = node.liveness.health() == Health::Gone;
            (!is_gone).then(|| (id.clone(), node.liveness.is_connected()))
        });
        Wanted {
            limits: BTreeMap::new(),
            exhausted: BTreeSet::new(),
            nodes: nodes.collect(),
        }
    }
}
