//! Whether one node lives: the state machine over its control session and its probe.
//!
//! | session | probe | health |
//! |---|---|---|
//! | open | succeeds | healthy |
//! | open | fails twice in a row | unhealthy |
//! | silent for 6 s, or broken | succeeds | unmanaged |
//! | silent for 6 s, or broken | fails | gone |
//! | left on purpose | | gone |
//!
//! A node is listed after its first good probe; after a fault of the same process, after three good ones over 10 s. A later
//! incarnation begins anew. When a session breaks or falls silent the probe is asked at once, and its first word decides; a
//! broken session without any word within 1.5 s is a dead node.

use std::time::Duration;

use turnfleet_turn::Instant;

use super::health::{Ended, Health};

/// Three heartbeats of two seconds.
pub(super) const HEARTBEATS_LOST: Duration = Duration::from_secs(6);
/// The time in which the probe must speak for a node whose session broke.
const VERDICT: Duration = Duration::from_millis(1500);
/// Good probes that bring a node back after a fault.
const GOOD_PROBES: u32 = 3;
/// The time that they cover.
const GOOD_TIME: Duration = Duration::from_secs(10);
/// Failed probes that make a node with an open session unhealthy.
const FAILED_PROBES: u32 = 2;

/// One node's session and probe, folded.
#[derive(Clone, Debug)]
pub(super) struct Liveness {
    /// Whether there is a probe at all; without one the session alone decides.
    probing: bool,
    standing: Standing,
    contact: Contact,
    /// Good probes in a row, and since when.
    good: u32,
    good_since: Instant,
    /// Failed probes in a row.
    failed: u32,
    round: u64,
}

/// What the probe's word amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// This incarnation has not been seen to work.
    Unproven,
    Proven,
    /// It worked once, and failed.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contact {
    /// No session since the controller started.
    Never,
    Open {
        last_heartbeat: Instant,
    },
    /// Heartbeats are lost, or the stream broke.
    Lost {
        verdict: Verdict,
    },
    /// Said goodbye.
    Left,
}

/// Whether the probe has spoken since contact was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Spoken,
    Awaited { until: Option<Instant> },
}

impl Liveness {
    pub(super) fn new(probing: bool) -> Self {
        Self {
            probing,
            standing: Standing::Unproven,
            contact: Contact::Never,
            good: 0,
            good_since: Instant::default(),
            failed: 0,
            round: 0,
        }
    }

    pub(super) fn health(&self) -> Health {
        match (self.standing, self.contact) {
            (_, Contact::Left) => Health::Gone,
            (Standing::Unproven, Contact::Open { .. }) => Health::Starting,
            (Standing::Proven, Contact::Open { .. }) => Health::Healthy,
            (Standing::Failed, Contact::Open { .. }) => Health::Unhealthy,
            (Standing::Proven, Contact::Never | Contact::Lost { .. }) => Health::Unmanaged,
            (Standing::Unproven | Standing::Failed, Contact::Never | Contact::Lost { .. }) => {
                Health::Gone
            }
        }
    }

    /// Whether its session is open and speaks.
    pub(super) fn is_connected(&self) -> bool {
        matches!(self.contact, Contact::Open { .. })
    }

    /// The round that the prober shall be in; `None` where there is nothing to probe.
    pub(super) fn probe_round(&self) -> Option<u64> {
        (self.probing && self.contact != Contact::Left).then_some(self.round)
    }

    /// Asks for a probe at once.
    pub(super) fn ask_probe(&mut self) {
        self.round += 1;
    }

    /// A session opened, of the incarnation that was known, if any was, or of a later one.
    pub(super) fn opened(&mut self, now: Instant, same_incarnation: bool) {
        if !same_incarnation || self.contact == Contact::Left {
            self.standing = Standing::Unproven;
            (self.good, self.failed) = (0, 0);
        }
        self.contact = Contact::Open {
            last_heartbeat: now,
        };
        self.trust_session();
        self.ask_probe();
    }

    pub(super) fn heartbeat(&mut self, now: Instant) {
        self.contact = Contact::Open {
            last_heartbeat: now,
        };
        self.trust_session();
    }

    pub(super) fn ended(&mut self, now: Instant, ended: Ended) {
        match ended {
            Ended::Goodbye => self.contact = Contact::Left,
            Ended::Reset => self.lose(Some(now.after(VERDICT))),
        }
    }

    /// A probe that was begun in `round` ended.
    pub(super) fn probed(&mut self, now: Instant, round: u64, good: bool) {
        if good {
            // One begun before the last change of the session says nothing of what came after.
            if round >= self.round {
                self.probed_well(now);
            }
        } else {
            self.probed_badly();
        }
    }

    /// Lets time pass; says whether that changed the health or asks for a probe.
    pub(super) fn tick(&mut self, now: Instant) -> bool {
        match self.contact {
            Contact::Open { last_heartbeat } if now.since(last_heartbeat) >= HEARTBEATS_LOST => {
                let failing = self.failed > 0;
                self.lose(None);
                if failing {
                    self.fail();
                }
                true
            }
            Contact::Lost {
                verdict: Verdict::Awaited { until: Some(until) },
            } if now >= until => {
                self.contact = Contact::Lost {
                    verdict: Verdict::Spoken,
                };
                self.fail();
                true
            }
            Contact::Open { .. } | Contact::Lost { .. } | Contact::Never | Contact::Left => false,
        }
    }

    fn trust_session(&mut self) {
        if !self.probing {
            self.standing = Standing::Proven;
        }
    }

    fn lose(&mut self, until: Option<Instant>) {
        if self.contact == Contact::Left {
            return;
        }
        self.contact = Contact::Lost {
            verdict: Verdict::Awaited { until },
        };
        if self.probing {
            self.ask_probe();
        } else {
            self.fail();
        }
    }

    fn fail(&mut self) {
        if self.standing == Standing::Proven {
            self.standing = Standing::Failed;
        }
        self.good = 0;
    }

    fn probed_well(&mut self, now: Instant) {
        self.failed = 0;
        if self.good == 0 {
            self.good_since = now;
        }
        self.good += 1;
        if let Contact::Lost { verdict } = &mut self.contact {
            *verdict = Verdict::Spoken;
        }
        match self.standing {
            Standing::Unproven => self.standing = Standing::Proven,
            Standing::Failed
                if self.good >= GOOD_PROBES && now.since(self.good_since) >= GOOD_TIME =>
            {
                self.standing = Standing::Proven;
            }
            Standing::Proven | Standing::Failed => {}
        }
    }

    fn probed_badly(&mut self) {
        self.good = 0;
        self.failed = self.failed.saturating_add(1);
        let awaited = matches!(
            self.contact,
            Contact::Lost {
                verdict: Verdict::Awaited { .. }
            }
        );
        if awaited {
            self.contact = Contact::Lost {
                verdict: Verdict::Spoken,
            };
        }
        if awaited || self.failed >= FAILED_PROBES {
            self.fail();
        }
    }
}

#[cfg(test)]
mod tests {
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

        fn good(&mut self) {
            self.liveness.probed(self.now, self.liveness.round, true);
        }

        fn bad(&mut self) {
            self.liveness.probed(self.now, self.liveness.round, false);
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
        node.liveness.probed(node.now, before, true);
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
        node.liveness.probed(node.now, before, true);
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
        node.is(Health::Gone);
    }
}
