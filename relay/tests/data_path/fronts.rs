//! What stands before TURN on a stream: balancers' headers, TLS told from plain TURN, and HTTPS on the same port.

#![expect(clippy::unwrap_used, reason = "a test ends where its machinery fails")]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use rustls::AlertDescription;
use turnfleet_relay::shard::{Front, Listener, StreamLimits};
use turnfleet_turn::Transport;
use turnfleet_turn::client::AllocateOptions;

use crate::support::{
    DEADLINE, Driver, Relay, certificate, connect, echo_peer, settings, tls_over, tls_session,
    wait_until,
};

/// A relay with one listener and a certificate for it.
struct Fronted {
    relay: Relay,
    chain: PathBuf,
    _folder: tempfile::TempDir,
}

impl Fronted {
    fn new(transport: Transport, front: Front) -> Self {
        Self::with_limits(transport, front, StreamLimits::default())
    }

    fn with_limits(transport: Transport, front: Front, limits: StreamLimits) -> Self {
        let (chain, folder, certificate) = certificate();
        let mut settings = settings(1, Some(certificate));
        let mut listener = Listener::new(transport, "127.0.0.1:0".parse().unwrap());
        listener.front = front;
        settings.listeners = vec![listener];
        settings.streams = limits;
        Self {
            relay: Relay::start(settings),
            chain,
            _folder: folder,
        }
    }

    fn server(&self) -> SocketAddr {
        self.relay.addresses[0].address
    }
}

fn behind(balancers: &str) -> Front {
    Front {
        proxy_protocol_from: vec![balancers.parse().unwrap()],
        ..Front::default()
    }
}

/// Version 2 of the header, for TCP over IPv4 from `client`.
fn header_v2(client: &str) -> Vec<u8> {
    header_v2_to([198, 51, 100, 1], client)
}

/// The same for a connection that the balancer has accepted at `server`.
fn header_v2_to(server: [u8; 4], client: &str) -> Vec<u8> {
    let SocketAddr::V4(client) = client.parse().unwrap() else {
        panic!("an IPv4 address");
    };
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C".to_vec();
    header.extend(client.ip().octets());
    header.extend(server);
    header.extend(client.port().to_be_bytes());
    header.extend(443u16.to_be_bytes());
    header
}

/// Waits until the relay closes `stream`.
#[track_caller]
fn is_closed_soon(stream: TcpStream) {
    let mut driver = Driver::over(stream);
    wait_until("the end of the stream", || driver.is_closed());
}

#[track_caller]
fn allocates(driver: &mut Driver, seen_as: &str) {
    let allocated = driver.allocate(AllocateOptions::default());
    assert_eq!(allocated.mapped, seen_as.parse().unwrap());
    let peer = echo_peer(true);
    driver.bind_channel(peer);
    driver.send_to(peer, b"there and back");
    assert_eq!(driver.receive_one().payload, b"there and back");
}

#[test]
fn a_balancer_names_the_client_in_either_version() {
    let fronted = Fronted::new(Transport::Tcp, behind("127.0.0.0/8"));
    let v1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 5001 443\r\n".to_vec();
    for (header, client) in [
        (v1, "192.0.2.7:5001"),
        (header_v2("192.0.2.7:5002"), "192.0.2.7:5002"),
        (header_v2("192.0.2.8:5002"), "192.0.2.8:5002"),
    ] {
        // Byte by byte, so that the header is cut everywhere.
        let mut stream = connect(fronted.server());
        for byte in header {
            stream.write_all(&[byte]).unwrap();
        }
        allocates(&mut Driver::over(stream), client);
    }
}

#[test]
fn a_balancer_that_speaks_for_itself_is_the_client() {
    let fronted = Fronted::new(Transport::Tcp, behind("127.0.0.0/8"));
    for header in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let mut stream = connect(fronted.server());
        let own = stream.local_addr().unwrap().to_string();
        stream.write_all(header).unwrap();
        allocates(&mut Driver::over(stream), &own);
    }
}

#[test]
fn the_header_stands_before_tls() {
    let fronted = Fronted::new(Transport::Tls, behind("127.0.0.1/32"));
    let mut stream = connect(fronted.server());
    stream.write_all(&header_v2("192.0.2.7:5001")).unwrap();
    let stream = tls_over(stream, &fronted.chain, &[]);
    let mut driver = Driver::over_tls(stream);
    allocates(&mut driver, "192.0.2.7:5001");
}

#[test]
fn clients_of_one_address_are_told_apart_and_a_returning_one_replaces_itself() {
    let fronted = Fronted::new(Transport::Tcp, behind("127.0.0.0/8"));
    let proxied = |client: &str| {
        let mut stream = connect(fronted.server());
        stream.write_all(&header_v2(client)).unwrap();
        Driver::over(stream)
    };
    let mut earlier = proxied("192.0.2.7:5001");
    allocates(&mut earlier, "192.0.2.7:5001");
    let mut other = proxied("192.0.2.7:5002");
    allocates(&mut other, "192.0.2.7:5002");
    let mut later = proxied("192.0.2.7:5001");
    allocates(&mut later, "192.0.2.7:5001");
    wait_until("the end of the earlier one", || earlier.is_closed());
    assert!(!other.is_closed());
    fronted
        .relay
        .wait_until("two allocations", |shards| shards.allocations() == 2);
    later.refresh(600);
}

