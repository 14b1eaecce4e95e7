//! What RFC 8656 says of servers, one test for each statement.

use turnfleet_turn::peer_filter::PeerDenied;
use turnfleet_turn::policy::Limits;
use turnfleet_turn::wire::{
    AttributeType, ChannelNumber, Class, ErrorCode, Message, MessageWriter, Method,
    ReservationToken,
};
use turnfleet_turn::{
    AddressFamily, CloseReason, DropReason, Event, Limit, OpenError, PeerAddr, Reject,
    RequestMethod, Transport,
};

use crate::support::{
    Answer, Caller, Net, Outcome, PEER, PEER6, PORTS, REALM, Setup, V4, V6, addr, data_indication,
    host,
};

const ALICE: &str = "192.0.2.1:5000";
const ALICE_AGAIN: &str = "192.0.2.1:5001";
const BOB: &str = "192.0.2.2:5000";

fn v4_only() -> Setup {
    Setup {
        hosts: vec![host(V4, V4)],
        ..Setup::default()
    }
}

fn v6_only() -> Setup {
    Setup {
        hosts: vec![host(V6, V6)],
        ..Setup::default()
    }
}

fn limited(limits: Limits) -> Setup {
    Setup {
        limits,
        ..Setup::default()
    }
}

#[track_caller]
fn allocated() -> (Net, Caller, std::net::SocketAddr) {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    let relayed = caller.allocated(&mut net);
    (net, caller, relayed)
}

/// An allocation with an IPv4 and an IPv6 relayed address.
#[track_caller]
fn dual() -> (Net, Caller, Vec<std::net::SocketAddr>) {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    let answer = caller.allocate(&mut net, |writer| {
        writer.additional_address_family(AddressFamily::V6);
    });
    assert_eq!(answer.code(), 200);
    let relayed = answer.relayed();
    assert_eq!(relayed.len(), 2);
    (net, caller, relayed)
}

fn refresh_family(
    caller: &mut Caller,
    net: &mut Net,
    family: AddressFamily,
    lifetime: u32,
) -> Answer {
    caller.request(net, Method::Refresh, |writer| {
        writer.lifetime(lifetime).requested_address_family(family);
    })
}

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

// RFC 8656 §7.2 (1)
#[test]
fn allocating_needs_authentication() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    let packet = caller.unsigned(Method::Allocate, |writer| {
        writer.requested_transport(17);
    });
    assert_eq!(caller.send(&mut net, &packet).code(), 401);
    assert_eq!(net.usage().ports_used, 0);
}

// RFC 8656 §7.2 (2)
#[test]
fn a_second_allocate_on_the_five_tuple_gets_437() {
    let (mut net, mut caller, _) = allocated();
    assert_eq!(caller.allocate(&mut net, |_| {}).code(), 437);
    assert_eq!(net.usage().ports_used, 1);
}

// RFC 8656 §7.2 (2)
#[test]
fn the_five_tuple_is_checked_before_the_attributes() {
    let (mut net, mut caller, _) = allocated();
    let answer = caller.request(&mut net, Method::Allocate, |_| {});
    assert_eq!(answer.code(), 437);
}

// RFC 8656 §7.2 (3)
#[test]
fn allocate_without_requested_transport_gets_400() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    assert_eq!(
        caller.request(&mut net, Method::Allocate, |_| {}).code(),
        400
    );
}

// RFC 8656 §7.2 (3)
#[test]
fn allocate_with_a_malformed_requested_transport_gets_400() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    for value in [&[17][..], &[17, 0, 0, 0, 0]] {
        let answer = caller.request(&mut net, Method::Allocate, |writer| {
            writer.attribute(AttributeType::REQUESTED_TRANSPORT, value);
        });
        assert_eq!(answer.code(), 400);
    }
}

// RFC 8656 §7.2 (3)
#[test]
fn allocate_for_another_transport_than_udp_gets_442() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    for protocol in [0, 6, 132] {
        let answer = caller.request(&mut net, Method::Allocate, |writer| {
            writer.requested_transport(protocol);
        });
        assert_eq!(answer.code(), 442);
    }
}

// RFC 8656 §18.8
#[test]
fn the_reserved_bits_of_requested_transport_are_ignored() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    let answer = caller.request(&mut net, Method::Allocate, |writer| {
        writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 1, 2, 3]);
    });
    assert_eq!(answer.code(), 200);
}

// RFC 8656 §7.2 (4)
#[test]
fn dont_fragment_is_an_unknown_attribute() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    let answer = caller.allocate(&mut net, |writer| {
        writer.attribute(AttributeType::DONT_FRAGMENT, &[]);
    });
    assert_eq!(answer.code(), 420);
    let unknown: Vec<u16> = answer.message().unknown_attributes().collect();
    assert_eq!(unknown, [AttributeType::DONT_FRAGMENT.0]);
}

// RFC 8656 §7.2 (5)
#[test]
fn a_token_beside_even_port_or_a_family_gets_400() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    let token = ReservationToken([0; 8]);
    let answers = [
        caller.allocate(&mut net, |writer| {
            writer.reservation_token(token).even_port(false);
        }),
        caller.allocate(&mut net, |writer| {
            writer
                .reservation_token(token)
                .requested_address_family(AddressFamily::V4);
        }),
        caller.allocate(&mut net, |writer| {
            writer
                .reservation_token(token)
                .additional_address_family(AddressFamily::V6);
        }),
    ];
    assert!(
        answers.iter().all(|answer| answer.code() == 400),
        "{answers:?}"
    );
}

// RFC 8656 §7.2 (5)
#[test]
fn a_token_that_nobody_gave_gets_508() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    for shard in [0, 2, 255] {
        let answer = caller.allocate(&mut net, |writer| {
            writer.reservation_token(ReservationToken([shard, 1, 2, 3, 4, 5, 6, 7]));
        });
        assert_eq!(answer.code(), 508, "{shard}");
    }
    net.assert_idle();
}

// RFC 8656 §7.2 (5)
#[test]
fn a_token_is_good_once() {
    let mut net = Net::new();
    let token = reserve(&mut net, ALICE).token();
    let mut other = Caller::new(&mut net, ALICE_AGAIN);
    let mut third = Caller::new(&mut net, BOB);
    let redeem = |writer: &mut MessageWriter<'_>| {
        writer.reservation_token(token);
    };
    assert_eq!(other.allocate(&mut net, redeem).code(), 200);
    assert_eq!(third.allocate(&mut net, redeem).code(), 508);
}

fn reserve(net: &mut Net, client: &str) -> Answer {
    let mut caller = Caller::new(net, client);
    let answer = caller.allocate(net, |writer| {
        writer.even_port(true);
    });
    assert_eq!(answer.code(), 200);
    answer
}

// RFC 8656 §7.2
#[test]
fn a_token_redeems_the_next_port_on_any_five_tuple() {
    for (client, transport) in [(BOB, Transport::Tcp), ("[2001:db8::7]:1", Transport::Udp)] {
        let mut net = Net::new();
        let first = reserve(&mut net, ALICE);
        let mut other = Caller::of(&mut net, client, transport, "bob");
        let second = other.allocate(&mut net, |writer| {
            writer.reservation_token(first.token());
        });
        assert_eq!(second.code(), 200);
        let (first, second) = (first.relayed()[0], second.relayed()[0]);
        assert_eq!((first.ip(), first.port() + 1), (second.ip(), second.port()));
        assert_eq!(first.port() % 2, 0);
        assert_eq!(net.server.counters().reservations, 0);
    }
}

// RFC 8656 §7.2
#[test]
fn a_reserved_port_is_really_held_for_30_seconds() {
    let mut net = Net::new();
    let first = reserve(&mut net, ALICE).relayed()[0];
    let reserved = std::net::SocketAddr::new(first.ip(), first.port() + 1);
    assert!(net.sockets.contains_key(&reserved));
    net.advance_seconds(29);
    assert!(net.sockets.contains_key(&reserved));
    assert_eq!(net.usage().ports_used, 2);
    net.advance_seconds(1);
    assert!(!net.sockets.contains_key(&reserved));
    assert_eq!(net.usage().ports_used, 1);
}

