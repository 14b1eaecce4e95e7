//! Ports, descriptors and shards: what happens when they are taken, run out, or are somebody else's.

use std::io::Read as _;
use std::time::Duration;

use crate::support::{
    Driver, Relay, connect, echo_peer, has_scarce_descriptors, is_timeout,
    run_with_scarce_descriptors, settings, wait_until,
};
use turnfleet_relay::shard::{BindError, ShardSet};
use turnfleet_turn::Transport;
use turnfleet_turn::client::AllocateOptions;

#[test]
fn a_second_relay_on_the_same_port_fails_and_names_it() {
    let relay = Relay::start(settings(2, None));
    for taken in &relay.addresses {
        let mut second = settings(2, None);
        second.listeners = vec![taken.clone()];
        let Err(error) = ShardSet::bind(second) else {
            panic!("{taken} was bound twice");
        };
        assert!(matches!(&error, BindError::Socket { listener, .. } if listener == taken));
        assert!(error.to_string().contains(&taken.to_string()), "{error}");
    }
}

#[test]
fn a_tls_listener_without_a_certificate_is_refused() {
    let mut settings = settings(1, None);
    settings.listeners[0].transport = Transport::Tls;
    let refused = ShardSet::bind(settings);
    assert!(matches!(refused, Err(BindError::NoCertificate { .. })));
}

/// The kernel chooses the shard of each client by its port: with many clients a token meets every shard.
#[test]
fn a_reservation_is_redeemed_on_any_shard() {
    let relay = Relay::start(settings(4, None));
    let server = relay.address(Transport::Udp, true);
    for _ in 0..24 {
        let mut holder = Driver::udp(server);
        let held = holder.allocate(AllocateOptions {
            even_port: Some(true),
            ..AllocateOptions::default()
        });
        assert_eq!(held.relayed.port() % 2, 0);
        let mut redeemer = Driver::udp(server);
        let redeemed = redeemer.allocate(AllocateOptions {
            reservation_token: held.reservation_token,
            ..AllocateOptions::default()
        });
        assert_eq!(redeemed.relayed.port(), held.relayed.port() + 1);
        let peer = echo_peer(true);
        redeemer.bind_channel(peer);
        redeemer.send_to(peer, b"through a socket that moved");
        assert_eq!(
            redeemer.receive_one().payload,
            b"through a socket that moved"
        );
        holder.refresh(0);
        redeemer.refresh(0);
    }
    relay.wait_until("no allocation", |shards| shards.allocations() == 0);
    wait_until("no port in use", || relay.ledger.usage().ports_used == 0);
}

#[test]
fn without_descriptors_requests_are_refused_and_the_relay_recovers() {
    run_with_scarce_descriptors("sockets::scarce_descriptors");
}

#[test]
fn scarce_descriptors() {
    if !has_scarce_descriptors() {
        return;
    }
    let relay = Relay::start(settings(1, None));
    let server = relay.address(Transport::Udp, true);
    let tcp_server = relay.address(Transport::Tcp, true);
    let mut drivers: Vec<_> = (0..50).map(|_| Driver::udp(server)).collect();
    let refused = drivers.iter_mut().position(|driver| {
        let allocated = driver.try_allocate(AllocateOptions::default());
        allocated.is_err()
    });
    assert!(refused.is_some_and(|count| count > 10), "{refused:?}");
    let exhausted = |shards: &ShardSet| shards.driver_counters().relayed_sockets_exhausted > 0;
    relay.wait_until("a count of it", exhausted);

    // A stream that finds no descriptor waits in the kernel, and costs no processor time meanwhile. The client's end takes
    // the one that a driver gives back.
    drivers.truncate(49);
    let mut waiting = connect(tcp_server);
    relay.wait_until("a pause", |shards| {
        shards.driver_counters().accept_pauses > 0
    });
    let read = waiting.read(&mut [0; 1]);
    assert!(read.is_err_and(|error| is_timeout(&error)));
    let before = relay.shards.driver_counters().accept_pauses;
    waiting
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    assert!(waiting.read(&mut [0; 1]).is_err());
    let pauses = relay.shards.driver_counters().accept_pauses - before;
    assert!(pauses <= 10, "{pauses} pauses in a second");

    for driver in &mut drivers[..10] {
        driver.refresh(0);
    }
    relay.wait_until("an accepted stream", |shards| {
        shards.driver_counters().streams_accepted > 0
    });
    let mut driver = Driver::tcp(tcp_server);
    driver.allocate(AllocateOptions::default());
}
