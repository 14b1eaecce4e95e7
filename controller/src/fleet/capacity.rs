//! What nodes, zones and regions can hold, and what is left of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::health::Health;
use super::node::{Capacity, Load};
use super::rates::Rates;
use super::record::PortGrant;
use super::trend::{Peaks, Scope};
use super::view::{FleetView, NodeView};

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
        self.usable().saturating_sub(self.used)
    }

    fn usable(self) -> u64 {
        self.limit - self.limit / 5
    }

    fn ratio(self) -> f64 {
        if self.limit == 0 {
            0.0
        } else {
            self.used as f64 / self.limit as f64
        }
    }

    fn add(&mut self, other: Self) {
        self.used = self.used.saturating_add(other.used);
        self.limit = self.limit.saturating_add(other.limit);
    }
}

/// The capacity of a node, a zone, a region or the fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Nodes counted; those that are gone count here alone.
    pub nodes: usize,
    /// Those of them that are in lists.
    pub listed: usize,
    /// Allocations.
    pub allocations: Gauge,
    /// Relayed ports.
    pub ports: Gauge,
    /// File descriptors.
    pub file_descriptors: Gauge,
    /// Bytes of memory.
    pub memory: Gauge,
    /// How busy the busiest shard is, from 0 to 1.
    pub cpu: f64,
    /// Traffic and events a second.
    pub rates: Rates,
    /// The highest use since the controller started.
    pub peaks: Peaks,
    /// What is left below 80 % of allocations and of ports when the largest zone fails and its use goes to the others; below
    /// zero where so much is missing. Only for what has two zones or more: a single one leaves nothing, however small its use.
    pub without_largest_zone: Option<[i64; 2]>,
    /// When allocations or ports are used up if use goes on as in the last fifteen minutes; `None` where it does not grow.
    pub seconds_to_full: Option<u64>,
}

impl Totals {
    /// The capacity of one node.
    #[must_use]
    pub fn of(node: &NodeView) -> Self {
        let gone = Self {
            nodes: 1,
            ..Self::default()
        };
        if node.health == Health::Gone {
            return gone;
        }
        let granted = granted_ports(&node.grants);
        let [allocations, ports, file_descriptors, memory] =
            gauges(&node.load, node.capacity(), granted);
        let listed = usize::from(node.listed);
        Self {
            listed,
            allocations,
            ports,
            file_descriptors,
            memory,
            cpu: (node.load.cpu_permille as f64 / 1000.0).min(1.0),
            rates: node.rates,
            ..gone
        }
    }

    /// The largest of the ratios of used to limit, from 0 to 1.
    #[must_use]
    pub fn saturation(&self) -> f64 {
        fullest([
            self.allocations,
            self.ports,
            self.file_descriptors,
            self.memory,
        ])
        .max(self.cpu)
    }

    /// What is left when the largest of these zones fails, where there are others.
    fn survive<'z>(&mut self, zones: impl Iterator<Item = &'z Self> + Clone) {
        if zones.clone().count() < 2 {
            return;
        }
        let left = |own: Gauge, of: fn(&Self) -> Gauge| {
            let largest = zones.clone().map(|zone| of(zone).usable()).max();
            let rest = i128::from(own.usable()) - i128::from(largest.unwrap_or(0));
            i64::try_from(rest - i128::from(own.used)).unwrap_or(i64::MIN)
        };
        self.without_largest_zone = Some([
            left(self.allocations, |zone| zone.allocations),
            left(self.ports, |zone| zone.ports),
        ]);
    }

    fn add(&mut self, other: &Self) {
        self.nodes += other.nodes;
        self.listed += other.listed;
        self.allocations.add(other.allocations);
        self.ports.add(other.ports);
        self.file_descriptors.add(other.file_descriptors);
        self.memory.add(other.memory);
        self.cpu = self.cpu.max(other.cpu);
        let (mine, theirs) = (&mut self.rates, &other.rates);
        mine.bytes_from_clients += theirs.bytes_from_clients;
        mine.bytes_to_clients += theirs.bytes_to_clients;
        mine.packets_from_clients += theirs.packets_from_clients;
        mine.packets_to_clients += theirs.packets_to_clients;
        mine.packets_dropped += theirs.packets_dropped;
        mine.allocations_opened += theirs.allocations_opened;
        mine.requests_rejected += theirs.requests_rejected;
        mine.authentication_failures += theirs.authentication_failures;
    }
}

