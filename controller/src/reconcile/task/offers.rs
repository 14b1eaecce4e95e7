//! What every session is offered to run.

use turnfleet_proto::NodeId;

use super::{Offer, Reconciler};
use crate::error::FleetError;
use crate::fleet::{NodePolicy, Running};

impl Reconciler {
    /// What `node` shall run; `None` where there is no such node.
    pub(super) fn offer(&mut self, node: &NodeId) -> Option<Offer> {
        let fleet = self.mirror.fleet();
        if fleet.is_ahead(node) {
            return Some(Offer::Hold);
        }
        self.policies.of(fleet, node).map(Offer::Policy)
    }

    /// The same for the session that begins, and what `node` runs, where this controller knows it.
    pub(super) fn first_offer(
        &mut self,
        node: &NodeId,
        running: &Running,
    ) -> Result<(Offer, Option<NodePolicy>), FleetError> {
        let offer = self.offer(node);
        let offer = offer.ok_or_else(|| FleetError::UnknownNode(node.clone()))?;
        let runs = match &offer {
            Offer::Policy(policy) => self.policies.running(policy, running),
            Offer::Hold => None,
        };
        Ok((offer, runs))
    }

    /// Offers every session what its node shall run, where that has changed.
    pub(super) fn make_offers(&mut self) {
        let fleet = self.mirror.fleet();
        let wanted = (fleet.epoch(), fleet.generation());
        if wanted == self.offered {
            return;
        }
        if wanted.0 != self.offered.0 {
            // Nodes register again: the store that is followed from here on may lack their ports.
            self.sessions.clear();
        }
        self.offered = wanted;
        let nodes: Vec<_> = self.sessions.keys().cloned().collect();
        for node in nodes {
            let offer = self.offer(&node);
            let channels = self.sessions.get(&node);
            if let (Some(offer), Some(channels)) = (offer, channels) {
                // A session that opened since has had this one as its first.
                if channels.offers.borrow().generation() != offer.generation() {
                    channels.offers.send_replace(offer);
                }
            }
        }
    }
}
