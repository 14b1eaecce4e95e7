//! Two relays, each with two network cards and a 1:1 NAT address on one of them: answers come from the address that was
//! asked, and peers see the relayed address that the client was told.
//!
//! ```text
//!  relay k  card0 10.20.k.2 --+
//!                             +-- router --- client 11.40.0.2
//!           card1 11.30.k.2 --+      |   \-- peer   11.50.0.2
//!                                    +-- 1:1 NAT: 11.60.0.k <-> 10.20.k.2
//! ```

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant as Clock};

use turnfleet_turn::client::{AllocateOptions, Client, Config, Event, Input};
use turnfleet_turn::{ClientHeader, Instant, PeerAddr, Span, Transport};

use crate::fleet::Fleet;
use crate::netns::{self, Namespace};
use crate::tools;

const SECRET: &str = "north-by-northwest";
const LIMIT: Duration = Duration::from_secs(10);

/// The namespaces; the fleets end before them.
struct World {
    relays: Vec<(Fleet, u8)>,
    client: Namespace,
    peer: Namespace,
    _hosts: Vec<Namespace>,
}

impl World {
    fn new() -> Self {
        let router = Namespace::new("core");
        router.forward();
        let client = Namespace::new("call");
        client.link(&router, "card0", "11.40.0.2", "11.40.0.1");
        client.ip(&["route", "add", "default", "via", "11.40.0.1"]);
        let peer = Namespace::new("peer");
        peer.link(&router, "card0", "11.50.0.2", "11.50.0.1");
        peer.ip(&["route", "add", "default", "via", "11.50.0.1"]);
        let hosts: Vec<Namespace> = [1, 2].into_iter().map(|k| relay_host(k, &router)).collect();
        router.nft(
            "table ip nat {
                chain in { type nat hook prerouting priority dstnat;
                    ip daddr 11.60.0.1 dnat to 10.20.1.2; ip daddr 11.60.0.2 dnat to 10.20.2.2; }
                chain out { type nat hook postrouting priority srcnat;
                    ip saddr 10.20.1.2 snat to 11.60.0.1; ip saddr 10.20.2.2 snat to 11.60.0.2; }
            }",
        );
        let relays = std::thread::scope(|scope| {
            let started: Vec<_> = hosts
                .iter()
                .zip(1_u8..)
                .map(|(host, k)| scope.spawn(move || (relay_on(host, k), k)))
                .collect();
            started
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        let mut hosts = hosts;
        hosts.push(router);
        Self {
            relays,
            client,
            peer,
            _hosts: hosts,
        }
    }
}

/// A host with two cards, whose answers leave by the card that they belong to.
fn relay_host(k: u8, router: &Namespace) -> Namespace {
    let host = Namespace::new(&format!("rel{k}"));
    host.link(
        router,
        "card0",
        &format!("10.20.{k}.2"),
        &format!("10.20.{k}.1"),
    );
    host.link(
        router,
        "card1",
        &format!("11.30.{k}.2"),
        &format!("11.30.{k}.1"),
    );
    host.ip(&["route", "add", "default", "via", &format!("10.20.{k}.1")]);
    host.ip(&["rule", "add", "from", &format!("11.30.{k}.2"), "table", "2"]);
    host.ip(&[
        "route",
        "add",
        "default",
        "via",
        &format!("11.30.{k}.1"),
        "table",
        "2",
    ]);
    host
}

fn relay_on(host: &Namespace, k: u8) -> Fleet {
    let (behind_nat, direct) = (format!("10.20.{k}.2"), format!("11.30.{k}.2"));
    let mapping = format!("11.60.0.{k}/{behind_nat}");
    Fleet::up_by(
        host.command(env!("CARGO_BIN_EXE_turnfleet")),
        &[
            &["--relays", "1", "--shared-secret", SECRET][..],
            &["--listen-ip", &behind_nat, "--listen-ip", &direct],
            &[
                "--public-ip",
                &mapping,
                "--public-ip",
                &format!("{direct}/{direct}"),
            ],
        ]
        .concat(),
    )
}

/// A client in the client's namespace, and the socket that it speaks through.
struct Caller {
    client: Client,
    socket: UdpSocket,
    server: SocketAddr,
    began: Clock,
    relayed: SocketAddr,
}

impl Caller {
    /// Allocates on `server`; the answers must come from the very address that was asked.
    #[track_caller]
    fn new(world: &World, server: SocketAddr) -> Self {
        let socket = world.client.socket(IpAddr::from([11, 40, 0, 2]));
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let secret = turnfleet_proto::credentials::SharedSecret::new(SECRET);
        let credential = turnfleet_proto::credentials::mint(&secret, "caller", now + 600);
        let client = Client::new(Config {
            transport: Transport::Udp,
            username: credential.username,
            password: credential.password,
            seed: [server.port().to_be_bytes()[1]; 32],
        });
        let relayed = server;
        let mut caller = Self {
            client,
            socket,
            server,
            began: Clock::now(),
            relayed,
        };
        caller
            .client
            .allocate(caller.now(), AllocateOptions::default())
            .unwrap();
        let Event::Allocated(allocated) = caller.event() else {
            panic!("no allocation")
        };
        caller.relayed = allocated.relayed;
        assert_eq!(allocated.mapped, caller.socket.local_addr().unwrap());
        caller
    }

