//! What clients can do with streams, and what they cannot make the relay do.

use std::io::Write as _;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use crate::support::{Driver, Relay, connect, echo_peer, settings, wait_until, write_certificate};
use turnfleet_relay::shard::{Certificate, StreamLimits};
use turnfleet_turn::Transport;
use turnfleet_turn::client::AllocateOptions;

fn with_limits(limits: StreamLimits) -> Relay {
    let mut settings = settings(1, None);
    settings.streams = limits;
    Relay::start(settings)
}

#[test]
fn messages_may_be_cut_and_joined_anywhere() {
    let relay = Relay::start(settings(1, None));
    let mut driver = Driver::tcp(relay.address(Transport::Tcp, true));
    driver.allocate(AllocateOptions::default());
    let peer = echo_peer(true);
    driver.bind_channel(peer);
    let mut joined = Vec::new();
    for payload in [&b"one"[..], b"", b"three"] {
        joined.extend(driver.message_to(peer, payload));
    }
    driver.send_raw(&joined);
    for byte in driver.message_to(peer, b"byte by byte") {
        driver.send_raw(&[byte]);
    }
    let mut payloads = Vec::new();
    wait_until("four echoes", || {
        payloads.extend(driver.receive().into_iter().map(|it| it.payload));
        payloads.len() == 4
    });
    assert_eq!(payloads.concat(), b"onethreebyte by byte");
}

#[test]
fn a_closed_stream_ends_its_allocation() {
    let relay = Relay::start(settings(2, None));
    let mut driver = Driver::tcp(relay.address(Transport::Tcp, true));
    driver.allocate(AllocateOptions::default());
    relay.wait_until("an allocation", |shards| shards.allocations() == 1);
    drop(driver);
    relay.wait_until("its end", |shards| shards.allocations() == 0);
}

#[test]
fn garbage_closes_a_stream_at_once() {
    let relay = Relay::start(settings(1, None));
    let mut driver = Driver::tcp(relay.address(Transport::Tcp, true));
    driver.send_raw(b"GET / HTTP/1.1\r\n\r\n");
    wait_until("the end of the stream", || driver.is_closed());
    relay.wait_until("a count of it", |shards| {
        shards.driver_counters().streams_malformed == 1
    });
}

#[test]
fn a_long_message_before_an_allocation_closes_the_stream() {
    let relay = Relay::start(settings(1, None));
    let mut driver = Driver::tcp(relay.address(Transport::Tcp, true));
    // ChannelData with 8,000 bytes of application data announced.
    driver.send_raw(&[0x40, 0x00, 0x1F, 0x40]);
    wait_until("the end of the stream", || driver.is_closed());
}

#[test]
fn a_stream_without_an_allocation_is_closed_in_time() {
    let relay = with_limits(StreamLimits {
        idle: Duration::from_millis(300),
        ..StreamLimits::default()
    });
    let mut silent = Driver::tcp(relay.address(Transport::Tcp, true));
    let mut busy = Driver::tcp(relay.address(Transport::Tcp, true));
    busy.allocate(AllocateOptions::default());
    wait_until("the end of the silent stream", || silent.is_closed());
    relay.wait_until("a count of it", |shards| {
        shards.driver_counters().streams_timed_out == 1
    });
    assert!(!busy.is_closed());
    busy.refresh(0);
    wait_until("the end of the other one", || busy.is_closed());
}

#[test]
fn the_oldest_stranger_makes_room_for_a_newcomer() {
    let relay = with_limits(StreamLimits {
        without_allocation: 3,
        ..StreamLimits::default()
    });
    let server = relay.address(Transport::Tcp, true);
    let mut first = Driver::tcp(server);
    let strangers: Vec<_> = (0..3).map(|_| connect(server)).collect();
    wait_until("the end of the first", || first.is_closed());
    let mut client = Driver::tcp(server);
    client.allocate(AllocateOptions::default());
    drop(strangers);
}

#[test]
fn a_slow_reader_loses_data_and_keeps_its_allocation() {
    let relay = with_limits(StreamLimits {
        outgoing: 64 << 10,
        ..StreamLimits::default()
    });
    let mut driver = Driver::tcp(relay.address(Transport::Tcp, true));
    let relayed = driver.allocate(AllocateOptions::default()).relayed;
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    driver.bind_channel(peer.local_addr().unwrap());
    let payload = [0xAB; 1200];
    relay.wait_until("data that is dropped", |shards| {
        for _ in 0..1000 {
            let _ = peer.send_to(&payload, relayed);
        }
        shards.driver_counters().stream_data_dropped > 1000
    });
    driver.refresh(600);
    // Every message that did arrive is whole: the driver's deframer would stumble over anything else.
    let mut last = Vec::new();
    wait_until("the stream to run dry", || {
        let received = driver.receive();
        let done = received.is_empty();
        last.extend(received);
        done
    });
    assert!(last.iter().all(|it| it.payload == payload));
    peer.send_to(b"still there", relayed).unwrap();
    assert_eq!(driver.receive_one().payload, b"still there");
}

#[test]
fn a_replaced_certificate_serves_later_handshakes_and_leaves_live_streams_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    write_certificate(&chain, &key);
    let certificate = Arc::new(Certificate::load(&chain, &key).unwrap());
    let _watcher = certificate.watch().unwrap();
    let relay = Relay::start(settings(1, Some(Arc::clone(&certificate))));
    let server = relay.address(Transport::Tls, true);
    let mut earlier = Driver::tls(server, &chain);
    earlier.allocate(AllocateOptions::default());

    std::fs::write(&key, "no key").unwrap();
    wait_until("a rejected key", || certificate.rejected() > 0);
    drop(Driver::tls(server, &chain));

    let (next_chain, next_key) = (folder.path().join("next"), folder.path().join("next-key"));
    write_certificate(&next_chain, &next_key);
    std::fs::rename(&next_key, &key).unwrap();
    std::fs::rename(&next_chain, &chain).unwrap();
    wait_until("the replacement", || certificate.replaced() > 0);
    let mut later = Driver::tls(server, &chain);
    later.allocate(AllocateOptions::default());
    earlier.refresh(600);
}

#[test]
fn a_client_that_is_not_speaking_tls_is_turned_away() {
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    write_certificate(&chain, &key);
    let certificate = Arc::new(Certificate::load(&chain, &key).unwrap());
    let relay = Relay::start(settings(1, Some(certificate)));
    let mut stream = connect(relay.address(Transport::Tls, true));
    stream.write_all(b"this is no ClientHello").unwrap();
    relay.wait_until("a failed session", |shards| {
        shards.driver_counters().tls_failures == 1
    });
}
