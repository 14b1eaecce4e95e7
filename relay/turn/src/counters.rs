//! Plain per-shard counters; the relay's exporter sums them over shards.

/// What one shard has counted since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {}
