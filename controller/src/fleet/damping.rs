//! How much a node that has failed is trusted again: not at all for a while if it fails again and again, and with a growing
//! weight after any fault, so that no crowd meets a cold relay.

use std::collections::VecDeque;
use std::time::Duration;

use turnfleet_turn::Instant;

/// So many faults within [`WINDOW`] are bad luck; one more is a flap.
const FAULTS: usize = 3;
/// The time in which faults are counted.
const WINDOW: Duration = Duration::from_secs(600);
/// How long a node that flaps is left out.
const DAMPED: Duration = Duration::from_secs(600);
/// The weight rises a step after each of these.
const STEP: Duration = Duration::from_secs(20);
/// The weights on the way back, in percent.
const WEIGHTS: [u8; 4] = [25, 50, 75, 100];

/// The faults of one node, of all its runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// The last ones within the window.
    recent: VecDeque<Instant>,
    damped_until: Option<Instant>,
    /// It failed, and has not been proven since.
    is_cold: bool,
    /// When it was proven after its last fault.
    back_since: Option<Instant>,
}

impl Faults {
    /// The node failed.
    pub(super) fn note(&mut self, now: Instant) {
        self.is_cold = true;
        self.recent.retain(|fault| now.since(*fault) < WINDOW);
        if self.recent.len() > FAULTS {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        if self.recent.len() > FAULTS {
            self.damped_until = Some(now.after(DAMPED));
        }
    }

    /// The node works.
    pub(super) fn recovered(&mut self, now: Instant) {
        if std::mem::take(&mut self.is_cold) {
            self.back_since = Some(now);
        }
    }

    /// The last fault was the observer's, and not the node's.
    pub(super) fn pardon(&mut self) {
        self.is_cold = false;
        self.recent.pop_back();
        if self.recent.len() <= FAULTS {
            self.damped_until = None;
        }
    }

    /// How long lists leave it out for its faults.
    pub(super) fn damped_for(&self, now: Instant) -> Option<Duration> {
        let until = self.damped_until?;
        (now < until).then(|| until.since(now))
    }

    /// How many faults there were within ten minutes; of more than four, four.
    pub(super) fn count(&self, now: Instant) -> usize {
        let recent = |fault: &&Instant| now.since(**fault) < WINDOW;
        self.recent.iter().filter(recent).count()
    }

    /// The part of its weight that lists give it, in percent.
    pub(super) fn ramp(&self, now: Instant) -> u8 {
        let Some(back) = self.back_since else {
            return 100;
        };
        let begin = self.damped_until.map_or(back, |until| until.max(back));
        let steps = now.since(begin).as_nanos() / STEP.as_nanos();
        let step = usize::try_from(steps).unwrap_or(usize::MAX);
        WEIGHTS.get(step).copied().unwrap_or(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(number: u64) -> Instant {
        Instant(number * 1_000_000_000)
    }

    #[test]
    fn the_fourth_fault_in_ten_minutes_damps_a_node_for_ten_minutes() {
        let mut faults = Faults::default();
        for number in 0..3 {
            faults.note(second(number * 60));
            assert_eq!(faults.damped_for(second(number * 60)), None);
        }
        faults.note(second(599));
        assert_eq!(faults.damped_for(second(599)), Some(DAMPED));
        assert!(faults.damped_for(second(1198)).is_some());
        assert_eq!(faults.damped_for(second(1199)), None);
    }

    #[test]
    fn faults_that_lie_apart_damp_nobody() {
        let mut faults = Faults::default();
        for number in 0..20 {
            faults.note(second(number * 200));
            assert_eq!(faults.damped_for(second(number * 200)), None, "{number}");
        }
    }

    #[test]
    fn the_weight_rises_in_four_steps_over_a_minute() {
        let mut faults = Faults::default();
        assert_eq!(faults.ramp(second(1)), 100, "a first registration is whole");
        faults.note(second(10));
        faults.recovered(second(20));
        let at = |number| faults.ramp(second(number));
        assert_eq!(
            [20, 39, 40, 60, 79, 80, 10_000].map(at),
            [25, 25, 50, 75, 75, 100, 100]
        );
    }

    #[test]
    fn a_pardoned_fault_is_none() {
        let mut faults = Faults::default();
        for number in 0..4 {
            faults.note(second(number));
        }
        faults.pardon();
        faults.recovered(second(5));
        assert_eq!(
            (faults.damped_for(second(5)), faults.ramp(second(5))),
            (None, 100)
        );
        assert_eq!(faults.count(second(5)), 3);
    }
}
