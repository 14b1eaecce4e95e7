//! One relay on a simulated machine: a server, the sockets that it asked for, a clock, and clients that sign requests.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use turnfleet_turn::ledger::{GrantedPorts, Usage};
use turnfleet_turn::peer_filter::{FleetRange, PeerFilter, PeerRules};
use turnfleet_turn::policy::{Config, Limits, Policy, RelayedHost, TcpRelaying};
use turnfleet_turn::wire::{
    AttributeType, ChannelData, ChannelNumber, Class, ConnectionId, LongTermKey, Message,
    MessageWriter, Method, PasswordAlgorithm, ReservationToken, TransactionId,
};
use turnfleet_turn::{
    AddressFamily, Candidate, Candidates, ClientHeader, Command, ConnectError, Context, Decision,
    DropReason, Event, FiveTuple, Instant, KeySource, Ledger, Now, OpenError, PeerAddr, RelayedId,
    Server, ShardId, Transport,
};

pub(crate) const REALM: &str = "turnfleet.local";
pub(crate) const V4: &str = "198.51.100.1";
pub(crate) const V6: &str = "2001:db8:1::1";
pub(crate) const PEER: &str = "203.0.113.9:9";
pub(crate) const PEER6: &str = "[2001:db8:9::9]:9";
pub(crate) const START_UNIX: u64 = 1_800_000_000;

/// What the server offers in its challenges.
pub(crate) const OFFERED: [PasswordAlgorithm; 2] =
    [PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5];

/// The ports that a relay of the tests is granted on each of its addresses.
pub(crate) const PORTS: (u16, u16) = (49152, 49161);

/// Names with passwords; what starts with a number and a colon ends at that second, as ephemeral credentials do.
#[derive(Default)]
pub(crate) struct Keys {
    passwords: BTreeMap<String, Vec<String>>,
}

impl Keys {
    pub(crate) fn set(&mut self, username: &str, passwords: &[&str]) {
        let passwords = passwords.iter().map(ToString::to_string).collect();
        self.passwords.insert(username.into(), passwords);
    }
}

impl KeySource for Keys {
    fn candidates(&self, username: &str, _now: Now, out: &mut Candidates) {
        let (expires_at, user) = match username.split_once(':') {
            Some((seconds, _)) => (seconds.parse().ok(), seconds.len() + 1..username.len()),
            None => (None, 0..username.len()),
        };
        for password in self.passwords.get(username).into_iter().flatten() {
            out.push(Candidate {
                key: LongTermKey::derive_with(out.algorithm(), username, REALM, password),
                user: Some(user.clone()),
                expires_at,
            });
        }
    }
}

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
    /// Relayed sockets that are open, by the address that they are bound to.
    pub(crate) sockets: BTreeMap<SocketAddr, RelayedId>,
    /// Those of them that listen.
    pub(crate) listening: BTreeSet<SocketAddr>,
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

/// How a machine is set up.
pub(crate) struct Setup {
    pub(crate) hosts: Vec<RelayedHost>,
    pub(crate) ports: (u16, u16),
    pub(crate) limits: Limits,
    pub(crate) rfc5766_channel_numbers: bool,
    pub(crate) tcp_relaying: TcpRelaying,
    pub(crate) shard: u8,
    pub(crate) ledger: Option<Arc<Ledger>>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            hosts: vec![host(V4, V4), host(V6, V6)],
            ports: PORTS,
            limits: Limits::default(),
            rfc5766_channel_numbers: false,
            tcp_relaying: TcpRelaying::Off,
            shard: 0,
            ledger: None,
        }
    }
}

