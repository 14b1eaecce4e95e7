//! How full nodes, zones and regions are, and what they do a second.

use std::collections::BTreeMap;
use std::time::Duration;

use turnfleet_turn::Instant;

use super::health::Health;
use super::node::{Capacity, Counters, Load};
use super::record::PortGrant;
use super::view::{FleetView, NodeView};

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

/// Turns cumulative counters into rates: lost reports lose nothing, and a restarted node begins at zero.
#[derive(Clone, Debug, Default)]
pub(super) struct RateMeter {
    last: Option<(Instant, Counters)>,
    pub(super) rates: Rates,
}

/// Reports closer together than this make no rate.
const SHORTEST_SPAN: Duration = Duration::from_millis(500);

impl RateMeter {
    pub(super) fn update(&mut self, now: Instant, counters: Counters) {
        let Some((before, last)) = self.last else {
            self.last = Some((now, counters));
            return;
        };
        let span = now.since(before);
        if span < SHORTEST_SPAN {
            return;
        }
        self.last = Some((now, counters));
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / span.as_secs_f64();
        self.rates = Rates {
            bytes_from_clients: rate(counters.bytes_from_clients, last.bytes_from_clients),
            bytes_to_clients: rate(counters.bytes_to_clients, last.bytes_to_clients),
            packets_from_clients: rate(counters.packets_from_clients, last.packets_from_clients),
            packets_to_clients: rate(counters.packets_to_clients, last.packets_to_clients),
            packets_dropped: rate(counters.packets_dropped, last.packets_dropped),
            allocations_opened: rate(counters.allocations_opened, last.allocations_opened),
            requests_rejected: rate(counters.requests_rejected, last.requests_rejected),
            authentication_failures: rate(
                counters.authentication_failures,
                last.authentication_failures,
            ),
        };
    }
}

/// How full a node is, from 0 to 1: the largest of its ratios of used to limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Saturation {
    /// As of the last heartbeat.
    pub instant: f64,
    /// Smoothed over ten seconds and rounded to eighths, so that lists stay as they are while load only breathes.
    pub eighths: u8,
}

/// Smooths and rounds saturation.
#[derive(Clone, Debug, Default)]
pub(super) struct SaturationMeter {
    smoothed: Option<(Instant, f64)>,
    pub(super) saturation: Saturation,
}

/// Seconds over which saturation is smoothed.
const SMOOTHING: f64 = 10.0;
/// How far saturation must leave an eighth before the next one is taken.
const HYSTERESIS: f64 = 1.0 / 16.0;

impl SaturationMeter {
    pub(super) fn update(&mut self, now: Instant, instant: f64) {
        let smoothed = match self.smoothed {
            None => instant,
            Some((before, last)) => {
                let kept = (-now.since(before).as_secs_f64() / SMOOTHING).exp();
                instant + (last - instant) * kept
            }
        };
        self.smoothed = Some((now, smoothed));
        let eighths = eighths(self.saturation.eighths, smoothed);
        self.saturation = Saturation { instant, eighths };
    }
}

/// The eighth that `smoothed` lies in; `current` as long as it lies in that or close by.
fn eighths(current: u8, smoothed: f64) -> u8 {
    let low = f64::from(current) / 8.0 - HYSTERESIS;
    let high = f64::from(current + 1) / 8.0 + HYSTERESIS;
    if (low..high).contains(&smoothed) {
        return current;
    }
    (0..=8)
        .rev()
        .find(|eighth| f64::from(*eighth) / 8.0 <= smoothed)
        .unwrap_or(0)
}

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
        let usable = self.limit - self.limit / 5;
        usable.saturating_sub(self.used)
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
    /// Traffic and events a second.
    pub rates: Rates,
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
        let [allocations, ports, file_descriptors] = gauges(&node.load, node.capacity(), granted);
        let listed = usize::from(node.listed);
        Self {
            listed,
            allocations,
            ports,
            file_descriptors,
            rates: node.rates,
            ..gone
        }
    }

    /// The largest of the ratios of used to limit, from 0 to 1.
    #[must_use]
    pub fn saturation(&self) -> f64 {
        fullest([self.allocations, self.ports, self.file_descriptors])
    }

    fn add(&mut self, other: &Self) {
        self.nodes += other.nodes;
        self.listed += other.listed;
        self.allocations.add(other.allocations);
        self.ports.add(other.ports);
        self.file_descriptors.add(other.file_descriptors);
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

/// Allocations, relayed ports and file descriptors of a node that has so many ports.
fn gauges(load: &Load, capacity: Capacity, granted: u64) -> [Gauge; 3] {
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
fn fullest(gauges: [Gauge; 3]) -> f64 {
    gauges.into_iter().map(Gauge::ratio).fold(0.0, f64::max)
}

/// The capacity of the fleet: of every zone and region, and of all together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FleetCapacity {
    /// All together.
    pub total: Totals,
    /// By region, in the order of names.
    pub regions: Vec<(String, Totals)>,
    /// By region and zone, in the order of names.
    pub zones: Vec<(String, String, Totals)>,
}

impl FleetView {
    /// The capacity of the fleet; that of a single node is [`Totals::of`].
    #[must_use]
    pub fn capacity(&self) -> FleetCapacity {
        let mut total = Totals::default();
        let mut regions: BTreeMap<&str, Totals> = BTreeMap::new();
        let mut zones: BTreeMap<(&str, &str), Totals> = BTreeMap::new();
        for node in &self.nodes {
            let totals = Totals::of(node);
            let (region, zone) = (&*node.identity.region, &*node.identity.zone);
            total.add(&totals);
            regions.entry(region).or_default().add(&totals);
            zones.entry((region, zone)).or_default().add(&totals);
        }
        let region = |(region, totals): (&str, Totals)| (region.to_owned(), totals);
        let zone = |((region, zone), totals): ((&str, &str), Totals)| {
            (region.to_owned(), zone.to_owned(), totals)
        };
        FleetCapacity {
            total,
            regions: regions.into_iter().map(region).collect(),
            zones: zones.into_iter().map(zone).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(number: u64) -> Instant {
        Instant(number * 1_000_000_000)
    }

    #[test]
    fn rates_are_the_difference_of_cumulative_counters() {
        let mut meter = RateMeter::default();
        let counters = |bytes| Counters {
            bytes_to_clients: bytes,
            ..Counters::default()
        };
        meter.update(second(0), counters(1000));
        assert_eq!(meter.rates, Rates::default());
        meter.update(second(2), counters(5000));
        assert!((meter.rates.bytes_to_clients - 2000.0).abs() < 1e-9);
        meter.update(second(6), counters(5000));
        assert_eq!(meter.rates, Rates::default());
    }

    #[test]
    fn saturation_moves_to_another_eighth_only_beyond_its_margin() {
        for (current, smoothed, expected) in [
            (0, 0.0, 0),
            (0, 0.18, 0),
            (0, 0.19, 1),
            (1, 0.07, 1),
            (1, 0.06, 0),
            (0, 0.99, 7),
            (7, 1.0, 7),
            (3, 0.7, 5),
        ] {
            assert_eq!(
                eighths(current, smoothed),
                expected,
                "from {current} at {smoothed}"
            );
        }
    }

    #[test]
    fn saturation_is_smoothed_over_ten_seconds() {
        let mut meter = SaturationMeter::default();
        meter.update(second(0), 0.0);
        meter.update(second(2), 1.0);
        assert_eq!(
            (meter.saturation.instant, meter.saturation.eighths),
            (1.0, 0)
        );
        meter.update(second(60), 1.0);
        assert_eq!(meter.saturation.eighths, 7);
    }

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
