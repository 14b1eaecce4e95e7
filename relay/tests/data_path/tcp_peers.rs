//! Peers that open connections to relayed transport addresses (RFC 6062 §5.3), and leave, or come at a bad time.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "what a test takes for granted fails it, and other events are not what it waits for"
)]

use std::net::TcpStream;
use std::time::Duration;

use socket2::SockRef;
use turnfleet_turn::client::Event;

use crate::tcp::{allocated, connect, listen};

/// Peers that come and go cannot keep the client from connecting.
#[test]
fn the_place_of_a_peer_that_is_gone_is_free_again() {
    let (relay, mut control, allocation, _) = allocated();
    control.permit("127.0.0.1:1".parse().unwrap());
    for _ in 0..100 {
        let peer = TcpStream::connect(allocation.relayed).unwrap();
        let own = peer.local_addr().unwrap();
        control.event(|event| match event {
            Event::ConnectionAttempt { peer, .. } if peer.0 == own => Some(()),
            _ => None,
        });
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
