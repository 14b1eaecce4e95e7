//! A path to the peer that is narrower than the client's: what is fragmented, what is dropped, and what the client hears of
//! it (RFC 8656 §3.7, §11.5, §13, §14).
//!
//! ```text
//!   relay --- world: the client, and a router --- link with an MTU of 1280 --- peer 11.90.0.2, 2a0b:90::2
//! ```

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant as Clock};

use socket2::SockRef;
use turnfleet_turn::client::{AllocateOptions, Client, Config, Event, Input};
use turnfleet_turn::wire::{Class, Icmp, MessageWriter, Method, TransactionId};
use turnfleet_turn::{AddressFamily, Instant, PeerAddr, Transport};

use crate::client::Credential;
use crate::netns::Namespace;
use crate::outpost::{Outpost, RELAY, SECRET, WORLD, address};

const MTU: u32 = 1280;
/// Too big for the path.
const PROBE: [u8; 1400] = [0xCD; 1400];
const PEER: [&str; 2] = ["11.90.0.2", "2a0b:90::2"];
const LIMIT: Duration = Duration::from_secs(20);
/// How long one look at a socket waits.
const LOOK: Duration = Duration::from_millis(100);

/// The peer's host behind the narrow link of the world.
fn behind_narrow_link(outpost: &Outpost) -> Namespace {
    let world = &outpost.world;
    let far = Namespace::new("farr");
    far.link(world, "card0", PEER[0], "11.90.0.1");
    far.ip6("card0", PEER[1]);
    world.ip6(&far.far_end("card0"), "2a0b:90::1");
    let mtu = MTU.to_string();
    far.ip(&["link", "set", "card0", "mtu", &mtu]);
    world.ip(&["link", "set", &far.far_end("card0"), "mtu", &mtu]);
    far.ip(&["route", "add", "default", "via", "11.90.0.1"]);
    far.ip(&["-6", "route", "add", "default", "via", "2a0b:90::1"]);
    world.forward();
    let forward6 = "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
    let mut command = world.command("/bin/sh");
    assert!(command.args(["-c", forward6]).status().unwrap().success());
    far
}

/// A client by UDP that is told of ICMP messages.
struct Prober {
    client: Client,
    socket: UdpSocket,
    began: Clock,
}

impl Prober {
    /// With an allocation of the family of its own address, and a permission for `peer`.
    #[track_caller]
    fn new(outpost: &Outpost, family: usize, peer: SocketAddr) -> Self {
        let socket = outpost.world.socket(address(WORLD[family]));
        socket.connect(outpost.server(RELAY[family])).unwrap();
        socket.set_read_timeout(Some(LOOK)).unwrap();
        let credential = Credential::synapse(SECRET, "@prober:example.org");
        let client = Client::new(Config {
            transport: Transport::Udp,
            username: credential.username,
            password: credential.password,
            password_algorithms: false,
            seed: [7; 32],
        });
        let mut prober = Self {
            client,
            socket,
            began: Clock::now(),
        };
        let options = AllocateOptions {
            family: Some(AddressFamily::of(peer.ip())),
            dont_fragment: true,
            ..AllocateOptions::default()
        };
        prober.client.allocate(prober.now(), options).unwrap();
        prober.until(|event| matches!(event, Event::Allocated(_)).then_some(()));
        let peers = [PeerAddr(peer)];
        prober
            .client
            .create_permission(prober.now(), &peers)
            .unwrap();
        prober.until(|event| matches!(event, Event::PermissionCreated { .. }).then_some(()));
        prober
    }

    fn now(&self) -> Instant {
        Instant::default().after(self.began.elapsed())
    }

    /// What `pick` finds among the events that come soon.
    fn look<T>(&mut self, pick: impl Fn(Event) -> Option<T>) -> Option<T> {
        let mut message = Vec::new();
        while self.client.poll_transmit(&mut message) {
            self.socket.send(&message).unwrap();
            message.clear();
        }
        let mut buffer = [0; 2048];
        if let Ok(len) = self.socket.recv(&mut buffer) {
            let input = self.client.handle_input(self.now(), &buffer[..len]);
            assert!(!matches!(input, Input::Data { .. }), "nobody sends data");
        }
        self.client.handle_timeout(self.now());
        std::iter::from_fn(|| self.client.poll_event()).find_map(pick)
    }

    #[track_caller]
    fn until<T>(&mut self, pick: impl Fn(Event) -> Option<T>) -> T {
        let began = Clock::now();
        while began.elapsed() < LIMIT {
            if let Some(found) = self.look(&pick) {
                return found;
            }
        }
        panic!("not within {LIMIT:?}")
    }