/// Private networks behind two balancers use the same addresses.
#[test]
fn clients_of_one_address_behind_two_balancers_are_told_apart() {
    let fronted = Fronted::new(Transport::Tcp, behind("127.0.0.0/8"));
    let mut drivers = [1, 2].map(|balancer| {
        let mut stream = connect(fronted.server());
        let header = header_v2_to([198, 51, 100, balancer], "192.0.2.7:5001");
        stream.write_all(&header).unwrap();
        let mut driver = Driver::over(stream);
        allocates(&mut driver, "192.0.2.7:5001");
        driver
    });
    for driver in &mut drivers {
        driver.refresh(600);
    }
}

#[test]
fn a_stream_from_elsewhere_is_closed_and_counted() {
    let fronted = Fronted::new(Transport::Tcp, behind("192.0.2.0/24"));
    is_closed_soon(connect(fronted.server()));
    fronted.relay.wait_until("a count of it", |shards| {
        shards.driver_counters().streams_untrusted == 1
    });
}

#[test]
fn without_a_header_a_stream_is_closed_and_counted() {
    let fronted = Fronted::new(Transport::Tcp, behind("127.0.0.0/8"));
    for bytes in [
        &b"\0\x01\0\0\x21\x12\xA4\x42"[..],
        b"PROXY UDP4 ",
        b"PROXY UDP4 192.0.2.7 198.51.100.1 5001 443\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0C012345678901",
        b"GET / HTTP/1.1\r\n",
    ] {
        let mut stream = connect(fronted.server());
        stream.write_all(bytes).unwrap();
        // What is half a header is closed when nothing more can come.
        stream.shutdown(Shutdown::Write).unwrap();
        is_closed_soon(stream);
    }
    fronted.relay.wait_until("a count of them", |shards| {
        shards.driver_counters().proxy_headers_malformed == 4
    });
}

#[test]
fn half_a_beginning_is_closed_in_time() {
    let limits = StreamLimits {
        opening: Duration::from_millis(300),
        ..StreamLimits::default()
    };
    let front = Front {
        detects_tls: true,
        ..behind("127.0.0.0/8")
    };
    let fronted = Fronted::with_limits(Transport::Tcp, front, limits);
    let header = header_v2("192.0.2.7:5001");
    for rest in [&b""[..], b"\0", &[22, 3, 1, 2, 0, 1, 0, 1]] {
        let mut stream = connect(fronted.server());
        stream.write_all(&[&header, rest].concat()).unwrap();
        is_closed_soon(stream);
    }
    let mut stream = connect(fronted.server());
    stream.write_all(&header[..20]).unwrap();
    is_closed_soon(stream);
    fronted.relay.wait_until("a count of them", |shards| {
        shards.driver_counters().streams_timed_out == 4
    });
    assert!(StreamLimits::default().opening <= Duration::from_secs(5));
}

#[test]
fn plain_turn_and_tls_share_a_port() {
    let front = Front {
        detects_tls: true,
        ..Front::default()
    };
    let fronted = Fronted::new(Transport::Tcp, front);
    let mut plain = Driver::tcp(fronted.server());
    let mut tls = Driver::tls(fronted.server(), &fronted.chain);
    for driver in [&mut plain, &mut tls] {
        driver.allocate(AllocateOptions::default());
        let peer = echo_peer(true);
        driver.bind_channel(peer);
        driver.send_to(peer, b"on one port");
        assert_eq!(driver.receive_one().payload, b"on one port");
    }
    let mut garbage = connect(fronted.server());
    garbage.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap();
    is_closed_soon(garbage);
    fronted.relay.wait_until("a count of it", |shards| {
        shards.driver_counters().streams_malformed == 1
    });
}

/// An HTTPS server of which only the wire matters: it sends every byte back, and ends when its client has.
fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut buffer = vec![0; 65_536];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
                let _ = stream.write_all(b"the end");
            });
        }
    });
    address
}

fn beside_https(backend: SocketAddr) -> Front {
    Front {
        detects_tls: true,
        https_backend: Some(backend),
        ..Front::default()
    }
}

fn client_hello(fronted: &Fronted, protocols: &[&str]) -> Vec<u8> {
    let mut hello = Vec::new();
    tls_session(&fronted.chain, protocols)
        .write_tls(&mut hello)
        .unwrap();
    hello
}

