//! One node in virtual time.

use super::*;

/// One node in virtual time, which begins at a second and goes on by the steps' own words.
struct Node {
    liveness: Liveness,
    now: Instant,
}

impl Node {
    fn registered() -> Self {
        let mut node = Self {
            liveness: Liveness::new(true),
            now: Instant(1_000_000_000),
        };
        node.liveness.opened(node.now, false);
        node
    }

    fn healthy() -> Self {
        let mut node = Self::registered();
        node.good();
        node
    }

    fn say(&mut self, vantage: Vantage, word: Word) {
        let round = self.liveness.round;
        self.liveness.probed(self.now, vantage, round, word);
    }

    fn good(&mut self) {
        self.say(Vantage::HERE, Word::Good);
    }

    fn bad(&mut self) {
        self.say(Vantage::HERE, Word::Bad { silent: true });
    }

    /// Time passes in steps of the controller's tick.
    fn wait(&mut self, millis: u64) {
        for _ in 0..millis / 100 {
            self.now = self.now.after(Duration::from_millis(100));
            self.liveness.tick(self.now);
        }
    }

    /// Time passes with a heartbeat every two seconds.
    fn beat(&mut self, seconds: u64) {
        for _ in 0..seconds / 2 {
            self.wait(2000);
            self.liveness.heartbeat(self.now);
        }
    }

    #[track_caller]
    fn is(&self, health: Health) {
        assert_eq!(self.liveness.health(), health);
    }
}

#[test]
fn a_registered_node_is_healthy_after_one_good_probe() {
    let mut node = Node::registered();
    node.is(Health::Starting);
    node.bad();
    node.bad();
    node.is(Health::Starting);
    node.good();
    node.is(Health::Healthy);
}

#[test]
fn one_failed_probe_changes_nothing_and_two_make_a_node_unhealthy() {
    let mut node = Node::healthy();
    node.bad();
    node.is(Health::Healthy);
    node.good();
    node.bad();
    node.is(Health::Healthy);
    node.bad();
    node.is(Health::Unhealthy);
}

#[test]
fn an_unhealthy_node_is_back_after_three_good_probes_over_ten_seconds() {
    let mut node = Node::healthy();
    node.bad();
    node.bad();
    for _ in 0..5 {
        node.good();
        node.is(Health::Unhealthy);
        node.beat(2);
    }
    node.good();
    node.is(Health::Healthy);
}

#[test]
fn a_failed_probe_begins_the_way_back_anew() {
    let mut node = Node::healthy();
    node.bad();
    node.bad();
    node.good();
    node.beat(8);
    node.bad();
    node.beat(2);
    node.good();
    node.good();
    node.good();
    node.is(Health::Unhealthy);
}

#[test]
fn a_broken_session_asks_for_a_probe_whose_failure_ends_the_node() {
    let mut node = Node::healthy();
    let round = node.liveness.round;
    node.liveness.ended(node.now, Ended::Reset);
    assert_eq!(node.liveness.probe_round(), Some(round + 1));
    node.is(Health::Unmanaged);
    node.bad();
    node.is(Health::Gone);
}

#[test]
fn a_broken_session_without_a_word_of_the_probe_ends_the_node_within_two_seconds() {
    let mut node = Node::healthy();
    node.liveness.ended(node.now, Ended::Reset);
    node.wait(1400);
    node.is(Health::Unmanaged);
    node.wait(100);
    node.is(Health::Gone);
}

#[test]
fn a_probe_begun_before_the_session_broke_does_not_speak_for_the_node() {
    let mut node = Node::healthy();
    let before = node.liveness.round;
    node.liveness.ended(node.now, Ended::Reset);
    node.liveness
        .probed(node.now, Vantage::HERE, before, Word::Good);
    node.wait(1500);
    node.is(Health::Gone);
}

#[test]
fn a_node_cut_off_from_the_controller_stays_while_its_probe_is_good() {
    let mut node = Node::healthy();
    node.liveness.ended(node.now, Ended::Reset);
    node.good();
    node.wait(60_000);
    node.is(Health::Unmanaged);
    node.bad();
    node.is(Health::Unmanaged);
    node.bad();
    node.is(Health::Gone);
}