    fn send(&self, peer: SocketAddr, data: &[u8], dont_fragment: bool) {
        let mut message = Vec::new();
        let id = TransactionId([data.len().to_le_bytes()[0]; 12]);
        let mut writer = MessageWriter::new(&mut message, Class::Indication, Method::Send, id);
        writer.xor_peer_address(PeerAddr(peer));
        if dont_fragment {
            writer.dont_fragment();
        }
        writer.data(data);
        writer.finish();
        self.socket.send(&message).unwrap();
    }

    /// Sends until the network says something about `peer`: routers say it once a second at most.
    #[track_caller]
    fn told(&mut self, peer: SocketAddr, data: &[u8], dont_fragment: bool) -> Icmp {
        let began = Clock::now();
        while began.elapsed() < LIMIT {
            self.send(peer, data, dont_fragment);
            let told = self.look(|event| {
                if let Event::PeerError { peer, icmp } = event {
                    Some((peer.0, icmp))
                } else {
                    None
                }
            });
            if let Some((about, icmp)) = told {
                // Of its own link's limit the system does not say for which port.
                assert!(about == peer || about == SocketAddr::new(peer.ip(), 0));
                return icmp;
            }
        }
        panic!("nothing was told within {LIMIT:?}")
    }
}

#[track_caller]
fn peer_on(far: &Namespace, family: usize) -> (UdpSocket, SocketAddr) {
    let socket = far.socket(address(PEER[family]));
    socket.set_read_timeout(Some(LOOK)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Sends `data` until the peer has it, behind what was sent before; no probe is among that.
#[track_caller]
fn assert_arrives(prober: &Prober, peer: &UdpSocket, data: &[u8], dont_fragment: bool) {
    let to = peer.local_addr().unwrap();
    let mut buffer = [0; 4096];
    let began = Clock::now();
    while began.elapsed() < LIMIT {
        prober.send(to, data, dont_fragment);
        while let Ok(len) = peer.recv(&mut buffer) {
            assert_ne!(&buffer[..len], PROBE, "nobody may fragment a probe");
            if &buffer[..len] == data {
                return;
            }
        }
    }
    panic!("nothing arrived within {LIMIT:?}")
}

#[test]
fn a_probe_of_the_paths_mtu_is_dropped_and_told_and_other_data_is_fragmented() {
    let Some(outpost) = Outpost::new(&[]) else {
        return;
    };
    let far = behind_narrow_link(&outpost);

    // IPv4: what is too big for the path goes in pieces, but for a probe.
    let (peer, to) = peer_on(&far, 0);
    let mut prober = Prober::new(&outpost, 0, to);
    let too_big = [0xAB; 1400];
    assert_arrives(&prober, &peer, &too_big, false);
    let told = prober.told(to, &PROBE, true);
    assert_eq!(told, Icmp::too_big(AddressFamily::V4, MTU));
    // Nothing of the probes has arrived, and what comes after them is fragmented as before.
    assert_arrives(&prober, &peer, &too_big, false);
    assert_arrives(&prober, &peer, &[0xEF; 1000], true);
    // And what is too big for the relay's own link is told, too.
    let told = prober.told(to, &[0xCD; 1490], true);
    assert_eq!(told, Icmp::too_big(AddressFamily::V4, 1500));

    // IPv6: the first one is dropped by the router, which says so; then the relay's system fragments.
    let (peer, to) = peer_on(&far, 1);
    let mut prober = Prober::new(&outpost, 1, to);
    let told = prober.told(to, &too_big, false);
    assert_eq!(told, Icmp::too_big(AddressFamily::V6, MTU));
    assert_arrives(&prober, &peer, &too_big, false);
}

#[test]
fn data_whose_ttl_ends_behind_the_relay_is_told_as_time_exceeded() {
    let Some(outpost) = Outpost::new(&[]) else {
        return;
    };
    let far = behind_narrow_link(&outpost);
    for (family, time_exceeded) in [(0, 11), (1, 3)] {
        let (peer, to) = peer_on(&far, family);
        let mut prober = Prober::new(&outpost, family, to);
        // One hop is the relay, the next one the router between it and the peer.
        let set_ttl = |prober: &Prober, ttl: u32| {
            let socket = SockRef::from(&prober.socket);
            let set = if family == 0 {
                socket.set_ttl_v4(ttl)
            } else {
                socket.set_unicast_hops_v6(ttl)
            };
            set.unwrap();
        };
        set_ttl(&prober, 2);
        let told = prober.told(to, b"too far", false);
        let (kind, code, data) = (time_exceeded, 0, 0);
        assert_eq!(told, Icmp { kind, code, data });
        set_ttl(&prober, 3);
        assert_arrives(&prober, &peer, b"near enough", false);
    }
}
