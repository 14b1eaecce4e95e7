//! A relay on loopback and clients for it: real sockets on both sides, driven to a deadline and never by sleeping.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test ends where its machinery fails, and waits for one thing at a time"
)]

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant as Clock};

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;
use turnfleet_relay::shard::{
    Certificate, EventLog, Listener, RelayPolicy, ShardSet, ShardSettings, StreamLimits,
    TenantNames,
};
use turnfleet_turn::client::{AllocateOptions, Allocated, Client, Config, Event, Failure, Input};
use turnfleet_turn::ledger::{GrantedPorts, Ledger};
use turnfleet_turn::peer_filter::{PeerFilter, PeerRules};
use turnfleet_turn::policy::{Limits, Policy, RelayedHost, TcpRelaying};
use turnfleet_turn::wire::{Frame, LongTermKey, MAX_FRAME_LEN, deframe};
use turnfleet_turn::{
    AddressFamily, Candidate, Candidates, ClientHeader, Identity, Instant, KeySource, Now,
    PeerAddr, Span, TenantId, Transport,
};

pub(crate) const REALM: &str = "turnfleet.local";
pub(crate) const USERNAME: &str = "alice";
pub(crate) const PASSWORD: &str = "wonderland";
/// How long anything may take before a test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// One user with one password.
struct OneUser;

impl KeySource for OneUser {
    fn candidates(&self, identity: Identity<'_>, _now: Now, out: &mut Candidates) {
        if identity.username == USERNAME {
            out.push(Candidate {
                key: LongTermKey::derive(USERNAME, REALM, PASSWORD),
                user: Some(0..USERNAME.len()),
                tenant: TenantId::DEFAULT,
                home: TenantId::DEFAULT,
                expires_at: None,
                key_id: 0,
            });
        }
    }
}

pub(crate) fn policy(max_allocations: u32) -> RelayPolicy {
    let rules = PeerRules {
        danger_allow_loopback: true,
        ..PeerRules::default()
    };
    RelayPolicy {
        server: Arc::new(Policy {
            limits: Limits {
                allocations: max_allocations,
                ..Limits::default()
            },
            tcp_relaying: TcpRelaying::On,
            ..Policy::new(REALM, [7; 32], PeerFilter::new(rules))
        }),
        keys: Box::new(OneUser),
        tenants: TenantNames::default(),
    }
}

/// Settings with one UDP and one TCP listener on each loopback address, and TLS where there is a certificate.
pub(crate) fn settings(shards: u8, tls: Option<Arc<Certificate>>) -> ShardSettings {
    let mut transports = vec![Transport::Udp, Transport::Tcp];
    transports.extend(tls.is_some().then_some(Transport::Tls));
    let ips: [IpAddr; 2] = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    let listeners = ips.iter().flat_map(|&ip| {
        transports
            .iter()
            .map(move |&transport| Listener::new(transport, SocketAddr::new(ip, 0)))
    });
    ShardSettings {
        listeners: listeners.collect(),
        relayed_hosts: ips
            .iter()
            .map(|&ip| RelayedHost {
                local: ip,
                public: ip,
            })
            .collect(),
        shards,
        rfc5766_channel_numbers: false,
        short_cut: true,
        trusted_sources: Vec::new(),
        tls,
        streams: StreamLimits::default(),
    }
}

/// A running relay.
pub(crate) struct Relay {
    pub(crate) shards: ShardSet,
    pub(crate) addresses: Vec<Listener>,
    pub(crate) policy: Arc<ArcSwap<RelayPolicy>>,
    pub(crate) ledger: Arc<Ledger>,
}

impl Relay {
    pub(crate) fn start(settings: ShardSettings) -> Self {
        let bound = ShardSet::bind(settings).expect("listeners open");
        let addresses = bound.addresses().to_vec();
        let policy = Arc::new(ArcSwap::from_pointee(policy(u32::MAX)));
        // Relays that draw the same ports in the same order would be in each other's way, those of a test that runs in a process
        // of its own among them.
        static STARTED: AtomicU8 = AtomicU8::new(0);
        let mut seed = [STARTED.fetch_add(1, Ordering::Relaxed); 32];
        seed[..4].copy_from_slice(&std::process::id().to_be_bytes());
        let ledger = Arc::new(Ledger::new(seed));
        let granted = ["127.0.0.1", "::1"].map(|ip| GrantedPorts {
            public: ip.parse().unwrap(),
            first: 20_000,
            last: 32_000,
        });
        ledger.set_granted(&granted);
        let shards = bound
            .start(Arc::clone(&policy), &ledger, &EventLog::open())
            .expect("shards start");
        Self {
            shards,
            addresses,
            policy,
            ledger,
        }
    }

