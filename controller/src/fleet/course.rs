//! How use has gone, for those who look at it: of the fleet and of each region, at every five seconds of a quarter of an hour and
//! in every minute of a day.
//!
//! It lives in memory and begins with the controller. What was carried since counting began is kept elsewhere, in the store.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use turnfleet_turn::{Instant, Now};

use super::capacity::{FleetCapacity, Totals};
use super::view::FleetView;

/// Between two moments.
const INTERVAL: Duration = Duration::from_secs(5);
/// As many moments as there are in a quarter of an hour.
const MOMENTS: usize = 180;
/// As many minutes as a day has.
const MINUTES: usize = 24 * 60;
/// Regions that are followed, the first by name: those beyond are told by what they hold now alone.
const MAX_REGIONS: usize = 64;

/// How long what is told lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Moments, of a quarter of an hour.
    Moment,
    /// Minutes, of a day: the highest of each figure within the minute.
    Minute,
}

impl Pace {
    /// Seconds from one to the next.
    #[must_use]
    pub fn seconds(self) -> u64 {
        match self {
            Self::Moment => INTERVAL.as_secs(),
            Self::Minute => 60,
        }
    }
}

/// What is in use at one moment, or at most within one minute.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Use {
    /// Unix seconds; of a minute, those at which it began.
    pub at: u64,
    /// Nodes in lists.
    pub listed: usize,
    /// Allocations.
    pub allocations: u64,
    /// The most of them that there can be; zero where unknown.
    pub allocation_limit: u64,
    /// Relayed ports.
    pub ports: u64,
    /// Bytes a second.
    pub bytes_from_clients: f64,
    /// Bytes a second.
    pub bytes_to_clients: f64,
    /// Packets a second.
    pub packets_dropped: f64,
    /// The largest of the ratios of used to limit, from 0 to 1.
    pub saturation: f64,
}

/// The course of use everywhere.
#[derive(Clone, Debug, Default)]
pub(super) struct Course {
    last: Option<Instant>,
    fleet: Past,
    regions: BTreeMap<String, Past>,
}

#[derive(Clone, Debug, Default)]
struct Past {
    moments: VecDeque<Use>,
    /// Copied once a minute, and not with every moment.
    minutes: Arc<VecDeque<Use>>,
    /// The minute that runs.
    running: Option<Use>,
}

impl Course {
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| now.since(last) >= INTERVAL)
    }

    /// Notes what is used. A region that is not part of the fleet any more is forgotten.
    pub(super) fn note(&mut self, now: Now, capacity: &FleetCapacity) {
        self.last = Some(now.instant);
        self.fleet.note(now.unix, &capacity.total);
        let mut before = std::mem::take(&mut self.regions);
        for (region, totals) in capacity.regions.iter().take(MAX_REGIONS) {
            let mut past = before.remove(region).unwrap_or_default();
            past.note(now.unix, totals);
            self.regions.insert(region.clone(), past);
        }
    }
}

impl Past {
    fn note(&mut self, unix: u64, totals: &Totals) {
        let seen = Use::of(unix, totals);
        if self.moments.len() == MOMENTS {
            self.moments.pop_front();
        }
        self.moments.push_back(seen);
        let begun = unix - unix % 60;
        match &mut self.running {
            Some(minute) if minute.at == begun => minute.raise(&seen),
            running => {
                let minute = Use { at: begun, ..seen };
                if let Some(ended) = running.replace(minute) {
                    let minutes = Arc::make_mut(&mut self.minutes);
                    if minutes.len() == MINUTES {
                        minutes.pop_front();
                    }
                    minutes.push_back(ended);
                }
            }
        }
    }

    /// What is known from `from` on, the oldest first.
    fn since(&self, pace: Pace, from: u64) -> Vec<Use> {
        let wanted = |seen: &&Use| seen.at >= from;
        match pace {
            Pace::Moment => self.moments.iter().filter(wanted).copied().collect(),
            Pace::Minute => {
                let minutes = self.minutes.iter().chain(&self.running);
                minutes.filter(wanted).copied().collect()
            }
        }
    }
}

