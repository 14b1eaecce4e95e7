//! What RFC 8656 §7.2 says of relayed transport addresses: which one is given, and what happens where none is to be had.

use turnfleet_turn::wire::Method;
use turnfleet_turn::{AddressFamily, Event, Limit, OpenError, Reject, RequestMethod, Transport};

use crate::support::{ALICE, Caller, Net, Outcome, PORTS, Setup, V4, host, v4_only};

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
