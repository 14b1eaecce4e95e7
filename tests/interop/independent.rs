//! A TURN client that others have written, the crate `turn-client-proto`, against a relay of a fleet.
//!
//! It takes MESSAGE-INTEGRITY-SHA256 alone, so what it accepts was signed so. Two things it cannot do: it expects
//! ConnectionAttempt as a request, which is an indication in RFC 6062 §5.3, so peers open no connections (coturn's client has
//! them); and it binds the same channel number once for each family of an allocation, which RFC 8656 §12.2 has refused.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use turn_client_proto::api::{TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet};
use turn_client_proto::client::TurnClient;
use turn_client_proto::prelude::*;
use turn_client_proto::stun::Instant;
use turn_client_proto::stun::agent::Transmit;
use turn_client_proto::stun::types::message::IntegrityAlgorithm;
use turn_client_proto::tcp::TurnClientTcp;
use turn_client_proto::types::{AddressFamily, TransportType, TurnCredentials};
use turn_client_proto::udp::TurnClientUdp;
use turnfleet_turn::Transport;

use crate::client::Credential;
use crate::fleet::Fleet;

const SECRET: &str = "north-by-northwest";
/// How long an answer or data may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How long one look at a socket waits.
const LOOK: Duration = Duration::from_millis(5);

/// What a client trusts, where it uses TLS.
type Trust = Option<Arc<ClientConfig>>;

/// The client, with the sockets that it has asked for.
struct Independent {
    client: TurnClient,
    sockets: Vec<(SocketAddr, Socket)>,
    trust: Trust,
    began: Clock,
    events: VecDeque<TurnEvent>,
    heard: VecDeque<(SocketAddr, Vec<u8>)>,
}

enum Socket {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Independent {
    /// A client of the first relay of `fleet`.
    fn new(fleet: &Fleet, transport: Transport, configure: impl FnOnce(&mut TurnConfig)) -> Self {
        let relay = &fleet.relays()[0];
        let Credential { username, password } = Credential::synapse(SECRET, "@alice:example.org");
        let mut config = TurnConfig::new(TurnCredentials::new(&username, &password));
        config.set_supported_integrity(IntegrityAlgorithm::Sha256);
        configure(&mut config);
        let (trust, server) = match transport {
            Transport::Udp => (None, relay.udp),
            Transport::Tcp => (None, relay.tcp),
            Transport::Tls => (Some(trust(fleet)), relay.tls),
        };
        let (local, socket) = match transport {
            Transport::Udp => Socket::udp(server),
            Transport::Tcp | Transport::Tls => Socket::stream(server, &trust),
        };
        let client = match transport {
            Transport::Udp => TurnClientUdp::allocate(local, server, config).into(),
            Transport::Tcp | Transport::Tls => {
                TurnClientTcp::allocate(local, server, config).into()
            }
        };
        Self {
            client,
            sockets: vec![(local, socket)],
            trust,
            began: Clock::now(),
            events: VecDeque::new(),
            heard: VecDeque::new(),
        }
    }

    /// The client as it is once it has its relayed addresses, `count` of them.
    #[track_caller]
    fn allocated(mut self, count: usize) -> Self {
        for _ in 0..count {
            let event = self.event();
            assert!(
                matches!(event, TurnEvent::AllocationCreated(..)),
                "{event:?}"
            );
        }
        assert_eq!(self.client.relayed_addresses().count(), count);
        self
    }

    #[track_caller]
    fn permit(&mut self, transport: TransportType, peer: SocketAddr) {
        let now = self.now();
        self.client
            .create_permission(transport, peer.ip(), now)
            .unwrap();
        let event = self.event();
        assert!(
            matches!(event, TurnEvent::PermissionCreated(..)),
            "{event:?}"
        );
    }

    #[track_caller]
    fn bind(&mut self, peer: SocketAddr) {
        let now = self.now();
        self.client
            .bind_channel(TransportType::Udp, peer, now)
            .unwrap();
        let event = self.event();
        assert!(matches!(event, TurnEvent::ChannelCreated(..)), "{event:?}");
    }

    #[track_caller]
    fn connect(&mut self, peer: SocketAddr) {
        let now = self.now();
        self.client.tcp_connect(peer, now).unwrap();
        let event = self.event();
        assert!(
            matches!(event, TurnEvent::TcpConnected(to) if to == peer),
            "{event:?}"
        );
    }

