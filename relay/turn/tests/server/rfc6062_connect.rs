//! What RFC 6062 §5.1-§5.3 says of TCP allocations, Connect requests and connections that peers open.

use turnfleet_turn::policy::{Limits, TcpRelaying};
use turnfleet_turn::wire::{AttributeType, Class, Method, ReservationToken};
use turnfleet_turn::{
    AddressFamily, ConnectError, ConnectionOrigin, DropReason, Event, Limit, PeerAddr, Transport,
};

use crate::support::tcp::{
    ALICE, ALICE_DATA, PEER, PEER6, TCP, allocate, allocated, caller, connect, connected, net,
    net_with, refused_bind, refused_connect, sent, spliced,
};
use crate::support::{Caller, Net, Setup, V4, addr};

// RFC 6062 §5.1
#[test]
fn where_tcp_is_not_relayed_it_is_as_if_the_rfc_did_not_exist() {
    let mut net = Net::new();
    let mut caller = caller(&mut net, ALICE);
    assert_eq!(allocate(&mut net, &mut caller).code(), 442);
    for method in [Method::Connect, Method::ConnectionBind] {
        let packet = caller.signed(method, |_| {});
        caller.assert_dropped(&mut net, &packet, DropReason::Unexpected);
    }
}

// RFC 6062 §5.1 (4)
#[test]
fn a_tcp_allocation_listens_at_a_tcp_relayed_transport_address() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut net = net();
        let mut caller = Caller::of(&mut net, ALICE, transport, "alice");
        let answer = allocate(&mut net, &mut caller);
        assert_eq!(answer.code(), 200);
        assert!(net.listening.contains(&answer.relayed()[0]));
        assert!(!answer.has(AttributeType::RESERVATION_TOKEN));
        let told = net.events.iter().any(|event| {
            let tcp = Transport::Tcp;
            matches!(event, Event::Opened { relayed_transport, .. } if *relayed_transport == tcp)
        });
        assert!(told, "{:?}", net.events);
        assert_eq!(caller.refresh(&mut net, Some(0)).code(), 200);
        net.assert_idle();
    }
}

// RFC 6062 §5.1, RFC 6156 §4.2
#[test]
fn a_tcp_allocation_may_have_an_ipv6_address() {
    let mut net = net();
    let mut caller = caller(&mut net, ALICE);
    let answer = caller.request(&mut net, Method::Allocate, |writer| {
        writer.requested_transport(TCP);
        writer.requested_address_family(AddressFamily::V6);
    });
    assert_eq!(answer.code(), 200);
    assert!(answer.relayed()[0].is_ipv6());
    connect(&mut net, &mut caller, PEER6);
    assert_eq!(refused_connect(&mut net, &mut caller, PEER), 443);
}

// RFC 6062 §5.1 (1)
#[test]
fn a_transport_other_than_udp_and_tcp_gets_442() {
    let mut net = net();
    let mut caller = caller(&mut net, ALICE);
    let answer = caller.request(&mut net, Method::Allocate, |writer| {
        writer.requested_transport(132);
    });
    assert_eq!(answer.code(), 442);
    assert_eq!(caller.allocate(&mut net, |_| {}).code(), 200);
    assert!(net.listening.is_empty());
}

// RFC 6062 §5.1 (2)
#[test]
fn a_tcp_allocation_over_udp_gets_400() {
    let mut net = net();
    let mut caller = Caller::new(&mut net, ALICE);
    assert_eq!(allocate(&mut net, &mut caller).code(), 400);
}

// RFC 6062 §5.1 (3)
#[test]
fn what_stands_for_a_property_of_udp_gets_400() {
    let mut net = net();
    let mut caller = caller(&mut net, ALICE);
    for kind in 0..3 {
        let answer = caller.request(&mut net, Method::Allocate, |writer| {
            writer.requested_transport(TCP);
            match kind {
                0 => writer.attribute(AttributeType::DONT_FRAGMENT, &[]),
                1 => writer.even_port(false),
                _ => writer.reservation_token(ReservationToken([0; 8])),
            };
        });
        assert_eq!(answer.code(), 400, "{kind}");
    }
}

// RFC 6062 §5.2
#[test]
fn connect_without_an_allocation_gets_437_and_somebody_elses_441() {
    let (mut net, mut alice, _) = allocated();
    let mut stranger = caller(&mut net, ALICE_DATA);
    assert_eq!(refused_connect(&mut net, &mut stranger, PEER), 437);
    alice.username = "bob".into();
    assert_eq!(refused_connect(&mut net, &mut alice, PEER), 441);
    assert!(net.connects.is_empty());
}

// RFC 6062 §5.2
#[test]
fn connect_for_a_udp_allocation_gets_403() {
    let mut net = net();
    let mut caller = caller(&mut net, ALICE);
    caller.allocated(&mut net);
    assert_eq!(refused_connect(&mut net, &mut caller, PEER), 403);
}

