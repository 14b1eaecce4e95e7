//! TCP between the relay and peers (RFC 6062): what goes in at one end comes out at the other.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "what a test takes for granted fails it, and other events are not what it waits for"
)]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use turnfleet_relay::shard::Certificate;
use turnfleet_turn::client::{AllocateOptions, Allocated, Event, Failure};
use turnfleet_turn::wire::ConnectionId;
use turnfleet_turn::{AddressFamily, PeerAddr, Transport};

use crate::support::{Driver, Relay, Socket, is_timeout, settings, wait_until, write_certificate};

/// How long a test waits for a byte.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn relay(shards: u8) -> Relay {
    Relay::start(settings(shards, None))
}

pub(crate) fn tcp_options(family: AddressFamily) -> AllocateOptions {
    AllocateOptions {
        tcp: true,
        family: Some(family),
        ..AllocateOptions::default()
    }
}

/// A relay with one shard, a control connection with an allocation, and the relay's address.
pub(crate) fn allocated() -> (Relay, Driver, Allocated, SocketAddr) {
    let relay = relay(1);
    let server = relay.address(Transport::Tcp, true);
    let mut control = Driver::tcp(server);
    let allocation = control.allocate(tcp_options(AddressFamily::V4));
    (relay, control, allocation, server)
}

pub(crate) fn listen(v4: bool) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(if v4 { "127.0.0.1:0" } else { "[::1]:0" }).unwrap();
    let local = listener.local_addr().unwrap();
    (listener, local)
}

#[track_caller]
fn try_connect(control: &mut Driver, peer: SocketAddr) -> Result<ConnectionId, Failure> {
    let now = control.now();
    control.client.connect(now, PeerAddr(peer)).unwrap();
    control.event(|event| match event {
        Event::Connected { connection, .. } => Some(Ok(connection)),
        Event::Failed { why, .. } => Some(Err(why)),
        _ => None,
    })
}

/// Connects to a peer that listens; returns the connection and the peer's end of it.
#[track_caller]
pub(crate) fn connect(control: &mut Driver, listener: &TcpListener) -> (ConnectionId, TcpStream) {
    let id = try_connect(control, listener.local_addr().unwrap()).expect("the peer listens");
    let (peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(DEADLINE)).unwrap();
    (id, peer)
}

#[track_caller]
fn bind(data: &mut Driver, id: ConnectionId) {
    let now = data.now();
    data.client.bind_connection(now, id).unwrap();
    data.event(|event| matches!(event, Event::ConnectionBound { .. }).then_some(()));
}

/// The ConnectionBind request that answers the challenge which a first one without credentials brings.
#[track_caller]
pub(crate) fn signed_bind(data: &mut Driver, id: ConnectionId) -> Vec<u8> {
    let now = data.now();
    data.client.bind_connection(now, id).unwrap();
    data.transmit();
    let challenge = data.receive_raw();
    data.client.handle_input(now, &challenge);
    let mut request = Vec::new();
    assert!(data.client.poll_transmit(&mut request), "no challenge came");
    request
}

/// A client data connection that is bound already, where the peer has said nothing yet.
#[track_caller]
fn bound(server: SocketAddr, id: ConnectionId) -> TcpStream {
    let (stream, early) = bound_late(server, id);
    assert_eq!(early, b"", "what came with the answer");
    stream
}

/// A client data connection that is bound already, and what came together with the answer.
#[track_caller]
fn bound_late(server: SocketAddr, id: ConnectionId) -> (TcpStream, Vec<u8>) {
    let mut data = Driver::tcp(server);
    bind(&mut data, id);
    let Socket::Tcp(stream) = data.socket else {
        panic!("the client is on TCP");
    };
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    (stream, data.unread)
}

#[track_caller]
pub(crate) fn expect(stream: &mut TcpStream, wanted: &[u8]) {
    let mut received = vec![0; wanted.len()];
    stream.read_exact(&mut received).unwrap();
    assert_eq!(received, wanted);
}

#[track_caller]
pub(crate) fn expect_end(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "{} bytes more", rest.len());
}

/// Bytes that tell their place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| u8::try_from((at / 251 + at) % 256).unwrap())
        .collect()
}

