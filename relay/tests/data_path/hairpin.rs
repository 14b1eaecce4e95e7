//! Two clients of one relay that talk to each other: their data takes the short-cut, and comes as by the kernel.

#![expect(clippy::unwrap_used, reason = "a test ends where its machinery fails")]

use std::net::SocketAddr;
use std::time::Instant as Clock;

use crate::support::{DEADLINE, Driver, Received, Relay, certificate, of_family, settings};
use turnfleet_relay::shard::{DriverCounters, ShardSettings};
use turnfleet_turn::client::{AllocateOptions, Event};
use turnfleet_turn::{Counters, DropReason, Flow, Transport};

/// Payloads of every kind: empty, of each padding, of a call's size, in fragments, the longest.
const LENGTHS: [usize; 10] = [0, 1, 2, 3, 4, 160, 1200, 1472, 20_001, 65_000];

/// Data of clients and to clients, over all transports.
pub(crate) fn flows(counters: &Counters) -> [Flow; 2] {
    let sum = |of: fn(&Counters, Transport) -> Flow| {
        let flows = Transport::ALL.map(|transport| of(counters, transport));
        Flow {
            packets: flows.iter().map(|flow| flow.packets).sum(),
            bytes: flows.iter().map(|flow| flow.bytes).sum(),
        }
    };
    [sum(Counters::to_peers), sum(Counters::to_clients)]
}

/// What has taken the short-cut, on one shard and between shards.
pub(crate) fn short_cuts(counters: &DriverCounters) -> Flow {
    Flow {
        packets: counters.short_cuts + counters.crossings,
        bytes: counters.short_cut_bytes + counters.crossing_bytes,
    }
}

/// Waits until everything that clients have sent has come to clients, and all of it by the short-cut: so none of it by a
/// relayed socket.
#[track_caller]
fn assert_all_took_the_short_cut(relay: &Relay, sent: Flow) {
    relay.wait_until("all data by the short-cut", |shards| {
        let drivers = shards.driver_counters();
        flows(&shards.counters()) == [sent; 2] && short_cuts(&drivers) == sent
    });
    assert_eq!(relay.shards.driver_counters().crossings_dropped, 0);
    assert_eq!(relay.shards.driver_counters().peer_datagrams_refused, 0);
}

/// Waits for the answer to a Binding request, and returns the data that came before it.
#[track_caller]
pub(crate) fn settle(driver: &mut Driver) -> Vec<Received> {
    let now = driver.now();
    driver.client.binding(now).unwrap();
    driver.transmit();
    let start = Clock::now();
    let mut heard = Vec::new();
    loop {
        while let Some(event) = driver.client.poll_event() {
            if matches!(event, Event::Bound { .. }) {
                return heard;
            }
        }
        assert!(start.elapsed() < DEADLINE, "no answer");
        heard.extend(driver.receive());
    }
}

/// Sends payloads of each length from one client to the other, as indications, then with a channel at the receiving, then
/// at both sides. Returns what was sent.
#[track_caller]
fn assert_reaches(from: &mut Driver, to: &mut Driver, v4: bool) -> Flow {
    let mut sent = Flow::default();
    let from_relayed = from.allocate(of_family(v4)).relayed;
    let to_relayed = to.allocate(of_family(v4)).relayed;
    from.permit(to_relayed);
    to.permit(from_relayed);
    for channels in 0..3 {
        if channels == 1 {
            to.bind_channel(from_relayed);
        }
        if channels == 2 {
            from.bind_channel(to_relayed);
        }
        for len in LENGTHS {
            let payload: Vec<u8> = (0..=250).cycle().take(len).collect();
            from.send_to(to_relayed, &payload);
            let received = to.receive_one();
            let expected = Received {
                peer: from_relayed,
                on_channel: channels > 0,
                payload,
            };
            assert!(received == expected, "{len} bytes, {channels} channels");
            sent.packets += 1;
            sent.bytes += len as u64;
        }
    }
    from.refresh(0);
    to.refresh(0);
    sent
}

