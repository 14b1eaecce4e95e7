//! RFC 8656: ICMP messages about what was sent to peers (§11.5, §18.13).

use std::net::SocketAddr;

use turnfleet_turn::wire::{AttributeType, Class, Icmp, Message, Method};
use turnfleet_turn::{AddressFamily, DropReason, FiveTuple, PeerAddr};

use crate::support::{ALICE, Caller, Net, PEER, PEER6, Setup, V4, V6, addr, allocated, dual, host};

const PORT_UNREACHABLE: Icmp = Icmp {
    kind: 3,
    code: 3,
    data: 0,
};

/// An ICMP message about a datagram from `relayed` to `peer`: which client hears what of it.
fn network_says(
    net: &mut Net,
    relayed: SocketAddr,
    peer: &str,
    icmp: Icmp,
) -> Option<(FiveTuple, Vec<u8>)> {
    let id = net.sockets[&relayed];
    let mut message = b"what an earlier message left".to_vec();
    let to = PeerAddr(addr(peer));
    let client = net
        .server
        .handle_peer_error(net.now, id, to, icmp, &mut message);
    assert_eq!(client.is_none(), message.is_empty());
    Some((client?, message))
}

/// The ICMP attribute of a Data indication about `peer`.
#[track_caller]
fn told(bytes: &[u8], peer: &str) -> Icmp {
    let message = Message::parse(bytes).expect("the server sends sound messages");
    assert_eq!(message.class(), Class::Indication);
    assert_eq!(message.method(), Some(Method::Data));
    assert_eq!(
        message.xor_peer_address(),
        Some(Ok(PeerAddr(addr(peer)))),
        "the peer that was not reached"
    );
    assert!(!message.has(AttributeType::DATA));
    message.icmp().unwrap().unwrap()
}

/// An allocation with permissions for both peers of the tests where it reaches them.
fn permitted() -> (Net, Caller, SocketAddr) {
    let (mut net, mut caller, relayed) = allocated();
    assert_eq!(caller.permit(&mut net, &[PEER]).code(), 200);
    (net, caller, relayed)
}

// RFC 8656 §11.5
#[test]
fn an_icmp_message_is_told_in_a_data_indication_with_peer_type_and_code() {
    let (mut net, caller, relayed) = permitted();
    let (client, bytes) = network_says(&mut net, relayed, PEER, PORT_UNREACHABLE).unwrap();
    assert_eq!(client, caller.five_tuple);
    assert_eq!(told(&bytes, PEER), PORT_UNREACHABLE);
    assert_eq!(net.server.counters().icmp_indications, 1);
}

// RFC 8656 §12.5
#[test]
fn an_icmp_message_about_a_bound_peer_comes_in_a_data_indication_too() {
    let (mut net, mut caller, relayed) = permitted();
    assert_eq!(caller.bind(&mut net, 0x4000, PEER).code(), 200);
    let (_, bytes) = network_says(&mut net, relayed, PEER, PORT_UNREACHABLE).unwrap();
    assert_eq!(told(&bytes, PEER), PORT_UNREACHABLE);
}

// RFC 8656 §11.5
#[test]
fn the_types_3_and_11_of_icmp_and_1_2_and_3_of_icmpv6_are_told_and_no_others() {
    let (mut net, mut caller, relayed) = dual();
    assert_eq!(caller.permit(&mut net, &[PEER, PEER6]).code(), 200);
    for (socket, peer, kinds) in [
        (relayed[0], PEER, &[3, 11][..]),
        (relayed[1], PEER6, &[1, 2, 3][..]),
    ] {
        for kind in 0..=u8::MAX {
            let icmp = Icmp {
                kind,
                code: 1,
                data: 0,
            };
            let heard = network_says(&mut net, socket, peer, icmp);
            assert_eq!(heard.is_some(), kinds.contains(&kind), "{kind} of {peer}");
        }
    }
    assert_eq!(
        net.server.counters().drops(DropReason::IcmpType),
        2 * 256 - 5
    );
}

// RFC 8656 §18.13
#[test]
fn the_error_data_is_the_mtu_where_a_datagram_was_too_big_and_zero_elsewhere() {
    let (mut net, mut caller, relayed) = dual();
    assert_eq!(caller.permit(&mut net, &[PEER, PEER6]).code(), 200);
    for (socket, peer, kind, code, data) in [
        (relayed[0], PEER, 3, 4, 1400),
        (relayed[0], PEER, 3, 3, 0),
        (relayed[0], PEER, 11, 4, 0),
        (relayed[1], PEER6, 2, 0, 1400),
        (relayed[1], PEER6, 1, 4, 0),
        (relayed[1], PEER6, 3, 0, 0),
    ] {
        let icmp = Icmp {
            kind,
            code,
            data: 1400,
        };
        let (_, bytes) = network_says(&mut net, socket, peer, icmp).unwrap();
        assert_eq!(told(&bytes, peer), Icmp { kind, code, data });
    }
}

