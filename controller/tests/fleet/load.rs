//! How full nodes are, and what follows from it.

use turnfleet_controller::fleet::{Ended, Load};

use crate::stage::{Stage, first_choice};

#[test]
fn a_loaded_node_is_given_to_fewer_users_and_a_full_one_to_none() {
    let mut stage = Stage::of(2);
    let load = |allocations| Load {
        allocations,
        ..Load::default()
    };
    let share = |stage: &Stage| {
        let view = stage.view();
        (0..2000)
            .filter(|n| first_choice(&view, &format!("user-{n}")) == "192.0.2.0")
            .count()
    };
    let even = share(&stage);
    assert!((900..1100).contains(&even), "{even}");
    stage.heartbeat(0, 7, load(760));
    stage.heartbeat(1, 7, load(0));
    let loaded = share(&stage);
    assert!(
        (320..480).contains(&loaded),
        "{loaded}: a quarter of the other's headroom"
    );
    stage.heartbeat(0, 7, load(901));
    assert_eq!(stage.listed(), ["relay-1"]);
    stage.end(1, Ended::Goodbye);
    assert_eq!(
        stage.listed(),
        ["relay-0"],
        "a full node is better than none"
    );
}

#[test]
fn capacity_counts_what_lives() {
    let mut stage = Stage::of(3);
    stage.heartbeat(
        0,
        7,
        Load {
            allocations: 100,
            ..Load::default()
        },
    );
    stage.end(2, Ended::Goodbye);
    let capacity = stage.view().capacity();
    let total = capacity.total;
    assert_eq!((total.nodes, total.listed), (3, 2));
    assert_eq!(
        (total.allocations.used, total.allocations.limit),
        (100, 2000)
    );
    assert_eq!(total.allocations.headroom(), 1500);
    assert_eq!((capacity.regions.len(), capacity.zones.len()), (1, 2));
}
