//! What sessions, followers, the API and the keeper share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use turnfleet_proto::{NodeId, fleet as wire};

use super::aggregate::{Aggregate, Stamp};
use super::history::History;
use super::top::{self, Kind, Talker};
use crate::fleet::FleetView;
use crate::store::StoreError;

/// The most bytes of one word to a follower, about.
const MAX_TOLD_BYTES: usize = 4 << 20;

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct UsageDesk {
    shared: Arc<Shared>,
    history: History,
}

#[derive(Debug)]
struct Shared {
    started: Instant,
    aggregate: Mutex<Aggregate>,
}

impl UsageDesk {
    /// A desk that knows nothing, and reads `history`.
    #[must_use]
    pub fn new(history: History) -> Self {
        Self {
            shared: Arc::new(Shared {
                started: Instant::now(),
                aggregate: Mutex::default(),
            }),
            history,
        }
    }

    /// Takes what a node has told this controller.
    pub fn report(&self, node: &NodeId, usage: wire::Usage) {
        let at = self.millis();
        self.aggregate().fold(node, usage, at, true);
    }

    /// Takes what another controller has told of nodes.
    pub fn told(&self, usages: Vec<wire::NodeUsage>) {
        let at = self.millis();
        let mut aggregate = self.aggregate();
        for told in usages {
            if let (Ok(node), Some(usage)) = (told.node_id.parse(), told.usage) {
                aggregate.fold(&node, usage, at, false);
            }
        }
    }

    /// What a follower who knows everything until `since` has to be told; the stamp beside is what it knows then.
    #[must_use]
    pub fn told_since(&self, since: Stamp) -> (Vec<wire::NodeUsage>, Stamp) {
        self.aggregate().told_since(since, MAX_TOLD_BYTES)
    }

    /// Looks at the aggregate, with nodes where `view` has them.
    pub fn look<T>(&self, view: &FleetView, at: impl FnOnce(&Aggregate) -> T) -> T {
        let mut aggregate = self.aggregate();
        for node in &view.nodes {
            let place = &node.identity;
            aggregate.place(&node.id, &place.region, &place.zone);
        }
        at(&aggregate)
    }

    /// Looks at the aggregate, as it is at the moment that stands beside it.
    pub(crate) fn look_now<T>(&self, at: impl FnOnce(&Aggregate, u64) -> T) -> T {
        let now = self.millis();
        at(&self.aggregate(), now)
    }

    /// Those with the most of `kind`, by the last minute or hour.
    #[must_use]
    pub fn top(&self, kind: Kind, by: top::Span, limit: usize) -> Vec<Talker> {
        let now = self.millis();
        top::merge(&self.aggregate(), kind, by, now, limit)
    }

    /// What is kept of the past.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Takes what the store has.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) async fn load(&self) -> Result<super::kept::Written, StoreError> {
        let written = self.history.written().await?;
        let mut aggregate = self.aggregate();
        written.fold_into(&mut aggregate);
        Ok(written)
    }

    /// Reports that were not taken.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.aggregate().refused()
    }

    /// By the clock that reports are dated with.
    fn millis(&self) -> u64 {
        u64::try_from(self.shared.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn aggregate(&self) -> MutexGuard<'_, Aggregate> {
        // No operation leaves it half changed.
        let aggregate = self.shared.aggregate.lock();
        aggregate.unwrap_or_else(PoisonError::into_inner)
    }
}