    #[track_caller]
    fn send(&mut self, transport: TransportType, peer: SocketAddr, data: &[u8]) {
        let message = self
            .client
            .send_to(transport, peer, data, self.now())
            .unwrap();
        if let Some(message) = message {
            let message = message.build();
            self.transmit(message.from, &message.data);
        }
    }

    /// Sends `data` to an echoing peer and waits until all of it has come back.
    #[track_caller]
    fn echoes(&mut self, transport: TransportType, peer: SocketAddr, data: &[u8]) {
        self.send(transport, peer, data);
        let mut back = Vec::new();
        while back.len() < data.len() {
            let (from, piece) = self.until("data", |client| client.heard.pop_front());
            assert_eq!(from, peer);
            back.extend(piece);
        }
        assert!(back == data, "{} bytes came back changed", back.len());
    }

    #[track_caller]
    fn event(&mut self) -> TurnEvent {
        self.until("an event", |client| client.events.pop_front())
    }

    #[track_caller]
    fn until<T>(&mut self, what: &str, mut ready: impl FnMut(&mut Self) -> Option<T>) -> T {
        let began = Clock::now();
        while began.elapsed() < LIMIT {
            if let Some(value) = ready(self) {
                return value;
            }
            self.turn();
        }
        panic!("no {what} within {LIMIT:?}: {:?}", self.client)
    }

    /// Does what the client asks for, and hands it what has come.
    fn turn(&mut self) {
        match self.client.poll(self.now()) {
            TurnPollRet::AllocateTcpSocket {
                id,
                socket,
                peer_addr,
            } => {
                let (local, stream) = Socket::stream(socket.to, &self.trust);
                self.sockets.push((local, stream));
                let now = self.now();
                let client = &mut self.client;
                client
                    .allocated_tcp_socket(id, socket, peer_addr, Some(local), now)
                    .unwrap();
            }
            TurnPollRet::TcpClose { local_addr, .. } => {
                self.sockets.retain(|(local, _)| *local != local_addr);
            }
            TurnPollRet::WaitUntil(_) => {}
            TurnPollRet::Closed => panic!("the client has given up"),
        }
        while let Some(message) = self.client.poll_transmit(self.now()) {
            self.transmit(message.from, &message.data);
        }
        self.events.extend(self.client.poll_event());
        for index in 0..self.sockets.len() {
            let (local, socket) = &mut self.sockets[index];
            let (local, Some(bytes)) = (*local, socket.receive()) else {
                continue;
            };
            let (transport, server) = (self.client.transport(), self.client.remote_addr());
            let now = self.now();
            let message = Transmit::new(bytes, transport, server, local);
            if let TurnRecvRet::PeerData(data) = self.client.recv(message, now) {
                self.heard.push_back((data.peer, data.data().to_vec()));
            }
        }
        while let Some(data) = self.client.poll_recv(self.now()) {
            self.heard.push_back((data.peer, data.data().to_vec()));
        }
    }

    #[track_caller]
    fn transmit(&mut self, from: SocketAddr, bytes: &[u8]) {
        let mut sockets = self.sockets.iter_mut();
        let (_, socket) = sockets.find(|(local, _)| *local == from).unwrap();
        socket.send(bytes);
    }

    fn now(&self) -> Instant {
        Instant::from_std(self.began)
    }
}

impl Socket {
    fn udp(server: SocketAddr) -> (SocketAddr, Self) {
        let socket = UdpSocket::bind((server.ip(), 0)).unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(LOOK)).unwrap();
        (socket.local_addr().unwrap(), Self::Udp(socket))
    }

    fn stream(server: SocketAddr, trust: &Trust) -> (SocketAddr, Self) {
        let mut stream = TcpStream::connect(server).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let local = stream.local_addr().unwrap();
        let socket = match trust {
            None => Self::Tcp(stream),
            Some(trust) => {
                let name = ServerName::from(server.ip());
                let mut tls = ClientConnection::new(Arc::clone(trust), name).unwrap();
                while tls.is_handshaking() {
                    tls.complete_io(&mut stream).unwrap();
                }
                Self::Tls(Box::new(StreamOwned::new(tls, stream)))
            }
        };
        let stream = match &socket {
            Self::Udp(_) => unreachable!("it is a stream"),
            Self::Tcp(stream) => stream,
            Self::Tls(tls) => &tls.sock,
        };
        stream.set_read_timeout(Some(LOOK)).unwrap();
        (local, socket)
    }

