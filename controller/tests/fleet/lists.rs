//! Which relays a user is given, and by which URIs.

use std::collections::BTreeMap;

use turnfleet_controller::fleet::{Ask, Ended, Identity, Listener, Transport, UriKind};

use crate::stage::{Stage, first_choice, host, identity};

#[test]
fn the_default_list_is_stun_two_relays_by_udp_and_tls() {
    let stage = Stage::of(4);
    let list = stage.list(&Ask {
        user: "alice",
        ..Ask::default()
    });
    let (a, b) = (&list[0]["stun:".len()..], &list[2]["turn:".len()..]);
    let a_host = a.trim_end_matches(":3478");
    assert_eq!(list[1], format!("turn:{a}?transport=udp"));
    assert!(
        b.ends_with(":3478?transport=udp") && !b.starts_with(a),
        "{list:?}"
    );
    assert_eq!(list[3], format!("turns:{a_host}:5349?transport=tcp"));
    assert_eq!(list.len(), 4);
}

#[test]
fn without_tls_the_default_list_ends_with_tcp() {
    let mut stage = Stage::empty();
    for number in 0..2 {
        let mut plain = identity(number);
        plain
            .listeners
            .retain(|listener| listener.transport != Transport::Tls);
        stage.join(number, plain);
    }
    let list = stage.list(&Ask {
        user: "alice",
        ..Ask::default()
    });
    assert!(
        list[3].starts_with("turn:") && list[3].ends_with("?transport=tcp"),
        "{list:?}"
    );
}

#[test]
fn a_single_relay_fills_the_list_with_what_it_serves() {
    let list = Stage::of(1).list(&Ask {
        user: "alice",
        ..Ask::default()
    });
    assert_eq!(
        list,
        [
            "stun:192.0.2.0:3478",
            "turn:192.0.2.0:3478?transport=udp",
            "turns:192.0.2.0:5349?transport=tcp",
            "turn:192.0.2.0:3478?transport=tcp",
        ]
    );
}

#[test]
fn tls_carries_the_name_and_ipv4_comes_before_ipv6() {
    let mut stage = Stage::empty();
    let mut named = identity(1);
    named.hostname = Some("turn.example.org".into());
    let v6 = |listener: &Listener| Listener {
        address: format!("[2001:db8::1]:{}", listener.address.port())
            .parse()
            .unwrap(),
        ..*listener
    };
    let mut listeners: Vec<_> = named.listeners.iter().map(v6).collect();
    listeners.append(&mut named.listeners);
    named.listeners = listeners;
    stage.join(1, named);
    let list = stage.list(&Ask {
        user: "alice",
        count: Some(3),
        ..Ask::default()
    });
    assert_eq!(
        list,
        [
            "stun:192.0.2.1:3478",
            "turn:192.0.2.1:3478?transport=udp",
            "turns:turn.example.org:5349?transport=tcp",
        ]
    );
}

#[test]
fn the_caller_may_ask_for_kinds_and_a_count() {
    let stage = Stage::of(5);
    let ask = |kinds, count| {
        stage.list(&Ask {
            user: "alice",
            kinds,
            count: Some(count),
            ..Ask::default()
        })
    };
    let tcp = ask(&[UriKind::Tcp], 3);
    assert!(
        tcp.len() == 3 && tcp.iter().all(|uri| uri.ends_with("?transport=tcp")),
        "{tcp:?}"
    );
    let both = ask(&[UriKind::Tls, UriKind::Udp], 4);
    assert!(
        both[..2].iter().all(|uri| uri.starts_with("turns:")),
        "{both:?}"
    );
    assert!(
        both[2..].iter().all(|uri| uri.ends_with("?transport=udp")),
        "{both:?}"
    );
    let one = stage.list(&Ask {
        user: "alice",
        count: Some(1),
        ..Ask::default()
    });
    assert!(one.len() == 1 && one[0].starts_with("turn:"), "{one:?}");
    let many = stage.list(&Ask {
        user: "alice",
        count: Some(100),
        ..Ask::default()
    });
    assert_eq!(many.len(), turnfleet_controller::fleet::MAX_URIS);
}

#[test]
fn the_two_relays_of_a_list_are_of_different_zones() {
    let stage = Stage::of(6);
    let view = stage.view();
    for number in 0..200 {
        let user = format!("user-{number}");
        let ask = Ask {
            user: &user,
            kinds: &[UriKind::Udp],
            count: Some(2),
            ..Ask::default()
        };
        let zones: Vec<_> = view
            .list(&ask)
            .iter()
            .map(|uri| host(uri).rsplit('.').next().unwrap().parse::<u8>().unwrap() % 2)
            .collect();
        assert_ne!(zones[0], zones[1]);
    }
}

#[test]
fn the_region_asked_for_comes_first_and_others_fill_up() {
    let mut stage = Stage::of(3);
    let south = Identity {
        region: "south".into(),
        ..identity(9)
    };
    stage.join(9, south);
    let view = stage.view();
    for number in 0..50 {
        let user = format!("user-{number}");
        let kinds = &[UriKind::Udp];
        let ask = Ask {
            user: &user,
            kinds,
            count: Some(2),
            ..Ask::default()
        };
        assert!(view.list(&ask).iter().all(|uri| host(uri) != "192.0.2.9"));
        let south = view.list(&Ask {
            region: Some("south"),
            ..ask
        });
        assert_eq!((host(south[0]), south.len()), ("192.0.2.9", 2));
        assert_eq!(
            view.list(&Ask {
                region: Some("nowhere"),
                ..ask
            })
            .len(),
            2
        );
    }
}

#[test]
fn a_node_that_leaves_moves_only_its_own_users() {
    let mut stage = Stage::of(20);
    let before = stage.view();
    stage.end(7, Ended::Goodbye);
    let after = stage.view();
    let mut moved = 0;
    for number in 0..5000 {
        let user = format!("user-{number}");
        let (old, new) = (first_choice(&before, &user), first_choice(&after, &user));
        if old == "192.0.2.7" {
            moved += 1;
            assert_ne!(new, old);
        } else {
            assert_eq!(new, old, "{user}");
        }
    }
    assert!(moved > 0);
}

#[test]
fn shares_follow_capacity() {
    let mut stage = Stage::of(19);
    let mut large = identity(19);
    large.capacity.allocations *= 3;
    stage.join(19, large);
    let view = stage.view();
    let mut shares: BTreeMap<String, f64> = BTreeMap::new();
    for number in 0..44_000 {
        *shares
            .entry(first_choice(&view, &format!("user-{number}")))
            .or_default() += 1.0;
    }
    for (host, share) in shares {
        let expected = if host == "192.0.2.19" { 6000.0 } else { 2000.0 };
        assert!(
            (share / expected - 1.0).abs() < 0.1,
            "{host} has {share} of {expected}"
        );
    }
}

#[test]
fn an_empty_user_is_placed_by_the_callers_network() {
    let stage = Stage::of(20);
    let ask = |client: &str| {
        stage.list(&Ask {
            client: Some(client.parse().unwrap()),
            ..Ask::default()
        })
    };
    assert_eq!(ask("198.51.100.1"), ask("198.51.100.254"));
    assert_eq!(ask("::ffff:198.51.100.1"), ask("198.51.100.1"));
    assert_eq!(ask("2001:db8:0:1::1"), ask("2001:db8:0:ff::2"));
    let others = (0..20).map(|net| ask(&format!("203.0.{net}.1")));
    assert!(others.collect::<std::collections::BTreeSet<_>>().len() > 5);
}