// RFC 8656 §7.2
#[test]
fn a_reservation_outlives_the_allocation_that_made_it() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    let token = caller.allocate(&mut net, |writer| {
        writer.even_port(true);
    });
    assert_eq!(caller.refresh(&mut net, Some(0)).code(), 200);
    let mut other = Caller::new(&mut net, ALICE_AGAIN);
    let answer = other.allocate(&mut net, |writer| {
        writer.reservation_token(token.token());
    });
    assert_eq!(answer.code(), 200);
    assert_eq!(other.refresh(&mut net, Some(0)).code(), 200);
    net.assert_idle();
}

// RFC 8656 §7.2 (5)
#[test]
fn a_token_after_30_seconds_gets_508_even_before_the_timer_is_served() {
    let mut net = Net::new();
    let token = reserve(&mut net, ALICE).token();
    net.sleep_seconds(30);
    let mut other = Caller::new(&mut net, ALICE_AGAIN);
    let answer = other.allocate(&mut net, |writer| {
        writer.reservation_token(token);
    });
    assert_eq!(answer.code(), 508);
}

// RFC 8656 §7.2
#[test]
fn data_for_a_reserved_port_is_dropped() {
    let mut net = Net::new();
    let first = reserve(&mut net, ALICE).relayed()[0];
    let reserved = std::net::SocketAddr::new(first.ip(), first.port() + 1);
    let outcome = net.peer_sends(PEER, reserved, b"hi");
    assert_eq!(outcome, Outcome::Dropped(DropReason::NotAllocated));
}

// RFC 8656 §7.2
#[test]
fn a_token_of_another_shard_brings_its_socket_over() {
    let mut owner = Net::new();
    let first = reserve(&mut owner, ALICE);
    let mut asker = Net::with(Setup {
        shard: 1,
        ledger: Some(owner.ledger.clone()),
        ..Setup::default()
    });
    let mut other = Caller::new(&mut asker, BOB);
    let packet = other.signed(Method::Allocate, |writer| {
        writer
            .requested_transport(17)
            .reservation_token(first.token());
    });
    assert_eq!(
        asker.client_sends(other.five_tuple, &packet),
        Outcome::Pending
    );
    let (id, shard, token) = asker.claims.pop().unwrap();
    assert_eq!((shard.0, token), (0, first.token()));

    let moved = owner.server.release_reserved(owner.now, token).unwrap();
    assert_eq!(owner.server.release_reserved(owner.now, token), None);
    let place = owner.sockets.iter().find(|(_, id)| **id == moved);
    let bound = *place.unwrap().0;
    owner.sockets.remove(&bound);
    assert_eq!(owner.server.counters().reservations, 0);

    asker.sockets.insert(bound, id);
    asker.server.handle_relayed_opened(asker.now, id, Ok(bound));
    asker.obey();
    let (to, message) = asker.outbox.pop_front().unwrap();
    assert_eq!(to, other.five_tuple);
    let answer = Answer(message);
    assert_eq!(answer.code(), 200);
    assert_eq!(answer.relayed(), [bound]);
    assert_eq!(bound.port(), first.relayed()[0].port() + 1);
    assert_eq!(other.refresh(&mut asker, Some(0)).code(), 200);
    assert_eq!(asker.usage().ports_used, 1);
}

// RFC 8656 §7.2 (5)
#[test]
fn a_token_that_another_shard_does_not_know_gets_508() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    let packet = caller.signed(Method::Allocate, |writer| {
        let token = ReservationToken([1, 9, 9, 9, 9, 9, 9, 9]);
        writer.requested_transport(17).reservation_token(token);
    });
    assert_eq!(
        net.client_sends(caller.five_tuple, &packet),
        Outcome::Pending
    );
    let (id, _, _) = net.claims.pop().unwrap();
    net.server
        .handle_relayed_opened(net.now, id, Err(OpenError::NoReservation));
    net.obey();
    let (_, message) = net.outbox.pop_front().unwrap();
    assert_eq!(Answer(message).code(), 508);
    net.assert_idle();
}

// RFC 8656 §7.2 (6)
#[test]
fn a_requested_and_an_additional_family_get_400() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    let answer = caller.allocate(&mut net, |writer| {
        writer.requested_address_family(AddressFamily::V4);
        writer.additional_address_family(AddressFamily::V6);
    });
    assert_eq!(answer.code(), 400);
}

// RFC 8656 §7.2 (7)
#[test]
fn a_family_that_the_server_lacks_gets_440() {
    let mut net = Net::with(v4_only());
    let mut caller = Caller::new(&mut net, ALICE);
    let answer = caller.allocate(&mut net, |writer| {
        writer.requested_address_family(AddressFamily::V6);
    });
    assert_eq!(answer.code(), 440);
}

// RFC 8656 §7.2 (7)
#[test]
fn a_family_that_does_not_exist_gets_440() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    for family in [0x00, 0x03, 0xFF] {
        let answer = caller.allocate(&mut net, |writer| {
            writer.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]);
        });
        assert_eq!(answer.code(), 440);
    }
}

// RFC 8656 §7.2 (7)
#[test]
fn without_a_requested_family_a_server_without_ipv4_answers_440() {
    let mut net = Net::with(v6_only());
    let mut caller = Caller::new(&mut net, ALICE);
    assert_eq!(caller.allocate(&mut net, |_| {}).code(), 440);
}

// RFC 8656 §7.2 (7)
#[test]
fn without_a_requested_family_the_relayed_address_is_ipv4() {
    let mut net = Net::new();
    for client in [ALICE, "[2001:db8::7]:5000"] {
        let mut caller = Caller::new(&mut net, client);
        assert!(caller.allocated(&mut net).is_ipv4());
    }
}

// RFC 8656 §7.2 (7)
#[test]
fn a_requested_family_is_the_family_of_the_relayed_address() {
    let mut net = Net::new();
    for (client, family, ipv6) in [
        (ALICE, AddressFamily::V6, true),
        (ALICE_AGAIN, AddressFamily::V4, false),
        ("[2001:db8::7]:5000", AddressFamily::V4, false),
    ] {
        let mut caller = Caller::new(&mut net, client);
        let answer = caller.allocate(&mut net, |writer| {
            writer.requested_address_family(family);
        });
        assert_eq!(answer.relayed().len(), 1);
        assert_eq!(answer.relayed()[0].is_ipv6(), ipv6);
    }
}

// RFC 8656 §18.6
#[test]
fn the_reserved_bits_of_requested_address_family_are_ignored() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    let answer = caller.allocate(&mut net, |writer| {
        writer.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[2, 0xFF, 1, 7]);
    });
    assert!(answer.relayed()[0].is_ipv6());
}

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

// RFC 8656 §7.2 (8)
#[test]
fn a_reserved_pair_of_both_families_gets_400() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    let answer = caller.allocate(&mut net, |writer| {
        writer
            .even_port(true)
            .additional_address_family(AddressFamily::V6);
    });
    assert_eq!(answer.code(), 400);
}

// RFC 8656 §7.2 (8)
#[test]
fn when_no_port_is_left_there_is_508() {
    let mut net = Net::new();
    for port in 1..=10 {
        Caller::new(&mut net, &format!("192.0.2.1:{port}")).allocated(&mut net);
    }
    let mut caller = Caller::new(&mut net, ALICE);
    assert_eq!(caller.allocate(&mut net, |_| {}).code(), 508);
    assert_eq!(net.server.counters().limits(Limit::Ports), 1);
    assert_eq!(net.usage().allocations, 10);
}

