//! What RFC 8656 §7.2 says of address families: REQUESTED-ADDRESS-FAMILY and ADDITIONAL-ADDRESS-FAMILY.

use turnfleet_turn::wire::{AttributeType, ErrorCode, Method};
use turnfleet_turn::{AddressFamily, OpenError};

use crate::support::{ALICE, ALICE_AGAIN, Caller, Net, dual, v4_only, v6_only};

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
