//! What RFC 8656 §7.2 says of Allocate requests: the checks of the request itself, and its answer.

use turnfleet_turn::AddressFamily;
use turnfleet_turn::wire::{AttributeType, Method, ReservationToken};

use crate::support::{ALICE, Answer, Caller, Net, PEER, V4, addr, allocated};

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