    #[track_caller]
    pub(crate) fn address(&self, transport: Transport, v4: bool) -> SocketAddr {
        let fits = |it: &&Listener| it.transport == transport && it.address.is_ipv4() == v4;
        self.addresses
            .iter()
            .find(fits)
            .expect("a listener")
            .address
    }

    /// Waits until `condition` holds for the relay.
    #[track_caller]
    pub(crate) fn wait_until(&self, what: &str, mut condition: impl FnMut(&ShardSet) -> bool) {
        wait_until(what, || condition(&self.shards));
    }
}

/// Waits until `condition` holds, giving other threads the processor in between.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Clock::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "{what} did not come true");
        std::thread::yield_now();
    }
}

/// A client's socket.
pub(crate) enum Socket {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A client on a socket of its own.
pub(crate) struct Driver {
    pub(crate) socket: Socket,
    pub(crate) client: Client,
    /// Whether every byte is sent in a segment, and inside TLS in a record, of its own.
    pub(crate) bytes_alone: bool,
    /// What has arrived on a stream and is no whole message.
    pub(crate) unread: Vec<u8>,
    start: Clock,
}

/// What a client received from a peer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) peer: SocketAddr,
    pub(crate) on_channel: bool,
    pub(crate) payload: Vec<u8>,
}

impl Driver {
    pub(crate) fn udp(server: SocketAddr) -> Self {
        let any: IpAddr = if server.is_ipv4() {
            "127.0.0.1".parse().unwrap()
        } else {
            "::1".parse().unwrap()
        };
        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.connect(server).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        Self::new(Socket::Udp(socket), Transport::Udp)
    }

    pub(crate) fn tcp(server: SocketAddr) -> Self {
        Self::over(connect(server))
    }

    /// On a connection that something was sent on already.
    pub(crate) fn over(stream: TcpStream) -> Self {
        Self::new(Socket::Tcp(stream), Transport::Tcp)
    }

    /// On TLS that was set up already.
    pub(crate) fn over_tls(stream: StreamOwned<ClientConnection, TcpStream>) -> Self {
        Self::new(Socket::Tls(Box::new(stream)), Transport::Tls)
    }

    /// Trusts the certificate in `chain_file` and no other.
    pub(crate) fn tls(server: SocketAddr, chain_file: &Path) -> Self {
        Self::over_tls(tls_connect(server, chain_file))
    }

    fn new(socket: Socket, transport: Transport) -> Self {
        let start = Clock::now();
        let mut seed = [0; 32];
        for (place, byte) in seed.iter_mut().zip(format!("{start:?}").into_bytes()) {
            *place = byte;
        }
        Self {
            socket,
            client: Client::new(Config {
                transport,
                username: USERNAME.into(),
                password: PASSWORD.into(),
                password_algorithms: false,
                seed,
            }),
            bytes_alone: false,
            unread: Vec::new(),
            start,
        }
    }

    pub(crate) fn now(&self) -> Instant {
        Instant(1).after(self.start.elapsed())
    }

    /// Sends whatever the client wants to send.
    pub(crate) fn transmit(&mut self) {
        let mut out = Vec::new();
        while self.client.poll_transmit(&mut out) {
            self.send_raw(&out);
            out.clear();
        }
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        let portion = if self.bytes_alone {
            1
        } else {
            bytes.len().max(1)
        };
        for portion in bytes.chunks(portion) {
            self.send_once(portion);
        }
    }

    fn send_once(&mut self, bytes: &[u8]) {
        match &mut self.socket {
            Socket::Udp(socket) => {
                socket.send(bytes).unwrap();
            }
            Socket::Tcp(stream) => stream.write_all(bytes).unwrap(),
            Socket::Tls(stream) => stream.write_all(bytes).unwrap(),
        }
    }