// RFC 8656 §7.2 (8)
#[test]
fn when_no_pair_of_ports_is_left_there_is_508_for_a_pair_only() {
    let mut net = Net::with(Setup {
        ports: (49153, 49154),
        ..v4_only()
    });
    let mut caller = Caller::new(&mut net, ALICE);
    let answer = caller.allocate(&mut net, |writer| {
        writer.even_port(true);
    });
    assert_eq!(answer.code(), 508);
    let answer = caller.allocate(&mut net, |writer| {
        writer.even_port(false);
    });
    assert_eq!(answer.code(), 200);
    assert_eq!(answer.relayed()[0].port(), 49154);
}

// RFC 8656 §7.2 (9)
#[test]
fn an_additional_family_other_than_ipv6_gets_400() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    for family in [0x00, 0x01, 0x03] {
        let answer = caller.allocate(&mut net, |writer| {
            writer.attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[family, 0, 0, 0]);
        });
        assert_eq!(answer.code(), 400, "{family}");
    }
}

// RFC 8656 §7.2 (9)
#[test]
fn an_additional_family_gives_an_address_of_each() {
    let (net, _, relayed) = dual();
    assert!(relayed[0].is_ipv4());
    assert!(relayed[1].is_ipv6());
    assert_eq!(net.usage().ports_used, 2);
    assert_eq!(net.usage().allocations, 1);
}

// RFC 8656 §7.2 (8)
#[test]
fn an_even_port_without_reserving_is_even_in_both_families() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    let answer = caller.allocate(&mut net, |writer| {
        writer
            .even_port(false)
            .additional_address_family(AddressFamily::V6);
    });
    let ports: Vec<u16> = answer.relayed().iter().map(|it| it.port() % 2).collect();
    assert_eq!(ports, [0, 0]);
}

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

// RFC 8656 §7.2 (9)
#[test]
fn an_additional_family_that_the_server_lacks_is_named_with_440_in_the_success() {
    let mut net = Net::with(v4_only());
    let mut caller = Caller::new(&mut net, ALICE);
    let answer = caller.allocate(&mut net, |writer| {
        writer.additional_address_family(AddressFamily::V6);
    });
    assert_eq!(answer.code(), 200);
    assert_eq!(answer.relayed().len(), 1);
    let error = answer.message().address_error_code();
    let expected = (AddressFamily::V6, ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED);
    assert_eq!(error, Some(Ok(expected)));
}

// RFC 8656 §7.2 (9)
#[test]
fn a_family_without_a_free_port_is_named_with_508_in_the_success() {
    let mut net = Net::new();
    for port in 1..=10 {
        Caller::new(&mut net, &format!("192.0.2.1:{port}")).allocated(&mut net);
    }
    let mut caller = Caller::new(&mut net, ALICE);
    let answer = caller.allocate(&mut net, |writer| {
        writer.additional_address_family(AddressFamily::V6);
    });
    assert_eq!(answer.code(), 200);
    assert!(answer.relayed()[0].is_ipv6());
    let error = answer.message().address_error_code();
    let expected = (AddressFamily::V4, ErrorCode::INSUFFICIENT_CAPACITY);
    assert_eq!(error, Some(Ok(expected)));
}

// RFC 8656 §7.2 (9)
#[test]
fn a_family_whose_socket_does_not_open_is_named_with_508_in_the_success() {
    let mut net = Net::new();
    net.open_errors.push_back(OpenError::Exhausted);
    let mut caller = Caller::new(&mut net, ALICE);
    let packet = caller.signed(Method::Allocate, |writer| {
        writer
            .requested_transport(17)
            .additional_address_family(AddressFamily::V6);
    });
    let answer = caller.send(&mut net, &packet);
    assert!(answer.relayed()[0].is_ipv6());
    let error = answer.message().address_error_code();
    let expected = (AddressFamily::V4, ErrorCode::INSUFFICIENT_CAPACITY);
    assert_eq!(error, Some(Ok(expected)));
    assert_eq!(caller.send(&mut net, &packet), answer);
}

// RFC 8656 §7.2 (10)
#[test]
fn a_user_with_enough_allocations_gets_486() {
    let mut net = Net::with(limited(Limits {
        allocations_per_user: 2,
        ..Limits::default()
    }));
    Caller::new(&mut net, "192.0.2.1:1").allocated(&mut net);
    let mut second = Caller::new(&mut net, "192.0.2.1:2");
    second.allocated(&mut net);
    let mut third = Caller::new(&mut net, "192.0.2.1:3");
    assert_eq!(third.allocate(&mut net, |_| {}).code(), 486);
    Caller::named(&mut net, "192.0.2.1:4", "bob").allocated(&mut net);
    assert_eq!(second.refresh(&mut net, Some(0)).code(), 200);
    assert_eq!(third.allocate(&mut net, |_| {}).code(), 200);
    assert_eq!(net.server.counters().limits(Limit::AllocationsPerUser), 1);
}

// RFC 8656 §7.2 (10)
#[test]
fn the_quota_is_of_the_part_of_the_username_that_names_the_user() {
    let mut net = Net::with(limited(Limits {
        allocations_per_user: 1,
        ..Limits::default()
    }));
    for expiry in ["1800000100", "1800000200"] {
        net.keys.set(&format!("{expiry}:alice"), &["secret"]);
        net.keys.set(&format!("{expiry}:"), &["secret"]);
    }
    let mut codes = Vec::new();
    for (port, username) in (1..).zip([
        "1800000100:alice",
        "1800000200:alice",
        "1800000100:",
        "1800000200:",
    ]) {
        let mut caller = Caller::named(&mut net, &format!("192.0.2.1:{port}"), username);
        codes.push(caller.allocate(&mut net, |_| {}).code());
    }
    assert_eq!(codes, [200, 486, 200, 200]);
}

// RFC 8656 §7.2 (10)
#[test]
fn a_user_holds_no_more_reservations_than_allocations() {
    let mut net = Net::with(limited(Limits {
        allocations_per_user: 2,
        ..Limits::default()
    }));
    let mut caller = Caller::new(&mut net, ALICE);
    let mut codes = Vec::new();
    for _ in 0..3 {
        let answer = caller.allocate(&mut net, |writer| {
            writer.even_port(true);
        });
        codes.push(answer.code());
        caller.refresh(&mut net, Some(0));
    }
    assert_eq!(codes, [200, 200, 486]);
    assert_eq!(net.server.counters().limits(Limit::Reservations), 1);
    net.advance_seconds(30);
    net.assert_idle();
}

// RFC 8656 §7.2
#[test]
fn a_full_relay_answers_508() {
    let mut net = Net::with(limited(Limits {
        allocations: 1,
        ..Limits::default()
    }));
    Caller::new(&mut net, ALICE).allocated(&mut net);
    let mut second = Caller::new(&mut net, ALICE_AGAIN);
    assert_eq!(second.allocate(&mut net, |_| {}).code(), 508);
    assert_eq!(net.server.counters().limits(Limit::Allocations), 1);
}

// RFC 8656 §7.2
#[test]
fn a_draining_relay_answers_508_and_serves_what_lives() {
    let (mut net, mut caller, _) = allocated();
    net.server.set_draining(true);
    let mut second = Caller::new(&mut net, ALICE_AGAIN);
    assert_eq!(second.allocate(&mut net, |_| {}).code(), 508);
    assert_eq!(caller.refresh(&mut net, None).code(), 200);
    assert_eq!(caller.permit(&mut net, &[PEER]).code(), 200);
    net.server.set_draining(false);
    assert_eq!(second.allocate(&mut net, |_| {}).code(), 200);
}