#[test]
fn bytes_go_both_ways_over_ipv4_and_ipv6() {
    for v4 in [true, false] {
        let relay = relay(1);
        let server = relay.address(Transport::Tcp, v4);
        let mut control = Driver::tcp(server);
        let family = if v4 {
            AddressFamily::V4
        } else {
            AddressFamily::V6
        };
        let allocation = control.allocate(tcp_options(family));
        let (listener, _) = listen(v4);
        let (id, mut peer) = connect(&mut control, &listener);
        assert_eq!(peer.peer_addr().unwrap(), allocation.relayed);
        let mut client = bound(server, id);
        client.write_all(b"there").unwrap();
        expect(&mut peer, b"there");
        peer.write_all(b"and back").unwrap();
        expect(&mut client, b"and back");
        drop(client);
        expect_end(&mut peer);
        drop(peer);
        relay.wait_until("a count of it, and its end", |shards| {
            let counters = shards.counters();
            let bytes = (
                counters.to_peers(Transport::Tcp).bytes,
                counters.to_clients(Transport::Tcp).bytes,
            );
            bytes == (5, 8) && counters.connections == 0
        });
    }
}

#[test]
fn a_client_data_connection_finds_its_allocation_whichever_shard_it_reaches() {
    let relay = relay(4);
    let server = relay.address(Transport::Tcp, true);
    let mut control = Driver::tcp(server);
    control.allocate(tcp_options(AddressFamily::V4));
    let mut ends = Vec::new();
    for _ in 0..16 {
        let (listener, _) = listen(true);
        let (id, peer) = connect(&mut control, &listener);
        ends.push((bound(server, id), peer));
    }
    for (number, (client, peer)) in ends.iter_mut().enumerate() {
        let text = format!("connection {number}");
        client.write_all(text.as_bytes()).unwrap();
        expect(peer, text.as_bytes());
        peer.write_all(text.as_bytes()).unwrap();
        expect(client, text.as_bytes());
    }
    assert_eq!(relay.shards.driver_counters().handovers_refused, 0);
}

pub(crate) fn with_tls(folder: &Path, shards: u8) -> (Relay, std::path::PathBuf) {
    let (chain, key) = (folder.join("chain.pem"), folder.join("key.pem"));
    write_certificate(&chain, &key);
    let certificate = Arc::new(Certificate::load(&chain, &key).unwrap());
    let settings = settings(shards, Some(certificate));
    (Relay::start(settings), chain)
}

#[test]
fn tls_towards_the_client_goes_on_whichever_shard_it_reaches() {
    let folder = tempfile::tempdir().unwrap();
    let (relay, chain) = with_tls(folder.path(), 4);
    let server = relay.address(Transport::Tls, true);
    let mut control = Driver::tls(server, &chain);
    control.allocate(tcp_options(AddressFamily::V4));
    let sent = pattern(300_000);
    for _ in 0..8 {
        let (listener, _) = listen(true);
        let (id, mut peer) = connect(&mut control, &listener);
        let mut data = Driver::tls(server, &chain);
        bind(&mut data, id);
        let Socket::Tls(mut client) = data.socket else {
            panic!("the client is on TLS");
        };
        client.sock.set_read_timeout(Some(DEADLINE)).unwrap();
        let echo = std::thread::spawn(move || {
            let mut received = Vec::new();
            let mut buffer = [0; 10_000];
            while received.len() < 300_000 {
                let count = peer.read(&mut buffer).unwrap();
                assert_ne!(count, 0, "the end came early");
                received.extend_from_slice(&buffer[..count]);
            }
            peer.write_all(&received).unwrap();
        });
        client.write_all(&sent).unwrap();
        let mut received = Vec::new();
        // The peer's end reaches the client as the end of the TLS session.
        client.read_to_end(&mut received).unwrap();
        echo.join().unwrap();
        assert!(received == sent, "{} bytes came back", received.len());
    }
}

