//! One relay on a simulated machine: a server, the sockets that it asked for, and a clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use turnfleet_turn::ledger::{GrantedPorts, Usage};
use turnfleet_turn::peer_filter::{FleetRange, PeerFilter, PeerRules};
use turnfleet_turn::policy::{Config, Policy};
use turnfleet_turn::wire::{ConnectionId, ReservationToken};
use turnfleet_turn::{
    ClientHeader, Command, ConnectError, Context, Decision, DropReason, Event, FiveTuple, Instant,
    IpMeta, Ledger, Now, OpenError, PeerAddr, RelayedId, Server, ShardId,
};

use super::{REALM, START_UNIX, Setup, addr, setup::Keys};

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Reply(Vec<u8>),
    Pending,
    Dropped(DropReason),
    /// Answered, and not a stream of messages any more.
    Spliced(ConnectionId, Vec<u8>),
    /// Another shard's.
    ToShard(ShardId),
    /// Sent from a relayed socket, bound to the first address, to the second one.
    Relayed(SocketAddr, SocketAddr, Vec<u8>),
    /// Sent to a client, framed.
    Delivered(FiveTuple, Vec<u8>),
}

/// The machine.
pub(crate) struct Net {
    pub(crate) server: Server,
    pub(crate) policy: Policy,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) keys: Keys,
    pub(crate) now: Now,
    /// What packets come with.
    pub(crate) arriving: IpMeta,
    /// What the clients' TLS handshakes ask for.
    pub(crate) server_name: Option<&'static str>,
    /// What the last data left with.
    pub(crate) leaving: IpMeta,
    /// Relayed sockets that are open, by the address that they are bound to.
    pub(crate) sockets: BTreeMap<SocketAddr, RelayedId>,
    /// Those of them that listen.
    pub(crate) listening: BTreeSet<SocketAddr>,
    /// Clients whose streams are kept open.
    pub(crate) kept: Vec<FiveTuple>,
    /// Peers to be connected to, with the address that the connection is to have.
    pub(crate) connects: VecDeque<(ConnectionId, SocketAddr, SocketAddr)>,
    /// Connections that the server has closed.
    pub(crate) closed_connections: Vec<ConnectionId>,
    /// What the next sockets to be opened say instead of opening.
    pub(crate) open_errors: VecDeque<OpenError>,
    /// Leaves sockets unopened until [`Net::open_waiting`].
    pub(crate) slow: bool,
    waiting: VecDeque<(RelayedId, SocketAddr)>,
    pub(crate) claims: Vec<(RelayedId, ShardId, ReservationToken)>,
    pub(crate) outbox: VecDeque<(FiveTuple, Vec<u8>)>,
    pub(crate) events: Vec<Event>,
}

impl Net {
    pub(crate) fn new() -> Self {
        Self::with(Setup::default())
    }

    pub(crate) fn with(setup: Setup) -> Self {
        let granted: Vec<_> = setup
            .hosts
            .iter()
            .map(|host| GrantedPorts {
                public: host.public,
                first: setup.ports.0,
                last: setup.ports.1,
            })
            .collect();
        let ledger = setup.ledger.unwrap_or_else(|| {
            let ledger = Arc::new(Ledger::new([7; 32]));
            ledger.set_granted(&granted);
            ledger
        });
        let policy = Policy {
            limits: setup.limits,
            tcp_relaying: setup.tcp_relaying,
            ..Policy::new(REALM, [9; 32], filter(&granted))
        };
        let config = Config {
            shard: ShardId(setup.shard),
            shards: 2,
            relayed_hosts: setup.hosts,
            rfc5766_channel_numbers: setup.rfc5766_channel_numbers,
            dont_fragment: setup.dont_fragment,
            trusted_sources: Vec::new(),
        };
        let mut keys = Keys::default();
        keys.set("alice", &["secret"]);
        keys.set("bob", &["secret"]);
        Self {
            server: Server::new(config, Arc::new(policy.clone()), ledger.clone(), [3; 32]),
            policy,
            ledger,
            keys,
            now: Now {
                instant: Instant(1_000_000_000_000),
                unix: START_UNIX,
            },
            arriving: IpMeta::default(),
            server_name: None,
            leaving: IpMeta::default(),
            sockets: BTreeMap::new(),
            listening: BTreeSet::new(),
            kept: Vec::new(),
            connects: VecDeque::new(),
            closed_connections: Vec::new(),
            open_errors: VecDeque::new(),
            slow: false,
            waiting: VecDeque::new(),
            claims: Vec::new(),
            outbox: VecDeque::new(),
            events: Vec::new(),
        }
    }

