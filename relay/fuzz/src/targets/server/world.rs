//! What is around a server: clients, users, peers, and a driver that carries out its commands and watches it.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use turnfleet_turn::alternates::{Alternate, Alternates};
use turnfleet_turn::ledger::{GrantedPorts, Ledger};
use turnfleet_turn::policy::{Config, Policy, RelayedHost, TcpRelaying};
use turnfleet_turn::wire::{
    Class, LongTermKey, Message, Method, PasswordAlgorithm, ReservationToken,
};
use turnfleet_turn::{
    Candidate, Candidates, ClientHeader, Command, Context, Decision, FiveTuple, Identity, Instant,
    KeySource, Now, OpenError, PeerAddr, RelayedId, Server, ShardId, Span, TenantId, Transport,
};

use super::Bytes;
use connections::Connections;
use policy::{policy, tenant_of};

mod connections;
mod network;
mod policy;

pub(super) const REALM: &str = "example.org";

pub(super) const USERS: [(&str, &str); 2] = [("alice", "secret"), ("bob", "hidden")];

/// Where relayed sockets are opened; peers as well, on the granted ports only.
const RELAYED: [&str; 2] = ["198.51.100.1", "2001:db8:ffff::1"];

const PORTS: std::ops::RangeInclusive<u16> = 50_000..=50_011;

const CLIENTS: [(Transport, &str, &str); 6] = [
    (Transport::Udp, "192.0.2.1:5000", "198.51.100.1:3478"),
    (Transport::Udp, "192.0.2.1:5001", "198.51.100.1:3478"),
    (Transport::Tcp, "192.0.2.2:5000", "198.51.100.1:3478"),
    (
        Transport::Udp,
        "[2001:db8::1]:5000",
        "[2001:db8:ffff::1]:3478",
    ),
    (Transport::Tcp, "192.0.2.2:5001", "198.51.100.1:3478"),
    (
        Transport::Tls,
        "[2001:db8::1]:5001",
        "[2001:db8:ffff::1]:5349",
    ),
];

/// Some may be reached, some on these ports only, most of them never.
const PEERS: [&str; 24] = [
    "9.9.9.9:9",
    "8.8.8.8:53",
    "[2606:4700::1]:443",
    "198.51.100.1:50000",
    "198.51.100.1:50001",
    "[2001:db8:ffff::1]:50000",
    "198.51.100.1:3478",
    "198.51.100.1:50012",
    "[2001:db8:ffff::1]:3478",
    "0.0.0.0:1",
    "127.0.0.1:80",
    "127.255.255.254:50000",
    "10.0.0.1:1",
    "172.16.0.1:1",
    "192.168.0.1:1",
    "169.254.169.254:80",
    "224.0.0.1:1",
    "255.255.255.255:1",
    "[::1]:80",
    "[::ffff:9.9.9.9]:9",
    "[64:ff9b::909:909]:9",
    "[fe80::1]:1",
    "[fd00::1]:1",
    "[ff02::1]:1",
];

struct Accounts;

impl KeySource for Accounts {
    fn candidates(&self, identity: Identity<'_>, _now: Now, out: &mut Candidates) {
        let known = |(user, _): &&(&str, &str)| *user == identity.username;
        if let Some((user, password)) = USERS.iter().find(known) {
            out.push(Candidate {
                key: LongTermKey::derive_with(out.algorithm(), user, REALM, password),
                user: Some(0..user.len()),
                tenant: tenant_of(user),
                home: TenantId::DEFAULT,
                expires_at: None,
                key_id: 0,
            });
        }
    }
}

pub(super) struct World {
    pub(super) server: Server,
    pub(super) reservation_token: Option<ReservationToken>,
    ledger: Arc<Ledger>,
    policy: Policy,
    now: Now,
    clients: [FiveTuple; CLIENTS.len()],
    nonces: [Option<Vec<u8>>; CLIENTS.len()],
    peers: Vec<PeerAddr>,
    /// The relayed sockets that are open.
    open: Vec<(RelayedId, SocketAddr)>,
    /// One that was open.
    closed: Option<RelayedId>,
    connections: Connections,
    /// Clients whose streams are kept open.
    kept: HashSet<FiveTuple>,
    /// Whether clients may connect to ports below 1024.
    low_ports: bool,
    reply: Vec<u8>,
}

