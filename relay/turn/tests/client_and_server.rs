//! The two ends of the wire against each other in simulated time, over a lossy path and over a stream.
//!
//! What the client keeps alive must be alive at the server: the peer echoes, and every echo is waited for.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use turnfleet_turn::client::{self, AllocateOptions, Client, Event, Input};
use turnfleet_turn::ledger::{GrantedPorts, Ledger};
use turnfleet_turn::peer_filter::{PeerFilter, PeerRules};
use turnfleet_turn::policy::{Config, Policy, RelayedHost};
use turnfleet_turn::wire::{ChannelNumber, Frame, LongTermKey, MAX_FRAME_LEN, deframe};
use turnfleet_turn::{
    Candidate, Candidates, ClientHeader, Command, Context, Decision, FiveTuple, Identity, Instant,
    IpMeta, KeySource, Now, PeerAddr, RelayedId, Server, ShardId, Span, TenantId, Transport,
};

const REALM: &str = "example.org";

const RELAYED_IP: &str = "198.51.100.1";

const PEER: &str = "9.9.9.9:9";

struct OneUser;

impl KeySource for OneUser {
    fn candidates(&self, identity: Identity<'_>, _now: Now, out: &mut Candidates) {
        if identity.username == "user" {
            out.push(Candidate {
                key: LongTermKey::derive_with(out.algorithm(), "user", REALM, "pass"),
                user: None,
                tenant: TenantId::DEFAULT,
                home: TenantId::DEFAULT,
                expires_at: None,
                key_id: 0,
            });
        }
    }
}

/// A client, its server, a peer that echoes, and the clock that they share.
struct Pair {
    client: Client,
    server: Server,
    five_tuple: FiveTuple,
    now: Now,
    sockets: Vec<(RelayedId, SocketAddr)>,
    /// Of a hundred packets between client and server, this many are lost.
    loss: u64,
    random: u64,
    echoes: usize,
}

impl Pair {
    fn new(transport: Transport, loss: u64) -> Self {
        let five_tuple = FiveTuple {
            transport,
            client: "192.0.2.1:5000".parse().expect("an address"),
            server: "198.51.100.1:3478".parse().expect("an address"),
        };
        Self {
            client: Client::new(client::Config {
                transport,
                username: "user".into(),
                password: "pass".into(),
                password_algorithms: true,
                seed: [1; 32],
            }),
            server: server(),
            five_tuple,
            now: Now {
                instant: Instant(1_000_000_000_000),
                unix: 1_800_000_000,
            },
            sockets: Vec::new(),
            loss,
            random: 1,
            echoes: 0,
        }
    }

    /// Lets time pass, and everything happen that is due in it.
    fn run(&mut self, duration: Duration) {
        let end = self.now.instant.after(duration);
        loop {
            self.exchange();
            let client = self.client.poll_timeout();
            let server = self.server.poll_timeout();
            let Some(due) = client.into_iter().chain(server).min() else {
                break;
            };
            if due > end {
                break;
            }
            self.set_time(due);
            self.client.handle_timeout(due);
            self.server.handle_timeout(self.now);
        }
        self.set_time(end);
    }

    fn set_time(&mut self, to: Instant) {
        assert!(to >= self.now.instant, "time goes backwards");
        let whole_seconds = |instant: Instant| instant.since(Instant(0)).as_secs();
        self.now.unix += whole_seconds(to) - whole_seconds(self.now.instant);
        self.now.instant = to;
    }

    fn exchange(&mut self) {
        self.carry_out();
        let mut request = Vec::new();
        while self.client.poll_transmit(&mut request) {
            self.send_to_server(&request);
            request.clear();
        }
    }

    fn send_to_server(&mut self, packet: &[u8]) {
        if self.is_lost() {
            return;
        }
        if self.five_tuple.transport.is_stream() {
            let Frame::Message { len, total } = deframe(packet, MAX_FRAME_LEN) else {
                panic!("no whole message: {packet:02x?}");
            };
            assert_eq!(total, packet.len());
            self.handle_at_server(&packet[..len]);
        } else {
            self.handle_at_server(packet);
        }
    }

    fn handle_at_server(&mut self, packet: &[u8]) {
        let context = Context::new(&OneUser);
        let mut reply = Vec::new();
        let decision = self.server.handle_client(
            self.now,
            self.five_tuple,
            IpMeta::default(),
            packet,
            &context,
            &mut reply,
        );
        self.carry_out();
        match decision {
            Decision::Reply => self.send_to_client(&reply),
            Decision::ToPeer {
                via, to, payload, ..
            } => self.echo(via, to, &packet[payload.range()]),
            Decision::Drop(_)
            | Decision::Pending
            | Decision::ToClient { .. }
            | Decision::Splice { .. }
            | Decision::ToShard { .. } => {}
        }
    }

    fn carry_out(&mut self) {
        while let Some(command) = self.server.poll_command() {
            match command {
                Command::OpenRelayed { id, local } => {
                    self.sockets.push((id, local));
                    self.server.handle_relayed_opened(self.now, id, Ok(local));
                }
                Command::CloseRelayed { id } => self.sockets.retain(|(open, _)| *open != id),
                Command::Send { message, .. } => self.send_to_client(&message),
                Command::ClaimReserved { .. } => panic!("nothing was reserved"),
                // The client leaves its stream open.
                Command::KeepStream { .. } | Command::ReleaseStream { .. } => {}
                Command::ListenRelayed { .. }
                | Command::ConnectPeer { .. }
                | Command::CloseConnection { .. } => panic!("TCP is not relayed here"),
            }
        }
    }