// RFC 8656 §18.13
#[test]
fn the_reserved_bytes_of_icmp_are_zero() {
    let (mut net, _caller, relayed) = permitted();
    let too_big = Icmp::too_big(AddressFamily::V4, 0x0102_0304);
    let (_, bytes) = network_says(&mut net, relayed, PEER, too_big).unwrap();
    let message = Message::parse(&bytes).unwrap();
    let attribute = message.first(AttributeType::ICMP).unwrap();
    assert_eq!(attribute.kind, AttributeType(0x8004));
    assert_eq!(attribute.value, [0, 0, 3, 4, 1, 2, 3, 4]);
}

// RFC 8656 §11.5
#[test]
fn an_icmp_message_about_a_peer_without_permission_is_discarded() {
    let (mut net, _caller, relayed) = permitted();
    let stranger = "203.0.113.10:9";
    assert_eq!(
        network_says(&mut net, relayed, stranger, PORT_UNREACHABLE),
        None
    );
    net.advance_seconds(301);
    assert_eq!(
        network_says(&mut net, relayed, PEER, PORT_UNREACHABLE),
        None
    );
    assert_eq!(net.server.counters().drops(DropReason::NoPermission), 2);
}

// RFC 8656 §11.5
#[test]
fn the_permission_is_compared_without_the_port_which_may_be_unknown() {
    let (mut net, _caller, relayed) = permitted();
    for peer in ["203.0.113.9:0", "203.0.113.9:4711"] {
        let (_, bytes) = network_says(&mut net, relayed, peer, PORT_UNREACHABLE).unwrap();
        assert_eq!(told(&bytes, peer), PORT_UNREACHABLE);
    }
}

// RFC 8656 §11.5
#[test]
fn an_icmp_message_about_a_relayed_address_without_allocation_is_discarded() {
    let (mut net, mut caller, relayed) = permitted();
    let id = net.sockets[&relayed];
    assert_eq!(caller.refresh(&mut net, Some(0)).code(), 200);
    let mut message = Vec::new();
    let peer = PeerAddr(addr(PEER));
    let heard = net
        .server
        .handle_peer_error(net.now, id, peer, PORT_UNREACHABLE, &mut message);
    assert_eq!(heard, None);
    assert_eq!(net.server.counters().drops(DropReason::NotAllocated), 1);
}

// RFC 8656 §11.5
#[test]
fn a_flood_of_icmp_messages_is_told_at_a_bounded_rate_for_each_relayed_address() {
    let (mut net, _caller, relayed) = permitted();
    let mut bob = Caller::named(&mut net, "192.0.2.2:5000", "bob");
    let of_bob = bob.allocated(&mut net);
    assert_eq!(bob.permit(&mut net, &[PEER]).code(), 200);
    let heard = |net: &mut Net| {
        let messages = (0..1000).filter_map(|_| network_says(net, relayed, PEER, PORT_UNREACHABLE));
        messages.count()
    };
    assert_eq!(heard(&mut net), 10);
    net.advance_seconds(1);
    assert_eq!(heard(&mut net), 10);
    assert_eq!(net.server.counters().drops(DropReason::IcmpRate), 1980);
    assert!(network_says(&mut net, of_bob, PEER, PORT_UNREACHABLE).is_some());
}

// RFC 8656 §11.5
#[test]
fn a_peer_behind_the_relays_own_nat_is_named_as_the_client_knows_it() {
    let mut net = Net::with(Setup {
        hosts: vec![host("10.0.0.1", V4), host(V6, V6)],
        ..Setup::default()
    });
    let mut caller = Caller::new(&mut net, ALICE);
    caller.allocated(&mut net);
    let relayed = *net.sockets.keys().next().unwrap();
    let own = "198.51.100.1:49152";
    assert_eq!(caller.permit(&mut net, &[own]).code(), 200);
    let local = "10.0.0.1:49152";
    let (_, bytes) = network_says(&mut net, relayed, local, PORT_UNREACHABLE).unwrap();
    assert_eq!(told(&bytes, own), PORT_UNREACHABLE);
}
