//! Two relays, each with two network cards and a 1:1 NAT address on one of them: answers come from the address that was
//! asked, and peers see the relayed address that the client was told.
//!
//! ```text
//!  relay k  card0 10.20.k.2 --+
//!                             +-- router --- client 11.40.0.2
//!           card1 11.30.k.2 --+      |   \-- peer   11.50.0.2
//!                                    +-- 1:1 NAT: 11.60.0.k <-> 10.20.k.2
//! ```

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use turnfleet_turn::client::AllocateOptions;

use crate::client::{Caller, Credential};
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

/// Allocates on `server` from the client's namespace, and is told of relayed addresses of that server. Answers must come
/// from the very address that was asked.
#[track_caller]
fn call(world: &World, server: SocketAddr) -> (Caller, SocketAddr) {
    let credential = Credential::synapse(SECRET, "@caller:example.org");
    let stream = world.client.inside(|| TcpStream::connect(server).unwrap());
    let mapped = stream.local_addr().unwrap();
    assert_allocates(&mut Caller::tcp(stream, &credential), server, mapped);

    let socket = world.client.socket(IpAddr::from([11, 40, 0, 2]));
    let mapped = socket.local_addr().unwrap();
    let mut caller = Caller::udp(socket, server, &credential);
    let relayed = assert_allocates(&mut caller, server, mapped);
    (caller, relayed)
}

#[track_caller]
fn assert_allocates(caller: &mut Caller, server: SocketAddr, mapped: SocketAddr) -> SocketAddr {
    let allocated = caller.allocate(AllocateOptions::default()).unwrap();
    assert_eq!(allocated.relayed.ip(), server.ip());
    assert_eq!(allocated.mapped, mapped);
    allocated.relayed
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
            callers.push(call(&world, SocketAddr::new(ip, port)));
        }
    }

    let peer = world.peer.socket(IpAddr::from([11, 50, 0, 2]));
    peer.set_read_timeout(Some(LIMIT)).unwrap();
    let peer_address = peer.local_addr().unwrap();
    for (caller, relayed) in &mut callers {
        caller.permit(peer_address).unwrap();
        for words in ["by indication", "by channel"] {
            caller.send(peer_address, words);
            let mut buffer = [0; 64];
            let (len, from) = peer.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..len], from), (words.as_bytes(), *relayed));
            peer.send_to(b"to the client", *relayed).unwrap();
            assert_eq!(caller.hear(), (peer_address, "to the client".to_owned()));
            caller.bind(peer_address).unwrap();
        }
    }

    // From the NAT address of the first relay to that of the second, then between two addresses of one relay.
    for (one, other) in [(0, 2), (0, 1), (1, 3)] {
        let (a, b) = (callers[one].1, callers[other].1);
        callers[one].0.bind(b).unwrap();
        callers[other].0.bind(a).unwrap();
        callers[one].0.send(b, "relay to relay");
        assert_eq!(callers[other].0.hear(), (a, "relay to relay".to_owned()));
        callers[other].0.send(a, "and back");
        assert_eq!(callers[one].0.hear(), (b, "and back".to_owned()));
    }
}
