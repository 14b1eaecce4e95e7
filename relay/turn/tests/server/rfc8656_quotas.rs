//! What RFC 8656 §7.2 says of an Allocate request that the server does not want to serve: quotas, a full relay, draining.

use turnfleet_turn::Limit;
use turnfleet_turn::policy::Limits;

use crate::support::{ALICE, ALICE_AGAIN, Caller, Net, PEER, allocated, limited};

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
