//! The ports of connected nodes, looked after by the controller that they report to.

use turnfleet_proto::NodeId;
use turnfleet_turn::Now;

use super::Reconciler;

impl Reconciler {
    /// Moves ports by what nodes report. Every controller does so for the nodes that report to it.
    pub(super) async fn look_after_ports(&mut self, now: Now) {
        let fleet = self.mirror.fleet();
        let due = |node: &&NodeId| !fleet.plan_ports(node, now.unix).is_empty();
        let due: Vec<_> = fleet.port_reporters().filter(due).cloned().collect();
        for node in due {
            let planned = self
                .mirror
                .carry_out(now, |fleet| Ok(fleet.plan_ports(&node, now.unix)))
                .await;
            self.urgent = true;
            if let Err(error) = planned {
                tracing::warn!(%node, %error, "the ports of a node could not be looked after");
                return;
            }
        }
    }
}