    fn echo(&mut self, on: RelayedId, from: PeerAddr, payload: &[u8]) {
        let ip = IpMeta::default();
        let decision = self
            .server
            .handle_peer(self.now, on, from, ip, payload.len());
        let Decision::ToClient { header, .. } = decision else {
            panic!("the echo is not relayed: {decision:?}");
        };
        let (mut buffer, span) = with_room(payload);
        let message = header.write(&mut buffer, span).expect("there is room");
        self.send_to_client(&buffer[message.range()]);
    }

    fn send_to_client(&mut self, packet: &[u8]) {
        if self.is_lost() {
            return;
        }
        match self.client.handle_input(self.now.instant, packet) {
            Input::Data { peer, payload, .. } => {
                assert_eq!((peer, payload), (peer_address(), &b"hello"[..]));
                self.echoes += 1;
            }
            Input::Response | Input::Ignored => {}
        }
    }

    fn is_lost(&mut self) -> bool {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        !self.five_tuple.transport.is_stream() && (self.random >> 33) % 100 < self.loss
    }

    #[track_caller]
    fn assert_no_failure(&mut self) {
        while let Some(event) = self.client.poll_event() {
            assert!(!matches!(event, Event::Failed { .. }), "{event:?}");
        }
    }

    fn send_by_channel(&mut self, number: ChannelNumber) {
        let (mut buffer, span) = with_room(b"hello");
        let message = self.client.write_channel_data(number, &mut buffer, span);
        let message = message.expect("there is room");
        self.send_to_server(&buffer[message.range()]);
    }

    fn send_by_indication(&mut self) {
        let (mut buffer, span) = with_room(b"hello");
        let peer = peer_address();
        let message = self.client.write_send_indication(peer, &mut buffer, span);
        let message = message.expect("there is room");
        self.send_to_server(&buffer[message.range()]);
    }
}

fn peer_address() -> PeerAddr {
    PeerAddr(PEER.parse().expect("an address"))
}

fn with_room(payload: &[u8]) -> (Vec<u8>, Span) {
    let span = Span {
        start: ClientHeader::MAX_LEN,
        len: payload.len(),
    };
    let mut buffer = vec![0; span.start];
    buffer.extend_from_slice(payload);
    buffer.resize(buffer.len() + ClientHeader::MAX_PADDING, 0);
    (buffer, span)
}

fn server() -> Server {
    let ip: IpAddr = RELAYED_IP.parse().expect("an address");
    let ledger = Arc::new(Ledger::new([2; 32]));
    ledger.set_granted(&[GrantedPorts {
        public: ip,
        first: 50_000,
        last: 50_009,
    }]);
    let config = Config {
        shard: ShardId(0),
        shards: 1,
        relayed_hosts: vec![RelayedHost {
            local: ip,
            public: ip,
        }],
        rfc5766_channel_numbers: false,
        dont_fragment: true,
        trusted_sources: Vec::new(),
    };
    let policy = Policy {
        nonce_lifetime: Duration::from_secs(600),
        ..Policy::new(REALM, [1; 32], PeerFilter::new(PeerRules::default()))
    };
    Server::new(config, Arc::new(policy), ledger, [3; 32])
}

/// Two hours with an echo every ten seconds, by channel and by indication in turns: how many came back.
fn echoes_in_two_hours(transport: Transport, loss: u64) -> (Pair, usize) {
    let mut pair = Pair::new(transport, loss);
    let now = pair.now.instant;
    let options = AllocateOptions {
        lifetime: Some(600),
        ..AllocateOptions::default()
    };
    assert_eq!(pair.client.allocate(now, options), Ok(()));
    pair.run(Duration::from_secs(60));
    assert!(pair.client.allocation().is_some(), "no allocation");
    let now = pair.now.instant;
    let number = pair.client.bind_channel(now, peer_address());
    let number = number.expect("there are channel numbers");
    assert_eq!(
        pair.client.create_permission(now, &[peer_address()]),
        Ok(())
    );
    pair.run(Duration::from_secs(60));
    assert_eq!(pair.client.channel_to(peer_address()), Some(number));

    for round in 0..720 {
        if round % 2 == 0 {
            pair.send_by_channel(number);
        } else {
            pair.send_by_indication();
        }
        pair.run(Duration::from_secs(10));
    }
    pair.assert_no_failure();
    assert_eq!(pair.sockets.len(), 1);
    let echoes = pair.echoes;
    (pair, echoes)
}

#[test]
fn an_allocation_lives_for_hours_without_a_lost_echo() {
    for transport in Transport::ALL {
        let (mut pair, echoes) = echoes_in_two_hours(transport, 0);
        assert_eq!(echoes, 720, "{transport}");

        let now = pair.now.instant;
        assert_eq!(pair.client.refresh(now, 0), Ok(()));
        pair.run(Duration::from_secs(1));
        assert_eq!(pair.client.allocation(), None);
        assert!(pair.sockets.is_empty(), "{transport}");
    }
}

#[test]
fn an_allocation_lives_for_hours_on_a_path_that_loses_a_fifth() {
    let (_, echoes) = echoes_in_two_hours(Transport::Udp, 20);
    // 64 of a hundred get through twice; a gap in allocation, permission or channel would cost far more.
    assert!((400..=520).contains(&echoes), "{echoes} of 720");
}

#[test]
fn an_abandoned_allocation_is_closed_when_it_expires() {
    let mut pair = Pair::new(Transport::Udp, 0);
    let now = pair.now.instant;
    assert_eq!(
        pair.client.allocate(now, AllocateOptions::default()),
        Ok(())
    );
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.sockets.len(), 1);
    pair.loss = 100;
    pair.run(Duration::from_secs(2 * 3600));
    assert!(pair.sockets.is_empty());
    assert_eq!(pair.client.allocation(), None);
}
