//! What IP headers say on both sides of the relay, and what the network says about peers (RFC 8656 §11.5, §13, §14).

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test ends where its machinery fails, and waits for one thing at a time"
)]

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::Instant as Clock;

use socket2::SockRef;
use turnfleet_relay::datagram::{ReceiveBatch, prepare};
use turnfleet_turn::client::{AllocateOptions, Event};
use turnfleet_turn::wire::{Class, Icmp, MessageWriter, Method, TransactionId};
use turnfleet_turn::{DropReason, IpMeta, PeerAddr, Transport};

use crate::support::{DEADLINE, Driver, Relay, Socket, of_family, settings};

/// Whether the client, and its peer, are on IPv4.
const PAIRS: [(bool, bool); 4] = [(true, true), (true, false), (false, true), (false, false)];

/// Values of the whole byte: best effort, each ECN, DSCP with and without it.
const SERVICES: [u8; 5] = [0x00, 0x01, 0x02, 0xB8, 0xBB];

/// A UDP socket on loopback that hears what headers say.
fn open(v4: bool) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(if v4 { "127.0.0.1:0" } else { "[::1]:0" }).unwrap();
    prepare(socket.as_fd(), !v4);
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Where nobody listens.
fn closed_port(v4: bool) -> SocketAddr {
    open(v4).1
}

/// What datagrams of `socket` leave with from here on.
fn set_header(socket: &UdpSocket, ttl: u8, tos: u8) {
    let is_v4 = socket.local_addr().unwrap().is_ipv4();
    let socket = SockRef::from(socket);
    if is_v4 {
        socket.set_ttl_v4(ttl.into()).unwrap();
        socket.set_tos_v4(tos.into()).unwrap();
    } else {
        socket.set_unicast_hops_v6(ttl.into()).unwrap();
        socket.set_tclass_v6(tos.into()).unwrap();
    }
}

/// The next datagram and what its header says.
#[track_caller]
fn hear(socket: &UdpSocket) -> (IpMeta, Vec<u8>) {
    let mut batch = ReceiveBatch::new(1);
    let start = Clock::now();
    while batch.receive(socket.as_fd(), 0..1).is_err() {
        assert!(start.elapsed() < DEADLINE, "nothing was heard");
        std::thread::yield_now();
    }
    (batch.ip(0), batch.datagram(0).to_vec())
}

fn header(ttl: u8, tos: u8) -> IpMeta {
    IpMeta {
        ttl: Some(ttl),
        tos: Some(tos),
        dont_fragment: false,
    }
}

fn datagrams(driver: &Driver) -> &UdpSocket {
    match &driver.socket {
        Socket::Udp(socket) => socket,
        Socket::Tcp(_) | Socket::Tls(_) => panic!("a stream"),
    }
}

/// The next ICMP message that the client is told of.
#[track_caller]
fn peer_error(driver: &mut Driver) -> (SocketAddr, Icmp) {
    driver.event(|event| match event {
        Event::PeerError { peer, icmp } => Some((peer.0, icmp)),
        _ => None,
    })
}

fn port_unreachable(v4: bool) -> Icmp {
    let (kind, code) = if v4 { (3, 3) } else { (1, 4) };
    let data = 0;
    Icmp { kind, code, data }
}

#[test]
fn ttl_dscp_and_ecn_pass_in_all_four_pairs_of_families_and_both_directions() {
    let relay = Relay::start(settings(1, None));
    for (client_v4, peer_v4) in PAIRS {
        let server = relay.address(Transport::Udp, client_v4);
        let mut driver = Driver::udp(server);
        prepare(datagrams(&driver).as_fd(), !client_v4);
        let (peer, address) = open(peer_v4);
        let relayed = driver.allocate(of_family(peer_v4)).relayed;
        driver.permit(address);
        // Long enough for the relay's sockets to follow what their datagrams want.
        for tos in SERVICES.into_iter().flat_map(|tos| [tos; 4]) {
            for ttl in [90, 90, 90, 91] {
                set_header(datagrams(&driver), ttl, tos);
                driver.send_to(address, b"there");
                assert_eq!(hear(&peer), (header(ttl - 1, tos), b"there".to_vec()));
                set_header(&peer, ttl + 7, tos);
                peer.send_to(b"and back", relayed).unwrap();
                let (ip, message) = hear(datagrams(&driver));
                assert_eq!(ip, header(ttl + 6, tos));
                assert!(message.ends_with(b"and back"));
            }
        }
    }
}

#[test]
fn between_two_clients_of_the_relay_a_datagram_takes_two_hops() {
    for shards in [1, 4] {
        let relay = Relay::start(settings(shards, None));
        let server = relay.address(Transport::Udp, true);
        let mut alice = Driver::udp(server);
        let mut bob = Driver::udp(server);
        prepare(datagrams(&bob).as_fd(), false);
        let of_alice = alice.allocate(of_family(true)).relayed;
        let of_bob = bob.allocate(of_family(true)).relayed;
        alice.permit(of_bob);
        bob.permit(of_alice);
        for tos in SERVICES {
            set_header(datagrams(&alice), 64, tos);
            alice.send_to(of_bob, b"hello");
            let (ip, message) = hear(datagrams(&bob));
            assert_eq!(ip, header(62, tos));
            assert!(message.windows(5).any(|part| part == b"hello"));
        }
        set_header(datagrams(&alice), 2, 0);
        alice.send_to(of_bob, b"not as far as that");
        relay.wait_until("one drop", |shards| {
            shards.counters().drops(DropReason::TtlExpired) == 1
        });
        let mut streamer = Driver::tcp(relay.address(Transport::Tcp, true));
        let of_streamer = streamer.allocate(of_family(true)).relayed;
        streamer.permit(of_bob);
        bob.permit(of_streamer);
        let system = u8::try_from(SockRef::from(datagrams(&bob)).ttl_v4().unwrap()).unwrap();
        streamer.send_to(of_bob, b"from a stream");
        assert_eq!(hear(datagrams(&bob)).0, header(system, 0));
    }
}

