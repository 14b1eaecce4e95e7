//! What RFC 8656 §9 and §10 say of permissions, and which peers may have none.

use turnfleet_turn::peer_filter::PeerDenied;
use turnfleet_turn::policy::Limits;
use turnfleet_turn::wire::{AttributeType, Method};
use turnfleet_turn::{DropReason, Event, Limit, PeerAddr, TenantId};

use crate::support::{
    ALICE, ALICE_AGAIN, Caller, Net, Outcome, PEER, PEER6, addr, allocated, dual, limited,
};

// RFC 8656 §18.3, RFC 8489 §14.1
#[test]
fn the_reserved_bits_of_a_peer_address_are_ignored() {
    let (mut net, mut caller, _) = allocated();
    let answer = caller.request(&mut net, Method::CreatePermission, |writer| {
        let [port_high, port_low] = (9 ^ 0x2112_u16).to_be_bytes();
        let [a, b, c, d] = (0xCB00_7109 ^ 0x2112_A442_u32).to_be_bytes();
        let value = [0xFF, 1, port_high, port_low, a, b, c, d];
        writer.attribute(AttributeType::XOR_PEER_ADDRESS, &value);
    });
    assert_eq!(answer.code(), 200);
    let sent = caller.send_indication(&mut net, PEER, b"hi");
    assert!(matches!(sent, Outcome::Relayed(..)));
}

// RFC 8656 §9
#[test]
fn a_permission_lasts_300_seconds() {
    let (mut net, mut caller, relayed) = allocated();
    caller.permit(&mut net, &[PEER]);
    net.sleep_seconds(299);
    assert!(matches!(
        net.peer_sends(PEER, relayed, b"hi"),
        Outcome::Delivered(..)
    ));
    assert!(matches!(
        caller.send_indication(&mut net, PEER, b"hi"),
        Outcome::Relayed(..)
    ));
    net.sleep_seconds(1);
    let refused = Outcome::Dropped(DropReason::NoPermission);
    assert_eq!(net.peer_sends(PEER, relayed, b"hi"), refused);
    assert_eq!(caller.send_indication(&mut net, PEER, b"hi"), refused);
}

// RFC 8656 §9
#[test]
fn a_permission_is_refreshed_by_either_request() {
    let (mut net, mut caller, relayed) = allocated();
    caller.permit(&mut net, &[PEER]);
    net.advance_seconds(200);
    caller.bind(&mut net, 0x4000, PEER);
    net.advance_seconds(200);
    assert!(matches!(
        net.peer_sends(PEER, relayed, b"hi"),
        Outcome::Delivered(..)
    ));
    caller.permit(&mut net, &[PEER]);
    net.advance_seconds(150);
    assert!(matches!(
        net.peer_sends(PEER, relayed, b"hi"),
        Outcome::Delivered(..)
    ));
    assert_eq!(net.server.counters().permissions, 1);
}

// RFC 8656 §9
#[test]
fn a_permission_is_for_every_port_of_an_address() {
    let (mut net, mut caller, relayed) = allocated();
    caller.permit(&mut net, &["203.0.113.9:0"]);
    for peer in ["203.0.113.9:1", "203.0.113.9:65535"] {
        assert!(matches!(
            net.peer_sends(peer, relayed, b"hi"),
            Outcome::Delivered(..)
        ));
        assert!(matches!(
            caller.send_indication(&mut net, peer, b"hi"),
            Outcome::Relayed(..)
        ));
    }
}

// RFC 8656 §9
#[test]
fn a_peer_without_a_permission_does_not_reach_the_client() {
    let (mut net, mut caller, relayed) = allocated();
    caller.permit(&mut net, &[PEER]);
    let outcome = net.peer_sends("203.0.113.10:9", relayed, b"hi");
    assert_eq!(outcome, Outcome::Dropped(DropReason::NoPermission));
    assert_eq!(net.server.counters().drops(DropReason::NoPermission), 1);
}

// RFC 8656 §9
#[test]
fn permissions_of_one_allocation_are_not_those_of_another() {
    let (mut net, mut caller, _) = allocated();
    caller.permit(&mut net, &[PEER]);
    let mut other = Caller::new(&mut net, ALICE_AGAIN);
    let relayed = other.allocated(&mut net);
    let refused = Outcome::Dropped(DropReason::NoPermission);
    assert_eq!(net.peer_sends(PEER, relayed, b"hi"), refused);
    assert_eq!(other.send_indication(&mut net, PEER, b"hi"), refused);
}

// RFC 8656 §9
#[test]
fn data_refreshes_no_permission() {
    let (mut net, mut caller, relayed) = allocated();
    caller.permit(&mut net, &[PEER]);
    for _ in 0..3 {
        caller.send_indication(&mut net, PEER, b"hi");
        net.peer_sends(PEER, relayed, b"hi");
        net.advance_seconds(100);
    }
    let refused = Outcome::Dropped(DropReason::NoPermission);
    assert_eq!(net.peer_sends(PEER, relayed, b"hi"), refused);
}

// RFC 8656 §10.2
#[test]
fn create_permission_without_a_peer_gets_400() {
    let (mut net, mut caller, _) = allocated();
    assert_eq!(caller.permit(&mut net, &[]).code(), 400);
}

// RFC 8656 §10.2
#[test]
fn create_permission_with_one_malformed_peer_gets_400_and_installs_none() {
    let (mut net, mut caller, _) = allocated();
    for value in [&[0, 1, 0, 9, 1, 2, 3][..], &[0, 9, 0, 9, 1, 2, 3, 4], &[]] {
        let answer = caller.request(&mut net, Method::CreatePermission, |writer| {
            writer.xor_peer_address(PeerAddr(addr(PEER)));
            writer.attribute(AttributeType::XOR_PEER_ADDRESS, value);
        });
        assert_eq!(answer.code(), 400);
    }
    assert_eq!(net.server.counters().permissions, 0);
}

