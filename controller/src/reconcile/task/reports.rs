//! What nodes say of their policy, and what they are told of the time.

use turnfleet_proto::{NodeId, fleet as wire};
use turnfleet_turn::Now;

use super::{MAX_REFUSAL, Reconciler};
use crate::error::FleetError;
use crate::fleet::Event;
use crate::reconcile::SessionKey;

impl Reconciler {
    /// Tells a node with a clock that is behind what time it is; and once more when it no longer is, for whichever clock was
    /// set right.
    pub(super) fn tell_time(&mut self, node: &NodeId, now: Now) {
        let Some(is_behind) = self.mirror.fleet().is_behind(node) else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(node)
            && (std::mem::replace(&mut session.is_behind, is_behind) || is_behind)
        {
            session.orderer.time(now.unix);
        }
    }

    pub(super) fn policy_status(
        &mut self,
        session: &SessionKey,
        status: wire::PolicyStatus,
    ) -> Result<(), FleetError> {
        let session = self.current(session)?;
        let refusal = (!status.applied).then(|| -> Box<str> {
            status
                .error
                .chars()
                .take(MAX_REFUSAL)
                .collect::<String>()
                .into()
        });
        let running = if status.applied {
            status.generation
        } else {
            status.running_generation
        };
        // Other controllers wait for the same word.
        (self.urgent, self.sessions_changed) = (true, true);
        self.mirror.apply(
            self.clock.now(),
            Event::PolicyStatus {
                session,
                generation: status.generation,
                running,
                refusal,
            },
        );
        Ok(())
    }
}