// RFC 8656 §7.2
#[test]
fn even_port_without_reserving_gives_an_even_port_and_takes_no_other() {
    let mut net = Net::new();
    for port in 1..=5 {
        let mut caller = Caller::new(&mut net, &format!("192.0.2.1:{port}"));
        let answer = caller.allocate(&mut net, |writer| {
            writer.even_port(false);
        });
        assert_eq!(answer.relayed()[0].port() % 2, 0);
        assert!(!answer.has(AttributeType::RESERVATION_TOKEN));
    }
    assert_eq!(net.usage().ports_used, 5);
}

// RFC 8656 §7.2
#[test]
fn ten_thousand_even_ports_leave_the_pool_full() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    for _ in 0..10_000 {
        let answer = caller.allocate(&mut net, |writer| {
            writer.even_port(false);
        });
        assert_eq!(answer.code(), 200);
        assert_eq!(caller.refresh(&mut net, Some(0)).code(), 200);
    }
    net.assert_idle();
}

// RFC 8656 §18.7
#[test]
fn the_reserved_bits_of_even_port_are_ignored() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    let answer = caller.allocate(&mut net, |writer| {
        writer.attribute(AttributeType::EVEN_PORT, &[0x7F]);
    });
    assert_eq!(answer.code(), 200);
    assert!(!answer.has(AttributeType::RESERVATION_TOKEN));
}

// RFC 8656 §7.2
#[test]
fn a_port_of_the_granted_range_is_given() {
    let mut net = Net::new();
    for port in 1..=10 {
        let relayed = Caller::new(&mut net, &format!("192.0.2.1:{port}")).allocated(&mut net);
        assert!((PORTS.0..=PORTS.1).contains(&relayed.port()));
    }
}

// RFC 8656 §7.2
#[test]
fn a_malformed_attribute_of_an_allocate_gets_400() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    for kind in [
        AttributeType::LIFETIME,
        AttributeType::EVEN_PORT,
        AttributeType::RESERVATION_TOKEN,
        AttributeType::REQUESTED_ADDRESS_FAMILY,
        AttributeType::ADDITIONAL_ADDRESS_FAMILY,
    ] {
        let answer = caller.allocate(&mut net, |writer| {
            writer.attribute(kind, &[1, 0, 0]);
        });
        assert_eq!(answer.code(), 400, "{kind:?}");
    }
    net.assert_idle();
}

// RFC 8656 §7.2
#[test]
fn the_lifetime_is_between_ten_minutes_and_the_largest_allowed() {
    let mut net = Net::new();
    for (port, asked, granted) in [
        (1, None, 600),
        (2, Some(0), 600),
        (3, Some(1), 600),
        (4, Some(601), 601),
        (5, Some(3600), 3600),
        (6, Some(3601), 3600),
        (7, Some(u32::MAX), 3600),
    ] {
        let mut caller = Caller::new(&mut net, &format!("192.0.2.1:{port}"));
        let answer = caller.allocate(&mut net, |writer| {
            if let Some(asked) = asked {
                writer.lifetime(asked);
            }
        });
        assert_eq!(answer.lifetime(), granted, "{asked:?}");
    }
}

// RFC 8656 §7.2
#[test]
fn a_success_response_has_relayed_address_lifetime_and_mapped_address() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    let answer = caller.allocate(&mut net, |_| {});
    assert_eq!(answer.relayed()[0].ip().to_string(), V4);
    assert_eq!(answer.lifetime(), 600);
    assert_eq!(answer.message().xor_mapped_address(), Some(Ok(addr(ALICE))));
    assert!(!answer.has(AttributeType::RESERVATION_TOKEN));
    assert!(!answer.has(AttributeType::ADDRESS_ERROR_CODE));
    assert!(answer.is_signed_for(&caller));
}

// RFC 8656 §7.2
#[test]
fn a_retransmitted_allocate_gets_the_same_answer() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    for write in [
        |writer: &mut MessageWriter<'_>| {
            writer.even_port(true);
        },
        |writer: &mut MessageWriter<'_>| {
            writer.additional_address_family(AddressFamily::V6);
        },
    ] {
        let packet = caller.signed(Method::Allocate, |writer| {
            writer.requested_transport(17);
            write(writer);
        });
        let first = caller.send(&mut net, &packet);
        let ports = net.usage().ports_used;
        assert_eq!(caller.send(&mut net, &packet), first);
        assert_eq!(net.usage().ports_used, ports);
        net.advance_seconds(39);
        assert_eq!(caller.send(&mut net, &packet), first);
        caller.refresh(&mut net, Some(0));
    }
}

// RFC 8656 §7.2
#[test]
fn the_answer_to_a_retransmitted_allocate_refreshes_nothing() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    let packet = caller.signed(Method::Allocate, |writer| {
        writer.requested_transport(17).lifetime(700);
    });
    let first = caller.send(&mut net, &packet);
    caller.refresh(&mut net, None);
    net.advance_seconds(30);
    assert_eq!(caller.send(&mut net, &packet), first);
    net.advance_seconds(570);
    net.assert_idle();
}

// RFC 8656 §5
#[test]
fn allocate_and_refresh_answers_to_a_known_sender_name_the_software() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    for (answer, named) in [
        (caller.refresh(&mut net, None), true),
        (caller.allocate(&mut net, |_| {}), true),
        (caller.allocate(&mut net, |_| {}), true),
        (caller.refresh(&mut net, None), true),
        (caller.permit(&mut net, &[PEER]), false),
        (caller.bind(&mut net, 0x4000, PEER), false),
    ] {
        let software = answer.message().first(AttributeType::SOFTWARE);
        assert_eq!(software.is_some(), named, "{answer:?}");
        assert!(software.is_none_or(|software| software.value.starts_with(b"Turnfleet ")));
    }
}

// RFC 8656 §7.2
#[test]
fn an_allocate_retransmitted_by_somebody_else_gets_437() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, ALICE);
    let mut bob = Caller::named(&mut net, ALICE, "bob");
    caller.allocated(&mut net);
    assert_eq!(bob.allocate(&mut net, |_| {}).code(), 437);
}

// RFC 8656 §7.2
#[test]
fn an_allocate_retransmitted_while_its_socket_opens_waits_for_the_one_answer() {
    let mut net = Net::new();
    net.slow = true;
    let mut caller = Caller::new(&mut net, ALICE);
    let packet = caller.signed(Method::Allocate, |writer| {
        writer.requested_transport(17);
    });
    assert_eq!(
        net.client_sends(caller.five_tuple, &packet),
        Outcome::Pending
    );
    let again = net.client_sends(caller.five_tuple, &packet);
    assert_eq!(again, Outcome::Dropped(DropReason::Retransmission));
    assert_eq!(caller.allocate(&mut net, |_| {}).code(), 437);
    assert_eq!(caller.refresh(&mut net, None).code(), 437);
    assert_eq!(caller.bind(&mut net, 0x4000, PEER).code(), 437);
    let ignored = Outcome::Dropped(DropReason::NoAllocation);
    assert_eq!(caller.send_indication(&mut net, PEER, b"hi"), ignored);
    net.open_waiting();
    assert_eq!(net.outbox.len(), 1);
    let (to, message) = net.outbox.pop_front().unwrap();
    assert_eq!(to, caller.five_tuple);
    assert_eq!(caller.send(&mut net, &packet), Answer(message));
}

// RFC 8656 §7.2
#[test]
fn an_allocation_counts_from_its_answer() {
    let mut net = Net::new();
    net.slow = true;
    let mut caller = Caller::new(&mut net, ALICE);
    let packet = caller.signed(Method::Allocate, |writer| {
        writer.requested_transport(17);
    });
    net.client_sends(caller.five_tuple, &packet);
    net.advance_seconds(5);
    net.open_waiting();
    assert_eq!(Answer(net.outbox.pop_front().unwrap().1).lifetime(), 600);
    net.advance_seconds(599);
    assert_eq!(net.server.counters().allocations(), 1);
    net.advance_seconds(1);
    net.assert_idle();
}

