//! What keeps a fleet from starting, and how it is told.

use std::net::{TcpListener, UdpSocket};

use crate::fleet::{Place, Ports, exit};

#[test]
fn a_taken_port_is_named_with_its_flag() {
    let ports = Ports::free();
    let base = ports.0;
    let taken = [
        ("--port", "UDP", base + 2),
        ("--tls-port", "TCP", base + 10),
        ("--metrics-port", "TCP", base + 21),
        ("--http", "TCP", base + 30),
    ];
    let datagrams = UdpSocket::bind(("127.0.0.1", taken[0].2)).unwrap();
    let streams: Vec<_> = taken[1..]
        .iter()
        .map(|(_, _, port)| TcpListener::bind(("127.0.0.1", *port)).unwrap())
        .collect();
    let place = Place::new();
    let mut child = place.up(ports, &[]).spawn().unwrap();
    assert_eq!(exit(&mut child).code(), Some(1));
    for (flag, kind, port) in taken {
        let expected =
            format!("{flag} = 127.0.0.1:{port}: expected a free port: {kind} port {port} is taken");
        assert!(
            place.said().contains(&expected),
            "{expected:?} is missing from\n{}",
            place.said()
        );
    }
    drop((datagrams, streams));
}

#[test]
fn one_state_folder_serves_one_fleet_at_a_time() {
    let place = Place::new();
    let _fleet = place.start(Ports::free(), &["--relays", "1"]);
    let mut second = place.up(Ports::free(), &["--relays", "1"]).spawn().unwrap();
    assert_eq!(exit(&mut second).code(), Some(1));
    let said = place.said();
    assert!(
        said.contains("another turnfleet uses the state folder"),
        "{said}"
    );
    assert!(said.contains("--state-dir"), "{said}");
}

#[test]
fn an_address_that_the_machine_lacks_is_an_error_when_it_is_asked_for() {
    let place = Place::new();
    let mut child = place
        .up(Ports::free(), &["--listen-ip", "203.0.113.77"])
        .spawn()
        .unwrap();
    assert_eq!(exit(&mut child).code(), Some(1));
    assert!(
        place.said().contains("--listen-ip = 203.0.113.77"),
        "{}",
        place.said()
    );
}
