//! A controller that starts again: the store is all that is known, and nodes come back one by one.

use turnfleet_controller::fleet::record::{Membership, NodeRecord, Record};
use turnfleet_controller::fleet::{Health, Probing};

use crate::stage::{Stage, id, identity};

/// A fleet of one node that the store alone knows.
fn restarted() -> Stage {
    let mut stage = Stage::empty();
    stage.store(Record::Node(NodeRecord {
        id: id(0),
        credential: [0; 32],
        identity: Some(identity(0)),
        membership: Membership::default(),
    }));
    stage
}

fn standing(stage: &Stage) -> (Health, bool, Probing) {
    let view = stage.view();
    let node = view.node(&id(0)).unwrap();
    (node.health, node.listed, node.probing)
}

#[track_caller]
fn assert_standing(stage: &Stage, health: Health, listed: bool) {
    let (is, is_listed, _) = standing(stage);
    assert_eq!((is, is_listed), (health, listed));
}

#[test]
fn a_node_that_its_probe_has_listed_stays_listed_when_it_connects() {
    let mut stage = restarted();
    assert_standing(&stage, Health::Gone, false);
    stage.probe(0, true);
    assert_standing(&stage, Health::Unmanaged, true);
    let (.., before) = standing(&stage);
    stage.register(0, identity(0), 7);
    assert_standing(&stage, Health::Healthy, true);
    assert_ne!(standing(&stage).2, before, "it is probed at once");
}

#[test]
fn a_node_that_connects_before_its_probe_waits_for_it() {
    let mut stage = restarted();
    stage.register(0, identity(0), 7);
    assert_standing(&stage, Health::Starting, false);
    stage.probe(0, true);
    assert_standing(&stage, Health::Healthy, true);
}

#[test]
fn a_later_run_of_its_process_begins_anew() {
    let mut stage = restarted();
    stage.probe(0, true);
    stage.register(0, identity(0), 7);
    stage.register(0, identity(0), 8);
    assert_standing(&stage, Health::Starting, false);
}
