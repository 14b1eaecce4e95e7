//! What RFC 8656 says of allocations: whose they are, how long they live, and what is told of them (§3, §5, §6).

use turnfleet_turn::wire::Class;
use turnfleet_turn::{CloseReason, DropReason, Event, TenantId, Transport};

use crate::support::{
    ALICE, ALICE_AGAIN, BOB, Caller, Net, Outcome, PEER, REALM, allocated, dual, reserve,
};

// RFC 8656 §5
#[test]
fn a_request_without_an_allocation_gets_437() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    assert_eq!(caller.refresh(&mut net, None).code(), 437);
    assert_eq!(caller.refresh(&mut net, Some(0)).code(), 437);
    assert_eq!(caller.permit(&mut net, &[PEER]).code(), 437);
    assert_eq!(caller.bind(&mut net, 0x4000, PEER).code(), 437);
}

// RFC 8656 §5
#[test]
fn data_without_an_allocation_is_ignored() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    let ignored = Outcome::Dropped(DropReason::NoAllocation);
    assert_eq!(caller.send_indication(&mut net, PEER, b"hi"), ignored);
    assert_eq!(caller.channel_data(&mut net, 0x4000, b"hi"), ignored);
}

// RFC 8656 §5
#[test]
fn another_user_on_the_same_five_tuple_gets_441() {
    let (mut net, mut caller, _) = allocated();
    caller.username = "bob".into();
    assert_eq!(caller.refresh(&mut net, None).code(), 441);
    assert_eq!(caller.permit(&mut net, &[PEER]).code(), 441);
    assert_eq!(caller.bind(&mut net, 0x4000, PEER).code(), 441);
    assert!(caller.refresh(&mut net, Some(0)).is_signed_for(&caller));
    assert_eq!(net.server.counters().allocations(), 1);
}

// RFC 8656 §5
#[test]
fn wrong_credentials_are_those_of_the_whole_username() {
    let mut net = Net::new();
    net.keys.set("1800009999:alice", &["secret"]);
    net.keys.set("1800008888:alice", &["secret"]);
    let mut caller = Caller::named(&mut net, ALICE, "1800009999:alice");
    caller.allocated(&mut net);
    caller.username = "1800008888:alice".into();
    assert_eq!(caller.refresh(&mut net, None).code(), 441);
}

// RFC 8656 §5
#[test]
fn another_user_must_authenticate_before_it_gets_441() {
    let (mut net, mut caller, _) = allocated();
    caller.username = "bob".into();
    caller.password = "wrong".into();
    assert_eq!(caller.refresh(&mut net, None).code(), 401);
}

// RFC 8656 §5, §6
#[test]
fn an_allocation_keeps_the_key_that_it_was_made_with() {
    let (mut net, mut caller, _) = allocated();
    net.keys.set("alice", &["rotated"]);
    let answer = caller.refresh(&mut net, None);
    assert_eq!(answer.code(), 200);
    assert!(answer.is_signed_for(&caller));
    let mut other = Caller::new(&mut net, ALICE_AGAIN);
    assert_eq!(other.allocate(&mut net, |_| {}).code(), 401);
}

// RFC 8656 §5, §6
#[test]
fn the_key_of_another_secret_is_good_for_a_live_allocation_too() {
    let (mut net, mut caller, _) = allocated();
    net.keys.set("alice", &["rotated", "secret"]);
    caller.password = "rotated".into();
    let answer = caller.refresh(&mut net, None);
    assert_eq!(answer.code(), 200);
    assert!(answer.is_signed_for(&caller));
}

// RFC 8656 §5
#[test]
fn an_ephemeral_credential_allocates_until_a_minute_past_its_expiry() {
    let mut net = Net::new();
    net.keys.set("1800000100:alice", &["secret"]);
    for (second, port, code) in [(0, 1, 200), (159, 2, 200), (160, 3, 401)] {
        net.sleep_seconds(second + 1_800_000_000 - net.now.unix);
        let client = format!("192.0.2.1:{port}");
        let mut caller = Caller::named(&mut net, &client, "1800000100:alice");
        assert_eq!(caller.allocate(&mut net, |_| {}).code(), code, "{second}");
    }
}

// RFC 8656 §5
#[test]
fn a_live_allocation_outlives_its_ephemeral_credential() {
    let mut net = Net::new();
    net.keys.set("1800000100:alice", &["secret"]);
    let mut caller = Caller::named(&mut net, ALICE, "1800000100:alice");
    caller.allocated(&mut net);
    net.advance_seconds(500);
    assert_eq!(caller.refresh(&mut net, None).code(), 200);
    assert_eq!(caller.permit(&mut net, &[PEER]).code(), 200);
    assert_eq!(caller.bind(&mut net, 0x4000, PEER).code(), 200);
    assert_eq!(caller.refresh(&mut net, Some(0)).code(), 200);
    assert_eq!(caller.allocate(&mut net, |_| {}).code(), 401);
}

