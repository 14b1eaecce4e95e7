//! What RFC 8656 §11 says of Send and Data indications, and of two clients of one relay.

use turnfleet_turn::wire::{AttributeType, Message, Method};
use turnfleet_turn::{DropReason, PeerAddr, Transport};

use crate::support::{
    ALICE, BOB, Caller, Net, Outcome, PEER, PEER6, Setup, V4, addr, allocated, data_indication,
    dual, host,
};

// RFC 8656 §11.2, §12.6
#[test]
fn data_of_a_dual_allocation_leaves_by_the_address_of_its_peers_family() {
    let (mut net, mut caller, relayed) = dual();
    for (number, peer, via) in [(0x4000, PEER, relayed[0]), (0x4001, PEER6, relayed[1])] {
        caller.bind(&mut net, number, peer);
        let expected = Outcome::Relayed(via, addr(peer), b"hi".to_vec());
        assert_eq!(caller.send_indication(&mut net, peer, b"hi"), expected);
        assert_eq!(caller.channel_data(&mut net, number, b"hi"), expected);
    }
}

// RFC 8656 §11.2
#[test]
fn a_send_indication_goes_to_its_peer_from_the_relayed_address() {
    let (mut net, mut caller, relayed) = allocated();
    caller.permit(&mut net, &[PEER]);
    for payload in [&b""[..], b"h", b"hello", &[7; 1200]] {
        let outcome = caller.send_indication(&mut net, PEER, payload);
        assert_eq!(
            outcome,
            Outcome::Relayed(relayed, addr(PEER), payload.to_vec())
        );
    }
    assert_eq!(net.server.counters().to_peers(Transport::Udp).bytes, 1206);
    assert_eq!(net.server.counters().to_peers(Transport::Udp).packets, 4);
}

// RFC 8656 §11.2
#[test]
fn a_send_indication_without_peer_or_data_is_discarded() {
    let (mut net, mut caller, _) = allocated();
    caller.permit(&mut net, &[PEER]);
    let no_data = caller.indication(Method::Send, |writer| {
        writer.xor_peer_address(PeerAddr(addr(PEER)));
    });
    let no_peer = caller.indication(Method::Send, |writer| {
        writer.data(b"hi");
    });
    let bad_peer = caller.indication(Method::Send, |writer| {
        writer
            .attribute(AttributeType::XOR_PEER_ADDRESS, &[0, 1, 0])
            .data(b"hi");
    });
    for packet in [no_data, no_peer, bad_peer] {
        caller.assert_dropped(&mut net, &packet, DropReason::Malformed);
    }
}

// RFC 8656 §11.2
#[test]
fn of_two_peers_in_a_send_indication_the_first_counts() {
    let (mut net, mut caller, relayed) = allocated();
    caller.permit(&mut net, &[PEER]);
    let packet = caller.indication(Method::Send, |writer| {
        writer.xor_peer_address(PeerAddr(addr(PEER)));
        writer
            .xor_peer_address(PeerAddr(addr("127.0.0.1:1")))
            .data(b"hi");
    });
    let outcome = net.client_sends(caller.five_tuple, &packet);
    assert_eq!(
        outcome,
        Outcome::Relayed(relayed, addr(PEER), b"hi".to_vec())
    );
}

// RFC 8656 §11.2
#[test]
fn a_send_indication_with_dont_fragment_is_discarded() {
    let (mut net, mut caller, _) = allocated();
    caller.permit(&mut net, &[PEER]);
    let packet = caller.indication(Method::Send, |writer| {
        writer.xor_peer_address(PeerAddr(addr(PEER))).data(b"hi");
        writer.attribute(AttributeType::DONT_FRAGMENT, &[]);
    });
    caller.assert_dropped(&mut net, &packet, DropReason::UnknownAttributes);
}

// RFC 8656 §11.2
#[test]
fn a_send_indication_without_a_permission_is_discarded() {
    let (mut net, mut caller, _) = allocated();
    let outcome = caller.send_indication(&mut net, PEER, b"hi");
    assert_eq!(outcome, Outcome::Dropped(DropReason::NoPermission));
}

// RFC 8656 §11.2
#[test]
fn a_send_indication_to_another_family_is_discarded() {
    let (mut net, mut caller, _) = allocated();
    let outcome = caller.send_indication(&mut net, PEER6, b"hi");
    assert_eq!(outcome, Outcome::Dropped(DropReason::FamilyMismatch));
}

// RFC 8656 §11.2
#[test]
fn a_send_indication_to_a_forbidden_port_is_discarded() {
    let (mut net, mut caller, _) = allocated();
    assert_eq!(caller.permit(&mut net, &["198.51.100.1:49160"]).code(), 200);
    let denied = Outcome::Dropped(DropReason::PeerDenied);
    assert_eq!(
        caller.send_indication(&mut net, "198.51.100.1:3478", b"hi"),
        denied
    );
    let granted = caller.send_indication(&mut net, "198.51.100.1:49160", b"hi");
    assert!(matches!(granted, Outcome::Relayed(..)));
}

