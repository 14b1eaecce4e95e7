//! Much of a region falls silent at once.

use turnfleet_controller::fleet::{Ask, Ended, Identity, ProbeOutcome, UriKind, Vantage};

use crate::stage::{Stage, host, id, identity, no_answer, outcome};

/// Eight relays of one region and one of another, all healthy.
fn two_regions() -> Stage {
    let mut stage = Stage::of(8);
    let south = Identity {
        region: "south".into(),
        ..identity(9)
    };
    stage.join(9, south);
    stage
}

fn silence(stage: &mut Stage, numbers: impl Iterator<Item = u8>) {
    for number in numbers {
        stage.probe(number, false);
        stage.probe(number, false);
    }
}

fn is_suspect(stage: &Stage, number: u8) -> bool {
    let view = stage.view();
    let node = view.node(&id(number)).unwrap();
    assert!(!node.suspect || node.listed);
    node.suspect
}

/// The relays of a list of eight by UDP, by number.
fn relays(stage: &Stage, user: &str) -> Vec<u8> {
    let list = stage.list(&Ask {
        user,
        kinds: &[UriKind::Udp],
        count: Some(8),
        ..Ask::default()
    });
    let number = |uri: &String| host(uri).rsplit_once('.').unwrap().1.parse().unwrap();
    list.iter().map(number).collect()
}

#[test]
fn silent_relays_stay_behind_the_proven_ones_and_the_next_region() {
    let mut stage = two_regions();
    silence(&mut stage, 0..5);
    assert_eq!(stage.view().panics, ["north"]);
    for user in ["alice", "bob", "carol"] {
        let relays = relays(&stage, user);
        assert_eq!(relays.len(), 8);
        let (proven, suspects) = relays.split_at(4);
        assert_eq!(relays[2], 9, "two proven ones, and the next region");
        assert!(proven.iter().all(|relay| *relay >= 5), "{relays:?}");
        assert!(suspects.iter().all(|relay| *relay < 5), "{relays:?}");
    }
    let view = stage.view();
    let reason = view.reason(view.node(&id(0)).unwrap()).unwrap().to_string();
    assert!(reason.contains("listed last"), "{reason}");
}

#[test]
fn a_region_that_falls_silent_as_a_whole_keeps_its_lists() {
    let mut stage = Stage::of(6);
    silence(&mut stage, 0..6);
    assert!(!stage.list(&Ask::default()).is_empty());
    assert_eq!(
        stage.listed().len(),
        6,
        "those that went first come back as suspects"
    );
}

#[test]
fn fewer_than_half_are_believed_to_have_failed() {
    let mut stage = Stage::of(8);
    silence(&mut stage, 0..3);
    assert!(stage.view().panics.is_empty());
    assert_eq!(stage.listed().len(), 5);
}

#[test]
fn a_region_of_four_has_no_panic() {
    let mut stage = Stage::of(4);
    silence(&mut stage, 0..3);
    assert_eq!(stage.listed(), ["relay-3"]);
}

#[test]
fn resets_and_goodbyes_are_believed() {
    let mut reset = Stage::of(8);
    let mut left = Stage::of(8);
    for number in 0..6 {
        reset.end(number, Ended::Reset);
        reset.probe(number, false);
        left.end(number, Ended::Goodbye);
    }
    for stage in [reset, left] {
        assert!(stage.view().panics.is_empty());
        assert_eq!(stage.listed(), ["relay-6", "relay-7"]);
    }
}

#[test]
fn a_panic_ends_after_a_minute() {
    let mut stage = Stage::of(8);
    silence(&mut stage, 0..5);
    for _ in 0..29 {
        stage.wait(2000);
        beat_all(&mut stage);
    }
    assert!(is_suspect(&stage, 0));
    stage.wait(2000);
    assert!(!is_suspect(&stage, 0));
    assert_eq!(stage.listed().len(), 3);
}

fn beat_all(stage: &mut Stage) {
    for number in 0..8 {
        stage.heartbeat(number, 7, turnfleet_controller::fleet::Load::default());
    }
}

#[test]
fn a_relay_that_two_controllers_see_failing_is_no_suspect() {
    let mut stage = Stage::of(8);
    let there = |outcome| ProbeOutcome {
        vantage: Vantage(1),
        ..outcome
    };
    for number in 0..8 {
        stage.report(number, there(outcome(u64::MAX)));
    }
    for number in 0..5 {
        stage.probe(number, false);
        stage.probe(number, false);
        assert_eq!(stage.listed().len(), 8, "the other controller sees them");
    }
    for number in 0..5 {
        stage.report(number, there(no_answer(0)));
        stage.report(number, there(no_answer(0)));
    }
    stage.wait(100);
    assert!(stage.view().panics.is_empty());
    assert_eq!(stage.listed().len(), 3);
}

#[test]
fn a_suspect_that_answers_is_whole_at_once() {
    let mut stage = Stage::of(8);
    silence(&mut stage, 0..5);
    for number in 0..5 {
        stage.probe(number, true);
    }
    stage.wait(100);
    let view = stage.view();
    assert!(view.panics.is_empty());
    for node in &view.nodes {
        assert!(
            node.listed && !node.suspect && node.ramp == 100,
            "{}",
            node.id
        );
    }
}
