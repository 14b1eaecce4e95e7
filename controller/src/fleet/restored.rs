//! A store that went back in time: a relay runs a later generation of the same epoch than the store knows.
//!
//! Such a store has forgotten port grants and retired secrets, so nothing is pushed to that relay and nothing is written that
//! relays would see, until an operator confirms that it is to be followed: it then becomes another epoch.

use turnfleet_proto::NodeId;
use turnfleet_turn::Instant;

use super::record::{Epoch, Record};
use super::{Fleet, LAG, Plan, Running};
use crate::error::FleetError;

/// What shows that the store is an old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// A node that runs more than the store knows.
    pub node: NodeId,
    /// The generation that it runs.
    pub runs: u64,
    /// The store's generation when that was noticed.
    pub store: u64,
}

impl Fleet {
    /// Whether `node` runs a later generation than the store knows, of the same epoch.
    #[must_use]
    pub fn is_ahead(&self, node: &NodeId) -> bool {
        let node = self.nodes.get(node);
        node.is_some_and(|node| node.came_with > self.generation)
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
    /// relays that know of no epochs take.
    ///
    /// # Errors
    /// When nothing shows that the store is an old one.
    pub fn plan_confirm_restore(&self, epoch: Epoch) -> Result<Plan, FleetError> {
        self.restored.as_ref().ok_or(FleetError::NotRestored)?;
        let applied = self.nodes.values().map(|node| node.applied_generation);
        let highest = applied.chain([self.generation]).max().unwrap_or(0);
        let mut plan = self.plan(vec![Record::Epoch(epoch)], Vec::new());
        for put in &mut plan.puts {
            if let Record::Generation(generation) = put {
                *generation = highest + 1;
            }
        }
        Ok(plan)
    }

    /// The generation of the own epoch in what a node says that it runs. One that knows of no epochs means the own.
    pub(super) fn reported(&self, running: &Running) -> u64 {
        match running.epoch {
            Some(epoch) if epoch != self.epoch => 0,
            Some(_) | None => running.generation,
        }
    }

    /// Believes it of a store that lags behind a node for longer than a watch can. Says whether that changed anything.
    pub(super) fn look_for_restore(&mut self, now: Instant) -> bool {
        if let Some(restored) = &self.restored {
            // It was the controller that had fallen behind the store.
            let caught_up = restored.runs <= self.generation;
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
    pub(super) fn enter(&mut self, epoch: Epoch) {
        if self.epoch != epoch {
            self.restored = None;
            for node in self.nodes.values_mut() {
                (node.came_with, node.shown_generation) = (0, 0);
            }
        }
        self.epoch = epoch;
    }

    fn ahead(&self) -> Option<Restored> {
        let ahead = self
            .nodes
            .iter()
            .find(|(_, node)| node.came_with > self.generation && node.liveness.is_connected());
        ahead.map(|(id, node)| Restored {
            node: id.clone(),
            runs: node.came_with,
            store: self.generation,
        })
    }
}
