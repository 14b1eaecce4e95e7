//! What changes of nodes, secrets, tenants, bans and the fleet's certificate from one view of the fleet to the next, told by the controller that leads.
//!
//! Every controller looks; those that do not lead remember what they saw for a while, so that one that begins to lead tells what
//! its predecessor may have died before telling.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use turnfleet_proto::NodeId;

use super::bus::{About, EventBus};
use super::kinds::What;
use crate::fleet::record::SecretState;
use crate::fleet::{FleetView, Health, NodeView, SecretView};
use crate::reconcile::Handle;
use crate::wall_clock::since_epoch;
use certificates::Certificates;
use rules::Rules;

mod certificates;
mod rules;

/// How long what was seen may be the first that anybody hears of it: longer than a leader that died is believed to live.
const MEMORY: Duration = Duration::from_secs(20);
/// The most of it.
const MAX_REMEMBERED: usize = 1000;

/// Tells what changes until the controller stops.
pub(crate) async fn announce(handle: Handle, bus: EventBus) {
    let mut views = handle.changes();
    let first = Arc::clone(&views.borrow_and_update());
    let (mut standing, mut rules) = (Standing::of(&first), Rules::of(&first));
    let mut certificates = Certificates::of(&first);
    let mut remembered = VecDeque::new();
    while views.changed().await.is_ok() {
        let view = Arc::clone(&views.borrow_and_update());
        let now = Instant::now();
        let mut changes = standing.follow(&view);
        changes.extend(rules.follow(&view, since_epoch().as_secs()));
        changes.extend(certificates.follow(&view));
        if view.leads {
            for (_, about, what) in remembered.drain(..) {
                if !bus.has_recent(&about, &what, MEMORY) {
                    bus.publish(about, what);
                }
            }
            for (about, what) in changes {
                bus.publish(about, what);
            }
        } else {
            remembered.extend(changes.into_iter().map(|(about, what)| (now, about, what)));
        }
        while let Some((seen, ..)) = remembered.front() {
            if now - *seen < MEMORY && remembered.len() <= MAX_REMEMBERED {
                break;
            }
            remembered.pop_front();
        }
    }
}

/// What was last seen of the fleet.
struct Standing {
    nodes: BTreeMap<NodeId, NodeStanding>,
    secrets: BTreeMap<u32, (SecretState, bool)>,
}

/// What was last seen of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct NodeStanding {
    incarnation: Option<[u8; 16]>,
    /// It was a member before this controller began, which has not heard of its process yet.
    from_before: bool,
    is_lost: bool,
    is_draining: bool,
    is_drained: bool,
    refusal: Option<Box<str>>,
}

impl NodeStanding {
    fn of(node: &NodeView) -> Self {
        Self {
            incarnation: node.incarnation,
            from_before: false,
            // One that has enrolled has no session yet.
            is_lost: is_lost(node.health) && node.incarnation.is_some(),
            is_draining: node.draining,
            is_drained: node.draining && node.load.allocations == 0,
            refusal: node.refusal.clone(),
        }
    }
}

fn is_lost(health: Health) -> bool {
    match health {
        Health::Unhealthy | Health::Gone => true,
        Health::Starting | Health::Healthy | Health::Unmanaged => false,
    }
}

impl Standing {
    fn of(view: &FleetView) -> Self {
        let nodes = view.nodes.iter();
        let secrets = view.secrets.iter();
        let before = |node: &NodeView| NodeStanding {
            from_before: node.incarnation.is_none(),
            ..NodeStanding::of(node)
        };
        Self {
            nodes: nodes.map(|node| (node.id.clone(), before(node))).collect(),
            secrets: secrets
                .map(|secret| (secret.id, (secret.state, secret.minted)))
                .collect(),
        }
    }

