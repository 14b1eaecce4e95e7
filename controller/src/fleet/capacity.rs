//! How full nodes are.

/// What a node does a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "each is the counter of its name, a second")]
pub struct Rates {
    pub bytes_from_clients: f64,
    pub bytes_to_clients: f64,
    pub packets_from_clients: f64,
    pub packets_to_clients: f64,
    pub packets_dropped: f64,
    pub allocations_opened: f64,
    pub requests_rejected: f64,
    pub authentication_failures: f64,
}

/// The largest of a node's ratios of used to limit, from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Saturation(pub f64);

/// A limit and what is used of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauge {
    /// In use.
    pub used: u64,
    /// The most there can be; zero where unknown.
    pub limit: u64,
}

impl Gauge {
    /// What is left below 80 % of the limit.
    #[must_use]
    pub fn headroom(self) -> u64 {
        let usable = u64::try_from(u128::from(self.limit) * 4 / 5).unwrap_or(u64::MAX);
        usable.saturating_sub(self.used)
    }
}

/// The capacity of a node, a zone, a region or the fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Nodes counted.
    pub nodes: usize,
    /// Those of them that are in lists.
    pub listed: usize,
    /// Allocations.
    pub allocations: Gauge,
    /// Relayed ports.
    pub ports: Gauge,
    /// File descriptors.
    pub file_descriptors: Gauge,
    /// Traffic and events a second.
    pub rates: Rates,
}

/// The capacity of the fleet: of every node, zone and region, and of all together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FleetCapacity {
    /// All together.
    pub total: Totals,
    /// By region, in the order of names.
    pub regions: Vec<(String, Totals)>,
    /// By region and zone, in the order of names.
    pub zones: Vec<(String, String, Totals)>,
}
