//! What RFC 6062 says of servers, one test for each statement.

use std::net::SocketAddr;

use turnfleet_turn::policy::{Limits, TcpRelaying};
use turnfleet_turn::wire::{
    AttributeType, ChannelNumber, Class, ConnectionId, Message, Method, ReservationToken,
};
use turnfleet_turn::{
    AddressFamily, ConnectError, ConnectionOrigin, DropReason, Event, Limit, PeerAddr, ShardId,
    Transport,
};

use crate::support::{Answer, Caller, Net, Outcome, Setup, V4, addr};

const ALICE: &str = "192.0.2.1:5000";
const ALICE_DATA: &str = "192.0.2.1:5001";
const BOB: &str = "192.0.2.2:5000";
/// A peer on a port that clients may connect to.
const PEER: &str = "203.0.113.9:9000";
const PEER6: &str = "[2001:db8:9::9]:9000";
const TCP: u8 = 6;

fn net_with(tcp_relaying: TcpRelaying) -> Net {
    Net::with(Setup {
        tcp_relaying,
        ..Setup::default()
    })
}

fn net() -> Net {
    net_with(TcpRelaying::On)
}

/// A client that has a control connection.
fn caller(net: &mut Net, client: &str) -> Caller {
    Caller::of(net, client, Transport::Tcp, "alice")
}

fn allocate(net: &mut Net, caller: &mut Caller) -> Answer {
    caller.request(net, Method::Allocate, |writer| {
        writer.requested_transport(TCP);
    })
}

/// A TCP allocation and its relayed transport address.
#[track_caller]
fn allocated() -> (Net, Caller, SocketAddr) {
    let mut net = net();
    let mut caller = caller(&mut net, ALICE);
    let answer = allocate(&mut net, &mut caller);
    assert_eq!(answer.code(), 200);
    let relayed = answer.relayed()[0];
    (net, caller, relayed)
}

/// Sends a Connect request, which waits for the peer.
#[track_caller]
fn connect(net: &mut Net, caller: &mut Caller, peer: &str) {
    let packet = caller.signed(Method::Connect, |writer| {
        writer.xor_peer_address(PeerAddr(addr(peer)));
    });
    let outcome = net.client_sends(caller.five_tuple, &packet);
    assert_eq!(outcome, Outcome::Pending);
}

/// A Connect request that is refused at once.
#[track_caller]
fn refused_connect(net: &mut Net, caller: &mut Caller, peer: &str) -> u16 {
    let answer = caller.request(net, Method::Connect, |writer| {
        writer.xor_peer_address(PeerAddr(addr(peer)));
    });
    answer.code()
}

/// What the server has sent to the control connection without being asked.
#[track_caller]
fn sent(net: &mut Net, caller: &Caller) -> Answer {
    let (to, message) = net
        .outbox
        .pop_front()
        .expect("the server has sent something");
    assert_eq!(to, caller.five_tuple);
    Answer(message)
}

/// A connection to [`PEER`] that waits for its ConnectionBind request.
#[track_caller]
fn connected(net: &mut Net, caller: &mut Caller) -> ConnectionId {
    connect(net, caller, PEER);
    net.peer_answers(Ok(()));
    let answer = sent(net, caller);
    assert_eq!(answer.code(), 200);
    answer.message().connection_id().unwrap().unwrap()
}

fn bind(net: &mut Net, caller: &mut Caller, id: ConnectionId) -> Outcome {
    let packet = caller.signed(Method::ConnectionBind, |writer| {
        writer.connection_id(id);
    });
    net.client_sends(caller.five_tuple, &packet)
}

#[track_caller]
fn refused_bind(net: &mut Net, caller: &mut Caller, id: ConnectionId) -> u16 {
    let outcome = bind(net, caller, id);
    let Outcome::Reply(answer) = outcome else {
        panic!("no refusal but {outcome:?}");
    };
    Answer(answer).code()
}

#[track_caller]
fn spliced(net: &mut Net, caller: &mut Caller, id: ConnectionId) {
    let Outcome::Spliced(connection, answer) = bind(net, caller, id) else {
        panic!("the connection is not spliced");
    };
    assert_eq!(connection, id);
    let answer = Answer(answer);
    assert_eq!(answer.code(), 200);
    assert!(answer.is_signed_for(caller));
}