    fn send(&mut self, bytes: &[u8]) {
        match self {
            Self::Udp(socket) => assert_eq!(socket.send(bytes).unwrap(), bytes.len()),
            Self::Tcp(stream) => stream.write_all(bytes).unwrap(),
            Self::Tls(tls) => {
                tls.write_all(bytes).unwrap();
                tls.flush().unwrap();
            }
        }
    }

    /// What has come; nothing at the end of a stream.
    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut buffer = [0; 4096];
        let read = match self {
            Self::Udp(socket) => socket.recv(&mut buffer),
            Self::Tcp(stream) => stream.read(&mut buffer),
            Self::Tls(tls) => tls.read(&mut buffer),
        };
        match read {
            Ok(len) => Some(buffer[..len].to_vec()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }
}

fn trust(fleet: &Fleet) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(fleet.text("ca")).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

fn fleet() -> Fleet {
    Fleet::up(&["--shared-secret", SECRET, "--danger-allow-loopback-peers"])
}

/// A peer that sends back every datagram, until the test ends.
fn udp_echo(ip: &str) -> SocketAddr {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..len], from);
        }
    });
    address
}

/// A peer that sends back what comes on its first connection, and closes that when the other side does.
fn tcp_echo(ip: &str) -> (SocketAddr, std::thread::JoinHandle<u64>) {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let echo = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        std::io::copy(&mut &stream, &mut &stream).unwrap()
    });
    (address, echo)
}

#[test]
fn signs_with_sha256_by_every_transport() {
    let fleet = fleet();
    let peer = udp_echo("127.0.0.1");
    for transport in Transport::ALL {
        let mut client = Independent::new(&fleet, transport, |_| {}).allocated(1);
        client.permit(TransportType::Udp, peer);
        client.echoes(TransportType::Udp, peer, b"in an indication");
        client.bind(peer);
        client.echoes(TransportType::Udp, peer, b"on a channel");
        let now = client.now();
        client.client.delete(now).unwrap();
    }
}

#[test]
fn has_relayed_addresses_of_both_families() {
    let fleet = fleet();
    let peers = [udp_echo("127.0.0.1"), udp_echo("::1")];
    for transport in Transport::ALL {
        let mut client = Independent::new(&fleet, transport, |config| {
            config.add_address_family(AddressFamily::IPV6);
        })
        .allocated(2);
        let relayed: Vec<_> = client.client.relayed_addresses().collect();
        assert!(
            relayed.iter().any(|(_, address)| address.is_ipv4()),
            "{relayed:?}"
        );
        assert!(
            relayed.iter().any(|(_, address)| address.is_ipv6()),
            "{relayed:?}"
        );
        for peer in peers {
            client.permit(TransportType::Udp, peer);
            client.echoes(TransportType::Udp, peer, b"in an indication");
        }
        // Each family has channel numbers of its own there, and begins with the same one.
        client.bind(peers[0]);
        client.echoes(TransportType::Udp, peers[0], b"on a channel");
        client.echoes(TransportType::Udp, peers[1], b"in an indication");
    }
}

#[test]
fn connects_to_peers_over_tcp_and_tls() {
    let fleet = fleet();
    for (transport, ip) in [
        (Transport::Tcp, "127.0.0.1"),
        (Transport::Tls, "127.0.0.1"),
        (Transport::Tcp, "::1"),
        (Transport::Tls, "::1"),
    ] {
        let (peer, echo) = tcp_echo(ip);
        let mut client = Independent::new(&fleet, transport, |config| {
            config.set_allocation_transport(TransportType::Tcp);
            if peer.is_ipv6() {
                config.set_address_family(AddressFamily::IPV6);
            }
        })
        .allocated(1);
        client.permit(TransportType::Tcp, peer);
        client.connect(peer);
        client.echoes(TransportType::Tcp, peer, b"a line");
        let much: Vec<u8> = (0..=u8::MAX).cycle().take(60_000).collect();
        client.echoes(TransportType::Tcp, peer, &much);
        // The end of the data connection is passed on.
        client.sockets.truncate(1);
        assert_eq!(echo.join().unwrap(), 60_006);
    }
}
