//! What RFC 8656 §6 and §8 say of lifetimes and Refresh requests.

use turnfleet_turn::wire::{AttributeType, Method};
use turnfleet_turn::{AddressFamily, CloseReason, DropReason};

use crate::support::{Outcome, PEER, PEER6, allocated, dual, refresh_family};

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