    /// Replaces the policy by a changed one, and lets the server enforce it.
    pub(crate) fn change_policy(&mut self, change: impl FnOnce(&mut Policy)) {
        self.announce_policy(change);
        self.advance(Duration::ZERO);
    }

    /// Replaces the policy by a changed one, and leaves it at that.
    pub(crate) fn announce_policy(&mut self, change: impl FnOnce(&mut Policy)) {
        change(&mut self.policy);
        self.server.apply_policy(Arc::new(self.policy.clone()));
    }

    /// Lets time pass, with every timer at its time.
    pub(crate) fn advance(&mut self, duration: Duration) {
        let end = self.now.instant.after(duration);
        while let Some(due) = self.server.poll_timeout().filter(|due| *due <= end) {
            self.set_time(due.max(self.now.instant));
            self.server.handle_timeout(self.now);
            self.obey();
        }
        self.set_time(end);
    }

    pub(crate) fn advance_seconds(&mut self, seconds: u64) {
        self.advance(Duration::from_secs(seconds));
    }

    /// Lets time pass while no timer is served.
    pub(crate) fn sleep_seconds(&mut self, seconds: u64) {
        self.set_time(self.now.instant.after(Duration::from_secs(seconds)));
    }

    fn set_time(&mut self, instant: Instant) {
        let started = Instant(1_000_000_000_000);
        self.now = Now {
            instant,
            unix: START_UNIX + instant.since(started).as_secs(),
        };
    }

    /// A packet from a client.
    pub(crate) fn client_sends(&mut self, from: FiveTuple, packet: &[u8]) -> Outcome {
        let mut reply = b"what an earlier packet left".to_vec();
        let context = Context {
            keys: &self.keys,
            server_name: self.server_name,
        };
        let ip = self.arriving;
        let decision = self
            .server
            .handle_client(self.now, from, ip, packet, &context, &mut reply);
        self.obey();
        match decision {
            Decision::Drop(reason) => Outcome::Dropped(reason),
            Decision::Reply => Outcome::Reply(reply),
            Decision::Pending => {
                let place = self.outbox.iter().position(|(to, _)| *to == from);
                let answer = place.and_then(|place| self.outbox.remove(place));
                answer.map_or(Outcome::Pending, |(_, message)| Outcome::Reply(message))
            }
            Decision::ToPeer {
                via,
                to,
                payload,
                ip,
            } => {
                self.leaving = ip;
                let bound = self.bound_to(via).expect("data leaves by an open socket");
                Outcome::Relayed(bound, to.0, packet[payload.range()].to_vec())
            }
            Decision::Splice { connection } => Outcome::Spliced(connection, reply),
            Decision::ToShard { owner } => Outcome::ToShard(owner),
            Decision::ToClient { .. } => panic!("a client's packet goes to no client"),
        }
    }

    /// A datagram from a peer to a relayed socket, as the machine sees its addresses.
    pub(crate) fn peer_sends(&mut self, from: &str, to: SocketAddr, payload: &[u8]) -> Outcome {
        let Some(id) = self.sockets.get(&to).copied() else {
            return Outcome::Dropped(DropReason::NotAllocated);
        };
        let (from, ip) = (PeerAddr(addr(from)), self.arriving);
        let decision = self
            .server
            .handle_peer(self.now, id, from, ip, payload.len());
        match decision {
            Decision::Drop(reason) => Outcome::Dropped(reason),
            Decision::ToClient { to, header, ip } => {
                self.leaving = ip;
                Outcome::Delivered(to, framed(header, payload))
            }
            Decision::Reply
            | Decision::Pending
            | Decision::ToPeer { .. }
            | Decision::Splice { .. }
            | Decision::ToShard { .. } => {
                panic!("a peer's datagram goes to a client: {decision:?}")
            }
        }
    }

    /// A peer opens a connection to a relayed transport address: its name, where it may stay.
    pub(crate) fn peer_connects(&mut self, from: &str, to: SocketAddr) -> Option<ConnectionId> {
        assert!(self.listening.contains(&to), "nobody listens at {to}");
        let id = self.sockets[&to];
        let connection = self
            .server
            .handle_peer_accepted(self.now, id, PeerAddr(addr(from)));
        self.obey();
        connection
    }

    /// What the peer that is being connected to says.
    pub(crate) fn peer_answers(&mut self, result: Result<(), ConnectError>) -> ConnectionId {
        let (connection, ..) = self.connects.pop_front().expect("a peer is connected to");
        self.server
            .handle_peer_connected(self.now, connection, result);
        self.obey();
        connection
    }