// RFC 6062 §5.2
#[test]
fn connect_without_a_valid_peer_gets_400() {
    let (mut net, mut caller, _) = allocated();
    let answer = caller.request(&mut net, Method::Connect, |_| {});
    assert_eq!(answer.code(), 400);
    let answer = caller.request(&mut net, Method::Connect, |writer| {
        writer.attribute(AttributeType::XOR_PEER_ADDRESS, &[0, 1, 2]);
    });
    assert_eq!(answer.code(), 400);
}

// RFC 6062 §5.2
#[test]
fn a_forbidden_peer_gets_403_before_anything_is_sent_to_it() {
    let (mut net, mut caller, relayed) = allocated();
    for peer in ["127.0.0.1:9000", "10.0.0.1:9000", "203.0.113.9:0"] {
        assert_eq!(refused_connect(&mut net, &mut caller, peer), 403, "{peer}");
    }
    // The relay's own listener, and the address that the connection would begin at.
    let listener = format!("{V4}:3478");
    assert_eq!(refused_connect(&mut net, &mut caller, &listener), 403);
    assert_eq!(
        refused_connect(&mut net, &mut caller, &relayed.to_string()),
        403
    );
    assert!(net.connects.is_empty());
}

// RFC 6062 §5.2
#[test]
fn ports_below_1024_are_refused_unless_the_operator_opens_them() {
    let (mut net, mut caller, _) = allocated();
    for port in [1, 22, 25, 1023] {
        let peer = format!("203.0.113.9:{port}");
        assert_eq!(refused_connect(&mut net, &mut caller, &peer), 403);
    }
    connect(&mut net, &mut caller, "203.0.113.9:1024");

    let mut net = net_with(TcpRelaying::OnWithLowPorts);
    let mut caller = self::caller(&mut net, ALICE);
    assert_eq!(allocate(&mut net, &mut caller).code(), 200);
    connect(&mut net, &mut caller, "203.0.113.9:22");
}

// RFC 6062 §5.2
#[test]
fn connect_leaves_from_the_relayed_transport_address() {
    let (mut net, mut caller, relayed) = allocated();
    connect(&mut net, &mut caller, PEER);
    let (_, local, peer) = net.connects[0];
    assert_eq!((local, peer), (relayed, addr(PEER)));
    let connection = net.peer_answers(Ok(()));
    let answer = sent(&mut net, &caller);
    assert_eq!(answer.code(), 200);
    assert!(answer.is_signed_for(&caller));
    assert_eq!(answer.message().method(), Some(Method::Connect));
    assert_eq!(answer.message().connection_id(), Some(Ok(connection)));
    let told = net.events.iter().any(|event| {
        matches!(event, Event::PeerConnected { peer, opened_by: ConnectionOrigin::Client, .. } if *peer == addr(PEER))
    });
    assert!(told, "{:?}", net.events);
}

// RFC 6062 §5.2
#[test]
fn a_second_connection_to_the_same_peer_gets_446_while_the_first_is_there() {
    let (mut net, mut caller, _) = allocated();
    connect(&mut net, &mut caller, PEER);
    assert_eq!(refused_connect(&mut net, &mut caller, PEER), 446);
    net.peer_answers(Ok(()));
    let id = sent(&mut net, &caller)
        .message()
        .connection_id()
        .unwrap()
        .unwrap();
    assert_eq!(refused_connect(&mut net, &mut caller, PEER), 446);
    let mut data = self::caller(&mut net, ALICE_DATA);
    spliced(&mut net, &mut data, id);
    assert_eq!(refused_connect(&mut net, &mut caller, PEER), 446);
    // Another port is another peer.
    connect(&mut net, &mut caller, "203.0.113.9:9001");
    net.server.handle_connection_closed(id);
    connect(&mut net, &mut caller, PEER);
}

// RFC 6062 §5.2
#[test]
fn a_peer_that_does_not_accept_gets_the_client_447() {
    for error in [ConnectError::Failed, ConnectError::Exhausted] {
        let (mut net, mut caller, _) = allocated();
        connect(&mut net, &mut caller, PEER);
        net.peer_answers(Err(error));
        let answer = sent(&mut net, &caller);
        assert_eq!(answer.code(), 447);
        assert!(answer.is_signed_for(&caller));
        // It may be tried again.
        connect(&mut net, &mut caller, PEER);
    }
}

// RFC 6062 §5.2
#[test]
fn a_peer_that_says_nothing_for_30_seconds_gets_the_client_447() {
    let (mut net, mut caller, _) = allocated();
    connect(&mut net, &mut caller, PEER);
    let (connection, ..) = net.connects[0];
    net.advance_seconds(29);
    assert!(net.outbox.is_empty() && net.closed_connections.is_empty());
    net.advance_seconds(1);
    assert_eq!(sent(&mut net, &caller).code(), 447);
    assert_eq!(net.closed_connections, [connection]);
    // Its answer comes too late.
    net.peer_answers(Ok(()));
    assert!(net.outbox.is_empty());
}