#[test]
fn http_in_tls_reaches_its_server_as_it_came_and_turn_stays_here() {
    let fronted = Fronted::new(Transport::Tcp, beside_https(echo_server()));
    for protocols in [&["h2", "http/1.1"][..], &["http/1.1"]] {
        let mut sent = client_hello(&fronted, protocols);
        let mut stream = connect(fronted.server());
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        for byte in &sent {
            stream.write_all(&[*byte]).unwrap();
        }
        stream.write_all(b"what follows").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        sent.extend(b"what followsthe end");
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        assert!(received == sent, "the bytes have changed");
    }
    fronted.relay.wait_until("a count of them", |shards| {
        shards.driver_counters().https_forwarded == 2
    });
    for protocols in [&[][..], &["stun.turn"], &["stun.nat-discovery"]] {
        let stream = tls_over(connect(fronted.server()), &fronted.chain, protocols);
        let answered = stream.conn.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(
            answered.as_deref(),
            protocols.first().map(|it| it.as_bytes())
        );
        let mut driver = Driver::over_tls(stream);
        driver.allocate(AllocateOptions::default());
    }
    Driver::tcp(fronted.server()).allocate(AllocateOptions::default());
}

#[test]
fn without_an_https_server_unknown_protocols_are_no_obstacle() {
    let fronted = Fronted::new(Transport::Tls, Front::default());
    for protocols in [&["h2"][..], &["spdy/3"]] {
        let stream = tls_over(connect(fronted.server()), &fronted.chain, protocols);
        let mut driver = Driver::over_tls(stream);
        driver.allocate(AllocateOptions::default());
    }
}

#[test]
fn a_challenge_of_a_certificate_authority_is_refused_by_an_alert() {
    let fronted = Fronted::new(Transport::Tls, Front::default());
    let mut stream = connect(fronted.server());
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut session = tls_session(&fronted.chain, &["acme-tls/1"]);
    let error = session.complete_io(&mut stream).unwrap_err();
    let alert = error.get_ref().and_then(|error| error.downcast_ref());
    let wanted = AlertDescription::NoApplicationProtocol;
    assert_eq!(alert, Some(&rustls::Error::AlertReceived(wanted)));
}

/// Neither end is read for a while: the relay keeps what its buffers hold, and everything arrives once it is read.
#[test]
fn the_slower_end_sets_the_pace_of_what_is_passed_on() {
    const LEN: usize = 24 << 20;
    let fronted = Fronted::new(Transport::Tcp, beside_https(echo_server()));
    let mut stream = connect(fronted.server());
    stream.write_all(&client_hello(&fronted, &["h2"])).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let sent: Vec<u8> = (0..=250).cycle().take(LEN).collect();
    let expected = sent.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    writing.join().unwrap();
    let hello_len = received.len() - LEN - b"the end".len();
    assert!(
        received[hello_len..hello_len + LEN] == expected,
        "the bytes have changed"
    );
}

#[test]
fn what_is_silent_for_longest_makes_room_and_a_dead_server_is_counted() {
    let limits = StreamLimits {
        forwarded: 1,
        ..StreamLimits::default()
    };
    let front = beside_https(echo_server());
    let fronted = Fronted::with_limits(Transport::Tls, front, limits);
    let hello = client_hello(&fronted, &["h2"]);
    let mut first = connect(fronted.server());
    first.write_all(&hello).unwrap();
    fronted.relay.wait_until("the first", |shards| {
        shards.driver_counters().https_forwarded == 1
    });
    let mut second = connect(fronted.server());
    second.write_all(&hello).unwrap();
    is_closed_soon(first);
    fronted.relay.wait_until("a count of both", |shards| {
        let counters = shards.driver_counters();
        (counters.https_forwarded, counters.https_evicted) == (2, 1)
    });

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let front = beside_https(nobody.local_addr().unwrap());
    drop(nobody);
    let fronted = Fronted::new(Transport::Tls, front);
    let mut stream = connect(fronted.server());
    stream.write_all(&hello).unwrap();
    is_closed_soon(stream);
    fronted.relay.wait_until("a count of it", |shards| {
        shards.driver_counters().https_unreachable == 1
    });
}

/// The balancer's own address has no share: its streams are counted by the clients that they are of.
#[test]
fn one_client_of_a_balancer_does_not_take_the_places_of_another() {
    let limits = StreamLimits {
        of_one_source: 2,
        ..StreamLimits::default()
    };
    let front = Fronted::with_limits(Transport::Tcp, behind("127.0.0.0/8"), limits);
    let connect = |client: &str| {
        let mut driver = Driver::tcp(front.server());
        driver.send_raw(&header_v2(client));
        driver
    };
    let accepted = |streams| {
        front.relay.wait_until("the streams", |shards| {
            shards.driver_counters().streams_accepted == streams
        });
    };
    let mut patient = connect("192.0.2.7:1000");
    accepted(1);
    let mut greedy: Vec<_> = (0..3)
        .map(|port| connect(&format!("192.0.2.66:{port}")))
        .collect();
    front.relay.wait_until("a client in its own way", |shards| {
        shards.driver_counters().streams_crowded == 1
    });
    wait_until("the end of one of them", || {
        greedy.iter_mut().any(Driver::is_closed)
    });
    assert!(!patient.is_closed());
}
