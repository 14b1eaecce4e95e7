//! Peers that open connections to relayed transport addresses (RFC 6062 §5.3), and leave, or come at a bad time.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "other events are not what a test waits for"
)]

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use turnfleet_turn::client::Event;

use crate::support::{Driver, has_scarce_descriptors, run_with_scarce_descriptors};
use crate::tcp::{allocated, connect, listen};

/// Waits for the word that the peer at `wanted` has connected.
#[track_caller]
fn announced(control: &mut Driver, wanted: SocketAddr) {
    control.event(|event| match event {
        Event::ConnectionAttempt { peer, .. } if peer.0 == wanted => Some(()),
        _ => None,
    });
}

/// Peers that come and go cannot keep the client from connecting.
#[test]
fn the_place_of_a_peer_that_is_gone_is_free_again() {
    let (relay, mut control, allocation, _) = allocated();
    control.permit("127.0.0.1:1".parse().unwrap());
    for _ in 0..100 {
        let peer = TcpStream::connect(allocation.relayed).unwrap();
        let own = peer.local_addr().unwrap();
        announced(&mut control, own);
        SockRef::from(&peer)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
    relay.wait_until("the end of all of them", |shards| {
        shards.counters().connections == 0
    });
    let (listener, _) = listen(true);
    connect(&mut control, &listener);
}

#[test]
fn a_peer_that_finds_no_descriptor_is_announced_when_there_is_one() {
    run_with_scarce_descriptors("tcp_peers::scarce_descriptors");
}

#[test]
fn scarce_descriptors() {
    if !has_scarce_descriptors() {
        return;
    }
    let (relay, mut control, allocation, _) = allocated();
    control.permit("127.0.0.1:1".parse().unwrap());
    let peer = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    peer.connect(&allocation.relayed.into()).unwrap();
    relay.wait_until("a pause", |shards| {
        shards.driver_counters().accept_pauses > 0
    });
    drop(taken);
    let own = peer.local_addr().unwrap().as_socket().unwrap();
    announced(&mut control, own);
}