#[track_caller]
fn assert_every_pair_of_transports_is_short_cut(shards: u8) {
    let (chain, _folder, certificate) = certificate();
    let relay = Relay::start(settings(shards, Some(certificate)));
    let open = |transport, v4| {
        let server = relay.address(transport, v4);
        match transport {
            Transport::Udp => Driver::udp(server),
            Transport::Tcp => Driver::tcp(server),
            Transport::Tls => Driver::tls(server, &chain),
        }
    };
    let mut sent = Flow::default();
    for from in Transport::ALL {
        for to in Transport::ALL {
            for v4 in [true, false] {
                let flow = assert_reaches(&mut open(from, v4), &mut open(to, !v4), v4);
                sent.packets += flow.packets;
                sent.bytes += flow.bytes;
            }
        }
    }
    assert_all_took_the_short_cut(&relay, sent);
}

#[test]
fn clients_of_one_shard_reach_each_other_by_the_short_cut_over_every_transport() {
    assert_every_pair_of_transports_is_short_cut(1);
}

#[test]
fn clients_of_two_shards_reach_each_other_by_the_short_cut_over_every_transport() {
    assert_every_pair_of_transports_is_short_cut(2);
}

/// Alice and bob with a channel to each other.
fn call(mut alice: Driver, mut bob: Driver) -> [(Driver, SocketAddr); 2] {
    let alice_relayed = alice.allocate(AllocateOptions::default()).relayed;
    let bob_relayed = bob.allocate(AllocateOptions::default()).relayed;
    alice.bind_channel(bob_relayed);
    bob.bind_channel(alice_relayed);
    [(alice, alice_relayed), (bob, bob_relayed)]
}

#[test]
fn bursts_keep_their_order_on_one_shard_and_between_shards() {
    const CALLS: usize = 12;
    const BURST: usize = 50;
    let relay = Relay::start(settings(2, None));
    let (udp, tcp) = (
        relay.address(Transport::Udp, true),
        relay.address(Transport::Tcp, true),
    );
    let mut sent = Flow::default();
    for number in 0..CALLS {
        let bob = if number % 2 == 0 {
            Driver::udp(udp)
        } else {
            Driver::tcp(tcp)
        };
        let mut ends = call(Driver::tcp(tcp), bob);
        for _ in 0..2 {
            ends.reverse();
            let [(from, _), (to, peer)] = &mut ends;
            let payload = |number: usize| vec![u8::try_from(number).unwrap(); number];
            for number in 0..BURST {
                from.send_to(*peer, &payload(number));
            }
            let mut received = Vec::new();
            while received.len() < BURST {
                received.extend(to.receive().into_iter().map(|data| data.payload));
            }
            let expected: Vec<_> = (0..BURST).map(payload).collect();
            assert_eq!(received, expected);
            sent.packets += BURST as u64;
            sent.bytes += expected
                .iter()
                .map(|payload| payload.len() as u64)
                .sum::<u64>();
        }
    }
    assert_all_took_the_short_cut(&relay, sent);
    let counters = relay.shards.driver_counters();
    assert!(
        counters.short_cuts > 0 && counters.crossings > 0,
        "{counters:?}"
    );
}

#[test]
fn without_the_short_cut_the_kernel_carries_the_same() {
    let relay = Relay::start(ShardSettings {
        short_cut: false,
        ..settings(2, None)
    });
    let server = relay.address(Transport::Udp, true);
    let sent = assert_reaches(&mut Driver::udp(server), &mut Driver::udp(server), true);
    relay.wait_until("the data", |shards| flows(&shards.counters()) == [sent; 2]);
    assert_eq!(short_cuts(&relay.shards.driver_counters()), Flow::default());
}

