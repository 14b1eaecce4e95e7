//! What a forged source address can make the server send (THREATS T11), and that its owner still gets in.

use turnfleet_turn::wire::Method;
use turnfleet_turn::{DropReason, Transport};

use crate::support::{Caller, Net, Outcome};

const VICTIM: &str = "192.0.2.1:5000";

/// Sends requests in the name of `victim` until the server is silent, and returns how many were answered.
#[track_caller]
fn flood(net: &mut Net, victim: &str, method: Method) -> u32 {
    let mut forger = Caller::new(net, victim);
    for answered in 0..20_000 {
        let packet = forger.unsigned(method, |_| {});
        let outcome = net.client_sends(forger.five_tuple, &packet);
        if !matches!(outcome, Outcome::Reply(_)) {
            assert_eq!(outcome, Outcome::Dropped(DropReason::ReflectionBudget));
            return answered;
        }
    }
    panic!("the server never falls silent");
}

#[test]
fn a_flooded_address_gets_a_bounded_number_of_challenges() {
    let mut net = Net::new();
    let answered = flood(&mut net, VICTIM, Method::Allocate);
    // One of two shards: half of the relay's 1,000.
    assert!((400..=600).contains(&answered), "{answered}");
    assert_eq!(net.server.counters().drops(DropReason::ReflectionBudget), 1);
}

#[test]
fn a_flooded_address_gets_a_bounded_number_of_binding_responses() {
    let mut net = Net::new();
    let answered = flood(&mut net, VICTIM, Method::Binding);
    assert!((400..=600).contains(&answered), "{answered}");
}

#[test]
fn another_address_is_not_concerned() {
    let mut net = Net::new();
    flood(&mut net, VICTIM, Method::Allocate);
    Caller::new(&mut net, "192.0.2.2:5000").allocated(&mut net);
}

#[test]
fn the_owner_of_a_flooded_address_gets_in_by_a_retransmission() {
    let mut net = Net::new();
    let mut owner = Caller::new(&mut net, "192.0.2.1:6000");
    flood(&mut net, VICTIM, Method::Allocate);
    let packet = owner.unsigned(Method::Allocate, |_| {});
    let first = net.client_sends(owner.five_tuple, &packet);
    assert_eq!(first, Outcome::Dropped(DropReason::ReflectionBudget));
    net.advance(std::time::Duration::from_millis(500));
    flood(&mut net, VICTIM, Method::Allocate);
    let again = owner.send(&mut net, &packet);
    assert_eq!(again.code(), 401);
    owner.nonce = again.message().nonce().unwrap().unwrap().to_vec();
    owner.allocated(&mut net);
}

#[test]
fn an_authentic_request_is_answered_from_a_flooded_address() {
    let mut net = Net::new();
    let mut owner = Caller::new(&mut net, "192.0.2.1:6000");
    flood(&mut net, VICTIM, Method::Allocate);
    owner.allocated(&mut net);
}

#[test]
fn a_five_tuple_with_an_allocation_is_always_answered() {
    let mut net = Net::new();
    let mut owner = Caller::new(&mut net, "192.0.2.1:6000");
    owner.allocated(&mut net);
    // Ten times as much for an address that has proved itself.
    let answered = flood(&mut net, VICTIM, Method::Allocate);
    assert!((4000..=6000).contains(&answered), "{answered}");
    owner.password = "wrong".into();
    assert_eq!(owner.refresh(&mut net, None).code(), 401);
    let binding = owner.unsigned(Method::Binding, |_| {});
    assert_eq!(owner.send(&mut net, &binding).code(), 200);
}

#[test]
fn a_stream_is_always_answered() {
    let mut net = Net::new();
    flood(&mut net, VICTIM, Method::Allocate);
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut caller = Caller::of(&mut net, VICTIM, transport, "alice");
        for _ in 0..2000 {
            let packet = caller.unsigned(Method::Allocate, |_| {});
            assert_eq!(caller.send(&mut net, &packet).code(), 401);
        }
    }
}

#[test]
fn loopback_is_always_answered() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "127.0.0.1:5000");
    for _ in 0..2000 {
        let packet = caller.unsigned(Method::Allocate, |_| {});
        assert_eq!(caller.send(&mut net, &packet).code(), 401);
    }
}
