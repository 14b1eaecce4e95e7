//! The short-cut against the kernel: two relays that differ in nothing else hear the same script, and their clients and
//! counters must tell the same story.
//!
//! A script is drawn from a seed: clients of every transport come and go, install permissions and bind channels at random,
//! and send to each other's relayed addresses, where that is allowed and where it is not. After each payload a datagram of a
//! plain peer follows behind it, so that nothing has to be waited for.

#![expect(clippy::unwrap_used, reason = "a test ends where its machinery fails")]

use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::hairpin::{flows, settle, short_cuts};
use crate::support::{DEADLINE, Driver, Relay, settings};
use turnfleet_relay::config::Listener;
use turnfleet_relay::shard::ShardSettings;
use turnfleet_turn::client::AllocateOptions;
use turnfleet_turn::ledger::GrantedPorts;
use turnfleet_turn::policy::RelayedHost;
use turnfleet_turn::{DropReason, Flow, Transport};

/// Local and public addresses: one as it is, one behind 1:1 NAT, one of the other family.
const HOSTS: [(&str, &str); 3] = [
    ("127.0.0.1", "127.0.0.1"),
    ("127.0.0.3", "127.0.0.4"),
    ("::1", "::1"),
];
const CLIENTS: usize = 6;
const STEPS: usize = 120;
const MARKER: &[u8] = b"the end of a step";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A generator for scripts (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

/// One step of a script; clients are named by number.
#[derive(Clone, Copy, Debug)]
enum Step {
    Permit {
        client: usize,
        peer: usize,
    },
    Bind {
        client: usize,
        peer: usize,
    },
    Send {
        client: usize,
        peer: usize,
        len: usize,
    },
    /// Ends the allocation and makes another one.
    Renew {
        client: usize,
    },
}

fn script(seed: u64) -> Vec<Step> {
    let mut dice = Dice(seed);
    let step = |_| {
        let (client, peer) = (dice.below(CLIENTS), dice.below(CLIENTS));
        match dice.below(10) {
            0..=1 => Step::Permit { client, peer },
            2..=3 => Step::Bind { client, peer },
            4 => Step::Renew { client },
            _ => {
                let len = [dice.below(5), dice.below(1500), dice.below(65_000)][dice.below(3)];
                Step::Send { client, peer, len }
            }
        }
    };
    (0..STEPS).map(step).collect()
}

/// What a client got in a step: from the client of that number, on a channel or not, and the payload.
type Heard = (Option<usize>, bool, Vec<u8>);

/// One relay with its clients.
struct World {
    relay: Relay,
    clients: Vec<Driver>,
    relayed: Vec<SocketAddr>,
    marker4: UdpSocket,
    marker6: UdpSocket,
}

impl World {
    fn new(short_cut: bool) -> Self {
        let transports = [Transport::Udp, Transport::Tcp];
        let listeners = HOSTS.iter().flat_map(|(local, _)| {
            transports.map(|transport| Listener::new(transport, SocketAddr::new(ip(local), 0)))
        });
        let hosts = HOSTS.map(|(local, public)| RelayedHost {
            local: ip(local),
            public: ip(public),
        });
        let relay = Relay::start(ShardSettings {
            listeners: listeners.collect(),
            relayed_hosts: hosts.to_vec(),
            short_cut,
            ..settings(2, None)
        });
        // Apart from each other, and from what other relays of the tests draw.
        let first = if short_cut { 40_000 } else { 43_000 };
        let granted = HOSTS.map(|(_, public)| GrantedPorts {
            public: ip(public),
            first,
            last: first + 2_999,
        });
        relay.ledger.set_granted(&granted);
        let mut world = Self {
            clients: Vec::new(),
            relayed: Vec::new(),
            marker4: UdpSocket::bind("127.0.0.2:0").unwrap(),
            marker6: UdpSocket::bind("[::1]:0").unwrap(),
            relay,
        };
        for number in 0..CLIENTS {
            world.open(number);
        }
        world
    }

    /// Each client has another combination of transport and relayed address.
    fn open(&mut self, number: usize) {
        let (local, _) = HOSTS[number % HOSTS.len()];
        let transport = [Transport::Udp, Transport::Tcp][number / HOSTS.len() % 2];
        let fits = |it: &&Listener| it.transport == transport && it.address.ip() == ip(local);
        let server = self.relay.addresses.iter().find(fits).unwrap().address;
        let mut driver = match transport {
            Transport::Udp => Driver::udp(server),
            Transport::Tcp | Transport::Tls => Driver::tcp(server),
        };
        self.relayed.push(allocate(&mut driver, server.is_ipv4()));
        self.clients.push(driver);
        self.permit_marker(number);
    }

    fn marker(&self, number: usize) -> &UdpSocket {
        if self.relayed[number].is_ipv4() {
            &self.marker4
        } else {
            &self.marker6
        }
    }

    fn permit_marker(&mut self, number: usize) {
        let marker = self.marker(number).local_addr().unwrap();
        self.clients[number].permit(marker);
    }

    fn of_one_family(&self, client: usize, peer: usize) -> bool {
        self.relayed[client].is_ipv4() == self.relayed[peer].is_ipv4()
    }

    fn take(&mut self, step: Step) -> Vec<Heard> {
        match step {
            Step::Permit { client, peer } if self.of_one_family(client, peer) => {
                self.clients[client].permit(self.relayed[peer]);
            }
            Step::Bind { client, peer } if self.of_one_family(client, peer) => {
                self.clients[client].bind_channel(self.relayed[peer]);
            }
            // Another family is refused.
            Step::Permit { .. } | Step::Bind { .. } => {}
            Step::Renew { client } => {
                self.clients[client].refresh(0);
                let v4 = self.relayed[client].is_ipv4();
                self.relayed[client] = allocate(&mut self.clients[client], v4);
                self.permit_marker(client);
            }
            Step::Send { client, peer, len } => return self.send(client, peer, len),
        }
        Vec::new()
    }

    fn send(&mut self, client: usize, peer: usize, len: usize) -> Vec<Heard> {
        let payload: Vec<u8> = (0..=250).cycle().take(len).collect();
        self.clients[client].send_to(self.relayed[peer], &payload);
        // Once the relay has answered, it has dealt with what came before.
        let mut heard = settle(&mut self.clients[client]);
        if client != peer {
            assert!(heard.is_empty(), "{heard:?}");
        }
        let to = self.clients_local_form(self.relayed[peer]);
        self.marker(peer).send_to(MARKER, to).unwrap();
        let start = std::time::Instant::now();
        while heard.last().is_none_or(|last| last.payload != MARKER) {
            assert!(start.elapsed() < DEADLINE, "the marker did not come");
            heard.extend(self.clients[peer].receive());
        }
        heard.pop();
        let number = |peer| self.relayed.iter().position(|relayed| *relayed == peer);
        heard
            .into_iter()
            .map(|it| (number(it.peer), it.on_channel, it.payload))
            .collect()
    }

    /// What the address translation in front of the relay would do.
    fn clients_local_form(&self, relayed: SocketAddr) -> SocketAddr {
        let host = HOSTS.iter().find(|(_, public)| ip(public) == relayed.ip());
        SocketAddr::new(ip(host.unwrap().0), relayed.port())
    }
}

fn allocate(driver: &mut Driver, v4: bool) -> SocketAddr {
    use turnfleet_turn::AddressFamily::{V4, V6};
    let family = Some(if v4 { V4 } else { V6 });
    let options = AllocateOptions {
        family,
        ..AllocateOptions::default()
    };
    driver.allocate(options).relayed
}

#[track_caller]
fn assert_same_story(seed: u64) {
    let (mut with, mut without) = (World::new(true), World::new(false));
    let (mut sent, mut heard) = (0, 0);
    for (number, step) in script(seed).into_iter().enumerate() {
        let (left, right) = (with.take(step), without.take(step));
        assert!(left == right, "seed {seed}, step {number}: {step:?}");
        sent += u64::from(matches!(step, Step::Send { .. }));
        heard += left.len() as u64;
    }
    // Both outcomes are in the script.
    assert!(heard > 5 && heard + 5 < sent, "{heard} of {sent}");
    let markers = Flow {
        packets: sent,
        bytes: sent * MARKER.len() as u64,
    };
    for world in [&with, &without] {
        world.relay.wait_until("published counters", |shards| {
            let [_, to_clients] = flows(&shards.counters());
            to_clients.packets == heard + markers.packets
        });
    }
    let (left, right) = (
        with.relay.shards.counters(),
        without.relay.shards.counters(),
    );
    assert_eq!(flows(&left), flows(&right));
    for reason in DropReason::ALL {
        assert_eq!(left.drops(reason), right.drops(reason), "{reason:?}");
    }
    let drivers = with.relay.shards.driver_counters();
    assert_eq!(short_cuts(&drivers).packets, flows(&left)[0].packets);
    assert_eq!(drivers.crossings_dropped, 0);
    let drivers = without.relay.shards.driver_counters();
    assert_eq!(short_cuts(&drivers), Flow::default());
}

#[test]
fn the_short_cut_tells_clients_what_the_kernel_would_have_told_them() {
    for seed in [1, 2, 3] {
        assert_same_story(seed);
    }
}