/// How a saturation is called: `ok`, `warn` from 0.7 on, `crit` from 0.85 on.
#[must_use]
pub fn rated(saturation: f64) -> &'static str {
    match saturation {
        ratio if ratio < 0.7 => "ok",
        ratio if ratio < 0.85 => "warn",
        _ => "crit",
    }
}

/// Allocations, relayed ports, file descriptors and memory of a node that has so many ports.
fn gauges(load: &Load, capacity: Capacity, granted: u64) -> [Gauge; 4] {
    [
        Gauge {
            used: load.allocations,
            limit: allocation_limit(capacity.allocations, granted),
        },
        Gauge {
            used: load.relayed_ports_used,
            limit: granted,
        },
        Gauge {
            used: load.file_descriptors_used,
            limit: capacity.file_descriptors,
        },
        Gauge {
            used: load.memory_bytes,
            limit: capacity.memory_bytes,
        },
    ]
}

/// The ports that all `grants` let their nodes open.
pub(super) fn granted_ports(grants: &[PortGrant]) -> u64 {
    grants
        .iter()
        .filter_map(PortGrant::open_range)
        .map(|range| u64::from(range.len()))
        .sum()
}

/// The allocations that a node can hold: what it says, and no more than it has ports for. Zero is unknown.
pub(super) fn allocation_limit(said: u64, granted_ports: u64) -> u64 {
    match (said, granted_ports) {
        (0, ports) => ports,
        (said, 0) => said,
        (said, ports) => said.min(ports),
    }
}

/// How full a node with these ports is under `load`.
pub(super) fn saturation(load: &Load, capacity: Capacity, granted: u64) -> f64 {
    fullest(gauges(load, capacity, granted))
}

/// The largest ratio of used to limit.
fn fullest(gauges: [Gauge; 4]) -> f64 {
    gauges.into_iter().map(Gauge::ratio).fold(0.0, f64::max)
}

/// The capacity of the fleet: of every node, zone and region, and of all together.
#[derive(Clone, Debug, Default)]
pub struct FleetCapacity {
    /// All together.
    pub total: Totals,
    /// By region, in the order of names.
    pub regions: Vec<(String, Totals)>,
    /// By region and zone, in the order of names.
    pub zones: Vec<(String, String, Totals)>,
    /// By node, in the order of ids.
    pub nodes: Vec<(Arc<NodeView>, Totals)>,
}

impl FleetView {
    /// The capacity of the fleet.
    #[must_use]
    pub fn capacity(&self) -> FleetCapacity {
        let mut total = Totals::default();
        let mut regions: BTreeMap<&str, Totals> = BTreeMap::new();
        let mut zones: BTreeMap<(&str, &str), Totals> = BTreeMap::new();
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let mut totals = Totals::of(node);
            let (region, zone) = (&*node.identity.region, &*node.identity.zone);
            total.add(&totals);
            regions.entry(region).or_default().add(&totals);
            zones.entry((region, zone)).or_default().add(&totals);
            self.trends
                .complete(&Scope::Node(node.id.clone()), &mut totals);
            nodes.push((Arc::clone(node), totals));
        }
        total.survive(zones.values());
        self.trends.complete(&Scope::Fleet, &mut total);
        for (region, totals) in &mut regions {
            let own = zones.iter().filter(|((of, _), _)| of == region);
            totals.survive(own.map(|(_, zone)| zone));
            self.trends
                .complete(&Scope::Region((*region).to_owned()), totals);
        }
        for ((region, zone), totals) in &mut zones {
            let scope = Scope::Zone((*region).to_owned(), (*zone).to_owned());
            self.trends.complete(&scope, totals);
        }
        let region = |(region, totals): (&str, Totals)| (region.to_owned(), totals);
        let zone = |((region, zone), totals): ((&str, &str), Totals)| {
            (region.to_owned(), zone.to_owned(), totals)
        };
        FleetCapacity {
            total,
            regions: regions.into_iter().map(region).collect(),
            zones: zones.into_iter().map(zone).collect(),
            nodes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headroom_ends_at_four_fifths_of_the_limit() {
        assert_eq!(
            Gauge {
                used: 30,
                limit: 100
            }
            .headroom(),
            50
        );
        assert_eq!(
            Gauge {
                used: 90,
                limit: 100
            }
            .headroom(),
            0
        );
    }

    #[test]
    fn allocations_are_bounded_by_ports() {
        assert_eq!(allocation_limit(0, 10), 10);
        assert_eq!(allocation_limit(100, 10), 10);
        assert_eq!(allocation_limit(5, 10), 5);
        assert_eq!(allocation_limit(5, 0), 5);
    }
}
