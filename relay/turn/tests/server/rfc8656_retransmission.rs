//! What RFC 8656 §7.2 says of Allocate requests that come again, or whose sockets open late.

use turnfleet_turn::wire::{MessageWriter, Method};
use turnfleet_turn::{AddressFamily, DropReason};

use crate::support::{ALICE, Answer, Caller, Net, Outcome, PEER};

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
