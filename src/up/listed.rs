//! The relays as the controller knows them: forgets those of an earlier start, and waits until lists name every relay of this
//! one, registered, granted its ports, and probed, and until what the flags change of an earlier start is at the relays.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use turnfleet_controller::Controller;
use turnfleet_controller::config::PortPlan;
use turnfleet_controller::fleet::record::Stage;
use turnfleet_controller::fleet::{FleetView, NodeView};

use super::plan::{Plan, Relay};

/// What is missing is said when the fleet is not ready after this time, and again after each such time.
const PATIENCE: Duration = Duration::from_secs(10);

impl Plan {
    /// Forgets the relays of an earlier start where they were others, or shared the ports out otherwise: they ended with
    /// that process, and their ports would be missing here.
    pub(super) async fn forget_others(
        &self,
        controller: &Controller,
        ports: PortPlan,
    ) -> anyhow::Result<()> {
        let view = controller.view();
        let as_planned = |node: &Arc<NodeView>| {
            let planned = self
                .relays
                .iter()
                .any(|relay| relay.name == node.id.as_str());
            planned && node.grants.iter().all(|grant| ports.fits(grant.range))
        };
        if view.nodes.iter().all(as_planned) {
            return Ok(());
        }
        for node in &view.nodes {
            let forgotten = controller.handle().forget(&node.id).await;
            forgotten.context("cannot forget the relays of an earlier start")?;
        }
        Ok(())
    }
}

/// Resolves when every relay of the plan is in the lists, and no changed policy is on its way to them.
pub(super) async fn all(plan: &Plan, controller: &Controller) {
    let mut changes = controller.watch();
    loop {
        let all = changes.wait_for(|view| missing(plan, view).is_empty());
        // An error means that the controller is stopping, and this with it.
        match tokio::time::timeout(PATIENCE, all).await {
            Ok(_) => return,
            Err(_) => {
                let missing = missing(plan, &controller.view()).join(", ");
                tracing::warn!(missing, "the fleet is not ready yet");
            }
        }
    }
}

/// The relays that lists do not name, each with the reason as far as it is known, and the policy while relays try it.
fn missing(plan: &Plan, view: &FleetView) -> Vec<String> {
    let relays = plan.relays.iter();
    let missing =
        relays.filter_map(|relay| Some(format!("{}: {}", relay.name, reason(relay, view)?)));
    missing.chain(unsettled(view)).collect()
}

/// What is said of a policy that has changed since an earlier start and is not at every relay yet. One that a relay has refused
/// is not waited for: they go on with what they had.
fn unsettled(view: &FleetView) -> Option<String> {
    let rollout = view.rollout.as_ref()?;
    matches!(rollout.stage, Stage::Pending | Stage::Canary { .. })
        .then(|| "policy: a changed one is on its way to the relays".to_owned())
}

/// Why lists do not name the relay; nothing where they do.
fn reason(relay: &Relay, view: &FleetView) -> Option<String> {
    let Some(node) = view
        .nodes
        .iter()
        .find(|node| node.id.as_str() == relay.name)
    else {
        return Some("has not registered".to_owned());
    };
    if node.listed {
        return None;
    }
    let reason = view.reason(node).map(|reason| reason.to_string());
    Some(reason.unwrap_or_else(|| "is not listed".to_owned()))
}