// RFC 8656 §5
#[test]
fn a_reserved_first_byte_is_dropped() {
    let mut net = Net::new();
    let caller = Caller::new(&mut net, ALICE);
    for first in [0x80, 0x90, 0xBF, 0xC0, 0xFF] {
        let outcome = net.client_sends(caller.five_tuple, &[first, 0, 0, 0]);
        assert_eq!(outcome, Outcome::Dropped(DropReason::Malformed));
    }
    let outcome = net.client_sends(caller.five_tuple, &[]);
    assert_eq!(outcome, Outcome::Dropped(DropReason::Malformed));
}

// RFC 8656 §6
#[test]
fn five_tuples_that_differ_in_anything_are_different_clients() {
    let mut net = Net::new();
    let base = Caller::new(&mut net, ALICE);
    let mut server_port = Caller::new(&mut net, ALICE);
    server_port.five_tuple.server.set_port(3479);
    let callers = [
        base,
        server_port,
        Caller::of(&mut net, ALICE, Transport::Tcp, "alice"),
        Caller::of(&mut net, ALICE, Transport::Tls, "alice"),
        Caller::new(&mut net, ALICE_AGAIN),
        Caller::new(&mut net, BOB),
    ];
    let mut relayed = Vec::new();
    for mut caller in callers {
        relayed.push(caller.allocated(&mut net));
    }
    relayed.sort();
    relayed.dedup();
    assert_eq!(relayed.len(), 6);
}

// RFC 8656 §3.1
#[test]
fn the_end_of_a_stream_ends_its_allocation() {
    let mut net = Net::new();
    let mut caller = Caller::of(&mut net, ALICE, Transport::Tls, "alice");
    caller.allocated(&mut net);
    caller.bind(&mut net, 0x4000, PEER);
    net.server.handle_client_closed(net.now, caller.five_tuple);
    net.obey();
    net.assert_idle();
    assert_eq!(net.server.counters().closed(CloseReason::ClientGone), 1);
}

// RFC 8656 §6
#[test]
fn a_socket_that_fails_ends_its_allocation_and_no_other() {
    let (mut net, _, relayed) = allocated();
    let mut other = Caller::new(&mut net, ALICE_AGAIN);
    other.allocated(&mut net);
    let id = net.sockets[&relayed];
    net.server.handle_relayed_failed(net.now, id);
    net.obey();
    assert_eq!(net.server.counters().closed(CloseReason::SocketFailed), 1);
    assert_eq!(net.server.counters().allocations(), 1);
    assert_eq!(other.refresh(&mut net, None).code(), 200);
}

// RFC 8656 §6
#[test]
fn closing_everything_leaves_nothing() {
    let (mut net, _, _) = dual();
    reserve(&mut net, ALICE_AGAIN);
    let mut bob = Caller::named(&mut net, BOB, "bob");
    bob.allocated(&mut net);
    bob.bind(&mut net, 0x4000, PEER);
    assert!(!net.server.close_some(net.now), "three are few");
    net.obey();
    net.assert_idle();
    assert_eq!(net.server.counters().closed(CloseReason::Shutdown), 3);
}

// RFC 8656 §5: one line for each allocation's story
#[test]
fn an_allocation_is_reported_when_it_opens_closes_or_is_refused() {
    let (mut net, mut caller, relayed) = allocated();
    caller.bind(&mut net, 0x4000, PEER);
    caller.channel_data(&mut net, 0x4000, b"four");
    net.peer_sends(PEER, relayed, b"seven77");
    net.advance_seconds(10);
    caller.refresh(&mut net, Some(0));
    let mut wrong = Caller::new(&mut net, ALICE_AGAIN);
    wrong.password = "wrong".into();
    wrong.allocate(&mut net, |_| {});
    let client = caller.five_tuple;
    let expected = [
        Event::Opened {
            allocation: 0,
            client,
            username: "alice".into(),
            tenant: TenantId::DEFAULT,
            relayed_transport: Transport::Udp,
            relayed: vec![relayed],
            took: std::time::Duration::ZERO,
        },
        Event::Closed {
            allocation: 0,
            client,
            username: "alice".into(),
            tenant: TenantId::DEFAULT,
            reason: CloseReason::Refreshed,
            duration: std::time::Duration::from_secs(10),
            bytes_to_peers: 4,
            bytes_to_client: 7,
        },
        Event::Refused {
            client: wrong.five_tuple,
            username: Some("alice".into()),
            code: 401,
        },
    ];
    assert_eq!(net.events, expected);
}

// RFC 8656 §5
#[test]
fn a_request_of_a_stranger_is_no_event() {
    let mut net = Net::new();
    Caller::new(&mut net, ALICE);
    assert_eq!(net.events, []);
}

// RFC 8656 §5
#[test]
fn a_stale_nonce_on_a_live_allocation_gets_438_and_leaves_it_alone() {
    let (mut net, mut caller, _) = allocated();
    caller.refresh(&mut net, Some(3600));
    caller.nonce = b"stale".to_vec();
    let answer = caller.refresh(&mut net, Some(0));
    assert_eq!(answer.code(), 438);
    assert_eq!(answer.message().realm(), Some(Ok(REALM)));
    assert_eq!(answer.message().class(), Class::ErrorResponse);
    assert_eq!(net.server.counters().allocations(), 1);
}