    #[track_caller]
    fn bind(&mut self, peer: SocketAddr) {
        self.client
            .bind_channel(self.now(), PeerAddr(peer))
            .unwrap();
        let event = self.event();
        assert!(matches!(event, Event::ChannelBound { .. }), "{event:?}");
    }

    #[track_caller]
    fn send(&mut self, peer: SocketAddr, words: &str) {
        let mut buffer = [0; 256];
        let payload = Span {
            start: ClientHeader::MAX_LEN,
            len: words.len(),
        };
        buffer[payload.range()].copy_from_slice(words.as_bytes());
        let number = self.client.channel_to(PeerAddr(peer)).unwrap();
        let span = self
            .client
            .write_channel_data(number, &mut buffer, payload)
            .unwrap();
        self.socket
            .send_to(&buffer[span.range()], self.server)
            .unwrap();
    }

    /// The next words that a peer sent, and who it was.
    #[track_caller]
    fn hear(&mut self) -> (SocketAddr, String) {
        tools::eventually("data from a peer", LIMIT, || self.turn())
    }

    #[track_caller]
    fn event(&mut self) -> Event {
        tools::eventually("an answer from the relay", LIMIT, || {
            self.turn();
            self.client.poll_event()
        })
    }

    /// Sends what waits, and takes in one datagram.
    fn turn(&mut self) -> Option<(SocketAddr, String)> {
        self.client.handle_timeout(self.now());
        let mut message = Vec::new();
        while self.client.poll_transmit(&mut message) {
            self.socket.send_to(&message, self.server).unwrap();
            message.clear();
        }
        let mut buffer = [0; 2048];
        let (len, from) = self.socket.recv_from(&mut buffer).ok()?;
        assert_eq!(
            from, self.server,
            "an answer came from another address than the one that was asked"
        );
        match self.client.handle_input(self.now(), &buffer[..len]) {
            Input::Data { peer, payload, .. } => {
                Some((peer.0, String::from_utf8_lossy(payload).into_owned()))
            }
            Input::Response | Input::Ignored => None,
        }
    }

    fn now(&self) -> Instant {
        Instant(u64::try_from(self.began.elapsed().as_nanos()).unwrap())
    }
}

#[test]
fn every_card_and_nat_address_is_the_one_that_clients_and_peers_see() {
    if !tools::present(&netns::PROGRAMS) || !tools::is_root() {
        return;
    }
    let world = World::new();
    let mut callers = Vec::new();
    for (fleet, k) in &world.relays {
        let port = fleet.relays()[0].udp.port();
        for ip in [[11, 60, 0, *k], [11, 30, *k, 2]] {
            let ip = IpAddr::from(ip);
            let caller = Caller::new(&world, SocketAddr::new(ip, port));
            assert_eq!(
                caller.relayed.ip(),
                ip,
                "the relayed address that the client was told"
            );
            callers.push(caller);
        }
    }

    let peer = world.peer.socket(IpAddr::from([11, 50, 0, 2]));
    peer.set_read_timeout(Some(LIMIT)).unwrap();
    let peer_address = peer.local_addr().unwrap();
    for caller in &mut callers {
        caller.bind(peer_address);
        caller.send(peer_address, "to the peer");
        let mut buffer = [0; 64];
        let (len, from) = peer.recv_from(&mut buffer).unwrap();
        assert_eq!(
            (&buffer[..len], from),
            (&b"to the peer"[..], caller.relayed)
        );
        peer.send_to(b"to the client", caller.relayed).unwrap();
        assert_eq!(caller.hear(), (peer_address, "to the client".to_owned()));
    }

    // From the NAT address of the first relay to that of the second, then between two addresses of one relay.
    for (one, other) in [(0, 2), (0, 1), (1, 3)] {
        let (a, b) = (callers[one].relayed, callers[other].relayed);
        callers[one].bind(b);
        callers[other].bind(a);
        callers[one].send(b, "relay to relay");
        assert_eq!(callers[other].hear(), (a, "relay to relay".to_owned()));
        callers[other].send(a, "and back");
        assert_eq!(callers[one].hear(), (b, "and back".to_owned()));
    }
}
