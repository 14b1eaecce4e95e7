//! How use has gone: the highest that was seen, and when it will reach the limit if it goes on.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use turnfleet_proto::NodeId;
use turnfleet_turn::Instant;

use super::capacity::{FleetCapacity, Totals};

/// How often use is noted.
const INTERVAL: Duration = Duration::from_secs(10);
/// As many notes as there are in fifteen minutes.
const SAMPLES: usize = 90;
/// With fewer notes, two minutes of them, nothing is said of the future.
const LEAST_SAMPLES: usize = 12;
/// A time beyond this is none: thirty days.
const LONGEST: f64 = 30.0 * 86_400.0;

/// The highest use since this controller started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "each is the peak of the figure of its name")]
pub struct Peaks {
    pub allocations: u64,
    pub ports: u64,
    pub file_descriptors: u64,
    pub memory_bytes: u64,
    pub bits: f64,
    pub packets: f64,
}

/// What use belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    Fleet,
    Region(String),
    Zone(String, String),
    Node(NodeId),
}

/// The course of use everywhere.
#[derive(Clone, Debug, Default)]
pub(super) struct Trends {
    last: Option<Instant>,
    scopes: BTreeMap<Scope, Trend>,
}

#[derive(Clone, Debug, Default)]
struct Trend {
    peaks: Peaks,
    samples: VecDeque<Sample>,
}

/// Allocations and ports at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    used: [u64; 2],
}

impl Trends {
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| now.since(last) >= INTERVAL)
    }

    /// Notes what is used. What is no longer part of the fleet is forgotten.
    pub(super) fn sample(&mut self, now: Instant, capacity: &FleetCapacity) {
        self.last = Some(now);
        let mut before = std::mem::take(&mut self.scopes);
        let mut note = |scope: Scope, totals: &Totals| {
            let mut trend = before.remove(&scope).unwrap_or_default();
            trend.note(now, totals);
            self.scopes.insert(scope, trend);
        };
        note(Scope::Fleet, &capacity.total);
        for (region, totals) in &capacity.regions {
            note(Scope::Region(region.clone()), totals);
        }
        for (region, zone, totals) in &capacity.zones {
            note(Scope::Zone(region.clone(), zone.clone()), totals);
        }
        for (node, totals) in &capacity.nodes {
            note(Scope::Node(node.id.clone()), totals);
        }
    }

    /// Says in `totals` what is known of the past and the future of `scope`.
    pub(super) fn complete(&self, scope: &Scope, totals: &mut Totals) {
        totals.peaks = Peaks::of(totals);
        if let Some(trend) = self.scopes.get(scope) {
            totals.peaks.raise(&trend.peaks);
            totals.seconds_to_full = trend.seconds_to_full(totals);
        }
    }
}

impl Trend {
    fn note(&mut self, now: Instant, totals: &Totals) {
        self.peaks.raise(&Peaks::of(totals));
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample {
            at: now,
            used: [totals.allocations.used, totals.ports.used],
        });
    }

    /// When the first of both limits is reached.
    fn seconds_to_full(&self, totals: &Totals) -> Option<u64> {
        let gauges = [totals.allocations, totals.ports];
        let times = gauges.iter().enumerate().filter_map(|(place, gauge)| {
            let slope = self.slope(place)?;
            let left = gauge.limit.checked_sub(gauge.used)? as f64;
            let time = left / slope;
            (gauge.limit > 0 && slope > 0.0 && time <= LONGEST)
                .then(|| Duration::from_secs_f64(time))
        });
        times.min().map(|time| time.as_secs())
    }

    /// Growth a second: the least squares fit.
    fn slope(&self, place: usize) -> Option<f64> {
        let first = self.samples.front()?;
        if self.samples.len() < LEAST_SAMPLES {
            return None;
        }
        let points = || {
            self.samples.iter().map(|sample| {
                let x = sample.at.since(first.at).as_secs_f64();
                (x, sample.used[place] as f64)
            })
        };
        let count = self.samples.len() as f64;
        let (sum_x, sum_y) = points().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
        let (mean_x, mean_y) = (sum_x / count, sum_y / count);
        let (mut product, mut square) = (0.0, 0.0);
        for (x, y) in points() {
            product += (x - mean_x) * (y - mean_y);
            square += (x - mean_x) * (x - mean_x);
        }
        (square > 0.0).then(|| product / square)
    }
}

impl Peaks {
    fn of(totals: &Totals) -> Self {
        Self {
            allocations: totals.allocations.used,
            ports: totals.ports.used,
            file_descriptors: totals.file_descriptors.used,
            memory_bytes: totals.memory.used,
            bits: totals.rates.bits(),
            packets: totals.rates.packets(),
        }
    }

    fn raise(&mut self, other: &Self) {
        self.allocations = self.allocations.max(other.allocations);
        self.ports = self.ports.max(other.ports);
        self.file_descriptors = self.file_descriptors.max(other.file_descriptors);
        self.memory_bytes = self.memory_bytes.max(other.memory_bytes);
        self.bits = self.bits.max(other.bits);
        self.packets = self.packets.max(other.packets);
    }
}

#[cfg(test)]
mod tests {
    use super::super::capacity::Gauge;
    use super::*;

    fn totals(used: u64) -> Totals {
        Totals {
            allocations: Gauge { used, limit: 1000 },
            ..Totals::default()
        }
    }

    fn trends(use_at: impl Fn(u64) -> u64, samples: u64) -> Totals {
        let mut trends = Trends::default();
        for number in 0..samples {
            let capacity = FleetCapacity {
                total: totals(use_at(number)),
                ..FleetCapacity::default()
            };
            trends.sample(Instant(number * 10_000_000_000), &capacity);
        }
        let mut last = totals(use_at(samples - 1));
        trends.complete(&Scope::Fleet, &mut last);
        assert!(trends.scopes[&Scope::Fleet].samples.len() <= SAMPLES);
        last
    }

    #[test]
    fn a_steady_growth_says_when_the_limit_is_reached() {
        let growing = trends(|number| 2 * number, 200);
        assert_eq!(growing.seconds_to_full, Some((1000 - 398) * 5));
        assert_eq!(trends(|_| 500, 90).seconds_to_full, None);
        assert_eq!(trends(|number| 900 - number, 90).seconds_to_full, None);
        let short = trends(|number| 2 * number, 5);
        assert_eq!(short.seconds_to_full, None, "too little is known");
    }

    #[test]
    fn the_peak_stays() {
        let peaks = trends(|number| if number == 3 { 700 } else { 10 }, 150).peaks;
        assert_eq!(peaks.allocations, 700);
    }
}
