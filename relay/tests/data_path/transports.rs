//! Clients by UDP, TCP and TLS, in both families: allocations, and data both ways on both framings.

use std::sync::Arc;

use crate::support::{
    Driver, Received, Relay, echo_peer, policy, settings, wait_until, write_certificate,
};
use turnfleet_relay::shard::Certificate;
use turnfleet_turn::client::AllocateOptions;
use turnfleet_turn::{AddressFamily, Transport};

/// Sends payloads of many sizes to an echoing peer, as Send indications and on a channel.
#[track_caller]
fn assert_relays(mut driver: Driver, relayed_v4: bool) {
    let family = if relayed_v4 {
        AddressFamily::V4
    } else {
        AddressFamily::V6
    };
    let allocated = driver.allocate(AllocateOptions {
        family: Some(family),
        ..AllocateOptions::default()
    });
    assert_eq!(allocated.relayed.is_ipv4(), relayed_v4);
    let peer = echo_peer(relayed_v4);
    driver.permit(peer);
    for on_channel in [false, true] {
        if on_channel {
            driver.bind_channel(peer);
        }
        for len in [0, 1, 2, 3, 4, 160, 1200, 20_001, 65_000] {
            let payload: Vec<u8> = (0..=250).cycle().take(len).collect();
            driver.send_to(peer, &payload);
            let received = driver.receive_one();
            let expected = Received {
                peer,
                on_channel,
                payload,
            };
            assert!(
                received == expected,
                "{len} bytes, on channel: {on_channel}"
            );
        }
    }
}

#[test]
fn udp_clients_are_relayed_in_both_families() {
    let relay = Relay::start(settings(2, None));
    for v4 in [true, false] {
        for relayed_v4 in [true, false] {
            let driver = Driver::udp(relay.address(Transport::Udp, v4));
            assert_relays(driver, relayed_v4);
        }
    }
    relay.shards.stop();
}

#[test]
fn tcp_clients_are_relayed_in_both_families() {
    let relay = Relay::start(settings(2, None));
    for v4 in [true, false] {
        for relayed_v4 in [true, false] {
            let driver = Driver::tcp(relay.address(Transport::Tcp, v4));
            assert_relays(driver, relayed_v4);
        }
    }
}

#[test]
fn tls_clients_are_relayed_in_both_families() {
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    write_certificate(&chain, &key);
    let certificate = Arc::new(Certificate::load(&chain, &key).unwrap());
    let relay = Relay::start(settings(2, Some(certificate)));
    for v4 in [true, false] {
        for relayed_v4 in [true, false] {
            let driver = Driver::tls(relay.address(Transport::Tls, v4), &chain);
            assert_relays(driver, relayed_v4);
        }
    }
}

#[test]
fn two_clients_of_one_relay_reach_each_other() {
    let relay = Relay::start(settings(2, None));
    let mut alice = Driver::udp(relay.address(Transport::Udp, true));
    let mut bob = Driver::tcp(relay.address(Transport::Tcp, true));
    let alice_relayed = alice.allocate(AllocateOptions::default()).relayed;
    let bob_relayed = bob.allocate(AllocateOptions::default()).relayed;
    alice.bind_channel(bob_relayed);
    bob.bind_channel(alice_relayed);
    for (from, to, payload) in [
        (&mut alice, bob_relayed, &b"to bob"[..]),
        (&mut bob, alice_relayed, b"to alice"),
    ] {
        from.send_to(to, payload);
    }
    assert_eq!(bob.receive_one().payload, b"to bob");
    assert_eq!(alice.receive_one().payload, b"to alice");
}

#[test]
fn allocations_are_counted_and_end_with_the_relay() {
    let relay = Relay::start(settings(2, None));
    let mut drivers: Vec<_> = (0..20)
        .map(|_| Driver::udp(relay.address(Transport::Udp, true)))
        .collect();
    for driver in &mut drivers {
        driver.allocate(AllocateOptions::default());
    }
    relay.wait_until("20 allocations", |shards| shards.allocations() == 20);
    assert_eq!(relay.ledger.usage().ports_used, 20);
    drivers[0].refresh(0);
    relay.wait_until("19 allocations", |shards| shards.allocations() == 19);
    relay.wait_until("published counters", |shards| {
        shards.counters().opened == 20 && shards.counters().allocations() == 19
    });
    let ledger = Arc::clone(&relay.ledger);
    relay.shards.stop();
    assert_eq!(ledger.usage().ports_used, 0);
}

#[test]
fn a_policy_and_draining_reach_every_shard() {
    let relay = Relay::start(settings(2, None));
    let refused = |count: usize| {
        (0..count).all(|_| {
            let mut driver = Driver::udp(relay.address(Transport::Udp, true));
            driver.try_allocate(AllocateOptions::default()).is_err()
        })
    };
    relay.shards.set_draining(true);
    wait_until("draining", || refused(8));
    relay.shards.set_draining(false);
    wait_until("the end of draining", || !refused(8));
    relay.policy.store(Arc::new(policy(0)));
    relay.shards.notify_policy();
    wait_until("the policy", || refused(8));
}
