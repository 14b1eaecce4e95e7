//! The past: what came to the fleet's sums within each minute of a day and each hour of a month.
//!
//! A span tells what was counted after the one before it was written, so that all spans together never tell anything twice. One that
//! begins earlier than its own minute or hour stands for a time in which nobody could write.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::counters::Totals;
use super::day::{self, KeptDay};
use super::kept::{self, Written};
use crate::store::{Store, StoreError};

/// Tenants and regions of one span that are told by name.
const MAX_TENANTS: usize = 100;
const MAX_REGIONS: usize = 64;

/// The tenant, and the region, of all beyond the bounds.
pub const OTHER_TENANTS: u32 = u32::MAX;
/// See [`OTHER_TENANTS`]. No region has such a name.
pub const OTHER_REGIONS: &str = "*";

/// How long spans are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Kept for a day.
    Minute,
    /// Kept for 31 days.
    Hour,
}

impl Resolution {
    /// Seconds of one span.
    #[must_use]
    pub fn seconds(self) -> u64 {
        match self {
            Self::Minute => 60,
            Self::Hour => 3600,
        }
    }

    /// How many spans are kept.
    #[must_use]
    pub fn kept(self) -> u64 {
        match self {
            Self::Minute => 24 * 60,
            Self::Hour => 31 * 24,
        }
    }
}

/// What was counted within one span.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Unix seconds at which it begins.
    pub from: u64,
    /// And at which it ends.
    pub to: u64,
    /// By tenant.
    pub tenants: BTreeMap<u32, Totals>,
    /// By region.
    pub regions: BTreeMap<String, Totals>,
}

impl Span {
    /// Adds what was counted of a tenant in a region.
    pub fn add(&mut self, tenant: u32, region: &str, totals: Totals) {
        let is_full = self.tenants.len() >= MAX_TENANTS && !self.tenants.contains_key(&tenant);
        let tenant = if is_full { OTHER_TENANTS } else { tenant };
        self.tenants.entry(tenant).or_default().add(totals);
        let is_full = self.regions.len() >= MAX_REGIONS && !self.regions.contains_key(region);
        let region = if is_full { OTHER_REGIONS } else { region };
        self.regions
            .entry(region.to_owned())
            .or_default()
            .add(totals);
    }

    /// Everything.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut sum = Totals::default();
        for totals in self.tenants.values() {
            sum.add(*totals);
        }
        sum
    }
}

/// Reads what is kept. Cheap to clone.
#[derive(Clone)]
pub struct History {
    store: Arc<dyn Store>,
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History").finish_non_exhaustive()
    }
}

impl History {
    /// The history in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// The spans that end after `from` and begin before `to` (Unix seconds), in order.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn spans(
        &self,
        resolution: Resolution,
        from: u64,
        to: u64,
    ) -> Result<Vec<Span>, StoreError> {
        let range = self.store.range(kept::prefix(resolution)).await?;
        let spans = range.entries.iter().filter_map(kept::read_span);
        Ok(spans
            .filter(|span| span.to > from && span.from < to)
            .collect())
    }

    /// What of the nodes' counters is in the history.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn written(&self) -> Result<Written, StoreError> {
        let range = self.store.range(kept::NODES).await?;
        Ok(Written::read(&range.entries))
    }

    /// What is kept of the day that was told last.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn day(&self) -> Result<Option<KeptDay>, StoreError> {
        let range = self.store.range(day::KEYS).await?;
        Ok(KeptDay::read(&range.entries))
    }

    pub(super) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_the_bounds_is_told_without_a_name_and_not_lost() {
        let mut span = Span::default();
        let one = Totals {
            bytes_to_peers: 1,
            ..Totals::default()
        };
        for tenant in 0..300 {
            span.add(tenant, &format!("r{}", tenant % 80), one);
        }
        assert_eq!(span.tenants.len(), MAX_TENANTS + 1);
        assert_eq!(span.regions.len(), MAX_REGIONS + 1);
        assert_eq!(span.totals().bytes_to_peers, 300);
        let regions: u64 = span.regions.values().map(|it| it.bytes_to_peers).sum();
        assert_eq!(regions, 300);
    }
}