impl World {
    pub(super) fn new(rfc5766_channel_numbers: bool, tcp_relaying: TcpRelaying) -> Self {
        let hosts = RELAYED.map(|ip| ip.parse::<IpAddr>().expect("an address"));
        let ledger = Arc::new(Ledger::new([2; 32]));
        ledger.set_granted(&hosts.map(|public| GrantedPorts {
            public,
            first: *PORTS.start(),
            last: *PORTS.end(),
        }));
        let config = Config {
            shard: ShardId(1),
            shards: 2,
            relayed_hosts: hosts
                .map(|ip| RelayedHost {
                    local: ip,
                    public: ip,
                })
                .into(),
            rfc5766_channel_numbers,
            dont_fragment: true,
            trusted_sources: Vec::new(),
        };
        let policy = policy(&hosts, tcp_relaying);
        let shared = Arc::new(policy.clone());
        let mut server = Server::new(config, shared, Arc::clone(&ledger), [3; 32]);
        server.set_alternates(Arc::new(alternates()));
        Self {
            server,
            reservation_token: None,
            ledger,
            policy,
            now: Now {
                instant: Instant(1_000_000_000_000),
                unix: 1_800_000_000,
            },
            clients: CLIENTS.map(|(transport, client, server)| FiveTuple {
                transport,
                client: client.parse().expect("an address"),
                server: server.parse().expect("an address"),
            }),
            nonces: Default::default(),
            peers: PEERS
                .iter()
                .map(|peer| PeerAddr(peer.parse().expect("an address")))
                .collect(),
            open: Vec::new(),
            closed: None,
            connections: Connections::default(),
            kept: HashSet::new(),
            low_ports: tcp_relaying == TcpRelaying::OnWithLowPorts,
            reply: Vec::new(),
        }
    }

    pub(super) fn peer(&self, choice: u8) -> PeerAddr {
        self.peers[usize::from(choice) % self.peers.len()]
    }

