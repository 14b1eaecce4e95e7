//! What RFC 8656 §7.2 says of EVEN-PORT and RESERVATION-TOKEN.

use turnfleet_turn::wire::{AttributeType, MessageWriter, Method, ReservationToken};
use turnfleet_turn::{AddressFamily, DropReason, OpenError, Transport};

use crate::support::{
    ALICE, ALICE_AGAIN, Answer, BOB, Caller, Net, Outcome, PEER, claimed, reserve,
};

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
    let (mut owner, first, mut asker, mut other) = claimed();
    let (id, shard, token) = asker.claims.pop().unwrap();
    assert_eq!((shard.0, token), (0, first.token()));

    let (moved, local) = owner.server.release_reserved(owner.now, token).unwrap();
    assert_eq!(owner.server.release_reserved(owner.now, token), None);
    let place = owner.sockets.iter().find(|(_, id)| **id == moved);
    let bound = *place.unwrap().0;
    assert_eq!(local, bound);
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
