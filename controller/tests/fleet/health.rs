//! Who is listed while nodes fail, drain, stay behind and come back.

use turnfleet_controller::fleet::record::{Desired, Record};
use turnfleet_controller::fleet::{
    Ask, Ended, Event, Health, Load, ProbeOutcome, Probing, Transport,
};

use crate::stage::{Stage, id, identity, outcome};

#[test]
fn a_transport_that_the_probe_found_broken_leaves_the_lists() {
    let mut stage = Stage::of(1);
    let Probing::Yes { round } = stage.view().nodes[0].probing else {
        panic!("it is probed")
    };
    let broken = vec![Transport::Tls];
    let report = |stage: &mut Stage, reached| {
        let broken = broken.clone();
        let outcome = ProbeOutcome {
            reached,
            broken,
            ..outcome(round)
        };
        stage.report(0, outcome);
    };
    report(&mut stage, vec![Transport::Udp]);
    assert_eq!(
        stage.list(&Ask::default()).len(),
        4,
        "this controller has reached nobody by TLS"
    );
    report(&mut stage, vec![Transport::Tls]);
    let list = stage.list(&Ask::default());
    assert!(
        list.len() == 3 && list.iter().all(|uri| !uri.starts_with("turns:")),
        "{list:?}"
    );
}

#[test]
fn a_killed_node_is_out_of_lists_within_two_seconds_and_back_with_its_first_good_probe() {
    let mut stage = Stage::of(2);
    stage.end(0, Ended::Reset);
    stage.wait(1900);
    assert_eq!(stage.listed(), ["relay-1"]);
    stage.register(0, identity(0), 2);
    assert_eq!(stage.listed(), ["relay-1"]);
    stage.probe(0, true);
    assert_eq!(stage.listed(), ["relay-0", "relay-1"]);
}

#[test]
fn a_draining_node_is_in_no_list() {
    let mut stage = Stage::of(2);
    stage.store(Record::Desired(
        id(0),
        Desired {
            draining: true,
            drain_deadline: None,
            kill: None,
        },
    ));
    assert_eq!(stage.listed(), ["relay-1"]);
    stage.end(1, Ended::Goodbye);
    assert!(
        stage.list(&Ask::default()).is_empty(),
        "nobody is sent to a draining node"
    );
}

#[test]
fn a_node_that_missed_a_change_stays_in_lists_when_it_has_a_session_again() {
    let mut stage = Stage::of(2);
    stage.end(0, Ended::Reset);
    stage.probe(0, true);
    stage.store(Record::Generation(8));
    for _ in 0..3 {
        stage.heartbeat(1, 8, Load::default());
        stage.wait(5000);
    }
    assert_eq!(stage.listed().len(), 2, "it runs what it had");
    stage.comes_back(0, identity(0), 7);
    assert_eq!(stage.listed().len(), 2, "it is being told");
    stage.heartbeat(1, 8, Load::default());
    stage.wait(5000);
    stage.heartbeat(0, 7, Load::default());
    assert_eq!(stage.listed(), ["relay-1"], "it has not followed");
}

#[test]
fn another_session_gives_no_time_to_a_node_that_refused_the_policy() {
    let mut stage = Stage::of(2);
    stage.store(Record::Generation(8));
    stage.heartbeat(1, 8, Load::default());
    let event = Event::PolicyStatus {
        session: stage.session(0),
        generation: 8,
        running: 7,
        refusal: Some("no such network".into()),
    };
    stage.fleet.apply(stage.now, event);
    stage.wait(5000);
    stage.comes_back(0, identity(0), 7);
    assert_eq!(stage.listed(), ["relay-1"]);
}

#[test]
fn a_node_that_stays_behind_the_generation_leaves_the_lists() {
    let mut stage = Stage::of(2);
    stage.store(Record::Generation(8));
    assert_eq!(stage.listed().len(), 2, "everybody gets a moment");
    stage.heartbeat(1, 8, Load::default());
    stage.wait(5000);
    assert_eq!(stage.listed().len(), 2, "it has not said that it is behind");
    stage.heartbeat(0, 7, Load::default());
    assert_eq!(stage.listed(), ["relay-1"]);
    stage.heartbeat(0, 8, Load::default());
    assert_eq!(stage.listed().len(), 2);
    let session = stage.session(0);
    stage.store(Record::Generation(9));
    let refusal = Some("no such network".into());
    stage.fleet.apply(
        stage.now,
        Event::PolicyStatus {
            session,
            generation: 9,
            running: 8,
            refusal,
        },
    );
    assert_eq!(stage.listed(), ["relay-1"], "a refusal is no delay");
    stage.end(1, Ended::Goodbye);
    assert_eq!(
        stage.listed(),
        ["relay-0"],
        "an old policy is better than none"
    );
}

#[test]
fn a_replaced_session_speaks_for_nobody() {
    let mut stage = Stage::of(1);
    let old = stage.session(0);
    stage.register(0, identity(0), 2);
    stage.probe(0, true);
    stage.fleet.apply(
        stage.now,
        Event::SessionEnded {
            session: old,
            ended: Ended::Goodbye,
        },
    );
    assert_eq!(stage.fleet.health(&id(0)), Some(Health::Healthy));
}

#[test]
fn a_node_that_recovers_is_said_to_and_not_to_be_full() {
    let mut stage = Stage::of(2);
    let reason = |stage: &Stage| {
        let view = stage.view();
        view.reason(view.node(&id(1)).unwrap())
            .map(|it| it.to_string())
    };
    assert_eq!(reason(&stage), None);
    stage.probe(1, false);
    stage.probe(1, false);
    assert_eq!(reason(&stage).unwrap(), "probe: no answer in time");
    stage.probe(1, true);
    assert_eq!(stage.listed(), ["relay-0"]);
    assert!(reason(&stage).unwrap().starts_with("recovering"));
}
