//! What RFC 6062 §5.4 and §5.5 say of client data connections, and how connections end.

use turnfleet_turn::peer_filter::{PeerFilter, PeerRules};
use turnfleet_turn::wire::{AttributeType, ChannelNumber, Class, ConnectionId, Message, Method};
use turnfleet_turn::{DropReason, Event, PeerAddr, ShardId, Transport};

use crate::support::tcp::{
    ALICE, ALICE_DATA, BOB, PEER, TCP, allocate, allocated, bind, caller, connect, connected, net,
    refused_bind, sent, spliced,
};
use crate::support::{Caller, Outcome, START_UNIX, addr};

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
    // Only there it is known what its allocation was made with.
    data.password = "of another generation".into();
    assert_eq!(
        bind(&mut net, &mut data, elsewhere),
        Outcome::ToShard(ShardId(1))
    );
    // Whoever shows no credentials is challenged where it is.
    let stranger = data.unsigned(Method::ConnectionBind, |writer| {
        writer.connection_id(elsewhere);
    });
    assert_eq!(data.send(&mut net, &stranger).code(), 401);
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

// RFC 6062 §4.3
#[test]
fn where_expiry_is_strict_an_ended_credential_claims_no_connection() {
    for strict in [false, true] {
        let mut net = net();
        net.change_policy(|policy| policy.limits.strict_expiry = strict);
        let username = format!("{}:alice", START_UNIX + 100);
        net.keys.set(&username, &["secret"]);
        let mut caller = Caller::of(&mut net, ALICE, Transport::Tcp, &username);
        assert_eq!(allocate(&mut net, &mut caller).code(), 200);
        net.advance_seconds(150);
        let id = connected(&mut net, &mut caller);
        net.advance_seconds(20);
        let mut data = Caller::of(&mut net, ALICE_DATA, Transport::Tcp, &username);
        match strict {
            false => spliced(&mut net, &mut data, id),
            true => assert_eq!(refused_bind(&mut net, &mut data, id), 401),
        }
    }
}

// RFC 6062 §5.2, §5.3
#[test]
fn a_policy_that_refuses_a_peer_closes_its_connections() {
    let (mut net, mut caller, _) = allocated();
    let spliced_one = connected(&mut net, &mut caller);
    let mut data = self::caller(&mut net, ALICE_DATA);
    spliced(&mut net, &mut data, spliced_one);
    connect(&mut net, &mut caller, "192.0.2.77:9000");
    let other = net.peer_answers(Ok(()));
    net.change_policy(|policy| {
        policy.peer_filter = PeerFilter::new(PeerRules {
            allow: vec!["192.0.2.0/24".parse().unwrap()],
            deny: vec!["203.0.113.0/24".parse().unwrap()],
            ..PeerRules::default()
        });
    });
    assert_eq!(net.closed_connections, [spliced_one]);
    let mut data = self::caller(&mut net, "192.0.2.1:5002");
    spliced(&mut net, &mut data, other);
}
