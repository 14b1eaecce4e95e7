//! Which peers a relay on a public address serves: no form of an address that leads inside, by no request, and nothing
//! leaves the relayed sockets for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use turnfleet_turn::AddressFamily;
use turnfleet_turn::client::AllocateOptions;
use turnfleet_turn::wire::ErrorCode;

use crate::client::{Caller, Credential};
use crate::outpost::{NAT_LOCAL, NAT_PUBLIC, Outpost, RELAY, SECRET, WORLD, address};

/// What no operator can open.
const CLOSED: [&str; 27] = [
    // The machine itself.
    "127.0.0.1",
    "127.0.0.2",
    "127.255.255.254",
    "0.0.0.0",
    "0.1.2.3",
    "::1",
    "::",
    // Metadata services and the link.
    "169.254.169.254",
    "169.254.170.2",
    "169.254.0.1",
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "febf::1",
    "fec0::1",
    // Everybody.
    "224.0.0.1",
    "239.255.255.250",
    "255.255.255.255",
    "ff02::1",
    "ff0e::101",
    // Tunnels to anywhere.
    "2001::1",
    "2001:0:b46:1:0:0:f4b9:fffe",
    "2002:7f00:1::1",
    "2002:b46:1::1",
];

/// What is closed until an operator opens it.
const PRIVATE: [&str; 26] = [
    "10.0.0.1",
    "10.255.255.254",
    "172.16.0.1",
    "172.31.255.254",
    "192.168.0.1",
    "192.168.255.254",
    "100.64.0.1",
    "100.127.255.254",
    "198.18.0.1",
    "198.19.255.254",
    "192.0.0.1",
    "192.0.2.1",
    "198.51.100.1",
    "203.0.113.1",
    "192.88.99.1",
    "240.0.0.1",
    "255.255.255.254",
    "fc00::1",
    "fdff::1",
    "100::1",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
];

/// IPv4 addresses that IPv6 ones may hold: of the machine, of its network, and ordinary ones.
const HELD: [&str; 5] = [
    "127.0.0.1",
    "10.0.0.1",
    "169.254.169.254",
    RELAY[0],
    WORLD[0],
];

/// Every IPv6 address that stands for an IPv4 one.
fn disguised(ip: &str) -> [IpAddr; 10] {
    let [a, b, c, d] = ip.parse::<Ipv4Addr>().unwrap().octets();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    [
        [0, 0, 0, 0, 0, 0xffff, high, low],
        [0, 0, 0, 0, 0, 0, high, low],
        [0, 0, 0, 0, 0xffff, 0, high, low],
        [0x64, 0xff9b, 0, 0, 0, 0, high, low],
        [0x64, 0xff9b, 1, 0, 0, 0, high, low],
        [0x64, 0xff9b, 1, high, low >> 8, low << 8, 0, 0],
        [0x2a0b, 0x70, 0, 0, 0, 0x5efe, high, low],
        [0x2a0b, 0x70, 0, 0, 0x200, 0x5efe, high, low],
        [0x2001, 0, 0, 0, 0, 0, !high, !low],
        [0x2002, high, low, 0, 0, 0, 0, 1],
    ]
    .map(|segments| IpAddr::V6(Ipv6Addr::from(segments)))
}

/// A client with a relayed address of either family, and a count of what leaves them.
struct Attacker<'o> {
    outpost: &'o Outpost,
    caller: Caller,
}

impl<'o> Attacker<'o> {
    #[track_caller]
    fn new(outpost: &'o Outpost) -> Self {
        let socket = outpost.world.socket(address(WORLD[0]));
        let credential = Credential::synapse(SECRET, "@mallory:example.org");
        let mut caller = Caller::udp(socket, outpost.server(RELAY[0]), &credential);
        let both = AllocateOptions {
            additional_family: Some(AddressFamily::V6),
            ..AllocateOptions::default()
        };
        let allocated = caller.allocate(both).unwrap();
        let ports = (
            allocated.relayed.port(),
            allocated.additional.unwrap().port(),
        );
        outpost.host.nft(&format!(
            "table inet watch {{ chain leaving {{ type filter hook output priority 0;
                udp sport {{ {}, {} }} counter; }}; }}",
            ports.0, ports.1
        ));
        Self { outpost, caller }
    }

    /// Datagrams that have left the relayed addresses for anywhere, the machine's own loopback included.
    fn left(&self) -> u64 {
        let rules = self.outpost.host.nft("list table inet watch");
        let count = rules.split("counter packets ").nth(1).unwrap();
        count.split(' ').next().unwrap().parse().unwrap()
    }

    /// No permission, no channel, and no datagram to `peer`.
    #[track_caller]
    fn is_refused(&mut self, peer: SocketAddr) {
        let refused = Err(ErrorCode::FORBIDDEN);
        assert_eq!(self.caller.permit(peer), refused, "a permission for {peer}");
        assert_eq!(self.caller.bind(peer), refused, "a channel to {peer}");
        self.caller.send(peer, "to the inside");
    }

    /// A peer in the world at `ip`: data gets there and back by both framings. What was sent before has been dealt with.
    #[track_caller]
    fn reaches(&mut self, ip: &str) {
        let peer = self.outpost.world.socket(address(ip));
        let place = peer.local_addr().unwrap();
        self.caller.permit(place).unwrap();
        self.echo(&peer);
        self.caller.bind(place).unwrap();
        self.echo(&peer);
    }

    #[track_caller]
    fn echo(&mut self, peer: &UdpSocket) {
        peer.set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let place = peer.local_addr().unwrap();
        self.caller.send(place, "to the outside");
        let mut buffer = [0; 64];
        let (len, relayed) = peer.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"to the outside");
        peer.send_to(b"and back", relayed).unwrap();
        assert_eq!(self.caller.hear(), (place, "and back".to_owned()));
    }
}