#[test]
fn a_client_that_sends_to_itself_hears_itself_once() {
    let relay = Relay::start(settings(1, None));
    for mut driver in [
        Driver::udp(relay.address(Transport::Udp, true)),
        Driver::tcp(relay.address(Transport::Tcp, true)),
    ] {
        let own = driver.allocate(AllocateOptions::default()).relayed;
        driver.permit(own);
        for on_channel in [false, true] {
            if on_channel {
                driver.bind_channel(own);
            }
            driver.send_to(own, b"hello, me");
            let expected = Received {
                peer: own,
                on_channel,
                payload: b"hello, me".to_vec(),
            };
            assert_eq!(driver.receive_one(), expected);
        }
    }
    let sent = Flow {
        packets: 4,
        bytes: 36,
    };
    assert_all_took_the_short_cut(&relay, sent);
}

/// The kernel may hold what arrived for a reserved port; it is nobody's data either way.
#[test]
fn a_port_held_in_reserve_takes_nothing() {
    let relay = Relay::start(settings(1, None));
    let server = relay.address(Transport::Udp, true);
    let mut holder = Driver::udp(server);
    let held = holder.allocate(AllocateOptions {
        even_port: Some(true),
        ..AllocateOptions::default()
    });
    let mut reserved = held.relayed;
    reserved.set_port(reserved.port() + 1);
    let mut alice = Driver::udp(server);
    alice.allocate(AllocateOptions::default());
    alice.permit(reserved);
    alice.send_to(reserved, b"for whom?");
    relay.wait_until("a dropped payload", |shards| {
        let counters = shards.counters();
        let [to_peers, to_clients] = flows(&counters);
        counters.drops(DropReason::NotAllocated) == 1
            && (to_peers.packets, to_clients.packets) == (1, 0)
    });
}

#[test]
fn a_port_that_was_given_back_is_found_no_more_and_again_with_its_next_owner() {
    let relay = Relay::start(settings(2, None));
    let server = relay.address(Transport::Udp, true);
    let mut alice = Driver::udp(server);
    let alice_relayed = alice.allocate(AllocateOptions::default()).relayed;
    let (first, last) = (32_100, 32_100);
    relay
        .ledger
        .set_granted(&[turnfleet_turn::ledger::GrantedPorts {
            public: "127.0.0.1".parse().unwrap(),
            first,
            last,
        }]);
    let mut port = alice_relayed;
    port.set_port(first);
    alice.bind_channel(port);
    for number in 0..6_u8 {
        let mut bob = Driver::udp(server);
        assert_eq!(bob.allocate(AllocateOptions::default()).relayed, port);
        bob.bind_channel(alice_relayed);
        alice.send_to(port, &[number]);
        assert_eq!(bob.receive_one().payload, [number]);
        bob.refresh(0);
        alice.send_to(port, b"nobody is there");
        assert_eq!(settle(&mut alice), []);
    }
    relay.wait_until("what came by the short-cut", |shards| {
        let [to_peers, to_clients] = flows(&shards.counters());
        (to_peers.packets, to_clients.packets) == (12, 6)
            && short_cuts(&shards.driver_counters()).packets == 6
    });
}

/// The kernel chooses the shard of each client by its port: the socket of a reservation goes from any shard to any other.
#[test]
fn a_redeemed_port_is_found_where_it_went() {
    let relay = Relay::start(settings(3, None));
    let server = relay.address(Transport::Udp, true);
    let mut sent = Flow::default();
    for _ in 0..8 {
        let mut holder = Driver::udp(server);
        let held = holder.allocate(AllocateOptions {
            even_port: Some(true),
            ..AllocateOptions::default()
        });
        let mut redeemer = Driver::udp(server);
        let redeemed = redeemer.allocate(AllocateOptions {
            reservation_token: held.reservation_token,
            ..AllocateOptions::default()
        });
        holder.bind_channel(redeemed.relayed);
        redeemer.bind_channel(held.relayed);
        let mut ends = [(holder, held.relayed), (redeemer, redeemed.relayed)];
        for _ in 0..2 {
            ends.reverse();
            let [(from, _), (to, peer)] = &mut ends;
            from.send_to(*peer, b"found");
            assert_eq!(to.receive_one().payload, b"found");
            sent.packets += 1;
            sent.bytes += 5;
        }
    }
    assert_all_took_the_short_cut(&relay, sent);
}