// RFC 8656 §11.3
#[test]
fn a_peers_datagram_becomes_a_data_indication() {
    let (mut net, mut caller, relayed) = allocated();
    caller.permit(&mut net, &[PEER]);
    let mut ids = Vec::new();
    for payload in [&b""[..], b"h", b"hello", &[7; 1200]] {
        let Outcome::Delivered(to, packet) = net.peer_sends(PEER, relayed, payload) else {
            panic!("not delivered");
        };
        assert_eq!(to, caller.five_tuple);
        assert_eq!(data_indication(&packet), (addr(PEER), payload.to_vec()));
        ids.push(Message::parse(&packet).unwrap().transaction_id().0);
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    assert_eq!(net.server.counters().to_clients(Transport::Udp).bytes, 1206);
}

// RFC 8656 §11.3
#[test]
fn an_ipv6_peers_datagram_becomes_a_data_indication() {
    let (mut net, mut caller, relayed) = dual();
    caller.permit(&mut net, &[PEER6]);
    let Outcome::Delivered(_, packet) = net.peer_sends(PEER6, relayed[1], b"hi") else {
        panic!("not delivered");
    };
    assert_eq!(data_indication(&packet), (addr(PEER6), b"hi".to_vec()));
}

// RFC 8656 §11.3
#[test]
fn a_datagram_from_an_own_address_counts_from_a_granted_port_only() {
    let (mut net, mut caller, relayed) = allocated();
    caller.permit(&mut net, &["198.51.100.1:49160"]);
    assert!(matches!(
        net.peer_sends("198.51.100.1:49160", relayed, b"hi"),
        Outcome::Delivered(..)
    ));
    let denied = Outcome::Dropped(DropReason::PeerDenied);
    assert_eq!(net.peer_sends("198.51.100.1:3478", relayed, b"hi"), denied);
}

// RFC 8656 §11.3
#[test]
fn a_datagram_that_does_not_fit_behind_its_header_is_dropped() {
    let (mut net, mut caller, relayed) = allocated();
    caller.permit(&mut net, &[PEER]);
    let outcome = net.peer_sends(PEER, relayed, &[0; 65_500]);
    assert_eq!(outcome, Outcome::Dropped(DropReason::TooLong));
}

// RFC 8656 §12.7, two clients of one relay
#[test]
fn two_clients_of_one_relay_reach_each_other() {
    let (mut net, mut alice, a) = allocated();
    let mut bob = Caller::named(&mut net, BOB, "bob");
    let b = bob.allocated(&mut net);
    assert_eq!(alice.bind(&mut net, 0x4000, &b.to_string()).code(), 200);
    assert_eq!(bob.permit(&mut net, &[&a.to_string()]).code(), 200);
    let sent = alice.channel_data(&mut net, 0x4000, b"hi");
    assert_eq!(sent, Outcome::Relayed(a, b, b"hi".to_vec()));
    let Outcome::Delivered(to, packet) = net.peer_sends(&a.to_string(), b, b"hi") else {
        panic!("not delivered");
    };
    assert_eq!(to, bob.five_tuple);
    assert_eq!(data_indication(&packet), (a, b"hi".to_vec()));
}

// RFC 8656 §12.7, two clients of one relay behind 1:1 NAT
#[test]
fn behind_nat_an_own_external_address_is_reached_by_the_local_one_and_counts_as_external() {
    let mut net = Net::with(Setup {
        hosts: vec![host("10.0.0.5", V4)],
        ..Setup::default()
    });
    let local = |relayed: std::net::SocketAddr| {
        std::net::SocketAddr::new("10.0.0.5".parse().unwrap(), relayed.port())
    };
    let mut alice = Caller::new(&mut net, ALICE);
    let mut bob = Caller::named(&mut net, BOB, "bob");
    let a = alice.allocated(&mut net);
    let b = bob.allocated(&mut net);
    alice.bind(&mut net, 0x4000, &b.to_string());
    bob.permit(&mut net, &[&a.to_string()]);
    let sent = alice.channel_data(&mut net, 0x4000, b"hi");
    assert_eq!(sent, Outcome::Relayed(local(a), local(b), b"hi".to_vec()));
    let Outcome::Delivered(_, packet) = net.peer_sends(&local(a).to_string(), local(b), b"hi")
    else {
        panic!("not delivered");
    };
    assert_eq!(data_indication(&packet), (a, b"hi".to_vec()));
    let stranger = net.peer_sends("10.0.0.5:3478", local(b), b"hi");
    assert_eq!(stranger, Outcome::Dropped(DropReason::NoPermission));
}
