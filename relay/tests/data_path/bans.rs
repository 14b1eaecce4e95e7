//! Bans on a running relay: traffic stops within two seconds, whoever is banned is refused, and a ban ends by itself.

#![expect(clippy::unwrap_used, reason = "what a test takes for granted fails it")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock, SystemTime};

use turnfleet_relay::shard::RelayPolicy;
use turnfleet_turn::bans::{Ban, BanTarget, Bans};
use turnfleet_turn::client::{AllocateOptions, Failure};
use turnfleet_turn::policy::Policy;
use turnfleet_turn::wire::ErrorCode;
use turnfleet_turn::{CloseReason, TenantId, Transport};

use crate::support::{Driver, Relay, USERNAME, echo_peer, policy, settings, wait_until};
use crate::tcp;

/// How soon a ban stops traffic.
const SOON: Duration = Duration::from_secs(2);

fn ban(relay: &Relay, target: &BanTarget, until: Option<u64>) {
    let RelayPolicy {
        server,
        keys,
        tenants,
    } = policy(u32::MAX);
    let target = target.clone();
    let server = Policy {
        bans: Bans::new([Ban { target, until }]),
        ..Policy::clone(&server)
    };
    relay.policy.store(Arc::new(RelayPolicy {
        server: Arc::new(server),
        keys,
        tenants,
    }));
    relay.shards.notify_policy();
}

fn user() -> BanTarget {
    BanTarget::User {
        tenant: TenantId::DEFAULT,
        user: USERNAME.into(),
    }
}

fn source() -> BanTarget {
    BanTarget::Source("127.0.0.0/8".parse().unwrap())
}

fn peer() -> BanTarget {
    BanTarget::Peer("127.0.0.0/8".parse().unwrap())
}

fn unix() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// Clients by UDP and TCP on each of two shards, which talk to an echoing peer over channels.
fn talking(relay: &Relay, peer: SocketAddr) -> Vec<Driver> {
    let (udp, tcp) = (
        relay.address(Transport::Udp, true),
        relay.address(Transport::Tcp, true),
    );
    let mut clients: Vec<Driver> = (0..8).map(|_| Driver::udp(udp)).collect();
    clients.extend((0..8).map(|_| Driver::tcp(tcp)));
    for client in &mut clients {
        client.allocate(AllocateOptions::default());
        client.bind_channel(peer);
        client.send_to(peer, b"before");
        assert_eq!(client.receive_one().payload, b"before");
    }
    clients
}

/// Every client sends on until nothing comes back to any of them; fails where that is not soon after `banned`.
#[track_caller]
fn falls_silent(clients: &mut [Driver], peer: SocketAddr, banned: Clock) {
    let mut goes_on = true;
    while goes_on {
        for client in &mut *clients {
            client.send_to(peer, b"after");
        }
        // Each waits a moment, so that all of them are listened to for longer than an echo takes.
        goes_on = false;
        for client in &mut *clients {
            goes_on |= !client.receive().is_empty();
        }
        assert!(!goes_on || banned.elapsed() < SOON, "traffic goes on");
    }
}

#[track_caller]
fn refusal(relay: &Relay) -> Option<ErrorCode> {
    let mut client = Driver::udp(relay.address(Transport::Udp, true));
    match client.try_allocate(AllocateOptions::default()) {
        Ok(_) => None,
        Err(Failure::Refused(code)) => Some(code),
        Err(why) => panic!("neither an allocation nor a refusal but {why:?}"),
    }
}

#[test]
fn a_banned_user_and_a_banned_source_fall_silent_and_come_back_when_their_time_is_over() {
    for target in [user(), source()] {
        let relay = Relay::start(settings(2, None));
        let peer = echo_peer(true);
        let mut clients = talking(&relay, peer);
        let banned = Clock::now();
        ban(&relay, &target, Some(unix() + 600));
        wait_until("the end of every allocation", || {
            relay.ledger.usage().allocations == 0
        });
        assert!(banned.elapsed() < SOON, "{:?}", banned.elapsed());
        falls_silent(&mut clients, peer, banned);
        assert_eq!(refusal(&relay), Some(ErrorCode::FORBIDDEN));
        relay.wait_until("a count of what was ended", |shards| {
            shards.counters().closed(CloseReason::Banned) == 16
        });
        let until = unix() + 2;
        ban(&relay, &target, Some(until));
        wait_until("the end of the ban", || unix() >= until);
        assert_eq!(refusal(&relay), None);
    }
}

#[test]
fn a_banned_source_is_of_its_family_alone() {
    let relay = Relay::start(settings(2, None));
    ban(&relay, &source(), None);
    let mut client = Driver::udp(relay.address(Transport::Udp, false));
    client.allocate(AllocateOptions::default());
    assert_eq!(refusal(&relay), Some(ErrorCode::FORBIDDEN));
}

#[test]
fn a_banned_peer_falls_silent_and_the_allocations_stay() {
    let relay = Relay::start(settings(2, None));
    let peer = echo_peer(true);
    let mut clients = talking(&relay, peer);
    let banned = Clock::now();
    ban(&relay, &self::peer(), None);
    relay.wait_until("the end of every channel", |shards| {
        let counters = shards.counters();
        (counters.channels, counters.permissions) == (0, 0)
    });
    falls_silent(&mut clients, peer, banned);
    for client in &mut clients {
        client.refresh(600);
    }
    assert_eq!(relay.ledger.usage().allocations, 16);
}

#[test]
fn the_connections_of_a_banned_peer_are_cut() {
    let (relay, mut control, ..) = tcp::allocated();
    let (listener, _) = tcp::listen(true);
    let (_, mut stream) = tcp::connect(&mut control, &listener);
    let banned = Clock::now();
    ban(&relay, &peer(), None);
    tcp::expect_end(&mut stream);
    assert!(banned.elapsed() < SOON, "{:?}", banned.elapsed());
    control.refresh(600);
}
