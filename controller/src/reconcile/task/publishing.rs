//! What everybody else learns of the fleet: the view, the orders that sessions carry out, and the log's lines on what changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use turnfleet_proto::NodeId;
use turnfleet_turn::Now;

use super::{Channels, Reconciler};
use crate::fleet::record::Stage;
use crate::fleet::{Fleet, FleetView};
use crate::reconcile::mirror::Mirror;

impl Reconciler {
    /// Publishes the view, and tells sessions what concerns them.
    pub(super) fn publish(&mut self) {
        (self.stale, self.urgent) = (false, false);
        let now = self.clock.now();
        let fleet = self.mirror.fleet();
        tell_desires(fleet, &mut self.sessions, now.unix);
        self.make_offers();
        let mut view = view_of(&self.mirror, now);
        view.quotas = Arc::clone(&self.quota_states);
        let view = Arc::new(view);
        if self.alternates.update(&view.nodes) {
            self.tell_alternates(&view);
        }
        self.tell_certificates(&view);
        let before = self.view.send_replace(Arc::clone(&view));
        log_changes(&before, &view);
        log_panics(&before, &view);
    }

    /// Tells sessions what relays shall show, where that has changed.
    fn tell_certificates(&self, view: &FleetView) {
        self.certificates.send_if_modified(|known| {
            if view.issuance.is_told_as(known) {
                return false;
            }
            *known = Arc::new(view.issuance.told());
            true
        });
    }

    fn tell_alternates(&self, view: &FleetView) {
        for (node, channels) in &self.sessions {
            let seen = view.node(node);
            let region = seen.map_or("", |node| &node.identity.region);
            let tenant = seen.and_then(|node| node.tenant.as_deref());
            let alternates = self.alternates.of(node, region, tenant);
            channels.alternates.send_if_modified(|known| {
                let changed = *known != alternates;
                *known = alternates;
                changed
            });
        }
    }
}

/// What is published.
pub(super) fn view_of(mirror: &Mirror, now: Now) -> FleetView {
    let mut view = mirror.fleet().view(now);
    view.store_stale = mirror.is_stale();
    view.leads = mirror.leads();
    view
}

/// Tells sessions what the operator wants of their nodes, where that has changed: here, or by another controller.
fn tell_desires(fleet: &Fleet, sessions: &mut BTreeMap<NodeId, Channels>, unix: u64) {
    for (node, channels) in sessions {
        let desired = fleet.desired(node);
        if channels.desired != desired {
            channels.desired = desired;
            if desired.kill == Some(channels.incarnation) {
                channels.orderer.kill();
            }
            channels.drain.send_replace(fleet.drain_order(node, unix));
            tracing::info!(%node, draining = desired.draining, "the operator's word on a node");
        }
    }
}

fn log_changes(before: &FleetView, after: &FleetView) {
    if before.rollout != after.rollout
        && let Some(rollout) = &after.rollout
    {
        match &rollout.stage {
            Stage::Stopped { node, reason } => {
                tracing::error!(%node, reason, "the rollout of the policy has stopped");
            }
            Stage::Canary { node } => tracing::info!(%node, "a canary tries the policy"),
            Stage::Pending | Stage::All => {
                tracing::info!(stage = rollout.stage.name(), "rollout of the policy");
            }
        }
    }
    if let Some(restored) = &after.restored
        && before.restored.is_none()
    {
        tracing::error!(
            store = restored.store,
            "the store went back in time ({} {}): nothing is pushed until `turnfleet fleet confirm-restore`",
            restored.witness(),
            restored.runs,
        );
    }
    for secret in &*after.secrets {
        let old = before.secrets.iter().find(|old| old.id == secret.id);
        if old.is_none_or(|old| old.state != secret.state) {
            let (id, scope, state) = (secret.id, &secret.scope, secret.state.name());
            tracing::info!(id, %scope, state, "a shared secret");
        }
    }
    for (node, old) in after.beside(before) {
        if old.is_none_or(|old| (old.health, old.listed) != (node.health, node.listed)) {
            tracing::info!(
                node = %node.id,
                health = node.health.name(),
                listed = node.listed,
                probe = node.probe.map(|probe| probe.map_or_else(|failure| failure.name(), |()| "good")),
                "node health",
            );
        }
    }
}

fn log_panics(before: &FleetView, after: &FleetView) {
    let only_in = |one: &FleetView, other: &FleetView| -> Vec<String> {
        let regions = one.panics.iter().filter(|it| !other.panics.contains(it));
        regions.cloned().collect()
    };
    for region in only_in(after, before) {
        tracing::error!(
            region,
            "half of a region or more fell silent within 30 s: this controller may be cut off, and lists keep the silent \
             relays behind the others for up to a minute"
        );
    }
    for region in only_in(before, after) {
        tracing::info!(region, "lists name proven relays alone again");
    }
}