#[test]
fn three_lost_heartbeats_and_a_failing_probe_end_a_node() {
    let mut node = Node::healthy();
    node.wait(5900);
    node.is(Health::Healthy);
    node.wait(100);
    node.is(Health::Unmanaged);
    node.bad();
    node.is(Health::Gone);
    let mut failing = Node::healthy();
    failing.bad();
    failing.wait(6000);
    failing.is(Health::Gone);
}

#[test]
fn three_lost_heartbeats_with_a_good_probe_leave_a_node_unmanaged() {
    let mut node = Node::healthy();
    node.wait(6000);
    node.good();
    node.is(Health::Unmanaged);
    node.liveness.heartbeat(node.now);
    node.is(Health::Healthy);
}

#[test]
fn a_restarted_node_is_back_after_its_first_good_probe() {
    let mut node = Node::healthy();
    let before = node.liveness.round;
    node.liveness.ended(node.now, Ended::Reset);
    node.bad();
    node.is(Health::Gone);
    node.wait(300);
    node.liveness.opened(node.now, false);
    node.is(Health::Starting);
    node.liveness
        .probed(node.now, Vantage::HERE, before, Word::Good);
    node.is(Health::Starting);
    node.good();
    node.is(Health::Healthy);
}

#[test]
fn the_same_process_that_comes_back_keeps_its_standing() {
    let mut node = Node::healthy();
    node.liveness.ended(node.now, Ended::Reset);
    node.wait(200);
    node.liveness.opened(node.now, true);
    node.is(Health::Healthy);
    node.bad();
    node.bad();
    node.liveness.ended(node.now, Ended::Reset);
    node.liveness.opened(node.now, true);
    node.is(Health::Unhealthy);
}

#[test]
fn a_node_that_said_goodbye_is_gone_at_once_and_not_probed() {
    let mut node = Node::healthy();
    node.liveness.ended(node.now, Ended::Goodbye);
    node.is(Health::Gone);
    assert_eq!(node.liveness.probe_round(), None);
    node.liveness.ended(node.now, Ended::Reset);
    node.is(Health::Gone);
}

#[test]
fn a_node_known_from_the_store_alone_is_listed_by_its_probe() {
    let mut node = Node {
        liveness: Liveness::new(true),
        now: Instant(1),
    };
    node.is(Health::Gone);
    node.good();
    node.is(Health::Unmanaged);
}

#[test]
fn without_a_probe_the_session_decides() {
    let mut node = Node {
        liveness: Liveness::new(false),
        now: Instant(1),
    };
    node.liveness.opened(node.now, false);
    node.is(Health::Healthy);
    node.wait(6000);
    node.is(Health::Gone);
    node.liveness.heartbeat(node.now);
    node.is(Health::Healthy);
    node.liveness.ended(node.now, Ended::Reset);
    node.wait(400);
    node.is(Health::Unmanaged);
    node.wait(100);
    node.is(Health::Gone);
}

#[test]
fn without_a_probe_another_session_that_follows_at_once_keeps_a_node() {
    let mut node = Node {
        liveness: Liveness::new(false),
        now: Instant(1),
    };
    node.liveness.opened(node.now, false);
    node.liveness.ended(node.now, Ended::Reset);
    node.wait(400);
    node.liveness.opened(node.now, true);
    node.wait(1000);
    node.is(Health::Healthy);
}

/// Another controller.
const THERE: Vantage = Vantage(1);
const SILENT: Word = Word::Bad { silent: true };

#[test]
fn a_node_that_another_controller_sees_stays() {
    let mut node = Node::healthy();
    node.say(THERE, Word::Good);
    for _ in 0..3 {
        node.beat(2);
        node.bad();
        node.say(THERE, Word::Good);
    }
    node.is(Health::Healthy);
    node.say(THERE, SILENT);
    node.is(Health::Healthy);
    node.say(THERE, SILENT);
    node.is(Health::Unhealthy);
}