impl Use {
    fn of(at: u64, totals: &Totals) -> Self {
        Self {
            at,
            listed: totals.listed,
            allocations: totals.allocations.used,
            allocation_limit: totals.allocations.limit,
            ports: totals.ports.used,
            bytes_from_clients: totals.rates.bytes_from_clients,
            bytes_to_clients: totals.rates.bytes_to_clients,
            packets_dropped: totals.rates.packets_dropped,
            saturation: totals.saturation(),
        }
    }

    fn raise(&mut self, other: &Self) {
        self.listed = self.listed.max(other.listed);
        self.allocations = self.allocations.max(other.allocations);
        self.allocation_limit = self.allocation_limit.max(other.allocation_limit);
        self.ports = self.ports.max(other.ports);
        self.bytes_from_clients = self.bytes_from_clients.max(other.bytes_from_clients);
        self.bytes_to_clients = self.bytes_to_clients.max(other.bytes_to_clients);
        self.packets_dropped = self.packets_dropped.max(other.packets_dropped);
        self.saturation = self.saturation.max(other.saturation);
    }
}

impl FleetView {
    /// How the use of the fleet, or of a region, has gone since `from` (Unix seconds), the oldest first; nothing of a region
    /// that is not followed.
    #[must_use]
    pub fn course(&self, region: Option<&str>, pace: Pace, from: u64) -> Vec<Use> {
        let past = match region {
            None => Some(&self.course.fleet),
            Some(region) => self.course.regions.get(region),
        };
        past.map_or_else(Vec::new, |past| past.since(pace, from))
    }
}

#[cfg(test)]
mod tests {
    use super::super::capacity::Gauge;
    use super::*;

    fn at(second: u64) -> Now {
        Now {
            instant: Instant(second * 1_000_000_000),
            unix: 1_700_000_040 + second,
        }
    }

    fn capacity(used: u64, regions: usize) -> FleetCapacity {
        let totals = Totals {
            allocations: Gauge { used, limit: 1000 },
            ..Totals::default()
        };
        FleetCapacity {
            total: totals,
            regions: (0..regions)
                .map(|region| (format!("r{region:03}"), totals))
                .collect(),
            ..FleetCapacity::default()
        }
    }

    #[test]
    fn a_day_is_kept_by_minutes_and_a_quarter_of_an_hour_by_moments() {
        let mut course = Course::default();
        for step in 0..2 * 86_400 / 5 {
            let now = at(step * 5);
            assert!(course.is_due(now.instant));
            course.note(now, &capacity(step % 12, 1));
            assert!(!course.is_due(at(step * 5 + 4).instant));
        }
        let past = &course.fleet;
        let last = at(2 * 86_400 - 5).unix;
        let moments = past.since(Pace::Moment, 0);
        assert_eq!((moments.len(), moments[179].at), (MOMENTS, last));
        let minutes = past.since(Pace::Minute, 0);
        assert_eq!(minutes.len(), MINUTES + 1, "with the one that runs");
        assert!(minutes.windows(2).all(|two| two[1].at == two[0].at + 60));
        assert!(minutes.iter().all(|minute| minute.allocations == 11));
        assert_eq!(past.since(Pace::Moment, last).len(), 1);
        assert!(past.since(Pace::Moment, last + 1).is_empty());
    }

    #[test]
    fn regions_are_bounded_and_forgotten() {
        let mut course = Course::default();
        course.note(at(0), &capacity(1, 100));
        assert_eq!(course.regions.len(), MAX_REGIONS);
        course.note(at(5), &capacity(1, 2));
        assert_eq!(course.regions.len(), 2);
        assert_eq!(course.regions["r001"].moments.len(), 2);
    }
}
