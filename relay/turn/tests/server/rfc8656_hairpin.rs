//! What RFC 8656 says of two clients of one relay: each is the other's peer, and the relay is in the middle twice.
//!
//! What leaves one relayed socket for another arrives there as the net of the machine would bring it, which is what a driver
//! does that spares the net the trip.

use std::net::SocketAddr;

use crate::support::{ALICE, BOB, Caller, Net, Outcome, V6, allocated, data_indication, reserve};
use turnfleet_turn::wire::ChannelData;
use turnfleet_turn::{AddressFamily, DropReason, Transport};

/// What a client has sent, after the second half of its way.
fn arrive(net: &mut Net, sent: Outcome) -> Outcome {
    let Outcome::Relayed(from, to, payload) = &sent else {
        return sent;
    };
    net.peer_sends(&from.to_string(), *to, payload)
}

/// Alice and bob with their relayed addresses.
fn two() -> (Net, [(Caller, SocketAddr); 2]) {
    let (mut net, alice, a) = allocated();
    let mut bob = Caller::named(&mut net, BOB, "bob");
    let b = bob.allocated(&mut net);
    (net, [(alice, a), (bob, b)])
}

// RFC 8656 §11.3, §12.7, two clients of one relay
#[test]
fn each_of_two_clients_is_framed_to_by_its_own_channels() {
    let (mut net, [(mut alice, a), (mut bob, b)]) = two();
    alice.bind(&mut net, 0x4000, &b.to_string());
    bob.permit(&mut net, &[&a.to_string()]);
    let sent = alice.channel_data(&mut net, 0x4000, b"hi");
    let Outcome::Delivered(to, packet) = arrive(&mut net, sent) else {
        panic!("not delivered");
    };
    assert_eq!(to, bob.five_tuple);
    assert_eq!(data_indication(&packet), (a, b"hi".to_vec()));
    bob.bind(&mut net, 0x4001, &a.to_string());
    let sent = alice.channel_data(&mut net, 0x4000, b"hi");
    let Outcome::Delivered(_, packet) = arrive(&mut net, sent) else {
        panic!("not delivered");
    };
    assert_eq!(ChannelData::parse(&packet).unwrap().number.0, 0x4001);
}

// RFC 8656 §9, §11.3, two clients of one relay
#[test]
fn a_call_needs_a_permission_at_both_ends() {
    let (mut net, [(mut alice, a), (mut bob, b)]) = two();
    let none = Outcome::Dropped(DropReason::NoPermission);
    // All relayed addresses have one IP address here, and so one permission.
    let sent = alice.send_indication(&mut net, &b.to_string(), b"hi");
    assert_eq!(arrive(&mut net, sent), none);
    alice.permit(&mut net, &[&b.to_string()]);
    let sent = alice.send_indication(&mut net, &b.to_string(), b"hi");
    assert!(matches!(sent, Outcome::Relayed(..)));
    assert_eq!(arrive(&mut net, sent), none);
    bob.permit(&mut net, &[&a.to_string()]);
    let sent = alice.send_indication(&mut net, &b.to_string(), b"hi");
    assert!(matches!(arrive(&mut net, sent), Outcome::Delivered(..)));
    // Both halves are counted, each for its own client.
    let counters = net.server.counters();
    assert_eq!(counters.to_peers(Transport::Udp).packets, 2);
    assert_eq!(counters.to_clients(Transport::Udp).packets, 1);
    assert_eq!(counters.drops(DropReason::NoPermission), 2);
}

// RFC 8656 §9, two clients of one relay
#[test]
fn a_permission_that_ends_silences_one_direction() {
    let (mut net, [(mut alice, a), (mut bob, b)]) = two();
    alice.bind(&mut net, 0x4000, &b.to_string());
    bob.bind(&mut net, 0x4000, &a.to_string());
    net.advance_seconds(200);
    alice.permit(&mut net, &[&b.to_string()]);
    net.advance_seconds(150);
    // Bob's channel outlives his permission, which data needs in both directions.
    let sent = alice.channel_data(&mut net, 0x4000, b"hi");
    assert!(matches!(sent, Outcome::Relayed(..)));
    let none = Outcome::Dropped(DropReason::NoPermission);
    assert_eq!(arrive(&mut net, sent), none);
    assert_eq!(bob.channel_data(&mut net, 0x4000, b"ho"), none);
}

