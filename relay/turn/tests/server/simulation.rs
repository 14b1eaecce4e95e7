//! Clients and peers over a net that loses, doubles, delays and reorders, with sockets that open late or not at all. A model
//! that sees only what the server granted says what may pass; in the end everything must be given back.
//!
//! `SIMULATION_SEED=7` replays one run, `SIMULATION_RUNS=1000` makes that many.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use turnfleet_turn::client::{AllocateOptions, Client, Config, Event};
use turnfleet_turn::random::Random;
use turnfleet_turn::wire::{ChannelNumber, Method};
use turnfleet_turn::{
    AddressFamily, ClientHeader, CloseReason, Counters, DropReason, FiveTuple, Instant, OpenError,
    PeerAddr, Reject, RequestMethod, Span, Transport,
};

use crate::model::Model;
use crate::support::{Net, Outcome, Setup, V4, addr};

const DEFAULT_RUNS: u64 = 8;
const LENGTH: Duration = Duration::from_secs(2400);
const USERS: [&str; 5] = ["alice", "bob", "alice", "bob", "mallory"];
const PEERS: [&str; 6] = [
    "203.0.113.1:1000",
    "203.0.113.1:2000",
    "203.0.113.2:1000",
    "203.0.113.3:1000",
    "[2001:db8:9::1]:1000",
    "[2001:db8:9::2]:1000",
];
const STREET: u32 = 12;

#[test]
fn nothing_passes_without_permission_and_everything_is_given_back() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seeds = match number("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIMULATION_RUNS").unwrap_or(DEFAULT_RUNS),
    };
    let whole = seeds.end - seeds.start >= DEFAULT_RUNS;
    let mut counters = Counters::default();
    for seed in seeds {
        let run = std::panic::catch_unwind(|| {
            let mut simulation = Simulation::new(seed);
            simulation.run();
            simulation.net.server.counters().clone()
        });
        let replay = "cargo test -p turnfleet-turn --test server simulation";
        counters.add(&run.unwrap_or_else(|_| panic!("replay: SIMULATION_SEED={seed} {replay}")));
    }
    if whole {
        assert_eventful(&counters);
    }
}

/// Whether the runs have met what they are there for.
#[track_caller]
fn assert_eventful(counters: &Counters) {
    for reason in [CloseReason::Refreshed, CloseReason::Expired] {
        assert!(counters.closed(reason) > 0, "{reason:?}");
    }
    for reason in [
        DropReason::NoPermission,
        DropReason::NoChannel,
        DropReason::NoAllocation,
        DropReason::Retransmission,
        DropReason::FamilyMismatch,
    ] {
        assert!(counters.drops(reason) > 0, "{reason:?}");
    }
    for (method, reject) in [
        (RequestMethod::Allocate, Reject::AllocationMismatch),
        (RequestMethod::Allocate, Reject::InsufficientCapacity),
        (RequestMethod::Allocate, Reject::Unauthenticated),
        (RequestMethod::Refresh, Reject::AllocationMismatch),
        (
            RequestMethod::CreatePermission,
            Reject::PeerAddressFamilyMismatch,
        ),
    ] {
        assert!(
            counters.rejects(method, reject) > 0,
            "{method:?} {reject:?}"
        );
    }
    assert!(counters.to_peers(Transport::Udp).packets > 1000);
    assert!(counters.to_clients(Transport::Udp).packets > 1000);
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let story = || {
        let mut simulation = Simulation::new(4711);
        simulation.run();
        (
            simulation.net.events,
            simulation.net.server.counters().clone(),
        )
    };
    assert_eq!(story(), story());
}

/// Something on its way.
enum Flight {
    ToServer(SocketAddr, Vec<u8>),
    ToClient(SocketAddr, Vec<u8>),
    ToRelayed {
        from: SocketAddr,
        to: SocketAddr,
        payload: Vec<u8>,
    },
    SocketsOpen,
}