// RFC 8656 §10.2
#[test]
fn create_permission_for_another_family_gets_443_and_installs_none() {
    let (mut net, mut caller, _) = allocated();
    assert_eq!(caller.permit(&mut net, &[PEER, PEER6]).code(), 443);
    assert_eq!(net.server.counters().permissions, 0);
}

// RFC 8656 §10.2
#[test]
fn create_permission_for_a_forbidden_peer_gets_403_and_installs_none() {
    let (mut net, mut caller, _) = allocated();
    for peer in [
        "127.0.0.1:9",
        "10.0.0.1:9",
        "169.254.169.254:80",
        "224.0.0.1:9",
        "0.0.0.0:9",
    ] {
        assert_eq!(caller.permit(&mut net, &[PEER, peer]).code(), 403, "{peer}");
    }
    assert_eq!(net.server.counters().permissions, 0);
}

// RFC 8656 §10.2
#[test]
fn an_ipv4_peer_in_any_ipv6_form_is_refused() {
    let (mut net, mut caller, _) = dual();
    for peer in [
        "[::ffff:127.0.0.1]:9",
        "[::ffff:203.0.113.9]:9",
        "[::203.0.113.9]:9",
        "[64:ff9b::cb00:7109]:9",
        "[2002:cb00:7109::1]:9",
        "[2001:0:cb00:7109::1]:9",
        "[::1]:9",
    ] {
        assert_eq!(caller.permit(&mut net, &[peer]).code(), 403, "{peer}");
        assert_eq!(caller.bind(&mut net, 0x4000, peer).code(), 403, "{peer}");
    }
}

// RFC 8656 §10.2
#[test]
fn create_permission_installs_all_of_its_peers() {
    let (mut net, mut caller, relayed) = dual();
    let answer = caller.permit(&mut net, &[PEER, PEER6, "203.0.113.10:1", PEER]);
    assert_eq!(answer.code(), 200);
    assert_eq!(net.server.counters().permissions, 3);
    assert!(matches!(
        net.peer_sends("203.0.113.10:7", relayed[0], b"hi"),
        Outcome::Delivered(..)
    ));
    assert!(matches!(
        net.peer_sends(PEER6, relayed[1], b"hi"),
        Outcome::Delivered(..)
    ));
}

// RFC 8656 §10.2
#[test]
fn more_permissions_than_allowed_get_508_and_none_of_them_is_installed() {
    let mut net = Net::with(limited(Limits {
        permissions_per_allocation: 3,
        ..Limits::default()
    }));
    let mut caller = Caller::new(&mut net, ALICE);
    caller.allocated(&mut net);
    let peers = [
        "203.0.113.1:1",
        "203.0.113.2:1",
        "203.0.113.3:1",
        "203.0.113.4:1",
    ];
    assert_eq!(caller.permit(&mut net, &peers[..2]).code(), 200);
    assert_eq!(caller.permit(&mut net, &peers[2..]).code(), 508);
    assert_eq!(net.server.counters().permissions, 2);
    assert_eq!(caller.permit(&mut net, &peers[..3]).code(), 200);
    assert_eq!(caller.permit(&mut net, &peers[..3]).code(), 200);
    assert_eq!(caller.bind(&mut net, 0x4000, peers[3]).code(), 508);
    assert_eq!(net.server.counters().channels, 0);
    assert_eq!(net.server.counters().limits(Limit::Permissions), 2);
    net.advance_seconds(300);
    assert_eq!(caller.permit(&mut net, &peers[3..]).code(), 200);
}

// RFC 8656 §10.2
#[test]
fn what_is_there_can_be_refreshed_under_a_lowered_limit() {
    let (mut net, mut caller, _) = allocated();
    caller.permit(&mut net, &[PEER, "203.0.113.10:1"]);
    caller.bind(&mut net, 0x4000, PEER);
    net.change_policy(|policy| {
        policy.limits.permissions_per_allocation = 1;
        policy.limits.channels_per_allocation = 0;
    });
    assert_eq!(caller.permit(&mut net, &[PEER]).code(), 200);
    assert_eq!(caller.bind(&mut net, 0x4000, PEER).code(), 200);
    assert_eq!(caller.permit(&mut net, &["203.0.113.11:1"]).code(), 508);
}

// RFC 8656 §21.4
#[test]
fn a_client_behind_teredo_or_6to4_gets_403() {
    let mut net = Net::new();
    for client in ["[2001:0:cb00:7109::1]:5000", "[2002:cb00:7109::1]:5000"] {
        let mut caller = Caller::new(&mut net, client);
        assert_eq!(caller.allocate(&mut net, |_| {}).code(), 403);
    }
    net.assert_idle();
}

// RFC 8656 §10.2, §12.2
#[test]
fn a_forbidden_peer_is_reported_with_the_rule_that_refuses_it() {
    let (mut net, mut caller, _) = allocated();
    net.events.clear();
    assert_eq!(caller.permit(&mut net, &[PEER, "10.0.0.1:9"]).code(), 403);
    assert_eq!(caller.bind(&mut net, 0x4000, "127.0.0.1:9").code(), 403);
    let denied = |peer: &str, rule| Event::PeerDenied {
        allocation: 0,
        client: caller.five_tuple,
        username: "alice".into(),
        tenant: TenantId::DEFAULT,
        peer: peer.parse().unwrap(),
        rule,
    };
    let expected = [
        denied("10.0.0.1", PeerDenied::Private),
        denied("127.0.0.1", PeerDenied::Loopback),
    ];
    assert_eq!(net.events, expected);
}