#[test]
fn the_relays_own_answers_leave_with_the_systems_ttl_whatever_data_leaves_with() {
    let relay = Relay::start(settings(1, None));
    let mut driver = Driver::udp(relay.address(Transport::Udp, true));
    prepare(datagrams(&driver).as_fd(), false);
    let (peer, address) = open(true);
    let system = u8::try_from(SockRef::from(&peer).ttl_v4().unwrap()).unwrap();
    let relayed = driver.allocate(AllocateOptions::default()).relayed;
    driver.permit(address);
    set_header(&peer, 2, 0xB8);
    for _ in 0..20 {
        peer.send_to(b"short-lived", relayed).unwrap();
        assert_eq!(hear(datagrams(&driver)).0, header(1, 0xB8));
    }
    let now = driver.now();
    driver.client.binding(now).unwrap();
    driver.transmit();
    let (ip, _) = hear(datagrams(&driver));
    assert_eq!(ip, header(system, 0));
}

#[test]
fn data_whose_ttl_is_used_up_goes_no_further() {
    let relay = Relay::start(settings(1, None));
    for (client_v4, peer_v4) in PAIRS {
        let mut driver = Driver::udp(relay.address(Transport::Udp, client_v4));
        let (peer, address) = open(peer_v4);
        driver.allocate(of_family(peer_v4));
        driver.permit(address);
        set_header(datagrams(&driver), 1, 0);
        driver.send_to(address, b"too late");
        set_header(datagrams(&driver), 2, 0);
        driver.send_to(address, b"in time");
        assert_eq!(hear(&peer).1, b"in time");
    }
    relay.wait_until("four drops", |shards| {
        shards.counters().drops(DropReason::TtlExpired) == 4
    });
}

#[test]
fn a_client_hears_that_a_peers_port_is_closed_in_all_four_pairs_of_families() {
    let relay = Relay::start(settings(1, None));
    for (client_v4, peer_v4) in PAIRS {
        for transport in [Transport::Udp, Transport::Tcp] {
            let server = relay.address(transport, client_v4);
            let mut driver = match transport {
                Transport::Udp => Driver::udp(server),
                Transport::Tcp | Transport::Tls => Driver::tcp(server),
            };
            driver.allocate(of_family(peer_v4));
            let closed = closed_port(peer_v4);
            driver.permit(closed);
            driver.send_to(closed, b"anybody there?");
            let told = peer_error(&mut driver);
            assert_eq!(told, (closed, port_unreachable(peer_v4)));
            driver.bind_channel(closed);
            driver.send_to(closed, b"anybody there now?");
            let told = peer_error(&mut driver);
            assert_eq!(told, (closed, port_unreachable(peer_v4)));
        }
    }
}

#[test]
fn a_peer_that_is_gone_does_not_keep_data_from_another() {
    let relay = Relay::start(settings(1, None));
    for v4 in [true, false] {
        let mut driver = Driver::udp(relay.address(Transport::Udp, v4));
        let (peer, address) = open(v4);
        let relayed = driver.allocate(of_family(v4)).relayed;
        driver.permit(address);
        let closed = closed_port(v4);
        for round in 0..200_u8 {
            driver.send_to(closed, b"lost");
            driver.send_to(address, &[round]);
            assert_eq!(hear(&peer).1, [round]);
        }
        peer.send_to(b"over", relayed).unwrap();
        assert_eq!(driver.receive_one().payload, b"over");
    }
    relay.wait_until("a bounded rate of ICMP messages", |shards| {
        let counters = shards.counters();
        counters.drops(DropReason::IcmpRate) > 0 && counters.icmp_indications >= 20
    });
    assert_eq!(relay.shards.driver_counters().peer_datagrams_refused, 0);
}

#[test]
fn a_send_indication_with_dont_fragment_arrives_and_the_next_one_without_too() {
    let relay = Relay::start(settings(1, None));
    let mut driver = Driver::udp(relay.address(Transport::Udp, true));
    let (peer, address) = open(true);
    driver.allocate(AllocateOptions {
        dont_fragment: true,
        ..AllocateOptions::default()
    });
    driver.permit(address);
    for round in 0..10_u8 {
        let mut message = Vec::new();
        let id = TransactionId([round; 12]);
        let mut writer = MessageWriter::new(&mut message, Class::Indication, Method::Send, id);
        writer.xor_peer_address(PeerAddr(address));
        writer.dont_fragment().data(b"whole");
        writer.finish();
        driver.send_raw(&message);
        driver.send_to(address, b"as it comes");
        assert_eq!(hear(&peer).1, b"whole");
        assert_eq!(hear(&peer).1, b"as it comes");
    }
}
