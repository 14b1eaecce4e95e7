//! Which relays a relay sends clients to while it drains or is full.
//!
//! Every relay knows a few others at any time, for it may lose its controller before it needs them. They follow the health
//! of the fleet and are no part of the policy: a change raises no generation.

use std::collections::HashMap;
use std::sync::Arc;

use turnfleet_proto::{NodeId, fleet as wire};

use super::health::Health;
use super::node::{Listener, Transport};
use super::placement::hash;
use super::view::NodeView;

/// As many others one relay knows.
const COUNT: usize = 8;

/// The transports of a 300, with what the wire calls them.
const TRANSPORTS: [(Transport, wire::listener::Transport); 3] = [
    (Transport::Udp, wire::listener::Transport::Udp),
    (Transport::Tcp, wire::listener::Transport::Tcp),
    (Transport::Tls, wire::listener::Transport::Tls),
];

/// The relays that take clients from others. One that drains, or is full, is not among them, so no client is sent on from
/// relay to relay.
#[derive(Debug, Default)]
pub struct AlternatePool {
    /// In the order of ids.
    members: Vec<Arc<NodeView>>,
    everywhere: Ring,
    by_region: HashMap<String, Ring>,
}

/// Nodes in the order of their hashes: each relay is given those that follow its own place, so that the clients of one that
/// drains spread, and a node that comes or goes concerns few others.
#[derive(Debug, Default)]
struct Ring(Vec<(u64, Arc<NodeView>)>);

impl AlternatePool {
    /// Takes over who takes clients; says whether that is different from before.
    pub fn update(&mut self, nodes: &[Arc<NodeView>]) -> bool {
        let members: Vec<_> = nodes.iter().filter(takes_clients).cloned().collect();
        let same =
            members.len() == self.members.len() && members.iter().zip(&self.members).all(is_same);
        if same {
            return false;
        }
        self.everywhere = Ring::default();
        self.by_region.clear();
        for node in &members {
            let place = (hash(node.id.as_str().as_bytes()), Arc::clone(node));
            let region = self.by_region.entry(node.identity.region.clone());
            region.or_default().0.push(place.clone());
            self.everywhere.0.push(place);
        }
        let rings = self.by_region.values_mut();
        for ring in rings.chain([&mut self.everywhere]) {
            ring.0
                .sort_by(|(a, one), (b, other)| a.cmp(b).then_with(|| one.id.cmp(&other.id)));
        }
        self.members = members;
        true
    }

    /// What `node` is told, which is bound to `tenant` perhaps: relays of its own region, and of others where it is alone there.
    /// Those of a tenant take clients from relays of the same one.
    #[must_use]
    pub fn of(&self, node: &NodeId, region: &str, tenant: Option<&str>) -> wire::Alternates {
        let near = self.by_region.get(region);
        let mut alternates = near.map_or_else(Vec::new, |ring| ring.after(node, tenant));
        if alternates.is_empty() {
            alternates = self.everywhere.after(node, tenant);
        }
        wire::Alternates { alternates }
    }
}

impl Ring {
    fn after(&self, node: &NodeId, tenant: Option<&str>) -> Vec<wire::Alternate> {
        let own = hash(node.as_str().as_bytes());
        let place = self
            .0
            .partition_point(|(hash, other)| (*hash, &other.id) <= (own, node));
        let (before, behind) = self.0.split_at(place);
        let others = behind.iter().chain(before).map(|(_, other)| other);
        let takes = |other: &NodeView| other.tenant.is_none() || other.tenant.as_deref() == tenant;
        let others = others.filter(|other| other.id != *node && takes(other));
        others.take(COUNT).map(|other| alternate(other)).collect()
    }
}

/// A node that the controller does not hear may have begun to drain.
fn takes_clients(node: &&Arc<NodeView>) -> bool {
    let takes = node.listed && node.health == Health::Healthy && !node.draining;
    takes && !node.saturation.full
}

/// Whether relays would be told the same of both.
fn is_same((one, other): (&Arc<NodeView>, &Arc<NodeView>)) -> bool {
    one.id == other.id
        && one.identity == other.identity
        && one.tenant == other.tenant
        && one.broken == other.broken
        && one.certificate.is_good() == other.certificate.is_good()
}

fn alternate(node: &NodeView) -> wire::Alternate {
    let mut listeners = Vec::new();
    for (ours, theirs) in TRANSPORTS {
        for v4 in [true, false] {
            let of_family = |it: &&Listener| it.address.is_ipv4() == v4;
            let first = node.listeners(ours).find(of_family);
            listeners.extend(first.map(|listener| wire::Listener {
                transport: theirs.into(),
                address: listener.address.to_string(),
                local_address: String::new(),
            }));
        }
    }
    wire::Alternate {
        domain: node.identity.hostname.clone().unwrap_or_default(),
        listeners,
    }
}