struct Simulation {
    net: Net,
    random: Random,
    end: Instant,
    clients: BTreeMap<SocketAddr, Client>,
    flights: BTreeMap<(Instant, u64), Flight>,
    flights_started: u64,
    model: Model,
    delivered: u64,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut net = Net::with(Setup {
            ports: (49152, 49169),
            ..Setup::default()
        });
        net.keys.set("mallory", &["another"]);
        let mut random_seed = [0; 32];
        random_seed[..8].copy_from_slice(&seed.to_be_bytes());
        Self {
            end: net.now.instant.after(LENGTH),
            net,
            random: Random::new(random_seed),
            clients: BTreeMap::new(),
            flights: BTreeMap::new(),
            flights_started: 0,
            model: Model::default(),
            delivered: 0,
        }
    }

    fn run(&mut self) {
        let mut next_deed = self.net.now.instant;
        while self.net.now.instant < self.end {
            if self.net.now.instant >= next_deed {
                self.deed();
                next_deed = self.net.now.instant.after(self.milliseconds(400));
            }
            self.pass_until(next_deed);
        }
        // Everybody leaves without a word; what is under way arrives.
        self.clients.clear();
        while let Some((at, _)) = self.flights.keys().next().copied() {
            self.pass_until(at);
        }
        self.net.advance_seconds(3600);
        self.net.assert_idle();
        assert!(self.delivered > 0, "nothing was ever delivered");
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.below(100) < percent
    }

    fn milliseconds(&mut self, below: u32) -> Duration {
        Duration::from_millis(u64::from(1 + self.random.below(below)))
    }

    fn choose<T: Copy>(&mut self, of: &[T]) -> T {
        let index = self.random.below(u32::try_from(of.len()).unwrap());
        of[index as usize]
    }

    fn launch(&mut self, flight: Flight) {
        if self.chance(10) {
            return;
        }
        self.launch_surely(flight, 150);
    }

    fn launch_surely(&mut self, flight: Flight, milliseconds: u32) {
        let at = self.net.now.instant.after(self.milliseconds(milliseconds));
        self.flights_started += 1;
        self.flights.insert((at, self.flights_started), flight);
    }

    /// Launches a packet, now and then twice.
    fn launch_packet(&mut self, flight: impl Fn() -> Flight) {
        self.launch(flight());
        if self.chance(5) {
            self.launch(flight());
        }
    }

    /// Lets time pass up to the next thing that happens, `limit` at the latest.
    fn pass_until(&mut self, limit: Instant) {
        let now = self.net.now.instant;
        let client_due = self.clients.values().filter_map(Client::poll_timeout).min();
        let flight_due = self.flights.keys().next().map(|(at, _)| *at);
        let due = [Some(limit), client_due, flight_due]
            .into_iter()
            .flatten()
            .min();
        let due = due.unwrap_or(limit).max(now);
        self.net.advance(due.since(now));
        self.deliver_outbox();
        let now = self.net.now.instant;
        while let Some(entry) = self
            .flights
            .first_entry()
            .filter(|entry| entry.key().0 <= now)
        {
            let flight = entry.remove();
            self.land(flight);
        }
        for client in self.clients.values_mut() {
            client.handle_timeout(now);
        }
        self.transmit();
    }

    /// Sends what the clients have to say.
    fn transmit(&mut self) {
        let (mut said, mut given_up) = (Vec::new(), Vec::new());
        for (address, client) in &mut self.clients {
            let mut packet = Vec::new();
            while client.poll_transmit(&mut packet) {
                said.push((*address, std::mem::take(&mut packet)));
            }
            while let Some(event) = client.poll_event() {
                let method = Method::Allocate;
                if matches!(event, Event::Failed { method: failed, .. } if failed == method) {
                    given_up.push(*address);
                }
            }
        }
        // Whoever gets no allocation tries from somewhere else, as RFC 8656 §7.4 has it.
        for address in given_up {
            self.clients.remove(&address);
        }
        for (from, packet) in said {
            self.launch_packet(|| Flight::ToServer(from, packet.clone()));
        }
    }

    /// What the server sends on its own.
    fn deliver_outbox(&mut self) {
        while let Some((to, message)) = self.net.outbox.pop_front() {
            self.model
                .note(self.net.now.instant, to.client, None, &message);
            self.launch_packet(|| Flight::ToClient(to.client, message.clone()));
        }
    }

    fn land(&mut self, flight: Flight) {
        match flight {
            Flight::ToServer(from, packet) => self.land_at_server(from, &packet),
            Flight::ToClient(to, packet) => {
                let now = self.net.now.instant;
                if let Some(client) = self.clients.get_mut(&to) {
                    client.handle_input(now, &packet);
                }
            }
            Flight::ToRelayed { from, to, payload } => self.land_at_relayed(from, to, &payload),
            Flight::SocketsOpen => {
                self.net.slow = false;
                self.net.open_waiting();
                self.deliver_outbox();
            }
        }
    }

    fn land_at_server(&mut self, from: SocketAddr, packet: &[u8]) {
        let outcome = self.net.client_sends(five_tuple(from), packet);
        let now = self.net.now.instant;
        match outcome {
            Outcome::Reply(reply) => {
                self.model.note(now, from, Some(packet), &reply);
                self.launch_packet(|| Flight::ToClient(from, reply.clone()));
            }
            Outcome::Relayed(bound, to, payload) => {
                self.model
                    .check_relayed(now, from, packet, (bound, to, &payload));
                if to.ip().to_string() == V4 {
                    self.launch_packet(|| Flight::ToRelayed {
                        from: bound,
                        to,
                        payload: payload.clone(),
                    });
                }
            }
            Outcome::Dropped(reason) => self.model.check_drop(now, from, packet, reason),
            Outcome::Pending => {}
            Outcome::Spliced(..) | Outcome::ToShard(_) => panic!("TCP is not relayed here"),
            Outcome::Delivered(..) => panic!("a client's packet went to a client"),
        }
    }

    fn land_at_relayed(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        let now = self.net.now.instant;
        let outcome = self.net.peer_sends(&from.to_string(), to, payload);
        self.model.check_delivery(now, from, to, payload, &outcome);
        if let Outcome::Delivered(client, packet) = outcome {
            self.delivered += 1;
            self.launch_packet(|| Flight::ToClient(client.client, packet.clone()));
        }
    }

    /// Somebody does something.
    fn deed(&mut self) {
        let address = SocketAddr::new("192.0.2.1".parse().unwrap(), 5000);
        let port = 5000 + self.random.below(STREET);
        let address = SocketAddr::new(address.ip(), u16::try_from(port).unwrap());
        let now = self.net.now.instant;
        let peer = self.someone();
        match self.random.below(100) {
            0..=2 if self.chance(10) => {
                self.clients.remove(&address);
            }
            3..=4 if !self.net.slow => {
                self.net.slow = true;
                self.launch_surely(Flight::SocketsOpen, 3000);
            }
            5..=6 if self.net.open_errors.is_empty() => {
                let error = self.choose(&[
                    OpenError::PortTaken,
                    OpenError::PortTaken,
                    OpenError::Exhausted,
                ]);
                self.net.open_errors.push_back(error);
            }
            7..=8 => self.garbage(address),
            9..=30 => {
                let relayed: Vec<SocketAddr> = self.net.sockets.keys().copied().collect();
                if !relayed.is_empty() {
                    let to = self.choose(&relayed);
                    self.launch_packet(|| Flight::ToRelayed {
                        from: peer.0,
                        to,
                        payload: vec![7; 20],
                    });
                }
            }
            deed => self.client_deed(address, now, peer, deed),
        }
        self.transmit();
    }

    fn client_deed(&mut self, address: SocketAddr, now: Instant, peer: PeerAddr, deed: u32) {
        if !self.clients.contains_key(&address) {
            let client = self.newcomer();
            self.clients.insert(address, client);
        }
        let options = AllocateOptions {
            additional_family: self.chance(30).then_some(AddressFamily::V6),
            even_port: self.chance(10).then_some(false),
            lifetime: self.chance(30).then_some(1200),
            ..AllocateOptions::default()
        };
        let pair = AllocateOptions {
            even_port: Some(true),
            ..AllocateOptions::default()
        };
        let options = if self.chance(10) { pair } else { options };
        let any_number = ChannelNumber(self.choose(&[0x4000, 0x4001, 0x4002, 0x4003]));
        let Some(client) = self.clients.get_mut(&address) else {
            return;
        };
        let has_allocation = client.allocation().is_some();
        let busy = client.requests_in_flight() > if has_allocation { 20 } else { 0 };
        let mut packet = vec![0; ClientHeader::MAX_LEN + 40];
        let payload = Span {
            start: ClientHeader::MAX_LEN,
            len: 33,
        };
        let span = match deed {
            _ if busy => None,
            _ if !has_allocation => {
                client.allocate(now, options).unwrap();
                None
            }
            31..=33 => {
                client.refresh(now, 0).unwrap();
                None
            }
            34..=40 => {
                client.refresh(now, 600).unwrap();
                None
            }
            41..=50 => {
                client.create_permission(now, &[peer]).unwrap();
                None
            }
            51..=60 => {
                client.bind_channel(now, peer).unwrap();
                None
            }
            61..=80 => client.write_send_indication(peer, &mut packet, payload),
            _ => {
                let number = client.channel_to(peer).unwrap_or(any_number);
                client.write_channel_data(number, &mut packet, payload)
            }
        };
        if let Some(span) = span {
            let packet = packet[span.range()].to_vec();
            self.launch_packet(|| Flight::ToServer(address, packet.clone()));
        }
    }

    fn newcomer(&mut self) -> Client {
        let username = self.choose(&USERS);
        Client::new(Config {
            transport: Transport::Udp,
            username: username.into(),
            // Mallory does not know the password.
            password: "secret".into(),
            password_algorithms: username == "bob",
            seed: self.random.bytes(),
        })
    }

    /// A peer, which may be another client's relayed address.
    fn someone(&mut self) -> PeerAddr {
        let relayed: Vec<SocketAddr> = self.net.sockets.keys().copied().collect();
        if !relayed.is_empty() && self.chance(20) {
            return PeerAddr(self.choose(&relayed));
        }
        PeerAddr(addr(self.choose(&PEERS)))
    }

    fn garbage(&mut self, from: SocketAddr) {
        let len = self.random.below(60);
        let mut packet = vec![0; len as usize];
        self.random.fill(&mut packet);
        if let Some(first) = packet.first_mut() {
            *first &= 0x7F;
        }
        let outcome = self.net.client_sends(five_tuple(from), &packet);
        assert!(matches!(outcome, Outcome::Dropped(_)), "{outcome:?}");
    }
}

fn five_tuple(client: SocketAddr) -> FiveTuple {
    FiveTuple {
        transport: Transport::Udp,
        client,
        server: addr("198.51.100.1:3478"),
    }
}