// RFC 8656 §7.2
#[test]
fn a_port_that_somebody_else_holds_is_replaced() {
    let mut net = Net::new();
    net.open_errors.extend([OpenError::PortTaken; 3]);
    let mut caller = Caller::new(&mut net, ALICE);
    assert_eq!(caller.allocate(&mut net, |_| {}).code(), 200);
    assert_eq!(net.usage().ports_used, 1);
    assert_eq!(net.usage().ports_unavailable, 3);
}

// RFC 8656 §7.2
#[test]
fn a_pair_of_which_one_port_is_somebody_elses_is_replaced_whole() {
    let mut net = Net::new();
    net.open_errors.push_back(OpenError::PortTaken);
    let mut caller = Caller::new(&mut net, ALICE);
    let answer = caller.allocate(&mut net, |writer| {
        writer.even_port(true);
    });
    assert_eq!(answer.code(), 200);
    assert_eq!(answer.relayed()[0].port() % 2, 0);
    assert_eq!(net.usage().ports_used, 2);
    assert_eq!(net.sockets.len(), 2);
}

// RFC 8656 §7.2
#[test]
fn when_every_port_is_somebody_elses_there_is_508() {
    let mut net = Net::new();
    net.open_errors.extend([OpenError::PortTaken; 100]);
    let mut caller = Caller::new(&mut net, ALICE);
    assert_eq!(caller.allocate(&mut net, |_| {}).code(), 508);
    assert_eq!(
        net.server
            .counters()
            .rejects(RequestMethod::Allocate, Reject::InsufficientCapacity),
        1
    );
    net.assert_idle();
}

// RFC 8656 §7.2
#[test]
fn a_relay_without_descriptors_answers_508_and_recovers() {
    for error in [OpenError::Exhausted, OpenError::AddressUnavailable] {
        let mut net = Net::new();
        net.open_errors.push_back(error);
        let mut caller = Caller::new(&mut net, ALICE);
        let answer = caller.allocate(&mut net, |_| {});
        assert_eq!(answer.code(), 508);
        assert!(answer.is_signed_for(&caller));
        net.assert_idle();
        assert_eq!(net.server.counters().limits(Limit::Sockets), 1);
        assert_eq!(caller.allocate(&mut net, |_| {}).code(), 200);
    }
}

// RFC 8656 §7.2
#[test]
fn both_families_without_a_socket_get_one_508() {
    let mut net = Net::new();
    net.open_errors.extend([OpenError::Exhausted; 2]);
    let mut caller = Caller::new(&mut net, ALICE);
    let answer = caller.allocate(&mut net, |writer| {
        writer.additional_address_family(AddressFamily::V6);
    });
    assert_eq!(answer.code(), 508);
    assert!(net.outbox.is_empty());
    net.assert_idle();
}

// RFC 8656 §7.2
#[test]
fn a_client_that_leaves_while_its_sockets_open_leaves_nothing() {
    let mut net = Net::new();
    net.slow = true;
    let mut caller = Caller::of(&mut net, ALICE, Transport::Tcp, "alice");
    let packet = caller.signed(Method::Allocate, |writer| {
        writer.requested_transport(17).even_port(true);
    });
    assert_eq!(
        net.client_sends(caller.five_tuple, &packet),
        Outcome::Pending
    );
    net.server.handle_client_closed(net.now, caller.five_tuple);
    net.obey();
    net.open_errors.push_back(OpenError::PortTaken);
    net.open_waiting();
    net.assert_idle();
    assert!(net.outbox.is_empty());
    assert!(
        net.events
            .iter()
            .all(|event| !matches!(event, Event::Closed { .. }))
    );
}

// RFC 8656 §7.2, behind 1:1 NAT
#[test]
fn the_relayed_address_is_the_external_one_and_the_socket_is_bound_to_the_local_one() {
    let mut net = Net::with(Setup {
        hosts: vec![host("10.0.0.5", V4)],
        ..Setup::default()
    });
    let mut caller = Caller::new(&mut net, ALICE);
    let relayed = caller.allocated(&mut net);
    assert_eq!(relayed.ip().to_string(), V4);
    let bound = *net.sockets.keys().next().unwrap();
    assert_eq!(
        bound,
        std::net::SocketAddr::new("10.0.0.5".parse().unwrap(), relayed.port())
    );
}

// RFC 8656 §6
#[test]
fn traffic_leaves_by_the_address_that_the_client_reached() {
    let mut net = Net::with(Setup {
        hosts: vec![host(V4, V4), host("198.51.100.2", "198.51.100.2")],
        ..Setup::default()
    });
    for (port, server, relayed) in [
        (1, "198.51.100.2", "198.51.100.2"),
        (2, V4, V4),
        (3, "10.0.0.1", V4),
    ] {
        let mut caller = Caller::new(&mut net, &format!("192.0.2.1:{port}"));
        caller.five_tuple.server.set_ip(server.parse().unwrap());
        assert_eq!(caller.allocated(&mut net).ip().to_string(), relayed);
    }
}

// RFC 8656 §7.2 (8)
#[test]
fn another_address_of_the_family_is_taken_before_there_is_508() {
    let mut net = Net::with(Setup {
        hosts: vec![host(V4, V4), host("198.51.100.2", "198.51.100.2")],
        ports: (50000, 50000),
        ..Setup::default()
    });
    let mut addresses = Vec::new();
    for port in 1..=2 {
        let mut caller = Caller::new(&mut net, &format!("192.0.2.1:{port}"));
        addresses.push(caller.allocated(&mut net).ip().to_string());
    }
    assert_eq!(addresses, [V4, "198.51.100.2"]);
    let mut caller = Caller::new(&mut net, ALICE);
    assert_eq!(caller.allocate(&mut net, |_| {}).code(), 508);
}

// RFC 8656 §8.2
#[test]
fn a_refresh_sets_the_lifetime_as_allocate_does() {
    let (mut net, mut caller, _) = allocated();
    for (asked, granted) in [
        (None, 600),
        (Some(1), 600),
        (Some(700), 700),
        (Some(u32::MAX), 3600),
    ] {
        let answer = caller.refresh(&mut net, asked);
        assert_eq!(
            (answer.code(), answer.lifetime()),
            (200, granted),
            "{asked:?}"
        );
    }
    net.advance_seconds(3599);
    assert_eq!(net.server.counters().allocations(), 1);
    net.advance_seconds(1);
    net.assert_idle();
}

// RFC 8656 §8.2
#[test]
fn a_refresh_can_shorten_the_lifetime() {
    let (mut net, mut caller, _) = allocated();
    caller.refresh(&mut net, Some(3600));
    caller.refresh(&mut net, Some(600));
    net.advance_seconds(600);
    net.assert_idle();
}

// RFC 8656 §6
#[test]
fn an_allocation_ends_with_its_lifetime() {
    let (mut net, mut caller, relayed) = allocated();
    caller.permit(&mut net, &[PEER]);
    net.advance_seconds(599);
    assert!(net.sockets.contains_key(&relayed));
    net.advance_seconds(1);
    net.assert_idle();
    assert_eq!(net.server.counters().closed(CloseReason::Expired), 1);
    assert_eq!(caller.refresh(&mut net, None).code(), 437);
}

// RFC 8656 §6
#[test]
fn an_allocation_is_over_at_its_expiry_even_before_the_timer_is_served() {
    let (mut net, mut caller, relayed) = allocated();
    caller.permit(&mut net, &[PEER]);
    caller.bind(&mut net, 0x4000, PEER);
    net.sleep_seconds(600);
    let outcome = net.peer_sends(PEER, relayed, b"hi");
    assert_eq!(outcome, Outcome::Dropped(DropReason::NotAllocated));
    let ignored = Outcome::Dropped(DropReason::NoAllocation);
    assert_eq!(caller.send_indication(&mut net, PEER, b"hi"), ignored);
    assert_eq!(caller.refresh(&mut net, None).code(), 437);
    assert_eq!(caller.allocate(&mut net, |_| {}).code(), 200);
}

