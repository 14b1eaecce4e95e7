//! A store that went back in time: a relay runs a later generation of the same epoch than the store knows, or of the epoch
//! that the store says it was restored from.
//!
//! Such a store has forgotten port grants and retired secrets, so nothing is pushed to that relay and nothing is written that
//! relays would see, until an operator confirms that it is to be followed: it then becomes another epoch.

use turnfleet_proto::NodeId;
use turnfleet_turn::Instant;

use super::record::{Epoch, Lineage, Record};
use super::registry::NodeState;
use super::{Fleet, LAG, Plan, Running};
use crate::error::FleetError;

/// What shows that the store is an old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// A node that runs more than the store knows.
    pub node: NodeId,
    /// The generation that it runs.
    pub runs: u64,
    /// The store's generation when that was noticed, or that of the backup.
    pub store: u64,
    /// Whether the store says itself that it was restored.
    pub by_its_word: bool,
}

impl Fleet {
    /// Whether `node` runs a later generation than the store knows, of the same epoch.
    #[must_use]
    pub fn is_ahead(&self, node: &NodeId) -> bool {
        let node = self.nodes.get(node);
        node.is_some_and(|node| self.behind(node).is_some())
    }

    /// Why nothing that relays see may be written, where it may not. A node may also be ahead for the moment that the store's
    /// watch takes.
    ///
    /// # Errors
    /// [`FleetError::Restored`].
    pub fn require_current(&self) -> Result<(), FleetError> {
        match self.restored.clone().or_else(|| self.ahead()) {
            Some(restored) => Err(FleetError::Restored(restored)),
            None => Ok(()),
        }
    }

    /// What shows that the store is an old one.
    #[must_use]
    pub fn restored(&self) -> Option<&Restored> {
        self.restored.as_ref()
    }

    /// Follows the store as it is: under another epoch, and a generation above every one that a relay has reported, which also
    /// relays that know of no epochs take. Its grants are made anew where connected nodes report that they hold other ports: these
    /// changed hands after the backup, and are in use. Planned again in the same epoch it is what one transaction did not take.
    ///
    /// # Errors
    /// When nothing shows that the store is an old one.
    pub fn plan_confirm_restore(&self, epoch: Epoch, unix: u64) -> Result<Plan, FleetError> {
        if self.lineage.epoch == epoch {
            let (puts, deletes) = self.reported_ports(self.generation, unix);
            return Ok(self.plan(puts, deletes));
        }
        self.restored.as_ref().ok_or(FleetError::NotRestored)?;
        let applied = self.nodes.values().map(|node| node.applied_generation);
        let highest = applied.chain([self.generation]).max().unwrap_or(0);
        let (mut puts, deletes) = self.reported_ports(highest, unix);
        puts.push(Record::Epoch(epoch.into()));
        let mut plan = self.plan(puts, deletes);
        for put in &mut plan.puts {
            if let Record::Generation(generation) = put {
                *generation = highest + 1;
            }
        }
        Ok(plan)
    }

    /// The generation of the own epoch in what a node says that it runs, or of one that the store was restored from, and then
    /// that of the backup if it is lower. A node that knows of no epochs means the own.
    pub(super) fn reported(&self, running: &Running) -> (u64, Option<u64>) {
        let own = self.lineage.epoch;
        let Some(other) = running.epoch.filter(|epoch| *epoch != own) else {
            return (running.generation, None);
        };
        let mut former = self.lineage.former.iter();
        match former.find(|(epoch, _)| *epoch == other) {
            Some((_, backup)) if running.generation > *backup => {
                (running.generation, Some(*backup))
            }
            Some(_) | None => (0, None),
        }
    }

    /// Believes it of a store that lags behind a node for longer than a watch can. Says whether that changed anything.
    pub(super) fn look_for_restore(&mut self, now: Instant) -> bool {
        if let Some(restored) = &self.restored {
            // It was the controller that had fallen behind the store.
            let caught_up = !restored.by_its_word && restored.runs <= self.generation;
            if caught_up {
                self.restored = None;
            }
            return caught_up;
        }
        self.restored = self
            .ahead()
            .filter(|found| now.since(self.nodes[&found.node].opened_at) >= LAG);
        self.restored.is_some()
    }

    /// The store is, or has become, this one.
    pub(super) fn enter(&mut self, lineage: Lineage) {
        if self.lineage.epoch != lineage.epoch {
            self.restored = None;
            for node in self.nodes.values_mut() {
                (node.came_with, node.shown_generation) = (0, 0);
                node.knows_more_than = None;
            }
        }
        self.lineage = lineage;
    }

    /// The generation beyond which `node` knows more than the store.
    fn behind(&self, node: &NodeState) -> Option<u64> {
        let ahead = (node.came_with > self.generation).then_some(self.generation);
        node.knows_more_than.or(ahead)
    }

    fn ahead(&self) -> Option<Restored> {
        let mut connected = (self.nodes.iter()).filter(|(_, node)| node.liveness.is_connected());
        connected.find_map(|(id, node)| {
            Some(Restored {
                store: self.behind(node)?,
                node: id.clone(),
                runs: node.came_with,
                by_its_word: node.knows_more_than.is_some(),
            })
        })
    }
}