    fn bound_to(&self, id: RelayedId) -> Option<SocketAddr> {
        let mut sockets = self.sockets.iter();
        sockets
            .find(|(_, open)| **open == id)
            .map(|(bound, _)| *bound)
    }

    /// Carries out the commands.
    pub(crate) fn obey(&mut self) {
        while let Some(command) = self.server.poll_command() {
            match command {
                Command::OpenRelayed { id, local } if self.slow => {
                    self.waiting.push_back((id, local));
                }
                Command::OpenRelayed { id, local } => self.open(id, local),
                Command::ListenRelayed { id, local } => {
                    self.listening.insert(local);
                    self.open(id, local);
                }
                Command::ConnectPeer {
                    connection,
                    via,
                    peer,
                } => {
                    let bound = self.bound_to(via).expect("connections have an address");
                    assert!(self.listening.contains(&bound), "{bound} is UDP");
                    self.connects.push_back((connection, bound, peer.0));
                }
                Command::CloseConnection { connection } => self.closed_connections.push(connection),
                Command::ClaimReserved { id, owner, token } => self.claims.push((id, owner, token)),
                Command::CloseRelayed { id } => {
                    let bound = self.bound_to(id).expect("only open sockets are closed");
                    self.sockets.remove(&bound);
                    self.listening.remove(&bound);
                }
                Command::KeepStream { client } => {
                    assert!(!self.kept.contains(&client), "{client:?} is kept already");
                    self.kept.push(client);
                }
                Command::ReleaseStream { client } => {
                    let place = self.kept.iter().position(|kept| *kept == client);
                    self.kept.swap_remove(place.expect("it was kept"));
                }
                Command::Send { to, message } => self.outbox.push_back((to, message)),
            }
        }
        while let Some(event) = self.server.poll_event() {
            self.events.push(event);
        }
    }

    /// Opens what [`Net::slow`] has held up.
    pub(crate) fn open_waiting(&mut self) {
        while let Some((id, local)) = self.waiting.pop_front() {
            self.open(id, local);
            self.obey();
        }
    }

    fn open(&mut self, id: RelayedId, local: SocketAddr) {
        let result = match self.open_errors.pop_front() {
            Some(error) => Err(error),
            None => {
                assert!(
                    self.sockets.insert(local, id).is_none(),
                    "{local} is bound twice"
                );
                Ok(local)
            }
        };
        self.server.handle_relayed_opened(self.now, id, result);
    }

    pub(crate) fn usage(&self) -> Usage {
        self.ledger.usage()
    }

    #[track_caller]
    pub(crate) fn assert_idle(&self) {
        assert_eq!(self.server.counters().allocations(), 0, "allocations");
        assert_eq!(self.server.counters().permissions, 0, "permissions");
        assert_eq!(self.server.counters().channels, 0, "channels");
        assert_eq!(self.server.counters().connections, 0, "connections");
        assert_eq!(self.server.counters().reservations, 0, "reservations");
        assert_eq!(self.usage().allocations, 0, "allocations in the ledger");
        assert_eq!(self.usage().connections, 0, "connections in the ledger");
        assert_eq!(self.usage().users, 0, "users in the ledger");
        assert_eq!(self.usage().ports_used, 0, "ports in the ledger");
        assert_eq!(self.sockets.len(), 0, "open sockets");
        assert_eq!(self.kept.len(), 0, "streams that are kept");
        assert_eq!(self.server.poll_timeout(), None, "timers");
    }
}

/// A filter that opens what the tests take for the internet, and the relay's own granted ports.
fn filter(granted: &[GrantedPorts]) -> PeerFilter {
    let blocks = [
        "192.0.2.0/24",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "2001:db8::/32",
    ];
    PeerFilter::new(PeerRules {
        allow: blocks.iter().map(|block| block.parse().unwrap()).collect(),
        fleet: granted
            .iter()
            .map(|grant| FleetRange {
                ip: grant.public,
                first: grant.first,
                last: grant.last,
            })
            .collect(),
        ..PeerRules::default()
    })
}

fn framed(header: ClientHeader, payload: &[u8]) -> Vec<u8> {
    let start = ClientHeader::MAX_LEN;
    let mut buffer = vec![0xAA; start + payload.len() + ClientHeader::MAX_PADDING];
    buffer[start..start + payload.len()].copy_from_slice(payload);
    let span = turnfleet_turn::Span {
        start,
        len: payload.len(),
    };
    let span = header.write(&mut buffer, span).expect("the room is there");
    buffer[span.range()].to_vec()
}
