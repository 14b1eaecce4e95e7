//! What clients can do with streams, and what they cannot make the relay do.

use std::io::Write as _;
use std::net::UdpSocket;
use std::time::Duration;

use crate::support::{
    DEADLINE, Driver, Relay, certificate, connect, echo_peer, settings, tls_session, wait_until,
    write_certificate,
};
use turnfleet_relay::shard::StreamLimits;
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
fn a_client_may_send_every_byte_alone_from_the_first_on() {
    let (chain, _folder, certificate) = certificate();
    let relay = Relay::start(settings(1, Some(certificate)));
    let drivers = [
        Driver::tcp(relay.address(Transport::Tcp, true)),
        Driver::tls(relay.address(Transport::Tls, true), &chain),
    ];
    for mut driver in drivers {
        driver.bytes_alone = true;
        driver.allocate(AllocateOptions::default());
        let peer = echo_peer(true);
        driver.bind_channel(peer);
        driver.send_to(peer, b"byte by byte");
        assert_eq!(driver.receive_one().payload, b"byte by byte");
    }
}

#[test]
fn a_thousand_messages_in_one_segment_are_all_answered() {
    let relay = Relay::start(settings(1, None));
    let mut driver = Driver::tcp(relay.address(Transport::Tcp, true));
    let mut bindings = Vec::new();
    for number in 0..1000u64 {
        bindings.extend(b"\0\x01\0\0\x21\x12\xA4\x42\0\0\0\0");
        bindings.extend(number.to_be_bytes());
    }
    driver.send_raw(&bindings);
    for number in 0..1000u64 {
        let answer = driver.receive_raw();
        assert_eq!(answer[..2], [1, 1]);
        assert_eq!(answer[12..20], number.to_be_bytes());
    }
}

/// No datagram holds 65,535 bytes, and the stream goes on behind them.
#[test]
fn the_longest_channel_data_is_taken_whole_and_a_longer_message_closes_the_stream() {
    let relay = Relay::start(settings(1, None));
    let mut driver = Driver::tcp(relay.address(Transport::Tcp, true));
    driver.allocate(AllocateOptions::default());
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(DEADLINE)).unwrap();
    let address = peer.local_addr().unwrap();
    driver.bind_channel(address);
    for (payload_len, arrives) in [(65_507, true), (65_535, false), (9, true)] {
        driver.send_to(address, &vec![0xAB; payload_len]);
        if arrives {
            assert_eq!(peer.recv(&mut [0; 65_536]).unwrap(), payload_len);
        }
    }
    // A STUN message of 65,532 bytes and its header.
    driver.send_raw(b"\0\x01\xFF\xFC\x21\x12\xA4\x42");
    wait_until("the end of the stream", || driver.is_closed());
}

#[test]
fn a_giant_length_before_an_allocation_closes_the_stream() {
    let relay = Relay::start(settings(1, None));
    for beginning in [
        b"\0\x01\xFF\xFC\x21\x12\xA4\x42",
        b"\0\x03\x10\x00\x21\x12\xA4\x42",
    ] {
        let mut driver = Driver::tcp(relay.address(Transport::Tcp, true));
        driver.send_raw(beginning);
        wait_until("the end of the stream", || driver.is_closed());
    }
}

#[test]
fn padding_is_zero_and_no_old_memory() {
    let relay = Relay::start(settings(1, None));
    let mut driver = Driver::tcp(relay.address(Transport::Tcp, true));
    let relayed = driver.allocate(AllocateOptions::default()).relayed;
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    driver.permit(peer.local_addr().unwrap());
    for on_channel in [false, true] {
        if on_channel {
            driver.bind_channel(peer.local_addr().unwrap());
        }
        for len in (1..=7).rev() {
            peer.send_to(&[0xFF; 1200], relayed).unwrap();
            assert_eq!(driver.receive_one().payload.len(), 1200);
            peer.send_to(&vec![0xFF; len], relayed).unwrap();
            let message = driver.receive_raw();
            let ones = message.iter().rposition(|byte| *byte == 0xFF).unwrap();
            assert_eq!(message.len() % 4, 0, "{message:?}");
            assert_eq!(message.len() - ones - 1, (4 - len % 4) % 4, "{message:?}");
        }
    }
}

#[test]
fn a_handshake_that_stops_half_way_is_closed_in_time() {
    let (chain, _folder, certificate) = certificate();
    let mut settings = settings(1, Some(certificate));
    settings.streams.idle = Duration::from_millis(300);
    let relay = Relay::start(settings);
    let mut hello = Vec::new();
    tls_session(&chain, &[]).write_tls(&mut hello).unwrap();
    for end in [hello.len() / 2, hello.len()] {
        let mut driver = Driver::tcp(relay.address(Transport::Tls, true));
        driver.send_raw(&hello[..end]);
        wait_until("the end of the stream", || driver.is_closed());
    }
    relay.wait_until("a count of them", |shards| {
        shards.driver_counters().streams_timed_out == 2
    });
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
        // In which the busy one has its allocation, on a machine that does much else.
        idle: Duration::from_secs(3),
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

/// One that has shown that it speaks TURN lives longer, and is older all the same.
#[test]
fn the_oldest_stranger_goes_first_whatever_it_has_said() {
    let relay = with_limits(StreamLimits {
        without_allocation: 2,
        ..StreamLimits::default()
    });
    let server = relay.address(Transport::Tcp, true);
    let mut first = Driver::tcp(server);
    first.send_raw(b"\0\x01\0\0\x21\x12\xA4\x42I was first.");
    first.receive_raw();
    let mut second = Driver::tcp(server);
    relay.wait_until("both", |shards| {
        shards.driver_counters().streams_accepted == 2
    });
    let _third = connect(server);
    wait_until("the end of the first", || first.is_closed());
    assert!(!second.is_closed());
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
fn a_stranger_that_does_not_read_is_closed_before_much_waits_for_it() {
    let relay = with_limits(StreamLimits {
        idle: 2 * DEADLINE,
        // Allocations may make the relay keep this much, and strangers must not.
        outgoing: 1 << 30,
        ..StreamLimits::default()
    });
    let mut stranger = connect(relay.address(Transport::Tcp, true));
    stranger
        .set_write_timeout(Some(Duration::from_millis(10)))
        .unwrap();
    let bindings = b"\0\x01\0\0\x21\x12\xA4\x42on and on...".repeat(1000);
    let mut sent = 0;
    relay.wait_until("the end of the stranger", |shards| {
        // The relay may take a part of it, and nothing once the stream is closed.
        sent += stranger.write(&bindings[sent % 20..]).unwrap_or(0);
        shards.driver_counters().streams_overflowed == 1
    });
}

#[test]
fn a_certificate_that_is_replaced_before_anybody_watches_is_seen() {
    let (chain, folder, certificate) = certificate();
    let [next, next_key] = ["next", "next-key"].map(|name| folder.path().join(name));
    write_certificate(&next, &next_key);
    std::fs::rename(&next_key, folder.path().join("key")).unwrap();
    std::fs::rename(&next, &chain).unwrap();
    let _watcher = certificate.watch().unwrap();
    wait_until("the replacement", || certificate.replaced() == 1);
}

#[test]
fn a_client_that_is_not_speaking_tls_is_turned_away() {
    let (_chain, _folder, certificate) = certificate();
    let relay = Relay::start(settings(1, Some(certificate)));
    let mut stream = connect(relay.address(Transport::Tls, true));
    stream.write_all(b"this is no ClientHello").unwrap();
    relay.wait_until("a failed session", |shards| {
        shards.driver_counters().tls_failures == 1
    });
}