// RFC 8656 §11.2, §11.3, a client that is its own peer
#[test]
fn a_client_may_send_to_its_own_relayed_address_and_hears_itself_once() {
    let (mut net, mut alice, a) = allocated();
    alice.permit(&mut net, &[&a.to_string()]);
    let sent = alice.send_indication(&mut net, &a.to_string(), b"me");
    assert_eq!(sent, Outcome::Relayed(a, a, b"me".to_vec()));
    let Outcome::Delivered(to, packet) = arrive(&mut net, sent) else {
        panic!("not delivered");
    };
    assert_eq!(to, alice.five_tuple);
    assert_eq!(data_indication(&packet), (a, b"me".to_vec()));
    alice.bind(&mut net, 0x4000, &a.to_string());
    let sent = alice.channel_data(&mut net, 0x4000, b"me");
    let Outcome::Delivered(_, packet) = arrive(&mut net, sent) else {
        panic!("not delivered");
    };
    let message = ChannelData::parse(&packet).unwrap();
    assert_eq!(&packet[message.payload.range()], b"me");
}

// RFC 8656 §7.2, two clients of one relay
#[test]
fn a_reserved_port_is_no_clients_peer() {
    let (mut net, mut alice, _) = allocated();
    let held = reserve(&mut net, BOB).relayed()[0];
    let reserved = SocketAddr::new(held.ip(), held.port() + 1);
    alice.permit(&mut net, &[&reserved.to_string()]);
    let sent = alice.send_indication(&mut net, &reserved.to_string(), b"hi");
    assert!(matches!(sent, Outcome::Relayed(..)));
    let nobody = Outcome::Dropped(DropReason::NotAllocated);
    assert_eq!(arrive(&mut net, sent), nobody);
}

// RFC 8656 §8, two clients of one relay
#[test]
fn an_allocation_that_has_run_out_takes_nothing_before_its_timer_is_served() {
    let (mut net, [(mut alice, a), (mut bob, b)]) = two();
    net.advance_seconds(500);
    alice.refresh(&mut net, None);
    alice.permit(&mut net, &[&b.to_string()]);
    bob.permit(&mut net, &[&a.to_string()]);
    net.sleep_seconds(150);
    let sent = alice.send_indication(&mut net, &b.to_string(), b"hi");
    assert!(matches!(sent, Outcome::Relayed(..)));
    let nobody = Outcome::Dropped(DropReason::NotAllocated);
    assert_eq!(arrive(&mut net, sent), nobody);
}

// RFC 8656 §11.3, two clients of one relay
#[test]
fn a_call_over_ipv6_between_ipv4_clients_passes_by_their_ipv6_addresses() {
    let mut net = Net::new();
    let mut caller = |client: &str| {
        let mut caller = Caller::new(&mut net, client);
        let answer = caller.allocate(&mut net, |writer| {
            writer.requested_address_family(AddressFamily::V6);
        });
        (caller, answer.relayed()[0])
    };
    let ((mut alice, a), (mut bob, b)) = (caller(ALICE), caller(BOB));
    assert!(a.to_string().starts_with(&format!("[{V6}]")) && b.is_ipv6());
    alice.bind(&mut net, 0x4000, &b.to_string());
    bob.bind(&mut net, 0x4001, &a.to_string());
    let sent = alice.channel_data(&mut net, 0x4000, b"hi");
    let Outcome::Delivered(to, packet) = arrive(&mut net, sent) else {
        panic!("not delivered");
    };
    assert_eq!(to, bob.five_tuple);
    assert_eq!(ChannelData::parse(&packet).unwrap().number.0, 0x4001);
}
