//! What a controller makes of what another one sees.

use turnfleet_controller::fleet::record::{Membership, NodeRecord, Record};
use turnfleet_controller::fleet::{Ended, Event, Health, Load, Sighting, Vitals};

use crate::stage::{Stage, id, identity};

/// A controller that knows a node from the store alone.
fn bystander() -> Stage {
    let mut stage = Stage::empty();
    stage.store(Record::Node(NodeRecord {
        id: id(0),
        credential: [0; 32],
        identity: Some(identity(0)),
        membership: Membership::default(),
    }));
    stage
}

/// `from` tells `to` what it sees.
fn tell(from: &Stage, name: &str, to: &mut Stage) {
    let seen = from.fleet.sightings(from.now.instant);
    let sightings = seen.nodes.into_iter().filter_map(Sighting::read);
    let event = Event::Sighted {
        controller: name.into(),
        sightings: sightings.collect(),
    };
    to.fleet.apply(to.now, event);
}

#[track_caller]
fn is(stage: &Stage, health: Health) {
    assert_eq!(stage.view().nodes[0].health, health);
}

#[test]
fn a_node_of_another_controller_is_healthy_here_and_its_load_is_known() {
    let (mut there, mut here) = (Stage::of(1), bystander());
    is(&here, Health::Gone);
    let load = Load {
        allocations: 7,
        ..Load::default()
    };
    there.heartbeat(0, 7, load);
    tell(&there, "there", &mut here);
    is(&here, Health::Starting);
    here.probe(0, true);
    is(&here, Health::Healthy);
    let node = &here.view().nodes[0];
    assert_eq!((node.load.allocations, node.applied_generation), (7, 7));
    assert!(node.connected && node.listed);
}

#[test]
fn a_session_that_breaks_there_is_looked_into_here_at_once() {
    let (mut there, mut here) = (Stage::of(1), bystander());
    tell(&there, "there", &mut here);
    here.probe(0, true);
    there.end(0, Ended::Reset);
    tell(&there, "there", &mut here);
    is(&here, Health::Unmanaged);
    here.probe(0, false);
    is(&here, Health::Gone);
}

#[test]
fn what_a_probe_found_before_a_session_broke_says_nothing_of_what_came_after() {
    let (mut there, mut here) = (Stage::of(1), bystander());
    tell(&there, "there", &mut here);
    here.probe(0, true);
    there.probe(0, true);
    there.wait(10);
    here.wait(10);
    there.end(0, Ended::Reset);
    // The word of that probe comes along.
    tell(&there, "there", &mut here);
    here.probe(0, false);
    is(&here, Health::Gone);
}

#[test]
fn a_clock_that_is_wrong_is_wrong_at_every_controller() {
    let (mut there, mut here) = (Stage::of(1), bystander());
    for _ in 0..2 {
        let vitals = Vitals {
            clock_skew_millis: Some(3_600_000),
            ..Vitals::default()
        };
        there.beat(0, 7, Load::default(), vitals);
        tell(&there, "there", &mut here);
    }
    here.probe(0, true);
    tell(&there, "there", &mut here);
    is(&here, Health::Healthy);
    assert_eq!(here.view().nodes[0].clock_skew_millis, Some(3_600_000));
}

#[test]
fn a_node_that_left_there_has_left() {
    let (mut there, mut here) = (Stage::of(1), bystander());
    tell(&there, "there", &mut here);
    here.probe(0, true);
    there.end(0, Ended::Goodbye);
    tell(&there, "there", &mut here);
    is(&here, Health::Gone);
}

#[test]
fn a_node_that_moves_between_controllers_is_never_lost() {
    let (mut there, mut here) = (Stage::of(1), bystander());
    tell(&there, "there", &mut here);
    here.probe(0, true);
    here.register(0, identity(0), 1);
    is(&here, Health::Healthy);
    tell(&here, "here", &mut there);
    there.end(0, Ended::Reset);
    is(&there, Health::Healthy);
    tell(&there, "there", &mut here);
    is(&here, Health::Healthy);
}

/// Three controllers: the first has the session of node 0, the second none, and the third that of another node.
fn three() -> [Stage; 3] {
    let (first, mut second, mut third) = (Stage::of(1), bystander(), bystander());
    for stage in [&mut second, &mut third] {
        tell(&first, "first", stage);
        stage.probe(0, true);
    }
    third.join(1, identity(1));
    [first, second, third]
}