#[test]
fn a_controller_that_has_fallen_silent_has_no_say() {
    let mut node = Node::healthy();
    node.say(THERE, Word::Good);
    node.beat(10);
    node.bad();
    node.bad();
    node.is(Health::Unhealthy);
}

#[test]
fn a_probe_that_reaches_nobody_unlists_nobody() {
    let mut node = Node::healthy();
    for _ in 0..10 {
        node.say(Vantage::HERE, Word::Blind);
        node.beat(2);
    }
    node.is(Health::Healthy);
    assert!(node.liveness.is_unseen());
}

#[test]
fn a_node_that_the_probe_cannot_reach_is_listed_by_its_session_alone() {
    let mut node = Node::registered();
    node.say(Vantage::HERE, Word::Blind);
    node.is(Health::Starting);
    node.say(Vantage::HERE, Word::Blind);
    node.is(Health::Healthy);
    node.liveness.ended(node.now, Ended::Reset);
    node.say(Vantage::HERE, Word::Blind);
    node.is(Health::Gone);
}

#[test]
fn timeouts_make_a_suspect_and_nothing_else_does() {
    let since = |node: &Node| node.liveness.suspected_since(node.now);
    let mut silent = Node::healthy();
    silent.bad();
    silent.bad();
    assert_eq!(since(&silent), Some(silent.now));
    let mut lost = Node::healthy();
    lost.wait(6000);
    lost.bad();
    assert_eq!(since(&lost), Some(lost.now));
    let mut refused = Node::healthy();
    for _ in 0..2 {
        refused.say(Vantage::HERE, Word::Bad { silent: false });
    }
    assert_eq!(since(&refused), None);
    let mut reset = Node::healthy();
    reset.liveness.ended(reset.now, Ended::Reset);
    reset.bad();
    assert_eq!(since(&reset), None);
    let mut left = Node::healthy();
    left.bad();
    left.bad();
    left.liveness.ended(left.now, Ended::Goodbye);
    assert_eq!(since(&left), None);
}

#[test]
fn a_suspect_that_two_controllers_see_failing_is_none() {
    let mut node = Node::healthy();
    node.say(THERE, Word::Good);
    node.bad();
    node.bad();
    node.say(THERE, SILENT);
    node.say(THERE, SILENT);
    node.is(Health::Unhealthy);
    assert_eq!(node.liveness.suspected_since(node.now), None);
}

#[test]
fn a_session_that_breaks_after_a_silence_broke_by_a_timeout() {
    let mut node = Node::healthy();
    node.wait(4000);
    node.liveness.ended(node.now, Ended::Reset);
    node.wait(1500);
    node.is(Health::Gone);
    assert!(node.liveness.suspected_since(node.now).is_some());
}

#[test]
fn a_node_that_comes_back_from_a_fault_begins_with_a_quarter_of_its_weight() {
    let mut node = Node::healthy();
    assert_eq!(node.liveness.faults().ramp(node.now), 100);
    node.bad();
    node.bad();
    for _ in 0..6 {
        node.good();
        node.beat(2);
    }
    node.is(Health::Healthy);
    assert_eq!(node.liveness.faults().ramp(node.now), 25);
    node.beat(60);
    assert_eq!(node.liveness.faults().ramp(node.now), 100);
}

#[test]
fn a_process_that_dies_again_and_again_is_damped() {
    let mut node = Node::healthy();
    for _ in 0..4 {
        assert_eq!(node.liveness.faults().damped_for(node.now), None);
        node.wait(1000);
        node.liveness.opened(node.now, false);
        node.good();
    }
    assert!(node.liveness.faults().damped_for(node.now).is_some());
    let mut upgraded = Node::healthy();
    for _ in 0..10 {
        upgraded.liveness.ended(upgraded.now, Ended::Goodbye);
        upgraded.liveness.opened(upgraded.now, false);
        upgraded.good();
    }
    let faults = upgraded.liveness.faults();
    assert_eq!(
        (faults.damped_for(upgraded.now), faults.ramp(upgraded.now)),
        (None, 100)
    );
}
