//! How a changed policy comes to the relays: to one of them first, and to all when that one runs it. The first refusal stops
//! it, and everybody goes on with what they ran.
//!
//! Realm, peer policy, limits and tenant rules go this way. Secrets, users, nonce keys and port grants never wait. Each step is
//! a transaction that compares the rollout as it was, so of several controllers one takes it: the first that sees a canary fit
//! to be chosen, or hears its word.

use std::time::Duration;

use turnfleet_proto::NodeId;
use turnfleet_turn::Now;

use super::record::{Policy, Record, Rollout, Stage};
use super::registry::NodeState;
use super::{Fleet, Plan};
use crate::error::FleetError;

/// For a canary's word.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a rollout waits for a relay of the lists with a session here, while lists name any relay at all.
const CHOOSY: Duration = Duration::from_secs(10);
/// Canaries that may go away without a word.
const MOST_LOST: u32 = 1;

impl Fleet {
    /// How far the policy has come; `None` where it was never changed.
    #[must_use]
    pub fn rollout(&self) -> Option<&Rollout> {
        self.rollout.as_ref()
    }

    /// Whether `node` is sent the policy from before the rollout.
    pub(super) fn runs_base(&self, node: &NodeId) -> bool {
        match self.rollout.as_ref().map(|rollout| &rollout.stage) {
            None | Some(Stage::All) => false,
            Some(Stage::Canary { node: canary }) => canary != node,
            Some(Stage::Pending | Stage::Stopped { .. }) => true,
        }
    }

    /// What relays enforce but for a canary.
    pub(super) fn base_policy(&self) -> Option<&Policy> {
        match &self.rollout {
            Some(rollout) if rollout.stage != Stage::All => Some(&rollout.base),
            Some(_) | None => self.policy.as_ref(),
        }
    }

    /// The rollout that `wanted` begins; `None` where relays shall have it at once, or have it.
    pub(super) fn begin_rollout(&self, wanted: &Policy) -> Option<Rollout> {
        if self.policy.as_ref() == Some(wanted) {
            return None;
        }
        let base = self.base_policy()?.clone();
        let stage = if base == *wanted || self.nodes.is_empty() {
            Stage::All
        } else {
            Stage::Pending
        };
        Some(Rollout {
            base,
            stage,
            generation: self.generation + 1,
            lost: 0,
        })
    }

    /// The next step of the rollout; empty where there is none to take.
    #[must_use]
    pub fn plan_rollout(&self, now: Now) -> Plan {
        let Some(rollout) = &self.rollout else {
            return Plan::default();
        };
        let waited = now.instant.since(self.rollout_since);
        let step = match &rollout.stage {
            Stage::All | Stage::Stopped { .. } => None,
            Stage::Pending => self.canary(now, waited >= CHOOSY).map(|node| {
                let node = node.clone();
                (Stage::Canary { node }, rollout.lost)
            }),
            Stage::Canary { node } => self.word_of(node, rollout, waited >= PATIENCE),
        };
        step.map_or_else(Plan::default, |(stage, lost)| {
            self.step(rollout, stage, lost)
        })
    }

    /// Gives everybody the policy, whatever the canary says.
    ///
    /// # Errors
    /// When no rollout is under way or stopped.
    pub fn plan_force_rollout(&self) -> Result<Plan, FleetError> {
        match &self.rollout {
            Some(rollout) if rollout.stage != Stage::All => {
                Ok(self.step(rollout, Stage::All, rollout.lost))
            }
            Some(_) | None => Err(FleetError::NoRollout),
        }
    }

    fn step(&self, rollout: &Rollout, stage: Stage, lost: u32) -> Plan {
        let rollout = Rollout {
            base: rollout.base.clone(),
            stage,
            generation: self.generation + 1,
            lost,
        };
        self.plan(vec![Record::Rollout(rollout)], Vec::new())
    }

    /// Who tries the policy first, of those with a session here: a relay that is in lists; any at all where `any` says so, and
    /// where no relay of the fleet is in lists, as none will be perhaps before it has the policy.
    fn canary(&self, now: Now, any: bool) -> Option<&NodeId> {
        let minted = self.minted(now);
        let wanted = |node: &NodeState| self.is_wanted(node, &minted, now.instant);
        let any = any || !self.nodes.values().any(wanted);
        let connected = || {
            let nodes = self.nodes.iter();
            nodes.filter(|(_, node)| node.liveness.is_connected())
        };
        let follows = |node: &NodeState| node.refusal.is_none();
        // One that refused what it was sent before may well be waiting for this policy.
        connected()
            .find(|(_, node)| follows(node) && wanted(node))
            .or_else(|| connected().filter(|_| any).find(|(_, node)| follows(node)))
            .or_else(|| connected().find(|_| any))
            .map(|(id, _)| id)
    }

    /// What the canary's word leads to, with the canaries that were lost.
    fn word_of(&self, id: &NodeId, rollout: &Rollout, overdue: bool) -> Option<(Stage, u32)> {
        let node = self.nodes.get(id).filter(|it| it.liveness.is_connected());
        let refusal = node.and_then(|node| node.refusal_since(rollout.generation));
        let stopped = |reason: &str| Stage::Stopped {
            node: id.clone(),
            reason: reason.into(),
        };
        if let Some(refusal) = refusal {
            return Some((stopped(refusal), rollout.lost));
        }
        if node.is_some_and(|node| node.applied_generation >= rollout.generation) {
            return Some((Stage::All, rollout.lost));
        }
        if !overdue {
            return None;
        }
        let lost = rollout.lost + 1;
        Some(if lost > MOST_LOST {
            (
                stopped("it went away without a word, as one did before it"),
                lost,
            )
        } else {
            (Stage::Pending, lost)
        })
    }
}