// RFC 8656 §7.2, §9, §12
#[test]
fn an_allocation_begins_without_the_permissions_and_channels_of_its_predecessor() {
    let (mut net, mut caller, _) = allocated();
    caller.bind(&mut net, 0x4000, PEER);
    caller.refresh(&mut net, Some(0));
    let relayed = caller.allocated(&mut net);
    let refused = Outcome::Dropped(DropReason::NoPermission);
    assert_eq!(net.peer_sends(PEER, relayed, b"hi"), refused);
    assert_eq!(caller.send_indication(&mut net, PEER, b"hi"), refused);
    let unbound = Outcome::Dropped(DropReason::NoChannel);
    assert_eq!(caller.channel_data(&mut net, 0x4000, b"hi"), unbound);
}

// RFC 8656 §6
#[test]
fn data_does_not_refresh_an_allocation() {
    let (mut net, mut caller, _) = allocated();
    for _ in 0..6 {
        caller.permit(&mut net, &[PEER]);
        caller.send_indication(&mut net, PEER, b"hi");
        net.advance_seconds(100);
    }
    net.assert_idle();
}

// RFC 8656 §8.2
#[test]
fn a_refresh_with_lifetime_zero_deletes_the_allocation() {
    let (mut net, mut caller, _) = allocated();
    let answer = caller.refresh(&mut net, Some(0));
    assert_eq!((answer.code(), answer.lifetime()), (200, 0));
    net.assert_idle();
    assert_eq!(net.server.counters().closed(CloseReason::Refreshed), 1);
}

// RFC 8656 §8.2
#[test]
fn a_retransmitted_refresh_with_lifetime_zero_gets_437() {
    let (mut net, mut caller, _) = allocated();
    let packet = caller.signed(Method::Refresh, |writer| {
        writer.lifetime(0);
    });
    assert_eq!(caller.send(&mut net, &packet).code(), 200);
    assert_eq!(caller.send(&mut net, &packet).code(), 437);
}

// RFC 8656 §8.2
#[test]
fn a_malformed_lifetime_of_a_refresh_gets_400() {
    let (mut net, mut caller, _) = allocated();
    let answer = caller.request(&mut net, Method::Refresh, |writer| {
        writer.attribute(AttributeType::LIFETIME, &[0, 0]);
    });
    assert_eq!(answer.code(), 400);
    assert_eq!(net.server.counters().allocations(), 1);
}

// RFC 8656 §8.2
#[test]
fn a_refresh_of_a_family_that_the_allocation_lacks_gets_443() {
    let (mut net, mut caller, _) = allocated();
    let answer = refresh_family(&mut caller, &mut net, AddressFamily::V6, 600);
    assert_eq!(answer.code(), 443);
    let answer = refresh_family(&mut caller, &mut net, AddressFamily::V6, 0);
    assert_eq!(answer.code(), 443);
    let answer = caller.request(&mut net, Method::Refresh, |writer| {
        writer.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[7, 0, 0, 0]);
    });
    assert_eq!(answer.code(), 443);
    let answer = refresh_family(&mut caller, &mut net, AddressFamily::V4, 600);
    assert_eq!(answer.code(), 200);
}

// RFC 8656 §8.2
#[test]
fn a_malformed_family_of_a_refresh_gets_400() {
    let (mut net, mut caller, _) = allocated();
    let answer = caller.request(&mut net, Method::Refresh, |writer| {
        writer.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[1]);
    });
    assert_eq!(answer.code(), 400);
}

// RFC 8656 §8.1
#[test]
fn deleting_the_only_family_ends_the_allocation() {
    let (mut net, mut caller, _) = allocated();
    let answer = refresh_family(&mut caller, &mut net, AddressFamily::V4, 0);
    assert_eq!((answer.code(), answer.lifetime()), (200, 0));
    net.assert_idle();
    assert_eq!(caller.refresh(&mut net, Some(0)).code(), 437);
}

// RFC 8656 §8.1
#[test]
fn deleting_one_family_leaves_the_other_one_and_its_permissions_alone() {
    let (mut net, mut caller, relayed) = dual();
    caller.permit(&mut net, &[PEER, PEER6]);
    caller.bind(&mut net, 0x4000, PEER);
    caller.bind(&mut net, 0x4001, PEER6);
    let answer = refresh_family(&mut caller, &mut net, AddressFamily::V4, 0);
    assert_eq!((answer.code(), answer.lifetime()), (200, 0));
    assert!(!net.sockets.contains_key(&relayed[0]));
    assert_eq!(net.server.counters().permissions, 1);
    assert_eq!(net.server.counters().channels, 1);
    assert_eq!(net.usage().ports_used, 1);
    assert!(matches!(
        caller.channel_data(&mut net, 0x4001, b"hi"),
        Outcome::Relayed(..)
    ));
    let unbound = Outcome::Dropped(DropReason::NoChannel);
    assert_eq!(caller.channel_data(&mut net, 0x4000, b"hi"), unbound);
    assert_eq!(caller.permit(&mut net, &[PEER]).code(), 443);
    let again = refresh_family(&mut caller, &mut net, AddressFamily::V4, 0);
    assert_eq!(again.code(), 443);
}

// RFC 8656 §8.1
#[test]
fn deleting_both_families_one_by_one_ends_the_allocation() {
    let (mut net, mut caller, _) = dual();
    for family in [AddressFamily::V6, AddressFamily::V4] {
        assert_eq!(refresh_family(&mut caller, &mut net, family, 0).code(), 200);
    }
    net.assert_idle();
    assert_eq!(caller.refresh(&mut net, None).code(), 437);
}

// RFC 8656 §8.1
#[test]
fn a_refresh_without_a_family_concerns_both() {
    let (mut net, mut caller, _) = dual();
    net.advance_seconds(500);
    assert_eq!(caller.refresh(&mut net, None).code(), 200);
    net.advance_seconds(599);
    assert_eq!(net.sockets.len(), 2);
    assert_eq!(caller.refresh(&mut net, Some(0)).code(), 200);
    net.assert_idle();
}

// RFC 8656 §8.2
#[test]
fn a_refresh_does_not_bring_back_a_family_that_is_over() {
    let (mut net, mut caller, relayed) = dual();
    refresh_family(&mut caller, &mut net, AddressFamily::V4, 1200);
    net.sleep_seconds(600);
    assert_eq!(caller.refresh(&mut net, None).code(), 200);
    assert_eq!(caller.permit(&mut net, &[PEER6]).code(), 443);
    net.advance_seconds(1);
    assert_eq!(net.sockets.keys().collect::<Vec<_>>(), [&relayed[0]]);
}