    /// Reads once; zero where nothing came for a moment.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> usize {
        let read = match &mut self.socket {
            Socket::Udp(socket) => socket.recv(buffer),
            Socket::Tcp(stream) => stream.read(buffer),
            Socket::Tls(stream) => stream.read(buffer),
        };
        match read {
            Ok(count) => count,
            Err(error) if is_timeout(&error) => 0,
            Err(error) => panic!("receiving: {error}"),
        }
    }

    /// Receives once; what a peer sent is returned.
    pub(crate) fn receive(&mut self) -> Vec<Received> {
        let now = self.now();
        let mut buffer = vec![0; 70_000];
        let count = self.read(&mut buffer);
        let mut received = Vec::new();
        if let Socket::Udp(_) = self.socket {
            received.extend(input(&mut self.client, now, &buffer[..count]));
        } else {
            self.unread.extend_from_slice(&buffer[..count]);
            let mut read = 0;
            loop {
                match deframe(&self.unread[read..], MAX_FRAME_LEN) {
                    Frame::Message { len, total } => {
                        let message = &self.unread[read..read + len];
                        received.extend(input(&mut self.client, now, message));
                        read += total;
                    }
                    Frame::NeedMore(_) => break,
                    Frame::Garbage => panic!("the relay sent garbage"),
                }
            }
            self.unread.drain(..read);
        }
        self.client.handle_timeout(now);
        self.transmit();
        received
    }

    /// Waits for the event that `pick` wants.
    #[track_caller]
    pub(crate) fn event<T>(&mut self, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        self.transmit();
        let start = Clock::now();
        loop {
            while let Some(event) = self.client.poll_event() {
                if let Some(picked) = pick(event) {
                    return picked;
                }
            }
            assert!(start.elapsed() < DEADLINE, "the event did not come");
            self.receive();
        }
    }

    #[track_caller]
    pub(crate) fn try_allocate(&mut self, options: AllocateOptions) -> Result<Allocated, Failure> {
        let now = self.now();
        self.client.allocate(now, options).unwrap();
        self.event(|event| match event {
            Event::Allocated(allocated) => Some(Ok(allocated)),
            Event::Failed { why, .. } => Some(Err(why)),
            _ => None,
        })
    }

    #[track_caller]
    pub(crate) fn allocate(&mut self, options: AllocateOptions) -> Allocated {
        self.try_allocate(options).expect("an allocation")
    }

    #[track_caller]
    pub(crate) fn refresh(&mut self, lifetime: u32) {
        let now = self.now();
        self.client.refresh(now, lifetime).unwrap();
        self.event(|event| matches!(event, Event::Refreshed { .. }).then_some(()));
    }

    #[track_caller]
    pub(crate) fn permit(&mut self, peer: SocketAddr) {
        let now = self.now();
        self.client
            .create_permission(now, &[PeerAddr(peer)])
            .unwrap();
        self.event(|event| matches!(event, Event::PermissionCreated { .. }).then_some(()));
    }

    #[track_caller]
    pub(crate) fn bind_channel(&mut self, peer: SocketAddr) {
        let now = self.now();
        self.client.bind_channel(now, PeerAddr(peer)).unwrap();
        self.event(|event| matches!(event, Event::ChannelBound { .. }).then_some(()));
    }

    /// One message to `peer`: ChannelData where a channel is bound, a Send indication otherwise.
    pub(crate) fn message_to(&mut self, peer: SocketAddr, payload: &[u8]) -> Vec<u8> {
        let mut buffer = vec![0; ClientHeader::MAX_LEN];
        buffer.extend_from_slice(payload);
        buffer.extend_from_slice(&[0; ClientHeader::MAX_PADDING]);
        let span = Span {
            start: ClientHeader::MAX_LEN,
            len: payload.len(),
        };
        let peer = PeerAddr(peer);
        let written = match self.client.channel_to(peer) {
            Some(number) => self.client.write_channel_data(number, &mut buffer, span),
            None => self.client.write_send_indication(peer, &mut buffer, span),
        };
        buffer[written.expect("the payload fits").range()].to_vec()
    }

    pub(crate) fn send_to(&mut self, peer: SocketAddr, payload: &[u8]) {
        let message = self.message_to(peer, payload);
        self.send_raw(&message);
    }

    #[track_caller]
    pub(crate) fn receive_one(&mut self) -> Received {
        let start = Clock::now();
        loop {
            let mut received = self.receive();
            if let Some(first) = received.pop() {
                assert!(received.is_empty(), "more than one message");
                return first;
            }
            assert!(start.elapsed() < DEADLINE, "nothing was received");
        }
    }

    /// The next whole message of a stream as it came, padding included.
    #[track_caller]
    pub(crate) fn receive_raw(&mut self) -> Vec<u8> {
        let start = Clock::now();
        let mut buffer = vec![0; 70_000];
        loop {
            if let Frame::Message { total, .. } = deframe(&self.unread, MAX_FRAME_LEN) {
                return self.unread.drain(..total).collect();
            }
            assert!(start.elapsed() < DEADLINE, "nothing was received");
            let count = self.read(&mut buffer);
            self.unread.extend_from_slice(&buffer[..count]);
        }
    }

    /// Whether the relay has closed the stream.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let read = match &mut self.socket {
            Socket::Udp(_) => panic!("a datagram socket is never closed"),
            Socket::Tcp(stream) => stream.read(&mut buffer),
            Socket::Tls(stream) => stream.read(&mut buffer),
        };
        match read {
            Ok(count) => count == 0,
            Err(error) => !is_timeout(&error),
        }
    }
}

