//! Which relay tries a changed policy first, and what its word leads to.

use turnfleet_controller::fleet::Event;
use turnfleet_controller::fleet::record::{Policy, Record, Rollout, Stage as Step};

use crate::stage::{Stage, id, identity};

fn policy(realm: &str) -> Policy {
    Policy {
        realm: realm.into(),
        ..Stage::policy()
    }
}

fn canary(number: u8) -> Step {
    Step::Canary { node: id(number) }
}

impl Stage {
    fn begin_rollout(&mut self) {
        let generation = self.fleet.generation() + 1;
        self.store(Record::Rollout(Rollout {
            base: policy("example.org"),
            stage: Step::Pending,
            generation,
            lost: 0,
        }));
        self.store(Record::Policy(policy("example.net")));
        self.store(Record::Generation(generation));
    }

    /// Writes the steps that are to be taken, and gives where the rollout is.
    fn roll_out(&mut self) -> Step {
        for _ in 0..10 {
            let plan = self.fleet.plan_rollout(self.now);
            for put in plan.puts {
                self.store(put);
            }
        }
        self.fleet.rollout().unwrap().stage.clone()
    }

    /// Every session is alive for so long.
    fn beat_for(&mut self, millis: u64, numbers: &[(u8, u64)]) {
        for _ in 0..millis.div_ceil(1000) {
            self.wait(1000);
            for (number, applied) in numbers {
                self.heartbeat(
                    *number,
                    *applied,
                    turnfleet_controller::fleet::Load::default(),
                );
            }
        }
    }

    fn status(&mut self, number: u8, generation: u64, refusal: Option<&str>) {
        let event = Event::PolicyStatus {
            session: self.session(number),
            generation,
            running: generation - u64::from(refusal.is_some()),
            refusal: refusal.map(Into::into),
        };
        self.fleet.apply(self.now, event);
    }
}

#[test]
fn a_listed_relay_is_preferred() {
    let mut stage = Stage::empty();
    stage.register(0, identity(0), 1);
    stage.join(1, identity(1));
    stage.begin_rollout();
    assert_eq!(stage.roll_out(), canary(1));
    let generation = stage.fleet.rollout().unwrap().generation;
    stage.status(1, generation, None);
    assert_eq!(stage.roll_out(), Step::All);
}

#[test]
fn where_no_relay_is_listed_any_is_taken_at_once() {
    let mut stage = Stage::empty();
    stage.register(0, identity(0), 1);
    assert!(stage.listed().is_empty());
    stage.begin_rollout();
    assert_eq!(stage.roll_out(), canary(0));
}

#[test]
fn a_relay_that_is_listed_and_has_no_session_is_not_waited_for_long() {
    let mut stage = Stage::of(1);
    stage.end(0, turnfleet_controller::fleet::Ended::Reset);
    stage.probe(0, true);
    stage.register(1, identity(1), 1);
    assert_eq!(stage.listed(), ["relay-0"]);
    stage.begin_rollout();
    assert_eq!(stage.roll_out(), Step::Pending);
    stage.beat_for(10_000, &[(1, 7)]);
    assert_eq!(stage.roll_out(), canary(1));
}

#[test]
fn the_first_relay_that_comes_is_the_canary_of_a_fleet_without_any() {
    let mut stage = Stage::empty();
    stage.begin_rollout();
    stage.wait(20_000);
    assert_eq!(stage.roll_out(), Step::Pending);
    stage.register(3, identity(3), 1);
    assert_eq!(stage.roll_out(), canary(3));
}

#[test]
fn relays_that_all_refuse_what_they_are_sent_get_the_policy_that_mends_it() {
    let mut stage = Stage::of(2);
    stage.store(Record::Generation(8));
    for number in 0..2 {
        stage.status(number, 8, Some("no such network"));
    }
    stage.begin_rollout();
    assert_eq!(stage.roll_out(), canary(0), "in spite of its old refusal");
    let generation = stage.fleet.rollout().unwrap().generation;
    stage.status(0, generation, Some("no such network either"));
    let stopped = Step::Stopped {
        node: id(0),
        reason: "no such network either".into(),
    };
    assert_eq!(stage.roll_out(), stopped);
}

#[test]
fn two_canaries_that_fall_silent_stop_a_rollout() {
    let mut stage = Stage::of(2);
    stage.begin_rollout();
    assert_eq!(stage.roll_out(), canary(0));
    stage.beat_for(61_000, &[(1, 8)]);
    assert_eq!(stage.roll_out(), canary(1));
    stage.beat_for(59_000, &[(1, 8)]);
    assert_eq!(stage.roll_out(), canary(1));
    stage.beat_for(2_000, &[(1, 8)]);
    let stage = stage.roll_out();
    assert!(matches!(stage, Step::Stopped { node, .. } if node == id(1)));
}
