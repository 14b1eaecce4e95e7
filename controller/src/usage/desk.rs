//! What sessions, followers, the API and the keeper share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use turnfleet_proto::{NodeId, fleet as wire};

use super::aggregate::{Aggregate, Stamp};
use super::day::{self, DayBook, KeptDay};
use super::history::History;
use super::top::{self, Kind, Talker};
use crate::fleet::FleetView;
use crate::fleet::quota::Subject;
use crate::fleet::tenants::Quotas;
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
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    aggregate: Aggregate,
    day: DayBook,
}

impl Books {
    /// Takes a report, which is the first of its node since this controller began, or not.
    fn take(
        &mut self,
        node: &NodeId,
        usage: wire::Usage,
        at_millis: u64,
        (is_own, is_first): (bool, bool),
    ) {
        let carried_by = |books: &Self, tenant| {
            let carried = books.aggregate.carried();
            carried.get(&tenant).copied().unwrap_or(0)
        };
        let mut before = BTreeMap::new();
        if is_first && self.day.passes_over() {
            let tenants = usage.tenants.iter().map(|told| told.tenant);
            before.extend(tenants.map(|tenant| (tenant, carried_by(self, tenant))));
        }
        self.day.hear(node, &usage, is_first);
        self.aggregate.fold(node, usage, at_millis, is_own);
        for (tenant, before) in before {
            let rise = carried_by(self, tenant).saturating_sub(before);
            self.day.pass_over(tenant, rise);
        }
    }
}

impl UsageDesk {
    /// A desk that knows nothing, and reads `history`.
    #[must_use]
    pub fn new(history: History) -> Self {
        Self {
            shared: Arc::new(Shared {
                started: Instant::now(),
                books: Mutex::default(),
            }),
            history,
        }
    }

    /// Takes what a node has told this controller.
    pub fn report(&self, node: &NodeId, usage: wire::Usage) {
        let at = self.millis();
        let mut books = self.books();
        let is_first = books.day.is_first(node, usage.number);
        books.take(node, usage, at, (true, is_first));
    }

    /// Takes what another controller has told of nodes.
    pub fn told(&self, usages: Vec<wire::NodeUsage>) {
        let at = self.millis();
        let mut books = self.books();
        let mut known = BTreeMap::new();
        for told in usages {
            if let (Ok(node), Some(usage)) = (told.node_id.parse::<NodeId>(), told.usage) {
                // A word tells each epoch of a node by itself.
                let is_first = books.day.is_first(&node, 0);
                let is_first = *known.entry(node.clone()).or_insert(is_first);
                books.take(&node, usage, at, (false, is_first));
            }
        }
    }

    /// What a follower who knows everything until `since` has to be told; the stamp beside is what it knows then.
    #[must_use]
    pub fn told_since(&self, since: Stamp) -> (Vec<wire::NodeUsage>, Stamp) {
        self.books().aggregate.told_since(since, MAX_TOLD_BYTES)
    }

    /// Looks at the aggregate, with nodes where `view` has them.
    pub fn look<T>(&self, view: &FleetView, at: impl FnOnce(&Aggregate) -> T) -> T {
        let mut books = self.books();
        for node in &view.nodes {
            let place = &node.identity;
            books.aggregate.place(&node.id, &place.region, &place.zone);
        }
        at(&books.aggregate)
    }

    /// Looks at the aggregate, as it is at the moment that stands beside it.
    pub(crate) fn look_now<T>(&self, at: impl FnOnce(&Aggregate, u64) -> T) -> T {
        let now = self.millis();
        at(&self.books().aggregate, now)
    }

    /// Those with the most of `kind`, by the last minute or hour.
    #[must_use]
    pub fn top(&self, kind: Kind, by: top::Span, limit: usize) -> Vec<Talker> {
        let now = self.millis();
        top::merge(&self.books().aggregate, kind, by, now, limit)
    }

    /// What is kept of the past.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Whose bytes of the day, in which the second `unix` is, are used up. Nobody's before [`Self::load`].
    pub(crate) fn exhausted(&self, unix: u64, limits: &BTreeMap<u32, Quotas>) -> BTreeSet<Subject> {
        let mut books = self.books();
        let Books { aggregate, day } = &mut *books;
        day.turn_to(unix / day::SECONDS, aggregate.carried());
        day.look(limits, aggregate.carried())
    }

    /// The bytes of the day that a tenant has carried.
    #[must_use]
    pub fn bytes_of_day(&self, tenant: u32) -> u64 {
        let books = self.books();
        books.day.carried_by(tenant, books.aggregate.carried())
    }

    /// What of the day is to be kept, once that is known.
    pub(super) fn day(&self) -> Option<KeptDay> {
        let books = self.books();
        books.day.kept(books.aggregate.carried())
    }

    /// Takes what the store has, at the second `unix`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) async fn load(&self, unix: u64) -> Result<super::kept::Written, StoreError> {
        let written = self.history.written().await?;
        let kept = self.history.day().await?;
        let mut books = self.books();
        let Books { aggregate, day } = &mut *books;
        written.fold_into(aggregate);
        day.begin(unix / day::SECONDS, kept.as_ref(), aggregate.carried());
        Ok(written)
    }

    /// How often bytes of a user were not counted towards its limit of the day, because there were too many users.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.books().day.missed()
    }

    /// Reports that were not taken.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.books().aggregate.refused()
    }

    /// By the clock that reports are dated with.
    fn millis(&self) -> u64 {
        u64::try_from(self.shared.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // No operation leaves them half changed.
        let books = self.shared.books.lock();
        books.unwrap_or_else(PoisonError::into_inner)
    }
}
