//! How far a relay's wall clock is from the controller's.

use std::time::Duration;

use turnfleet_proto::NodeId;

use super::Fleet;
use super::registry::NodeState;
use super::sightings::OwnSession;

/// A clock this far away is worth a warning.
pub const CLOCK_WARNING: Duration = Duration::from_secs(5);
/// With a clock this far away a relay refuses credentials that are good, or takes those that are not.
pub const CLOCK_LIMIT: Duration = Duration::from_secs(30);

/// The last two differences. A report that was delayed on its way looks like a clock that is slow, so the smaller one counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SkewMeter {
    last: Option<i64>,
    millis: Option<i64>,
}

impl SkewMeter {
    /// A report came whose wall clock is `millis` ahead of the controller's; negative where it is behind.
    pub(super) fn update(&mut self, millis: i64) {
        let smaller = self
            .last
            .filter(|last| last.unsigned_abs() < millis.unsigned_abs())
            .unwrap_or(millis);
        self.millis = self.last.map(|_| smaller);
        self.last = Some(millis);
    }

    /// Milliseconds that the relay's clock is ahead; `None` before the second report.
    pub(super) fn millis(self) -> Option<i64> {
        self.millis
    }
}

impl Fleet {
    /// Whether the wall clock of a node with a session here is behind. `None` where that is not known, or where the clocks of
    /// most other nodes with a session here say that this controller's is the wrong one.
    #[must_use]
    pub fn is_behind(&self, node: &NodeId) -> Option<bool> {
        let behind = |millis: i64| millis < 0 && is_beyond(Some(millis), CLOCK_LIMIT);
        let millis = self.nodes.get(node)?.vitals().clock_skew_millis?;
        if !behind(millis) {
            return Some(false);
        }
        let here = |(id, other): &(&NodeId, &NodeState)| {
            *id != node && matches!(other.own, OwnSession::Open { .. })
        };
        let others = self.nodes.iter().filter(here);
        let others = others.filter_map(|(_, other)| other.vitals().clock_skew_millis);
        let (against, by) = others.partition::<Vec<_>, _>(|it| is_beyond(Some(*it), CLOCK_LIMIT));
        (by.len() >= against.len()).then_some(true)
    }
}

/// Whether a clock that is `millis` ahead is further away than `limit`.
pub(super) fn is_beyond(millis: Option<i64>, limit: Duration) -> bool {
    millis.is_some_and(|millis| u128::from(millis.unsigned_abs()) > limit.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_delayed_report_is_no_skew() {
        let mut meter = SkewMeter::default();
        meter.update(-40_000);
        assert_eq!(meter.millis(), None);
        meter.update(20);
        assert_eq!(meter.millis(), Some(20));
        meter.update(-60_000);
        assert_eq!(meter.millis(), Some(20));
        meter.update(-60_010);
        assert_eq!(meter.millis(), Some(-60_000));
        assert!(is_beyond(meter.millis(), CLOCK_LIMIT));
        assert!(!is_beyond(Some(30_000), CLOCK_LIMIT));
    }
}