    /// What has happened since the last view.
    fn follow(&mut self, view: &FleetView) -> Vec<(About, What)> {
        let mut told = Vec::new();
        for node in &view.nodes {
            let known = self.nodes.get(&node.id);
            let changes = changes_of(node, known);
            told.extend(changes.into_iter().map(|what| (about(node), what)));
            self.nodes.insert(node.id.clone(), next(node, known));
        }
        let there: BTreeSet<_> = view.nodes.iter().map(|node| &node.id).collect();
        self.nodes.retain(|id, _| there.contains(id));
        for secret in view.secrets.iter() {
            let before = self.secrets.get(&secret.id).copied();
            told.extend(change_of(secret, before).map(|what| (of_secret(secret), what)));
        }
        self.secrets = Self::of(view).secrets;
        told
    }
}

fn about(node: &NodeView) -> About {
    About {
        tenant: node.tenant.as_deref().map(str::to_owned),
        ..About::node(&node.id)
    }
}

fn of_secret(secret: &SecretView) -> About {
    let scope = secret.scope.to_string();
    match scope.strip_prefix("tenant:") {
        Some(tenant) => About::tenant(tenant),
        None => About::default(),
    }
}

/// What is remembered of `node`. One that this controller has heard nothing of yet keeps what is known.
fn next(node: &NodeView, known: Option<&NodeStanding>) -> NodeStanding {
    let seen = NodeStanding::of(node);
    let before = known.cloned().unwrap_or_default();
    NodeStanding {
        incarnation: seen.incarnation.or(before.incarnation),
        from_before: before.from_before && seen.incarnation.is_none(),
        is_lost: seen.is_lost || (before.is_lost && node.health == Health::Starting),
        is_drained: seen.is_drained || (seen.is_draining && before.is_drained),
        ..seen
    }
}

fn changes_of(node: &NodeView, known: Option<&NodeStanding>) -> Vec<What> {
    let mut told = Vec::new();
    let before = known.cloned().unwrap_or_default();
    let (after, allocations) = (next(node, known), node.load.allocations);
    if let Some(incarnation) = after.incarnation
        && !before.from_before
        && before.incarnation != after.incarnation
    {
        let beginning = incarnation[..4].iter();
        told.push(What::NodeJoined {
            region: node.identity.region.to_string(),
            incarnation: beginning.map(|byte| format!("{byte:02x}")).collect(),
        });
    }
    let health = || node.health.name().to_owned();
    match (before.is_lost, after.is_lost) {
        (false, true) => told.push(What::NodeLost {
            health: health(),
            allocations,
        }),
        (true, false) => told.push(What::NodeBack { health: health() }),
        (false, false) | (true, true) => {}
    }
    match (before.is_draining, after.is_draining) {
        (false, true) => told.push(What::NodeDraining { allocations }),
        (true, false) => told.push(What::NodeUndrained {}),
        (false, false) | (true, true) => {}
    }
    if after.is_drained && !before.is_drained {
        told.push(What::NodeDrained {});
    }
    if let Some(reason) = &after.refusal
        && after.refusal != before.refusal
    {
        told.push(What::NodePolicyRefused {
            reason: reason.to_string(),
            running_generation: node.applied_generation,
        });
    }
    told
}

/// What happened to a secret that was so before, if it was there.
fn change_of(secret: &SecretView, before: Option<(SecretState, bool)>) -> Option<What> {
    let (id, scope) = (u64::from(secret.id), secret.scope.to_string());
    let was_minted = before.is_some_and(|(_, minted)| minted);
    let was = before.map(|(state, _)| state.name());
    if was == Some(secret.state.name()) && was_minted == secret.minted {
        return None;
    }
    Some(match secret.state {
        SecretState::Staged if was.is_none() => What::SecretRotated { secret: id, scope },
        SecretState::Active if secret.minted && !was_minted => {
            What::SecretPromoted { secret: id, scope }
        }
        SecretState::Pinned if was != Some(secret.state.name()) => {
            What::SecretPinned { secret: id, scope }
        }
        SecretState::Retiring { .. } if was != Some(secret.state.name()) => {
            What::SecretRetiring { secret: id, scope }
        }
        SecretState::Revoked { .. } => What::SecretRevoked { secret: id, scope },
        SecretState::Staged
        | SecretState::Active
        | SecretState::Pinned
        | SecretState::Retiring { .. } => return None,
    })
}