    pub(super) fn user(
        &self,
        (user, password): (&'static str, &str),
        algorithm: PasswordAlgorithm,
    ) -> (&'static str, LongTermKey) {
        let key = LongTermKey::derive_with(algorithm, user, REALM, password);
        (user, key)
    }

    /// The last nonce that the client was given.
    pub(super) fn nonce(&self, client: u8) -> Option<&[u8]> {
        self.nonces[usize::from(client) % CLIENTS.len()].as_deref()
    }

    pub(super) fn advance(&mut self, by: Duration) {
        let end = self.now.instant.after(by);
        while let Some(due) = self.server.poll_timeout().filter(|due| *due <= end) {
            self.set_time(due.max(self.now.instant));
            self.server.handle_timeout(self.now);
            let next = self.server.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now.instant), "spins");
        }
        self.set_time(end);
        self.carry_out(&mut Bytes::new(&[]));
    }

    /// Hands in a packet that nobody has signed: it must not make the server open anything.
    pub(super) fn handle_unsigned(&mut self, client: u8, packet: &[u8], choices: &mut Bytes<'_>) {
        let before = (self.open.len(), self.open_connections());
        self.handle_client(client, packet, choices);
        let after = (self.open.len(), self.open_connections());
        assert!(
            after.0 <= before.0 && after.1 <= before.1,
            "state without authentication"
        );
    }

    pub(super) fn handle_client(
        &mut self,
        client: u8,
        packet: &[u8],
        choices: &mut Bytes<'_>,
    ) -> Decision {
        let from = self.clients[usize::from(client) % CLIENTS.len()];
        if let Some(connection) = self.spliced_with(client) {
            self.server.handle_spliced_data(connection, packet.len(), 0);
            return Decision::Pending;
        }
        let context = Context::new(&Accounts);
        let mut reply = std::mem::take(&mut self.reply);
        let decision = self.server.handle_client(
            self.now,
            from,
            network::header(packet.len()),
            packet,
            &context,
            &mut reply,
        );
        match decision {
            Decision::ToPeer {
                via, to, payload, ..
            } => {
                assert!(!is_out_of_bounds(to.0), "reaches {to:?}");
                assert!(self.open.iter().any(|(id, _)| *id == via), "no socket");
                assert!(packet.get(payload.range()).is_some(), "no payload");
            }
            Decision::Reply => {
                let request = Message::parse(packet).expect("only messages are answered");
                let answer = self.learn(from, &reply);
                assert_eq!(answer.transaction_id(), request.transaction_id());
                assert_eq!(answer.method(), request.method());
            }
            Decision::ToClient { .. } => panic!("a client's packet went to a client"),
            Decision::Splice { connection } => {
                assert!(from.transport.is_stream(), "a datagram is spliced");
                self.learn(from, &reply);
                self.splice(client, connection);
            }
            Decision::ToShard { owner } => assert_ne!(owner, ShardId(1), "asks itself"),
            Decision::Drop(_) | Decision::Pending => {}
        }
        self.reply = reply;
        self.carry_out(choices);
        decision
    }

    pub(super) fn handle_peer(&mut self, socket: u8, peer: u8, len: usize) {
        let from = self.peer(peer);
        let Some(on) = self.socket(socket) else {
            return;
        };
        if self.connections.listening.contains(&on) {
            return;
        }
        let ip = network::header(len);
        let decision = self.server.handle_peer(self.now, on, from, ip, len);
        match decision {
            Decision::ToClient { to, header, .. } => {
                assert!(self.clients.contains(&to), "a client that never was");
                assert!(self.open.iter().any(|(id, _)| *id == on), "a closed socket");
                assert!(!is_out_of_bounds(from.0), "lets {from:?} in");
                let start = ClientHeader::MAX_LEN;
                let mut buffer = vec![0; start + len + ClientHeader::MAX_PADDING];
                assert!(header.write(&mut buffer, Span { start, len }).is_some());
            }
            Decision::Drop(_) => {}
            Decision::Reply
            | Decision::Pending
            | Decision::ToPeer { .. }
            | Decision::Splice { .. }
            | Decision::ToShard { .. } => {
                panic!("{decision:?} for a peer's datagram")
            }
        }
        self.carry_out(&mut Bytes::new(&[]));
    }

    pub(super) fn fail_relayed(&mut self, socket: u8, choices: &mut Bytes<'_>) {
        if let Some(id) = self.socket(socket) {
            self.server.handle_relayed_failed(self.now, id);
            self.carry_out(choices);
        }
    }

    pub(super) fn close_client(&mut self, client: u8, choices: &mut Bytes<'_>) {
        if let Some(connection) = self.spliced_with(client) {
            self.close_connection(connection);
            self.server.handle_connection_closed(connection);
            return self.carry_out(choices);
        }
        let client = self.clients[usize::from(client) % CLIENTS.len()];
        self.server.handle_client_closed(self.now, client);
        self.carry_out(choices);
    }

    /// Another shard redeems the last reservation: its socket leaves without a command.
    pub(super) fn release_reserved(&mut self) {
        let Some(token) = self.reservation_token else {
            return;
        };
        if let Some((id, local)) = self.server.release_reserved(self.now, token) {
            let at = self.open.iter().position(|open| *open == (id, local));
            self.open
                .swap_remove(at.expect("a reserved socket is open"));
            self.ledger.release(local, self.now.instant);
        }
    }

    /// Ends everything: nothing may be left.
    pub(super) fn close(&mut self) {
        while self.server.close_some(self.now) {}
        self.carry_out(&mut Bytes::new(&[]));
        assert!(self.open.is_empty(), "sockets left: {:?}", self.open);
        assert_eq!(self.open_connections(), 0, "connections left");
        assert!(self.kept.is_empty(), "streams kept: {:?}", self.kept);
        let usage = self.ledger.usage();
        assert_eq!((usage.allocations, usage.ports_used), (0, 0));
    }

    fn set_time(&mut self, to: Instant) {
        let start = Instant(1_000_000_000_000);
        self.now.instant = self.now.instant.max(to);
        self.now.unix = 1_800_000_000 + self.now.instant.since(start).as_secs();
    }

    fn socket(&self, choice: u8) -> Option<RelayedId> {
        let known = self.open.iter().map(|(id, _)| *id).chain(self.closed);
        known.cycle().nth(usize::from(choice % 16))
    }

    /// Drains the server's commands as a driver does; `choices` are the moods of the operating system.
    fn carry_out(&mut self, choices: &mut Bytes<'_>) {
        while let Some(command) = self.server.poll_command() {
            match command {
                Command::OpenRelayed { id, local } => {
                    let result = self.open(id, local, choices.byte());
                    self.server.handle_relayed_opened(self.now, id, result);
                }
                Command::ClaimReserved { id, owner, .. } => {
                    assert_ne!(owner, ShardId(1), "asks itself");
                    let result = Err(OpenError::NoReservation);
                    self.server.handle_relayed_opened(self.now, id, result);
                }
                Command::CloseRelayed { id } => {
                    let at = self.open.iter().position(|(open, _)| *open == id);
                    self.open
                        .swap_remove(at.expect("only open sockets are closed"));
                    self.connections.listening.retain(|open| *open != id);
                    self.closed = Some(id);
                }
                Command::ListenRelayed { id, local } => {
                    let result = self.open(id, local, choices.byte());
                    if result.is_ok() {
                        self.connections.listening.push(id);
                    }
                    self.server.handle_relayed_opened(self.now, id, result);
                }
                Command::ConnectPeer {
                    connection,
                    via,
                    peer,
                } => self.begin_connection(connection, via, peer),
                Command::CloseConnection { connection } => self.close_connection(connection),
                Command::KeepStream { client } => {
                    assert!(self.kept.insert(client), "kept already");
                }
                Command::ReleaseStream { client } => {
                    assert!(self.kept.remove(&client), "not kept");
                }
                Command::Send { to, message } => {
                    assert!(self.clients.contains(&to), "a client that never was");
                    self.learn(to, &message);
                }
            }
        }
        while self.server.poll_event().is_some() {}
    }

    fn open(
        &mut self,
        id: RelayedId,
        local: SocketAddr,
        mood: u8,
    ) -> Result<SocketAddr, OpenError> {
        assert!(PORTS.contains(&local.port()), "{local} is not granted");
        assert!(
            self.open
                .iter()
                .all(|(open, at)| *open != id && *at != local),
            "{id:?} at {local} is taken"
        );
        match mood {
            0..=0xEF => {
                self.open.push((id, local));
                Ok(local)
            }
            0xF0..=0xF7 => Err(OpenError::PortTaken),
            0xF8..=0xFB => Err(OpenError::Exhausted),
            0xFC..=0xFF => Err(OpenError::AddressUnavailable),
        }
    }

    /// Reads an answer as its client would.
    fn learn<'a>(&mut self, to: FiveTuple, answer: &'a [u8]) -> Message<'a> {
        let message = Message::parse(answer).expect("answers are sound");
        let announces = message.method() == Some(Method::ConnectionAttempt);
        assert!(match message.class() {
            Class::SuccessResponse | Class::ErrorResponse => !announces,
            Class::Indication => announces,
            Class::Request => false,
        });
        let client = self.clients.iter().position(|client| *client == to);
        if let (Some(client), Some(Ok(nonce))) = (client, message.nonce()) {
            self.nonces[client] = Some(nonce.to_vec());
        }
        if let Some(Ok(token)) = message.reservation_token() {
            self.reservation_token = Some(token);
        }
        message
    }
}

/// One other server by each transport.
fn alternates() -> Alternates {
    let domain: Option<Box<str>> = Some("turn.example.org".into());
    let server = |transport| Alternate {
        transport,
        v4: Some("203.0.113.50:3478".parse().expect("an address")),
        v6: Some("[2001:db8:5::50]:3478".parse().expect("an address")),
        domain: domain.clone(),
    };
    Alternates {
        servers: Transport::ALL.map(server).into(),
        domain,
    }
}

/// Which of the peers must never be reached, said in other words than the peer filter's.
fn is_out_of_bounds(peer: SocketAddr) -> bool {
    let ip = peer.ip();
    if RELAYED.iter().any(|relayed| relayed.parse() == Ok(ip)) {
        return !PORTS.contains(&peer.port());
    }
    match ip {
        IpAddr::V4(ip) => {
            ip.is_loopback()
                || ip.is_private()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast()
                || ip.is_unspecified()
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_multicast()
                || ip.is_unspecified()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
                || ip.to_ipv4().is_some()
                || ip.segments().starts_with(&[0x64, 0xFF9B])
        }
    }
}