/// Every closed address, with ports that something might listen on.
fn closed(outpost: &Outpost) -> Vec<SocketAddr> {
    let ports = outpost.fleet.ports();
    let plain = CLOSED.into_iter().map(address);
    let held = HELD.into_iter().flat_map(disguised);
    plain
        .chain(held)
        .zip(ports.into_iter().cycle())
        .map(|(ip, port)| SocketAddr::new(ip, port))
        .collect()
}

#[test]
fn no_form_of_an_inner_address_is_a_peer_unless_an_operator_says_so() {
    let Some(outpost) = Outpost::new(&[]) else {
        return;
    };
    let mut attacker = Attacker::new(&outpost);
    let private = PRIVATE.into_iter().map(address);
    let private = private.map(|ip| SocketAddr::new(ip, 4000));
    for peer in closed(&outpost).into_iter().chain(private) {
        attacker.is_refused(peer);
    }
    for ip in WORLD {
        attacker.reaches(ip);
    }
    assert_eq!(attacker.left(), 4, "what went to the two good peers");
}

#[test]
fn an_operator_opens_private_addresses_and_never_those_of_the_machine() {
    let Some(outpost) = Outpost::new(&["--allow-peer", "0.0.0.0/0", "--allow-peer", "::/0"]) else {
        return;
    };
    let card = outpost.host.far_end("card0");
    let private = ["10.99.0.1", "fd99::1"];
    outpost
        .world
        .ip(&["addr", "add", "10.99.0.1/32", "dev", &card]);
    outpost.world.ip6(&card, private[1]);
    let mut attacker = Attacker::new(&outpost);
    for peer in closed(&outpost) {
        attacker.is_refused(peer);
    }
    for ip in private {
        attacker.reaches(ip);
    }
    assert_eq!(attacker.left(), 4, "what went to the two private peers");
}

#[test]
fn the_log_names_the_entry_that_lets_a_refused_peer_through_and_no_other() {
    let private = ["10.99.0.1", "10.99.0.2"];
    let Some(outpost) = Outpost::new(&[]) else {
        return;
    };
    let peer = SocketAddr::new(address(private[0]), 4000);
    Attacker::new(&outpost).is_refused(peer);
    let log = outpost.fleet.log();
    let entry = log
        .split("allow=")
        .nth(1)
        .unwrap_or_else(|| panic!("{log}"));
    let entry = entry.split_whitespace().next().unwrap();
    assert_eq!(entry, "10.99.0.1/32");

    let opened = Outpost::new(&["--allow-peer", entry]).unwrap();
    let card = opened.host.far_end("card0");
    let block = format!("{}/32", private[0]);
    opened.world.ip(&["addr", "add", &block, "dev", &card]);
    let mut attacker = Attacker::new(&opened);
    attacker.is_refused(SocketAddr::new(address(private[1]), 4000));
    attacker.reaches(private[0]);
}

/// Calls between two clients of one relay need its addresses as peers, but for its listeners and whatever else is there.
#[test]
fn the_relays_own_addresses_are_peers_on_relayed_ports_only() {
    let Some(outpost) = Outpost::new(&[]) else {
        return;
    };
    let mut attacker = Attacker::new(&outpost);
    let services = [outpost.fleet.ports(), vec![22, 53, 1023, 49_151]].concat();
    for ip in [RELAY[0], RELAY[1], NAT_PUBLIC].map(address) {
        for port in services.iter().copied() {
            let peer = SocketAddr::new(ip, port);
            let bound = attacker.caller.bind(peer);
            assert_eq!(bound, Err(ErrorCode::FORBIDDEN), "a channel to {peer}");
            attacker.caller.permit(peer).unwrap();
            attacker.caller.send(peer, "to the inside");
        }
    }
    // Nobody outside knows the relay by the address behind the NAT.
    for port in services {
        attacker.is_refused(SocketAddr::new(address(NAT_LOCAL), port));
    }
    attacker.reaches(WORLD[0]);
    attacker.reaches(WORLD[1]);
    assert_eq!(attacker.left(), 4, "what went to the two good peers");
}

/// RFC 8656 §21.4.
#[test]
fn a_client_behind_a_tunnel_to_anywhere_is_not_served() {
    let Some(outpost) = Outpost::new(&[]) else {
        return;
    };
    let card = outpost.host.far_end("card0");
    let credential = Credential::synapse(SECRET, "@alice:example.org");
    for (ip, expected) in [
        ("2001:0:b46:1::f4b9:fffe", Some(ErrorCode::FORBIDDEN)),
        ("2002:b46:1::1", Some(ErrorCode::FORBIDDEN)),
        ("2a0c::1", None),
    ] {
        outpost.world.ip6(&card, ip);
        let socket = outpost.world.socket(address(ip));
        let mut caller = Caller::udp(socket, outpost.server(RELAY[1]), &credential);
        let answer = caller.allocate(AllocateOptions::default());
        assert_eq!(answer.err(), expected, "{ip}");
    }
}