fn input(client: &mut Client, now: Instant, packet: &[u8]) -> Option<Received> {
    match client.handle_input(now, packet) {
        Input::Data {
            peer,
            channel,
            payload,
        } => Some(Received {
            peer: peer.0,
            on_channel: channel.is_some(),
            payload: payload.to_vec(),
        }),
        Input::Response | Input::Ignored => None,
    }
}

pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

pub(crate) fn connect(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    stream
}

/// A finished handshake with a server whose certificate stands in `chain_file`.
pub(crate) fn tls_connect(
    server: SocketAddr,
    chain_file: &Path,
) -> StreamOwned<ClientConnection, TcpStream> {
    tls_over(connect(server), chain_file, &[])
}

/// The same over a connection, offering `protocols` (ALPN).
pub(crate) fn tls_over(
    mut stream: TcpStream,
    chain_file: &Path,
    protocols: &[&str],
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut session = tls_session(chain_file, protocols);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut stream).expect("a TLS handshake");
    }
    stream
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    StreamOwned::new(session, stream)
}

/// A client's side of TLS that trusts the certificate in `chain_file` and offers `protocols` (ALPN).
pub(crate) fn tls_session(chain_file: &Path, protocols: &[&str]) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(chain_file).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| (*name).into()).collect();
    let name = ServerName::try_from("turn.example.org").unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap()
}

/// A certificate, its chain's file, and the folder that holds both.
pub(crate) fn certificate() -> (PathBuf, TempDir, Arc<Certificate>) {
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = (folder.path().join("cert"), folder.path().join("key"));
    write_certificate(&chain, &key);
    let certificate = Certificate::load(&chain, &key).unwrap();
    (chain, folder, Arc::new(certificate))
}

/// Writes a certificate for `turn.example.org` and its key.
pub(crate) fn write_certificate(chain_file: &Path, key_file: &Path) {
    let made = rcgen::generate_simple_self_signed(["turn.example.org".to_owned()]).unwrap();
    std::fs::write(chain_file, made.cert.pem()).unwrap();
    std::fs::write(key_file, made.signing_key.serialize_pem()).unwrap();
}

/// A peer that answers every datagram with the same bytes.
pub(crate) fn echo_peer(v4: bool) -> SocketAddr {
    let address = if v4 { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(address).unwrap();
    let local = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..count], from);
        }
    });
    local
}

/// Set in a process that has few descriptors.
const SCARCE: &str = "TURNFLEET_SCARCE_DESCRIPTORS";

/// Runs `test` again in a process of its own with few descriptors, because the limit is the process's.
#[track_caller]
pub(crate) fn run_with_scarce_descriptors(test: &str) {
    let status = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 96; exec \"$0\" --exact \"$1\""])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(SCARCE, "1")
        .status()
        .unwrap();
    assert!(status.success());
}

/// Whether this process is the one that [`run_with_scarce_descriptors`] started.
pub(crate) fn has_scarce_descriptors() -> bool {
    std::env::var_os(SCARCE).is_some()
}

/// An allocation of one family.
pub(crate) fn of_family(v4: bool) -> AllocateOptions {
    let family = if v4 {
        AddressFamily::V4
    } else {
        AddressFamily::V6
    };
    AllocateOptions {
        family: Some(family),
        ..AllocateOptions::default()
    }
}