// RFC 6062 §5.2, §5.3
#[test]
fn a_connection_that_nobody_claims_for_30_seconds_is_closed() {
    let (mut net, mut caller, _) = allocated();
    let id = connected(&mut net, &mut caller);
    net.advance_seconds(29);
    assert!(net.closed_connections.is_empty());
    net.advance_seconds(1);
    assert_eq!(net.closed_connections, [id]);
    assert!(net.outbox.is_empty(), "the client is not told");
    let mut data = self::caller(&mut net, ALICE_DATA);
    assert_eq!(refused_bind(&mut net, &mut data, id), 400);
}

// RFC 6062 §5.2
#[test]
fn an_allocation_has_64_connections_at_most() {
    let (mut net, mut caller, relayed) = allocated();
    caller.permit(&mut net, &[PEER]);
    for port in 0..64 {
        connect(
            &mut net,
            &mut caller,
            &format!("203.0.113.9:{}", 9000 + port),
        );
    }
    let another = "203.0.113.9:9999";
    assert_eq!(refused_connect(&mut net, &mut caller, another), 508);
    assert_eq!(net.peer_connects(another, relayed), None);
    assert_eq!(net.server.counters().limits(Limit::Connections), 2);
    net.peer_answers(Err(ConnectError::Failed));
    assert_eq!(sent(&mut net, &caller).code(), 447);
    connect(&mut net, &mut caller, another);
}

// RFC 6062 §5.2
#[test]
fn the_number_of_connections_is_the_operators() {
    let mut net = Net::with(Setup {
        tcp_relaying: TcpRelaying::On,
        limits: Limits {
            connections_per_allocation: 1,
            ..Limits::default()
        },
        ..Setup::default()
    });
    let mut caller = caller(&mut net, ALICE);
    allocate(&mut net, &mut caller);
    connect(&mut net, &mut caller, PEER);
    assert_eq!(
        refused_connect(&mut net, &mut caller, "203.0.113.9:9001"),
        508
    );
}

// RFC 6062 §5.2
#[test]
fn a_user_and_the_relay_have_so_many_connections() {
    for (limits, code) in [
        (
            Limits {
                connections_per_user: 2,
                ..Limits::default()
            },
            486,
        ),
        (
            Limits {
                connections: 2,
                ..Limits::default()
            },
            508,
        ),
    ] {
        let mut net = Net::with(Setup {
            tcp_relaying: TcpRelaying::On,
            limits,
            ..Setup::default()
        });
        let [mut first, mut second] = [ALICE, ALICE_DATA].map(|client| caller(&mut net, client));
        for caller in [&mut first, &mut second] {
            allocate(&mut net, caller);
            connect(&mut net, caller, PEER);
        }
        let another = "203.0.113.9:9001";
        assert_eq!(refused_connect(&mut net, &mut second, another), code);
        // What has ended counts for nobody.
        net.peer_answers(Err(ConnectError::Failed));
        net.outbox.clear();
        connect(&mut net, &mut second, another);
        for caller in [&mut first, &mut second] {
            caller.refresh(&mut net, Some(0));
        }
        net.assert_idle();
    }
}

// RFC 8656 §7.2 (2)
#[test]
fn an_allocation_on_the_five_tuple_is_seen_before_what_the_request_asks_for() {
    let mut net = net();
    let mut caller = Caller::of(&mut net, ALICE, Transport::Udp, "alice");
    caller.allocated(&mut net);
    assert_eq!(allocate(&mut net, &mut caller).code(), 437);
}

// RFC 6062 §5.3
#[test]
fn a_peer_with_a_permission_is_announced() {
    let (mut net, mut caller, relayed) = allocated();
    caller.permit(&mut net, &[PEER]);
    let id = net.peer_connects(PEER, relayed).expect("it may stay");
    let announced = sent(&mut net, &caller);
    let message = announced.message();
    assert_eq!(message.class(), Class::Indication);
    assert_eq!(message.method(), Some(Method::ConnectionAttempt));
    assert_eq!(message.connection_id(), Some(Ok(id)));
    assert_eq!(message.xor_peer_address(), Some(Ok(PeerAddr(addr(PEER)))));
    let mut data = self::caller(&mut net, ALICE_DATA);
    spliced(&mut net, &mut data, id);
}

// RFC 6062 §5.3
#[test]
fn a_peer_without_a_permission_is_closed() {
    let (mut net, mut caller, relayed) = allocated();
    assert_eq!(net.peer_connects(PEER, relayed), None);
    caller.permit(&mut net, &[PEER]);
    net.advance_seconds(300);
    assert_eq!(net.peer_connects(PEER, relayed), None);
    assert!(net.outbox.is_empty(), "the client is not told");
    assert_eq!(net.server.counters().drops(DropReason::NoPermission), 2);
}