// RFC 8656 §8.1
#[test]
fn each_family_has_its_own_time_to_expiry() {
    let (mut net, mut caller, relayed) = dual();
    caller.permit(&mut net, &[PEER6]);
    net.advance_seconds(500);
    assert_eq!(
        refresh_family(&mut caller, &mut net, AddressFamily::V4, 600).code(),
        200
    );
    net.advance_seconds(100);
    assert_eq!(net.sockets.keys().collect::<Vec<_>>(), [&relayed[0]]);
    assert_eq!(net.server.counters().permissions, 0);
    assert_eq!(net.server.counters().allocations(), 1);
    assert_eq!(caller.permit(&mut net, &[PEER6]).code(), 443);
    net.advance_seconds(500);
    net.assert_idle();
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
        let outcome = net.client_sends(caller.five_tuple, &packet);
        assert_eq!(outcome, Outcome::Dropped(DropReason::Malformed));
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
    let outcome = net.client_sends(caller.five_tuple, &packet);
    assert_eq!(outcome, Outcome::Dropped(DropReason::UnknownAttributes));
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

// RFC 8656 §12
#[test]
fn a_channel_number_outside_of_the_range_gets_400() {
    let (mut net, mut caller, _) = allocated();
    for number in [0x0000, 0x3FFF, 0x5000, 0x7FFF, 0x8000, 0xFFFF] {
        assert_eq!(
            caller.bind(&mut net, number, PEER).code(),
            400,
            "{number:#x}"
        );
    }
    assert_eq!(caller.bind(&mut net, 0x4FFF, PEER).code(), 200);
    assert_eq!(caller.bind(&mut net, 0x4000, "203.0.113.9:10").code(), 200);
}

// RFC 5766 §11
#[test]
fn channel_numbers_of_rfc_5766_are_accepted_where_they_are_switched_on() {
    let mut net = Net::with(Setup {
        rfc5766_channel_numbers: true,
        ..Setup::default()
    });
    let mut caller = Caller::new(&mut net, ALICE);
    let relayed = caller.allocated(&mut net);
    assert_eq!(caller.bind(&mut net, 0x8000, PEER).code(), 400);
    assert_eq!(caller.bind(&mut net, 0x7FFF, PEER).code(), 200);
    let outcome = caller.channel_data(&mut net, 0x7FFF, b"hi");
    assert_eq!(
        outcome,
        Outcome::Relayed(relayed, addr(PEER), b"hi".to_vec())
    );
}

// RFC 8656 §12.2
#[test]
fn a_channel_bind_without_number_or_peer_gets_400() {
    let (mut net, mut caller, _) = allocated();
    let no_peer = caller.request(&mut net, Method::ChannelBind, |writer| {
        writer.channel_number(ChannelNumber(0x4000));
    });
    let no_number = caller.request(&mut net, Method::ChannelBind, |writer| {
        writer.xor_peer_address(PeerAddr(addr(PEER)));
    });
    let bad_number = caller.request(&mut net, Method::ChannelBind, |writer| {
        writer.attribute(AttributeType::CHANNEL_NUMBER, &[0x40, 0]);
        writer.xor_peer_address(PeerAddr(addr(PEER)));
    });
    for answer in [no_peer, no_number, bad_number] {
        assert_eq!(answer.code(), 400);
    }
}

// RFC 8656 §18.1
#[test]
fn the_reserved_bits_of_channel_number_are_ignored() {
    let (mut net, mut caller, _) = allocated();
    let answer = caller.request(&mut net, Method::ChannelBind, |writer| {
        writer.attribute(AttributeType::CHANNEL_NUMBER, &[0x40, 0, 0xFF, 0xFF]);
        writer.xor_peer_address(PeerAddr(addr(PEER)));
    });
    assert_eq!(answer.code(), 200);
}

// RFC 8656 §12.2
#[test]
fn a_bound_number_for_another_peer_gets_400() {
    let (mut net, mut caller, _) = allocated();
    caller.bind(&mut net, 0x4000, PEER);
    assert_eq!(caller.bind(&mut net, 0x4000, "203.0.113.9:10").code(), 400);
    assert_eq!(caller.bind(&mut net, 0x4000, "203.0.113.10:9").code(), 400);
}

// RFC 8656 §12.2
#[test]
fn a_bound_peer_for_another_number_gets_400() {
    let (mut net, mut caller, _) = allocated();
    caller.bind(&mut net, 0x4000, PEER);
    assert_eq!(caller.bind(&mut net, 0x4001, PEER).code(), 400);
    assert_eq!(net.server.counters().channels, 1);
}

// RFC 8656 §12.2
#[test]
fn a_channel_bind_for_another_family_gets_443() {
    let (mut net, mut caller, _) = allocated();
    assert_eq!(caller.bind(&mut net, 0x4000, PEER6).code(), 443);
}

// RFC 8656 §12.2
#[test]
fn a_channel_bind_to_a_forbidden_peer_gets_403() {
    let (mut net, mut caller, _) = allocated();
    for peer in [
        "127.0.0.1:9",
        "10.0.0.1:9",
        "198.51.100.1:3478",
        "203.0.113.9:0",
    ] {
        assert_eq!(caller.bind(&mut net, 0x4000, peer).code(), 403, "{peer}");
    }
    assert_eq!(net.server.counters().permissions, 0);
}

// RFC 8656 §12.2
#[test]
fn more_channels_than_allowed_get_508() {
    let mut net = Net::with(limited(Limits {
        channels_per_allocation: 2,
        ..Limits::default()
    }));
    let mut caller = Caller::new(&mut net, ALICE);
    caller.allocated(&mut net);
    for (port, code) in [(1, 200), (2, 200), (3, 508), (1, 200)] {
        let answer = caller.bind(&mut net, 0x4000 + port, &format!("203.0.113.9:{port}"));
        assert_eq!(answer.code(), code, "{port}");
    }
    assert_eq!(net.server.counters().limits(Limit::Channels), 1);
}

// RFC 8656 §12.2
#[test]
fn a_channel_bind_installs_a_permission() {
    let (mut net, mut caller, relayed) = allocated();
    caller.bind(&mut net, 0x4000, PEER);
    assert!(matches!(
        net.peer_sends("203.0.113.9:77", relayed, b"hi"),
        Outcome::Delivered(..)
    ));
    assert!(matches!(
        caller.send_indication(&mut net, PEER, b"hi"),
        Outcome::Relayed(..)
    ));
}

// RFC 8656 §12.2
#[test]
fn a_thousand_channels_work_like_one() {
    let (mut net, mut caller, relayed) = allocated();
    for n in 0..1024 {
        assert_eq!(
            caller
                .bind(&mut net, 0x4000 + n, &format!("203.0.113.9:{}", 1000 + n))
                .code(),
            200
        );
    }
    assert_eq!(caller.bind(&mut net, 0x4400, "203.0.113.9:9").code(), 508);
    let outcome = caller.channel_data(&mut net, 0x43FF, b"hi");
    assert_eq!(
        outcome,
        Outcome::Relayed(relayed, addr("203.0.113.9:2023"), b"hi".to_vec())
    );
    let Outcome::Delivered(_, packet) = net.peer_sends("203.0.113.9:1000", relayed, b"hi") else {
        panic!("not delivered");
    };
    assert_eq!(packet, [0x40, 0x00, 0, 2, b'h', b'i']);
    net.advance_seconds(600);
    net.assert_idle();
}

// RFC 8656 §12
#[test]
fn a_channel_lasts_600_seconds_and_its_permission_300() {
    let (mut net, mut caller, relayed) = allocated();
    caller.refresh(&mut net, Some(3600));
    caller.bind(&mut net, 0x4000, PEER);
    net.advance_seconds(300);
    let refused = Outcome::Dropped(DropReason::NoPermission);
    assert_eq!(net.peer_sends(PEER, relayed, b"hi"), refused);
    caller.permit(&mut net, &[PEER]);
    net.advance_seconds(299);
    let Outcome::Delivered(_, packet) = net.peer_sends(PEER, relayed, b"hi") else {
        panic!("not delivered");
    };
    assert_eq!(packet, [0x40, 0x00, 0, 2, b'h', b'i']);
    net.advance_seconds(1);
    let unbound = Outcome::Dropped(DropReason::NoChannel);
    assert_eq!(caller.channel_data(&mut net, 0x4000, b"hi"), unbound);
    assert_eq!(net.server.counters().channels, 0);
}

// RFC 8656 §9, §21.1.4
#[test]
fn a_channel_whose_permission_is_over_carries_no_data_in_either_direction() {
    let (mut net, mut caller, relayed) = allocated();
    caller.bind(&mut net, 0x4000, PEER);
    net.sleep_seconds(299);
    let sent = caller.channel_data(&mut net, 0x4000, b"hi");
    assert!(matches!(sent, Outcome::Relayed(..)));
    net.sleep_seconds(1);
    let refused = Outcome::Dropped(DropReason::NoPermission);
    assert_eq!(caller.channel_data(&mut net, 0x4000, b"hi"), refused);
    assert_eq!(net.peer_sends(PEER, relayed, b"hi"), refused);
    caller.permit(&mut net, &["203.0.113.9:1"]);
    let sent = caller.channel_data(&mut net, 0x4000, b"hi");
    assert!(matches!(sent, Outcome::Relayed(..)));
    assert_eq!(caller.bind(&mut net, 0x4001, PEER).code(), 400);
}

// RFC 8656 §12
#[test]
fn binding_again_refreshes_channel_and_permission() {
    let (mut net, mut caller, relayed) = allocated();
    caller.refresh(&mut net, Some(3600));
    for _ in 0..5 {
        assert_eq!(caller.bind(&mut net, 0x4000, PEER).code(), 200);
        net.advance_seconds(299);
        assert!(matches!(
            net.peer_sends(PEER, relayed, b"hi"),
            Outcome::Delivered(..)
        ));
    }
    assert_eq!(net.server.counters().channels, 1);
    assert_eq!(net.server.counters().permissions, 1);
}

// RFC 8656 §12
#[test]
fn an_expired_channel_can_be_bound_otherwise() {
    let (mut net, mut caller, _) = allocated();
    caller.refresh(&mut net, Some(3600));
    caller.bind(&mut net, 0x4000, PEER);
    net.sleep_seconds(600);
    assert_eq!(caller.bind(&mut net, 0x4000, "203.0.113.9:10").code(), 200);
    assert_eq!(caller.bind(&mut net, 0x4001, PEER).code(), 200);
    assert_eq!(net.server.counters().channels, 2);
}

// RFC 8656 §12
#[test]
fn channels_of_one_allocation_are_not_those_of_another() {
    let (mut net, mut caller, _) = allocated();
    caller.bind(&mut net, 0x4000, PEER);
    let mut other = Caller::new(&mut net, ALICE_AGAIN);
    other.allocated(&mut net);
    assert_eq!(other.bind(&mut net, 0x4000, "203.0.113.9:10").code(), 200);
    assert_eq!(other.bind(&mut net, 0x4001, PEER).code(), 200);
}

// RFC 8656 §12.5
#[test]
fn data_of_a_bound_peer_always_comes_by_its_channel() {
    let (mut net, mut caller, relayed) = allocated();
    caller.permit(&mut net, &[PEER]);
    caller.bind(&mut net, 0x4ABC, PEER);
    let outcome = net.peer_sends(PEER, relayed, b"hello");
    let expected = [&[0x4A, 0xBC, 0, 5][..], b"hello"].concat();
    assert_eq!(outcome, Outcome::Delivered(caller.five_tuple, expected));
    let Outcome::Delivered(_, packet) = net.peer_sends("203.0.113.9:10", relayed, b"hi") else {
        panic!("not delivered");
    };
    assert_eq!(data_indication(&packet).0, addr("203.0.113.9:10"));
}

// RFC 8656 §12.5
#[test]
fn channel_data_is_padded_on_streams_only() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut net = Net::new();
        let mut caller = Caller::of(&mut net, ALICE, transport, "alice");
        let relayed = caller.allocated(&mut net);
        caller.bind(&mut net, 0x4000, PEER);
        let outcome = net.peer_sends(PEER, relayed, b"hello");
        let expected = [&[0x40, 0, 0, 5][..], b"hello\0\0\0"].concat();
        assert_eq!(outcome, Outcome::Delivered(caller.five_tuple, expected));
        let outcome = caller.channel_data(&mut net, 0x4000, b"hello");
        assert_eq!(
            outcome,
            Outcome::Relayed(relayed, addr(PEER), b"hello".to_vec())
        );
        assert_eq!(net.server.counters().to_clients(transport).packets, 1);
    }
}