pub(crate) fn host(local: &str, public: &str) -> RelayedHost {
    RelayedHost {
        local: local.parse().unwrap(),
        public: public.parse().unwrap(),
    }
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
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
            realm: REALM.into(),
            nonce_keys: vec![[9; 32]],
            nonce_lifetime: Duration::from_secs(3600),
            peer_filter: filter(&granted),
            limits: setup.limits,
        };
        let config = Config {
            shard: ShardId(setup.shard),
            shards: 2,
            relayed_hosts: setup.hosts,
            rfc5766_channel_numbers: setup.rfc5766_channel_numbers,
            tcp_relaying: setup.tcp_relaying,
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
            sockets: BTreeMap::new(),
            listening: BTreeSet::new(),
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

    /// Replaces the policy by a changed one.
    pub(crate) fn change_policy(&mut self, change: impl FnOnce(&mut Policy)) {
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
        let context = Context { keys: &self.keys };
        let decision = self
            .server
            .handle_client(self.now, from, packet, &context, &mut reply);
        self.obey();
        match decision {
            Decision::Drop(reason) => Outcome::Dropped(reason),
            Decision::Reply => Outcome::Reply(reply),
            Decision::Pending => {
                let place = self.outbox.iter().position(|(to, _)| *to == from);
                let answer = place.and_then(|place| self.outbox.remove(place));
                answer.map_or(Outcome::Pending, |(_, message)| Outcome::Reply(message))
            }
            Decision::ToPeer { via, to, payload } => {
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
        let decision = self
            .server
            .handle_peer(self.now, id, PeerAddr(addr(from)), payload.len());
        match decision {
            Decision::Drop(reason) => Outcome::Dropped(reason),
            Decision::ToClient { to, header } => Outcome::Delivered(to, framed(header, payload)),
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
        assert_eq!(self.usage().users, 0, "users in the ledger");
        assert_eq!(self.usage().ports_used, 0, "ports in the ledger");
        assert_eq!(self.sockets.len(), 0, "open sockets");
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

/// A client that signs what it is told to send.
pub(crate) struct Caller {
    pub(crate) five_tuple: FiveTuple,
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) nonce: Vec<u8>,
    last_id: u64,
}

/// A STUN message that came back.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Answer(pub Vec<u8>);

impl Caller {
    /// Alice by UDP, with a nonce.
    pub(crate) fn new(net: &mut Net, client: &str) -> Self {
        Self::of(net, client, Transport::Udp, "alice")
    }

    pub(crate) fn of(net: &mut Net, client: &str, transport: Transport, username: &str) -> Self {
        let client = addr(client);
        let server: IpAddr = match AddressFamily::of(client.ip()) {
            AddressFamily::V4 => V4.parse().unwrap(),
            AddressFamily::V6 => V6.parse().unwrap(),
        };
        let mut caller = Self {
            five_tuple: FiveTuple {
                transport,
                client,
                server: SocketAddr::new(server, 3478),
            },
            username: username.into(),
            password: "secret".into(),
            nonce: Vec::new(),
            last_id: u64::from(client.port()) << 32,
        };
        caller.learn_nonce(net);
        caller
    }

    /// Another client that is known as `username`.
    pub(crate) fn named(net: &mut Net, client: &str, username: &str) -> Self {
        Self::of(net, client, Transport::Udp, username)
    }

    /// Asks for a challenge.
    pub(crate) fn learn_nonce(&mut self, net: &mut Net) {
        let bytes = self.unsigned(Method::Allocate, |_| {});
        let answer = self.send(net, &bytes);
        assert_eq!(answer.code(), 401);
        self.nonce = answer.message().nonce().unwrap().unwrap().to_vec();
    }

    pub(crate) fn key(&self) -> LongTermKey {
        LongTermKey::derive(&self.username, REALM, &self.password)
    }

    pub(crate) fn next_id(&mut self) -> TransactionId {
        self.last_id += 1;
        let mut id = [0; 12];
        id[4..].copy_from_slice(&self.last_id.to_be_bytes());
        TransactionId(id)
    }

    pub(crate) fn unsigned(
        &mut self,
        method: Method,
        write: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = MessageWriter::new(&mut bytes, Class::Request, method, self.next_id());
        write(&mut writer);
        writer.finish();
        bytes
    }

    pub(crate) fn signed(
        &mut self,
        method: Method,
        write: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = MessageWriter::new(&mut bytes, Class::Request, method, self.next_id());
        write(&mut writer);
        writer
            .username(&self.username)
            .realm(REALM)
            .nonce(&self.nonce);
        writer.finish_signed(&self.key());
        bytes
    }

    /// Sends a packet that must be answered.
    #[track_caller]
    pub(crate) fn send(&self, net: &mut Net, packet: &[u8]) -> Answer {
        let outcome = net.client_sends(self.five_tuple, packet);
        let Outcome::Reply(bytes) = outcome else {
            panic!("no answer but {outcome:?}");
        };
        Answer(bytes)
    }

    /// A signed request and its answer.
    #[track_caller]
    pub(crate) fn request(
        &mut self,
        net: &mut Net,
        method: Method,
        write: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Answer {
        let packet = self.signed(method, write);
        self.send(net, &packet)
    }

    /// An Allocate request for UDP.
    #[track_caller]
    pub(crate) fn allocate(
        &mut self,
        net: &mut Net,
        write: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Answer {
        self.request(net, Method::Allocate, |writer| {
            writer.requested_transport(17);
            write(writer);
        })
    }

    /// An allocation, and the address that its first relayed socket is bound to.
    #[track_caller]
    pub(crate) fn allocated(&mut self, net: &mut Net) -> SocketAddr {
        let answer = self.allocate(net, |_| {});
        assert_eq!(answer.code(), 200);
        answer.relayed()[0]
    }

    #[track_caller]
    pub(crate) fn refresh(&mut self, net: &mut Net, lifetime: Option<u32>) -> Answer {
        self.request(net, Method::Refresh, |writer| {
            if let Some(lifetime) = lifetime {
                writer.lifetime(lifetime);
            }
        })
    }

    #[track_caller]
    pub(crate) fn permit(&mut self, net: &mut Net, peers: &[&str]) -> Answer {
        self.request(net, Method::CreatePermission, |writer| {
            for peer in peers {
                writer.xor_peer_address(PeerAddr(addr(peer)));
            }
        })
    }

    #[track_caller]
    pub(crate) fn bind(&mut self, net: &mut Net, number: u16, peer: &str) -> Answer {
        self.request(net, Method::ChannelBind, |writer| {
            writer.channel_number(ChannelNumber(number));
            writer.xor_peer_address(PeerAddr(addr(peer)));
        })
    }

    pub(crate) fn send_indication(&mut self, net: &mut Net, peer: &str, payload: &[u8]) -> Outcome {
        let packet = self.indication(Method::Send, |writer| {
            writer.xor_peer_address(PeerAddr(addr(peer))).data(payload);
        });
        net.client_sends(self.five_tuple, &packet)
    }

    pub(crate) fn indication(
        &mut self,
        method: Method,
        write: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = MessageWriter::new(&mut bytes, Class::Indication, method, self.next_id());
        write(&mut writer);
        writer.finish();
        bytes
    }

    pub(crate) fn channel_data(&mut self, net: &mut Net, number: u16, payload: &[u8]) -> Outcome {
        let mut packet = Vec::new();
        let stream = self.five_tuple.transport.is_stream();
        assert!(ChannelData::write(
            ChannelNumber(number),
            payload,
            stream,
            &mut packet
        ));
        net.client_sends(self.five_tuple, &packet)
    }
}

impl Answer {
    #[track_caller]
    pub(crate) fn message(&self) -> Message<'_> {
        Message::parse(&self.0).expect("the server sends sound messages")
    }

    /// The error code, or 200.
    #[track_caller]
    pub(crate) fn code(&self) -> u16 {
        match self.message().class() {
            Class::SuccessResponse => 200,
            Class::ErrorResponse => self.message().error_code().unwrap().unwrap().code(),
            Class::Request | Class::Indication => panic!("no answer"),
        }
    }

    #[track_caller]
    pub(crate) fn lifetime(&self) -> u32 {
        self.message().lifetime().unwrap().unwrap()
    }

    #[track_caller]
    pub(crate) fn relayed(&self) -> Vec<SocketAddr> {
        let addresses = self.message().xor_relayed_addresses();
        addresses.map(Result::unwrap).collect()
    }

    #[track_caller]
    pub(crate) fn token(&self) -> ReservationToken {
        self.message().reservation_token().unwrap().unwrap()
    }

    pub(crate) fn has(&self, kind: AttributeType) -> bool {
        self.message()
            .all_attributes()
            .any(|attribute| attribute.kind == kind)
    }

    /// Whether the answer is signed by `caller`.
    #[track_caller]
    pub(crate) fn is_signed_for(&self, caller: &Caller) -> bool {
        self.message().verify_integrity(&caller.key())
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds = self
            .message()
            .all_attributes()
            .map(|attribute| attribute.kind);
        write!(f, "{} with {:?}", self.code(), kinds.collect::<Vec<_>>())
    }
}

/// A Data indication that came back.
#[track_caller]
pub(crate) fn data_indication(packet: &[u8]) -> (SocketAddr, Vec<u8>) {
    let message = Message::parse(packet).unwrap();
    assert_eq!(message.class(), Class::Indication);
    assert_eq!(message.method(), Some(Method::Data));
    let peer = message.xor_peer_address().unwrap().unwrap().0;
    let data = message.data().unwrap();
    (peer, packet[data.range()].to_vec())
}
