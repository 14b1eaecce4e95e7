//! Rooms and names in lists.

use turnfleet_controller::fleet::{Ask, ListSettings, Names};

use crate::stage::{Stage, identity};

#[test]
fn everybody_in_a_room_is_given_the_same_relays() {
    let stage = Stage::of(20);
    let list = |user, room| {
        stage.list(&Ask {
            user,
            room,
            ..Ask::default()
        })
    };
    let rooms = ["lobby", "attic", "cellar", "garden", "garage", "study"];
    for room in rooms {
        assert_eq!(list("alice", Some(room)), list("bob", Some(room)));
    }
    let lists: std::collections::BTreeSet<_> =
        rooms.iter().map(|room| list("alice", Some(room))).collect();
    assert!(lists.len() > 3, "rooms spread: {lists:?}");
    assert_eq!(list("alice", Some("")), list("alice", None));
}

#[test]
fn users_of_the_same_name_in_two_tenants_are_two() {
    let stage = Stage::of(50);
    let list = |tenant, user| {
        stage.list(&Ask {
            tenant,
            user,
            ..Ask::default()
        })
    };
    let users = ["alice", "bob", "carol", "dave"];
    let differ = users
        .iter()
        .filter(|user| list("red", user) != list("blue", user));
    assert!(differ.count() >= 3);
}

#[test]
fn lists_carry_names_where_they_are_wanted() {
    let named = |names| {
        let mut stage = Stage::with(ListSettings {
            names,
            ..ListSettings::default()
        });
        let mut identity = identity(1);
        identity.hostname = Some("relay-1.example.org".into());
        stage.join(1, identity);
        stage
    };
    let ask = |names| Ask {
        names,
        count: Some(3),
        ..Ask::default()
    };
    let by_name = [
        "stun:relay-1.example.org:3478",
        "turn:relay-1.example.org:3478?transport=udp",
        "turns:relay-1.example.org:5349?transport=tcp",
    ];
    let by_address = [
        "stun:192.0.2.1:3478",
        "turn:192.0.2.1:3478?transport=udp",
        "turns:relay-1.example.org:5349?transport=tcp",
    ];
    assert_eq!(named(Names::Turns).list(&ask(None)), by_address);
    assert_eq!(named(Names::Turns).list(&ask(Some(Names::All))), by_name);
    assert_eq!(named(Names::All).list(&ask(None)), by_name);
    assert_eq!(named(Names::All).list(&ask(Some(Names::Turns))), by_address);
}