// RFC 8656 §12.6
#[test]
fn channel_data_goes_to_its_peer_from_the_relayed_address() {
    let (mut net, mut caller, relayed) = allocated();
    caller.bind(&mut net, 0x4000, PEER);
    for payload in [&b""[..], b"h", b"hello", &[7; 1200]] {
        let outcome = caller.channel_data(&mut net, 0x4000, payload);
        assert_eq!(
            outcome,
            Outcome::Relayed(relayed, addr(PEER), payload.to_vec())
        );
    }
}

// RFC 8656 §12.6
#[test]
fn channel_data_with_padding_over_udp_is_accepted() {
    let (mut net, mut caller, relayed) = allocated();
    caller.bind(&mut net, 0x4000, PEER);
    let packet = [&[0x40, 0, 0, 5][..], b"hello\0\0\0"].concat();
    let outcome = net.client_sends(caller.five_tuple, &packet);
    assert_eq!(
        outcome,
        Outcome::Relayed(relayed, addr(PEER), b"hello".to_vec())
    );
}

// RFC 8656 §12.6
#[test]
fn channel_data_shorter_than_it_claims_is_discarded() {
    let (mut net, mut caller, _) = allocated();
    caller.bind(&mut net, 0x4000, PEER);
    for packet in [
        &[0x40][..],
        &[0x40, 0, 0],
        &[0x40, 0, 0, 1],
        &[0x40, 0, 0, 5, 1, 2, 3, 4],
    ] {
        let outcome = net.client_sends(caller.five_tuple, packet);
        assert_eq!(outcome, Outcome::Dropped(DropReason::Malformed));
    }
}

// RFC 8656 §12.6
#[test]
fn channel_data_on_an_unbound_or_reserved_number_is_discarded() {
    let (mut net, mut caller, _) = allocated();
    caller.bind(&mut net, 0x4000, PEER);
    for number in [0x4001, 0x4FFF, 0x5000, 0x7FFF] {
        let outcome = caller.channel_data(&mut net, number, b"hi");
        assert_eq!(outcome, Outcome::Dropped(DropReason::NoChannel));
    }
}

// RFC 8656 §12.6
#[test]
fn channel_data_refreshes_neither_channel_nor_permission() {
    let (mut net, mut caller, relayed) = allocated();
    caller.refresh(&mut net, Some(3600));
    caller.bind(&mut net, 0x4000, PEER);
    for second in (0..300).step_by(100) {
        let outcome = caller.channel_data(&mut net, 0x4000, b"hi");
        assert!(matches!(outcome, Outcome::Relayed(..)), "{second}");
        net.advance_seconds(100);
    }
    let refused = Outcome::Dropped(DropReason::NoPermission);
    assert_eq!(caller.channel_data(&mut net, 0x4000, b"hi"), refused);
    assert_eq!(net.peer_sends(PEER, relayed, b"hi"), refused);
    net.advance_seconds(300);
    let unbound = Outcome::Dropped(DropReason::NoChannel);
    assert_eq!(caller.channel_data(&mut net, 0x4000, b"hi"), unbound);
}

// RFC 8656 §12.6
#[test]
fn more_than_a_datagram_holds_is_dropped() {
    let mut net = Net::new();
    let mut caller = Caller::of(&mut net, ALICE, Transport::Tcp, "alice");
    caller.allocated(&mut net);
    caller.bind(&mut net, 0x4000, PEER);
    let outcome = caller.channel_data(&mut net, 0x4000, &vec![0; 65_508]);
    assert_eq!(outcome, Outcome::Dropped(DropReason::TooLong));
    let outcome = caller.channel_data(&mut net, 0x4000, &vec![0; 65_507]);
    assert!(matches!(outcome, Outcome::Relayed(..)));
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
    net.server.close_all(net.now);
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
            relayed: vec![relayed],
        },
        Event::Closed {
            allocation: 0,
            client,
            username: "alice".into(),
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
        peer: peer.parse().unwrap(),
        rule,
    };
    let expected = [
        denied("10.0.0.1", PeerDenied::Private),
        denied("127.0.0.1", PeerDenied::Loopback),
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
