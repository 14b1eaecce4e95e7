//! Relays of other regions, and shares among many.

use std::collections::BTreeMap;

use turnfleet_controller::fleet::{Ask, Ended, Identity, ListSettings, UriKind};

use crate::stage::{Stage, first_choice, host, identity};

/// Four relays in the north, two in the east and two in the south.
fn regions(order: &[&str]) -> Stage {
    let mut stage = Stage::with(ListSettings {
        regions: order.iter().map(|name| (*name).to_owned()).collect(),
        ..ListSettings::default()
    });
    for number in 0..8u8 {
        let region = match number {
            0..4 => "north",
            4..6 => "east",
            _ => "south",
        };
        stage.join(
            number,
            Identity {
                region: region.into(),
                ..identity(number)
            },
        );
    }
    stage
}

fn relays(stage: &Stage, user: &str, count: usize) -> Vec<u8> {
    let list = stage.list(&Ask {
        user,
        kinds: &[UriKind::Udp],
        count: Some(count),
        ..Ask::default()
    });
    let number = |uri: &String| host(uri).rsplit_once('.').unwrap().1.parse().unwrap();
    list.iter().map(number).collect()
}

#[test]
fn the_third_relay_of_a_list_is_of_the_next_region() {
    let (by_name, by_order) = (regions(&[]), regions(&["north", "east"]));
    for number in 0..50 {
        let user = format!("user-{number}");
        for (stage, spares) in [(&by_name, 6..8), (&by_order, 4..6)] {
            let relays = relays(stage, &user, 4);
            assert!(relays[0] < 4 && relays[1] < 4, "{relays:?}");
            assert_ne!(relays[0] % 2, relays[1] % 2, "of two zones: {relays:?}");
            assert!(spares.contains(&relays[2]), "{relays:?}");
            assert!(relays[3] < 4, "and then the rest of the region: {relays:?}");
        }
    }
}

#[test]
fn a_region_with_one_relay_left_borrows_one_of_the_next() {
    let mut stage = regions(&["north", "east", "south"]);
    let default = |stage: &Stage| stage.list(&Ask::default());
    let south = |uri: &String| ["192.0.2.4", "192.0.2.5"].contains(&host(uri));
    assert!(!default(&stage).iter().any(south));
    for number in 0..3 {
        stage.end(number, Ended::Goodbye);
    }
    let list = default(&stage);
    assert_eq!(host(&list[0]), "192.0.2.3");
    assert!(south(&list[2]), "{list:?}");
    stage.end(3, Ended::Goodbye);
    assert!(
        !default(&stage).is_empty(),
        "another region is better than none"
    );
}

#[test]
fn a_hundred_relays_have_equal_shares_within_seven_percent() {
    let stage = Stage::of(100);
    let view = stage.view();
    let mut shares: BTreeMap<String, u32> = BTreeMap::new();
    for number in 0..400_000 {
        let user = format!("@user-{number}:example.org");
        *shares.entry(first_choice(&view, &user)).or_default() += 1;
    }
    assert_eq!(shares.len(), 100);
    for (relay, share) in shares {
        let of_expected = f64::from(share) / 4000.0;
        assert!(
            (0.93..1.07).contains(&of_expected),
            "{relay} has {of_expected}"
        );
    }
}

#[test]
fn a_relay_that_goes_moves_neither_of_the_relays_of_others() {
    let mut stage = Stage::of(100);
    let users: Vec<String> = (0..2000).map(|number| format!("user-{number}")).collect();
    let lists = |stage: &Stage| -> Vec<Vec<String>> {
        let view = stage.view();
        let list = |user: &String| {
            let ask = Ask {
                user,
                kinds: &[UriKind::Udp],
                count: Some(2),
                ..Ask::default()
            };
            view.list(&ask).iter().map(ToString::to_string).collect()
        };
        users.iter().map(list).collect()
    };
    let before = lists(&stage);
    stage.end(42, Ended::Goodbye);
    let mut moved = 0;
    for (old, new) in before.iter().zip(lists(&stage)) {
        if old.iter().any(|uri| host(uri) == "192.0.2.42") {
            moved += 1;
        } else {
            assert_eq!(*old, new);
        }
    }
    assert!((10..90).contains(&moved), "{moved} of 2000");
}