#[test]
fn a_peer_that_connects_is_announced_and_what_it_sent_first_is_not_lost() {
    let (_relay, mut control, allocation, server) = allocated();
    control.permit("127.0.0.1:1".parse().unwrap());
    let mut peer = TcpStream::connect(allocation.relayed).unwrap();
    peer.set_read_timeout(Some(DEADLINE)).unwrap();
    peer.write_all(b"hello").unwrap();
    let own = peer.local_addr().unwrap();
    let id = control.event(|event| match event {
        Event::ConnectionAttempt { peer, connection } if peer.0 == own => Some(connection),
        _ => None,
    });
    let (mut client, early) = bound_late(server, id);
    expect(&mut client, &b"hello"[early.len()..]);
    assert!(b"hello".starts_with(&early), "{early:?}");
    client.write_all(b"who is there").unwrap();
    expect(&mut peer, b"who is there");
    drop(peer);
    expect_end(&mut client);
}

#[test]
fn a_peer_without_a_permission_is_closed() {
    let (relay, _control, allocation, _) = allocated();
    let mut peer = TcpStream::connect(allocation.relayed).unwrap();
    peer.set_read_timeout(Some(DEADLINE)).unwrap();
    expect_end(&mut peer);
    assert_eq!(relay.shards.counters().connections, 0);
}

#[test]
fn a_peer_that_does_not_listen_gets_the_client_447() {
    let (_relay, mut control, ..) = allocated();
    let (listener, nobody) = listen(true);
    drop(listener);
    for _ in 0..2 {
        let Err(Failure::Refused(code)) = try_connect(&mut control, nobody) else {
            panic!("nobody listens");
        };
        assert_eq!(code.code(), 447);
    }
}

#[test]
fn what_stands_behind_the_connection_bind_request_is_the_peers() {
    let (_relay, mut control, _, server) = allocated();
    let (listener, _) = listen(true);
    let (id, mut peer) = connect(&mut control, &listener);
    let mut data = Driver::tcp(server);
    let mut request = signed_bind(&mut data, id);
    request.extend_from_slice(b"early");
    data.send_raw(&request);
    expect(&mut peer, b"early");
}

#[test]
fn the_end_of_one_direction_leaves_the_other_open() {
    let (relay, mut control, _, server) = allocated();
    let (listener, _) = listen(true);
    let (id, mut peer) = connect(&mut control, &listener);
    let mut client = bound(server, id);
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    expect(&mut peer, b"question");
    expect_end(&mut peer);
    peer.write_all(b"answer").unwrap();
    drop(peer);
    expect(&mut client, b"answer");
    expect_end(&mut client);
    relay.wait_until("the end of the connection", |shards| {
        let counters = shards.counters();
        counters.to_clients(Transport::Tcp).bytes == 6 && counters.connections == 0
    });
    // The peer may be connected to again.
    connect(&mut control, &listener);
}

#[test]
fn who_does_not_read_stops_who_writes() {
    let (_relay, mut control, _, server) = allocated();
    let (listener, _) = listen(true);
    let (id, mut peer) = connect(&mut control, &listener);
    let mut client = bound(server, id);
    client
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let block = pattern(1 << 16);
    let mut sent = 0;
    // What the kernels and the relay hold is bounded: long before a gigabyte nothing more is taken.
    loop {
        match client.write(&block[sent % block.len()..]) {
            Ok(count) => sent += count,
            Err(error) if is_timeout(&error) => break,
            Err(error) => panic!("{error}"),
        }
        assert!(sent < 1 << 30, "a peer that does not read stops nobody");
    }
    client.shutdown(Shutdown::Write).unwrap();
    let mut received = Vec::with_capacity(sent);
    peer.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), sent);
    let intact = received
        .chunks(block.len())
        .all(|chunk| chunk == &block[..chunk.len()]);
    assert!(intact, "the bytes are others");
}

#[test]
fn the_end_of_the_allocation_closes_both_sides() {
    let (_relay, mut control, allocation, server) = allocated();
    let (listener, _) = listen(true);
    let (id, mut peer) = connect(&mut control, &listener);
    let mut client = bound(server, id);
    let (_unclaimed, mut waiting) = {
        let (other, _) = listen(true);
        connect(&mut control, &other)
    };
    control.refresh(0);
    expect_end(&mut client);
    expect_end(&mut peer);
    expect_end(&mut waiting);
    wait_until("a closed port", || {
        TcpStream::connect(allocation.relayed).is_err()
    });
}