/// The policy has changed, and the third controller's node follows at once; then time passes.
fn change(second: &mut Stage, third: &mut Stage, millis: u64) {
    for stage in [second, third] {
        stage.store(Record::Generation(8));
        stage.wait(millis);
        if stage.view().nodes.len() > 1 {
            stage.heartbeat(1, 8, Load::default());
        }
    }
}

#[test]
fn a_node_that_moves_before_it_follows_a_change_is_missed_by_nobody() {
    let [mut first, mut second, mut third] = three();
    first.end(0, Ended::Reset);
    for stage in [&mut second, &mut third] {
        tell(&first, "first", stage);
        stage.probe(0, true);
    }
    change(&mut second, &mut third, 20_000);
    assert_eq!(third.listed(), ["relay-0", "relay-1"]);
    second.comes_back(0, identity(0), 7);
    tell(&second, "second", &mut third);
    is(&third, Health::Healthy);
    assert_eq!(third.listed(), ["relay-0", "relay-1"]);
}

#[test]
fn a_node_that_goes_on_to_another_controller_without_a_word_from_the_first_is_missed_by_nobody() {
    let [_, mut second, mut third] = three();
    change(&mut second, &mut third, 5500);
    is(&third, Health::Healthy);
    assert_eq!(
        third.listed(),
        ["relay-0", "relay-1"],
        "it is silent, not late"
    );
    second.comes_back(0, identity(0), 7);
    tell(&second, "second", &mut third);
    assert_eq!(third.listed(), ["relay-0", "relay-1"]);
}

#[test]
fn a_controller_that_dies_takes_no_node_with_it() {
    let (there, mut here) = (Stage::of(1), bystander());
    tell(&there, "there", &mut here);
    here.probe(0, true);
    here.wait(5900);
    is(&here, Health::Healthy);
    here.wait(100);
    here.probe(0, true);
    is(&here, Health::Unmanaged);
    assert_eq!(here.listed(), ["relay-0"]);
    here.register(0, identity(0), 1);
    is(&here, Health::Healthy);
}

#[test]
fn what_is_old_changes_nothing() {
    let (mut there, mut here) = (Stage::of(1), bystander());
    there.wait(6000);
    tell(&there, "there", &mut here);
    is(&here, Health::Gone);
    here.register(0, identity(0), 2);
    here.probe(0, true);
    let newer = Load {
        allocations: 2,
        ..Load::default()
    };
    here.heartbeat(0, 7, newer);
    tell(&there, "there", &mut here);
    assert_eq!(here.view().nodes[0].load.allocations, 2);
    is(&here, Health::Healthy);
}

#[test]
fn a_node_that_nobody_speaks_of_falls_silent() {
    let (there, mut here) = (Stage::of(1), bystander());
    tell(&there, "there", &mut here);
    here.probe(0, true);
    tell(&Stage::empty(), "there", &mut here);
    is(&here, Health::Healthy);
    here.wait(6000);
    here.probe(0, false);
    is(&here, Health::Gone);
}

#[test]
fn a_node_that_only_one_controller_cannot_reach_stays_in_lists() {
    let (mut there, mut here) = (Stage::of(1), bystander());
    tell(&there, "there", &mut here);
    here.probe(0, true);
    there.probe(0, true);
    tell(&there, "there", &mut here);
    here.probe(0, false);
    here.probe(0, false);
    is(&here, Health::Healthy);
    assert_eq!(here.listed(), ["relay-0"]);
    for _ in 0..2 {
        there.probe(0, false);
        tell(&there, "there", &mut here);
    }
    is(&here, Health::Unhealthy);
}

#[test]
fn the_same_word_of_another_probe_counts_once() {
    let (mut there, mut here) = (Stage::of(1), bystander());
    tell(&there, "there", &mut here);
    here.probe(0, true);
    there.probe(0, false);
    for _ in 0..3 {
        tell(&there, "there", &mut here);
        here.probe(0, false);
    }
    is(&here, Health::Healthy);
}

#[test]
fn a_wrong_clock_is_known_wherever_the_node_is_heard_and_forgotten_with_the_session() {
    let (mut there, mut here) = (Stage::of(1), bystander());
    let clock = |stage: &Stage| stage.view().nodes[0].clock_skew_millis;
    for millis in [3_600_000, 10] {
        let vitals = Vitals {
            clock_skew_millis: Some(millis),
            ..Vitals::default()
        };
        for _ in 0..3 {
            there.beat(0, 7, Load::default(), vitals);
            tell(&there, "there", &mut here);
        }
        assert_eq!(clock(&here), Some(millis));
    }
    there.end(0, Ended::Reset);
    assert_eq!(clock(&there), None);
}
