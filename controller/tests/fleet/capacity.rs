//! What is left of a fleet.

use turnfleet_controller::fleet::Load;

use crate::stage::{Stage, id, identity};

fn allocations(allocations: u64) -> Load {
    Load {
        allocations,
        ..Load::default()
    }
}

#[test]
fn headroom_without_the_largest_zone_carries_the_use_of_all() {
    let mut stage = Stage::of(3);
    for number in 0..3 {
        stage.heartbeat(number, 7, allocations(300));
    }
    let capacity = stage.view().capacity();
    // Zone 0 has two relays of 1000, zone 1 has one.
    assert_eq!(capacity.total.allocations.headroom(), 2400 - 900);
    assert_eq!(capacity.total.without_largest_zone.unwrap()[0], 800 - 900);
    let (_, north) = &capacity.regions[0];
    assert_eq!(
        north.without_largest_zone,
        capacity.total.without_largest_zone
    );
    assert!(
        capacity
            .zones
            .iter()
            .all(|(_, _, zone)| zone.without_largest_zone.is_none())
    );
    assert_eq!(capacity.nodes.len(), 3);
}

#[test]
fn a_single_zone_is_no_loss_that_can_be_survived() {
    let mut stage = Stage::of(1);
    stage.heartbeat(0, 7, allocations(300));
    let capacity = stage.view().capacity();
    assert_eq!(capacity.zones.len(), 1);
    assert_eq!(capacity.total.without_largest_zone, None);
    assert_eq!(capacity.regions[0].1.without_largest_zone, None);
}

#[test]
fn growth_says_when_a_node_its_zone_and_the_fleet_are_full() {
    let mut stage = Stage::of(2);
    for step in 0..300u64 {
        stage.heartbeat(0, 7, allocations(step));
        stage.heartbeat(1, 7, allocations(100));
        stage.wait(2000);
    }
    let capacity = stage.view().capacity();
    let (_, node) = capacity
        .nodes
        .iter()
        .find(|(node, _)| node.id == id(0))
        .unwrap();
    let seconds = node.seconds_to_full.unwrap();
    assert!(
        (1390..1420).contains(&seconds),
        "701 at half a second: {seconds}"
    );
    let all = capacity.total.seconds_to_full.unwrap();
    assert!((3150..3250).contains(&all), "1601 at half a second: {all}");
    let (_, steady) = capacity
        .nodes
        .iter()
        .find(|(node, _)| node.id == id(1))
        .unwrap();
    assert_eq!(steady.seconds_to_full, None);
    assert_eq!(
        (node.peaks.allocations, steady.peaks.allocations),
        (299, 100)
    );
    stage.heartbeat(0, 7, allocations(3));
    let peak = stage.view().capacity().total.peaks.allocations;
    assert!(
        (390..400).contains(&peak),
        "the highest that was noted: {peak}"
    );
}

#[test]
fn a_busy_shard_counts_as_saturation() {
    let mut stage = Stage::of(1);
    stage.heartbeat(
        0,
        7,
        Load {
            cpu_permille: 800,
            ..Load::default()
        },
    );
    let capacity = stage.view().capacity();
    assert_eq!(capacity.total.saturation(), 0.8);
    assert_eq!(turnfleet_controller::fleet::rated(0.8), "warn");
    assert_eq!(identity(0).capacity.memory_bytes, 0);
}

#[test]
fn an_explanation_names_every_gate_in_order() {
    let mut stage = Stage::of(3);
    stage.probe(1, false);
    stage.probe(1, false);
    let view = stage.view();
    let ask = turnfleet_controller::fleet::Ask {
        user: "alice",
        ..Default::default()
    };
    let explain = |number| view.explain(view.node(&id(number)).unwrap(), &ask);
    let names: Vec<_> = explain(0).gates.iter().map(|gate| gate.name).collect();
    assert_eq!(
        names,
        [
            "tenant",
            "known",
            "session",
            "probe-udp",
            "probe-tcp",
            "probe-tls",
            "proven",
            "draining",
            "generation",
            "saturation",
            "clock",
            "damping",
            "ramp",
            "certificate",
        ]
    );
    assert!(explain(0).gates.iter().all(|gate| gate.open));
    let closed: Vec<_> = explain(1).gates;
    let closed: Vec<_> = closed
        .iter()
        .filter(|gate| !gate.open)
        .map(|gate| gate.name)
        .collect();
    assert_eq!(closed, ["probe-udp", "probe-tcp", "probe-tls", "proven"]);
    assert_eq!((explain(1).rank, explain(1).place), (None, None));
    let mut ranks = [0, 2].map(|number| (explain(number).rank, explain(number).place));
    ranks.sort();
    assert_eq!(ranks, [(Some(1), Some(1)), (Some(2), Some(2))]);
}