// RFC 6062 §5.1
#[test]
fn where_tcp_is_not_relayed_it_is_as_if_the_rfc_did_not_exist() {
    let mut net = Net::new();
    let mut caller = caller(&mut net, ALICE);
    assert_eq!(allocate(&mut net, &mut caller).code(), 442);
    for method in [Method::Connect, Method::ConnectionBind] {
        let packet = caller.signed(method, |_| {});
        let outcome = net.client_sends(caller.five_tuple, &packet);
        assert_eq!(outcome, Outcome::Dropped(DropReason::Unexpected));
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

// RFC 6062 §5.4
#[test]
fn a_client_data_connection_has_a_stream_of_its_own() {
    let (mut net, mut caller, _) = allocated();
    let id = connected(&mut net, &mut caller);
    let mut by_udp = Caller::new(&mut net, ALICE_DATA);
    assert_eq!(refused_bind(&mut net, &mut by_udp, id), 400);
    // The control connection is none.
    assert_eq!(refused_bind(&mut net, &mut caller, id), 400);
    let mut data = Caller::of(&mut net, ALICE_DATA, Transport::Tls, "alice");
    spliced(&mut net, &mut data, id);
}

// RFC 6062 §5.4
#[test]
fn a_connection_id_that_names_nothing_pending_gets_400() {
    let (mut net, mut caller, _) = allocated();
    let id = connected(&mut net, &mut caller);
    let mut data = self::caller(&mut net, ALICE_DATA);
    let answer = data.request(&mut net, Method::ConnectionBind, |_| {});
    assert_eq!(answer.code(), 400);
    let answer = data.request(&mut net, Method::ConnectionBind, |writer| {
        writer.attribute(AttributeType::CONNECTION_ID, &[0; 2]);
    });
    assert_eq!(answer.code(), 400);
    let unknown = ConnectionId(id.0 ^ 1);
    assert_eq!(refused_bind(&mut net, &mut data, unknown), 400);
    let no_shard = ConnectionId(id.0 | 0xFF00_0000);
    assert_eq!(refused_bind(&mut net, &mut data, no_shard), 400);
    // One that is being opened is not pending yet.
    connect(&mut net, &mut caller, "203.0.113.9:9001");
    let (opening, ..) = net.connects[0];
    assert_eq!(refused_bind(&mut net, &mut data, opening), 400);
    spliced(&mut net, &mut data, id);
    let mut late = self::caller(&mut net, "192.0.2.1:5002");
    assert_eq!(refused_bind(&mut net, &mut late, id), 400);
}

// RFC 6062 §4.3, §5.4
#[test]
fn a_refused_connection_bind_leaves_the_connection_alone() {
    let (mut net, mut caller, _) = allocated();
    let id = connected(&mut net, &mut caller);
    let mut bob = Caller::of(&mut net, BOB, Transport::Tcp, "bob");
    assert_eq!(refused_bind(&mut net, &mut bob, id), 441);
    bob.password = "wrong".into();
    assert_eq!(refused_bind(&mut net, &mut bob, id), 401);
    let unsigned = bob.unsigned(Method::ConnectionBind, |writer| {
        writer.connection_id(id);
    });
    let challenge = bob.send(&mut net, &unsigned);
    assert_eq!(challenge.code(), 401);
    assert!(challenge.has(AttributeType::NONCE));
    let mut data = self::caller(&mut net, ALICE_DATA);
    data.nonce = b"obMatJos2AAAAstale".to_vec();
    assert_eq!(refused_bind(&mut net, &mut data, id), 438);
    data.learn_nonce(&mut net);
    spliced(&mut net, &mut data, id);
}

// RFC 6062 §4.3
#[test]
fn a_connection_is_claimed_with_the_key_of_its_allocation() {
    let (mut net, mut caller, _) = allocated();
    let id = connected(&mut net, &mut caller);
    let mut data = self::caller(&mut net, ALICE_DATA);
    net.keys.set("alice", &["rotated"]);
    spliced(&mut net, &mut data, id);
}

// RFC 6062 §4.3
#[test]
fn a_connection_is_claimed_with_the_nonce_of_its_control_connection() {
    let (mut net, mut caller, _) = allocated();
    let id = connected(&mut net, &mut caller);
    let mut data = self::caller(&mut net, ALICE_DATA);
    data.nonce.clone_from(&caller.nonce);
    spliced(&mut net, &mut data, id);
    // It opens nothing else.
    let answer = data.request(&mut net, Method::Allocate, |writer| {
        writer.requested_transport(TCP);
    });
    assert_eq!(answer.code(), 438);
}

// RFC 6062 §5.4
#[test]
fn a_connection_of_another_shard_is_claimed_there() {
    let (mut net, mut caller, _) = allocated();
    let id = connected(&mut net, &mut caller);
    let mut data = self::caller(&mut net, ALICE_DATA);
    let elsewhere = ConnectionId(id.0 | 0x0100_0000);
    assert_eq!(
        bind(&mut net, &mut data, elsewhere),
        Outcome::ToShard(ShardId(1))
    );
    // Nobody unknown is sent on.
    data.password = "wrong".into();
    assert_eq!(refused_bind(&mut net, &mut data, elsewhere), 401);
}

// RFC 6062 §5.5
#[test]
fn the_end_of_an_allocation_closes_its_connections() {
    for by_refresh in [true, false] {
        let (mut net, mut caller, relayed) = allocated();
        caller.permit(&mut net, &[PEER]);
        let first = net.peer_connects("203.0.113.9:1", relayed).unwrap();
        net.outbox.clear();
        let second = connected(&mut net, &mut caller);
        let mut data = self::caller(&mut net, ALICE_DATA);
        spliced(&mut net, &mut data, second);
        spliced(&mut net, &mut data, first);
        connect(&mut net, &mut caller, "203.0.113.9:9001");
        let (third, ..) = net.connects[0];
        if by_refresh {
            let packet = caller.signed(Method::Refresh, |writer| {
                writer.lifetime(0);
            });
            net.client_sends(caller.five_tuple, &packet);
            assert_eq!(sent(&mut net, &caller).code(), 447);
        } else {
            net.advance_seconds(600);
        }
        net.closed_connections.sort_unstable();
        let mut all = [first, second, third];
        all.sort_unstable();
        assert_eq!(net.closed_connections, all);
        net.assert_idle();
    }
}

// RFC 6062 §5.5
#[test]
fn a_spliced_connection_lives_as_long_as_its_allocation() {
    let (mut net, mut caller, _) = allocated();
    let id = connected(&mut net, &mut caller);
    let mut data = self::caller(&mut net, ALICE_DATA);
    spliced(&mut net, &mut data, id);
    net.advance_seconds(500);
    assert_eq!(caller.refresh(&mut net, None).code(), 200);
    net.advance_seconds(599);
    assert!(net.closed_connections.is_empty());
    net.server.handle_spliced_data(id, 300, 0);
    net.server.handle_spliced_data(id, 0, 7);
    assert_eq!(net.server.counters().to_peers(Transport::Tcp).bytes, 300);
    net.advance_seconds(1);
    assert_eq!(net.closed_connections, [id]);
    let Some(Event::Closed {
        bytes_to_peers,
        bytes_to_client,
        ..
    }) = net.events.last()
    else {
        panic!("the allocation has not ended");
    };
    assert_eq!((*bytes_to_peers, *bytes_to_client), (300, 7));
    net.assert_idle();
}

// RFC 6062 §3
#[test]
fn a_control_connection_carries_no_application_data() {
    let (mut net, mut caller, _) = allocated();
    caller.permit(&mut net, &[PEER]);
    let ignored = Outcome::Dropped(DropReason::NoAllocation);
    assert_eq!(caller.send_indication(&mut net, PEER, b"hi"), ignored);
    let answer = caller.request(&mut net, Method::ChannelBind, |writer| {
        writer.channel_number(ChannelNumber(0x4000));
        writer.xor_peer_address(PeerAddr(addr(PEER)));
    });
    assert_eq!(answer.code(), 403);
}

// RFC 6062 §5.4
#[test]
fn requests_of_this_rfc_are_answered_with_the_senders_key_and_method() {
    let (mut net, mut caller, _) = allocated();
    let answer = caller.request(&mut net, Method::Connect, |_| {});
    assert!(answer.is_signed_for(&caller));
    assert_eq!(answer.message().method(), Some(Method::Connect));
    let parsed = Message::parse(&answer.0).unwrap();
    assert_eq!(parsed.class(), Class::ErrorResponse);
}
