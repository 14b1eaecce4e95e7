//! The client against a scripted server: what it sends, believes and keeps alive.

use std::time::Duration;

use turnfleet_turn::client::{AllocateOptions, Allocated, Client, Config, Event, Failure, Input};
use turnfleet_turn::wire::{
    AttributeType, ChannelData, ChannelNumber, Class, ErrorCode, Icmp, LongTermKey, Message,
    MessageWriter, Method, TransactionId,
};
use turnfleet_turn::{AddressFamily, ClientHeader, Instant, PeerAddr, Span, Transport};

const REALM: &str = "example.org";
const START: Instant = Instant(1_000_000_000_000);

fn client(transport: Transport) -> Client {
    Client::new(Config {
        transport,
        username: "user".into(),
        password: "pass".into(),
        password_algorithms: false,
        seed: [1; 32],
    })
}

fn key() -> LongTermKey {
    LongTermKey::derive("user", REALM, "pass")
}

fn at(seconds: u64) -> Instant {
    START.after(Duration::from_secs(seconds))
}

fn peer(text: &str) -> PeerAddr {
    PeerAddr(text.parse().expect("an address"))
}

#[track_caller]
fn transmit(client: &mut Client) -> Vec<u8> {
    let mut request = Vec::new();
    assert!(client.poll_transmit(&mut request), "nothing to send");
    request
}

#[track_caller]
fn assert_silent(client: &mut Client) {
    let mut request = Vec::new();
    assert!(!client.poll_transmit(&mut request), "sends {request:02x?}");
    assert_eq!(client.poll_event(), None);
}

/// An answer to `request`, signed where there is a `key`.
fn answer(
    request: &[u8],
    class: Class,
    key: Option<&LongTermKey>,
    write: impl FnOnce(&mut MessageWriter<'_>),
) -> Vec<u8> {
    let request = Message::parse(request).expect("the client's request is sound");
    let mut bytes = Vec::new();
    let method = request.method().expect("the client speaks our methods");
    let mut writer = MessageWriter::new(&mut bytes, class, method, request.transaction_id());
    write(&mut writer);
    match key {
        Some(key) => writer.finish_signed(key),
        None => writer.finish(),
    }
    bytes
}

fn challenge(request: &[u8], code: ErrorCode, nonce: &[u8]) -> Vec<u8> {
    answer(request, Class::ErrorResponse, None, |writer| {
        writer.error_code(code, "").realm(REALM).nonce(nonce);
    })
}

fn refusal(request: &[u8], code: ErrorCode) -> Vec<u8> {
    answer(request, Class::ErrorResponse, Some(&key()), |writer| {
        writer.error_code(code, "");
    })
}

fn grant(request: &[u8], write: impl FnOnce(&mut MessageWriter<'_>)) -> Vec<u8> {
    answer(request, Class::SuccessResponse, Some(&key()), write)
}

fn grant_allocation(request: &[u8]) -> Vec<u8> {
    grant(request, |writer| {
        writer
            .xor_relayed_address(peer("198.51.100.1:49200").0)
            .lifetime(600)
            .xor_mapped_address(peer("192.0.2.1:5000").0);
    })
}

/// A client with an allocation of 600 seconds.
fn allocated(transport: Transport) -> Client {
    let mut client = client(transport);
    let called = client.allocate(START, AllocateOptions::default());
    assert_eq!(called, Ok(()));
    let request = transmit(&mut client);
    client.handle_input(
        START,
        &challenge(&request, ErrorCode::UNAUTHENTICATED, b"n1"),
    );
    let request = transmit(&mut client);
    client.handle_input(START, &grant_allocation(&request));
    let event = client.poll_event();
    assert!(matches!(event, Some(Event::Allocated(_))), "{event:?}");
    client
}

#[track_caller]
fn assert_signed(request: &[u8], nonce: &[u8]) {
    let message = Message::parse(request).expect("the client's request is sound");
    assert_eq!(message.username(), Some(Ok("user")));
    assert_eq!(message.realm(), Some(Ok(REALM)));
    assert_eq!(message.nonce(), Some(Ok(nonce)));
    assert!(message.verify_integrity(&key()));
}

#[track_caller]
fn assert_failed(client: &mut Client, method: Method, why: Failure) {
    let peer = None;
    assert_eq!(
        client.poll_event(),
        Some(Event::Failed { method, peer, why })
    );
}

#[test]
fn a_binding_tells_the_mapped_address() {
    let mut client = client(Transport::Udp);
    client.binding(START).unwrap();
    let request = transmit(&mut client);
    let mapped = "192.0.2.1:5000".parse().unwrap();
    let response = answer(&request, Class::SuccessResponse, None, |writer| {
        writer.xor_mapped_address(mapped);
    });
    assert_eq!(client.handle_input(START, &response), Input::Response);
    assert_eq!(client.poll_event(), Some(Event::Bound { mapped }));
    assert_eq!(client.handle_input(START, &response), Input::Ignored);
    assert_eq!(client.poll_timeout(), None);
}

#[test]
fn a_challenge_is_answered_under_another_transaction_id() {
    let mut client = client(Transport::Udp);
    client.allocate(START, AllocateOptions::default()).unwrap();
    let first = transmit(&mut client);
    let message = Message::parse(&first).unwrap();
    assert_eq!(message.requested_transport(), Some(Ok(17)));
    assert!(!message.has_integrity());

    let response = challenge(&first, ErrorCode::UNAUTHENTICATED, b"n1");
    assert_eq!(client.handle_input(START, &response), Input::Response);
    let second = transmit(&mut client);
    assert_ne!(first[8..20], second[8..20]);
    assert_signed(&second, b"n1");

    client.handle_input(START, &grant_allocation(&second));
    let allocated = Allocated {
        relayed: "198.51.100.1:49200".parse().unwrap(),
        additional: None,
        mapped: "192.0.2.1:5000".parse().unwrap(),
        lifetime: 600,
        reservation_token: None,
        address_error: None,
    };
    assert_eq!(client.allocation(), Some(&allocated));
    assert_eq!(client.poll_event(), Some(Event::Allocated(allocated)));
    assert_silent(&mut client);
}

#[test]
fn a_wrong_password_is_not_tried_again() {
    let mut client = client(Transport::Udp);
    client.allocate(START, AllocateOptions::default()).unwrap();
    for nonce in [b"n1", b"n2"] {
        let request = transmit(&mut client);
        client.handle_input(
            START,
            &challenge(&request, ErrorCode::UNAUTHENTICATED, nonce),
        );
    }
    let why = Failure::Refused(ErrorCode::UNAUTHENTICATED);
    assert_failed(&mut client, Method::Allocate, why);
    assert_silent(&mut client);
}

#[test]
fn a_stale_nonce_is_replaced_twice_at_most() {
    let mut client = allocated(Transport::Udp);
    client.refresh(START, 600).unwrap();
    for nonce in [b"n1", b"n2", b"n3"] {
        let request = transmit(&mut client);
        assert_signed(&request, nonce);
        client.handle_input(
            START,
            &challenge(&request, ErrorCode::STALE_NONCE, &[b'n', nonce[1] + 1]),
        );
    }
    assert_failed(
        &mut client,
        Method::Refresh,
        Failure::Refused(ErrorCode::STALE_NONCE),
    );
    assert_silent(&mut client);
}

#[test]
fn requests_are_retransmitted_on_the_schedule_of_the_rfc() {
    let mut client = client(Transport::Udp);
    client.binding(START).unwrap();
    let request = transmit(&mut client);
    for millis in [500, 1500, 3500, 7500, 15_500, 31_500] {
        let due = START.after(Duration::from_millis(millis));
        assert_eq!(client.poll_timeout(), Some(due));
        client.handle_timeout(Instant(due.0 - 1));
        assert_silent(&mut client);
        client.handle_timeout(due);
        assert_eq!(transmit(&mut client), request);
    }
    let end = START.after(Duration::from_millis(39_500));
    assert_eq!(client.poll_timeout(), Some(end));
    client.handle_timeout(end);
    assert_failed(&mut client, Method::Binding, Failure::Timeout);
    assert_eq!(client.poll_timeout(), None);
}

#[test]
fn a_stream_needs_no_retransmission() {
    let mut client = client(Transport::Tcp);
    client.binding(START).unwrap();
    transmit(&mut client);
    let end = START.after(Duration::from_millis(39_500));
    assert_eq!(client.poll_timeout(), Some(end));
    client.handle_timeout(end);
    assert_failed(&mut client, Method::Binding, Failure::Timeout);
}

#[test]
fn an_answer_that_is_not_the_servers_is_discarded() {
    let mut client = allocated(Transport::Udp);
    client.refresh(START, 600).unwrap();
    let request = transmit(&mut client);
    let wrong_key = LongTermKey::Md5([0; 16]);
    for key in [None, Some(&wrong_key)] {
        let forged = answer(&request, Class::SuccessResponse, key, |writer| {
            writer.lifetime(0);
        });
        assert_eq!(client.handle_input(START, &forged), Input::Ignored);
    }
    assert_silent(&mut client);
    client.handle_timeout(START.after(Duration::from_millis(500)));
    assert_eq!(transmit(&mut client), request);
    let response = grant(&request, |writer| {
        writer.lifetime(300);
    });
    assert_eq!(client.handle_input(START, &response), Input::Response);
    assert_eq!(
        client.poll_event(),
        Some(Event::Refreshed { lifetime: 300 })
    );
}

#[test]
fn nothing_but_forged_answers_is_a_violation() {
    let mut client = allocated(Transport::Udp);
    client.refresh(START, 600).unwrap();
    let request = transmit(&mut client);
    let forged = answer(&request, Class::ErrorResponse, None, |writer| {
        writer.error_code(ErrorCode::BAD_REQUEST, "");
    });
    client.handle_input(START, &forged);
    for _ in 0..7 {
        let due = client.poll_timeout().unwrap();
        client.handle_timeout(due);
    }
    assert_failed(&mut client, Method::Refresh, Failure::IntegrityViolated);
}

#[test]
fn a_forged_answer_on_a_stream_ends_the_request() {
    let mut client = allocated(Transport::Tls);
    client.refresh(START, 600).unwrap();
    let request = transmit(&mut client);
    let forged = answer(&request, Class::SuccessResponse, None, |writer| {
        writer.lifetime(0);
    });
    assert_eq!(client.handle_input(START, &forged), Input::Response);
    assert_failed(&mut client, Method::Refresh, Failure::IntegrityViolated);
}

#[test]
fn an_answer_that_lacks_its_content_is_malformed() {
    let mut client = allocated(Transport::Udp);
    client.refresh(START, 600).unwrap();
    let request = transmit(&mut client);
    client.handle_input(START, &grant(&request, |_| {}));
    assert_failed(&mut client, Method::Refresh, Failure::Malformed);

    client.binding(START).unwrap();
    let request = transmit(&mut client);
    let response = answer(&request, Class::SuccessResponse, None, |writer| {
        writer
            .xor_mapped_address("192.0.2.1:1".parse().unwrap())
            .attribute(AttributeType(0x7FFF), &[]);
    });
    client.handle_input(START, &response);
    assert_failed(&mut client, Method::Binding, Failure::Malformed);
}

#[test]
fn refusals_are_reported_with_their_code() {
    let mut client = allocated(Transport::Udp);
    let denied = peer("10.0.0.1:9");
    client.create_permission(START, &[denied]).unwrap();
    let request = transmit(&mut client);
    client.handle_input(START, &refusal(&request, ErrorCode::FORBIDDEN));
    let failed = Event::Failed {
        method: Method::CreatePermission,
        peer: Some(denied),
        why: Failure::Refused(ErrorCode::FORBIDDEN),
    };
    assert_eq!(client.poll_event(), Some(failed));
}

#[test]
fn the_allocation_is_refreshed_at_half_of_its_life() {
    let mut client = allocated(Transport::Udp);
    assert_eq!(client.poll_timeout(), Some(at(300)));
    client.handle_timeout(at(300));
    let request = transmit(&mut client);
    let message = Message::parse(&request).unwrap();
    assert_eq!(message.method(), Some(Method::Refresh));
    assert_eq!(message.lifetime(), Some(Ok(600)));
    let response = grant(&request, |writer| {
        writer.lifetime(600);
    });
    client.handle_input(at(301), &response);
    assert_eq!(
        client.poll_event(),
        Some(Event::Refreshed { lifetime: 600 })
    );
    assert_eq!(client.poll_timeout(), Some(at(601)));
}

#[test]
fn a_lost_allocation_is_let_go() {
    let mut client = allocated(Transport::Udp);
    client.handle_timeout(at(300));
    let request = transmit(&mut client);
    client.handle_input(at(300), &refusal(&request, ErrorCode::ALLOCATION_MISMATCH));
    let why = Failure::Refused(ErrorCode::ALLOCATION_MISMATCH);
    assert_failed(&mut client, Method::Refresh, why);
    assert_eq!(client.allocation(), None);
    assert_eq!(client.poll_timeout(), None);
}

/// RFC 8656 §8.3: an answer was lost, and the request that was made again found nothing.
#[test]
fn ending_what_is_gone_succeeds() {
    let mut client = allocated(Transport::Udp);
    client.refresh(START, 0).unwrap();
    let request = transmit(&mut client);
    client.handle_input(START, &refusal(&request, ErrorCode::ALLOCATION_MISMATCH));
    assert_eq!(client.poll_event(), Some(Event::Refreshed { lifetime: 0 }));
    assert_eq!(client.allocation(), None);
}

#[test]
fn a_lifetime_of_zero_ends_the_allocation() {
    let mut client = allocated(Transport::Udp);
    client.refresh(START, 0).unwrap();
    let request = transmit(&mut client);
    let response = grant(&request, |writer| {
        writer.lifetime(0);
    });
    client.handle_input(START, &response);
    assert_eq!(client.poll_event(), Some(Event::Refreshed { lifetime: 0 }));
    assert_eq!(client.allocation(), None);
    assert_eq!(client.poll_timeout(), None);
}

#[test]
fn permissions_are_kept_and_admit_data() {
    let mut client = allocated(Transport::Udp);
    let peers = [peer("203.0.113.1:1"), peer("203.0.113.2:2")];
    let mut data = Vec::new();
    let id = TransactionId([3; 12]);
    let mut writer = MessageWriter::new(&mut data, Class::Indication, Method::Data, id);
    writer.xor_peer_address(peer("203.0.113.2:99")).data(b"hi");
    writer.finish();
    assert_eq!(client.handle_input(START, &data), Input::Ignored);

    client.create_permission(START, &peers).unwrap();
    let request = transmit(&mut client);
    client.handle_input(START, &grant(&request, |_| {}));
    let created = Event::PermissionCreated {
        peers: peers.into(),
    };
    assert_eq!(client.poll_event(), Some(created.clone()));
    let received = Input::Data {
        peer: peer("203.0.113.2:99"),
        channel: None,
        payload: b"hi",
    };
    assert_eq!(client.handle_input(START, &data), received);

    assert_eq!(client.poll_timeout(), Some(at(240)));
    client.handle_timeout(at(240));
    let request = transmit(&mut client);
    let message = Message::parse(&request).unwrap();
    assert_eq!(message.method(), Some(Method::CreatePermission));
    assert!(message.xor_peer_addresses().eq(peers.map(Ok)));
    client.handle_input(at(240), &grant(&request, |_| {}));
    assert_eq!(client.poll_event(), Some(created));
}

#[test]
fn channels_are_kept_and_carry_data_both_ways() {
    for (transport, wire) in [
        (Transport::Udp, &b"\x40\x00\x00\x02hi"[..]),
        (Transport::Tcp, &b"\x40\x00\x00\x02hi\0\0"[..]),
    ] {
        let mut client = allocated(transport);
        let peer = peer("203.0.113.1:1");
        let number = client.bind_channel(START, peer).unwrap();
        assert_eq!(number, ChannelNumber(0x4000));
        assert_eq!(client.channel_to(peer), None);
        assert_eq!(client.handle_input(START, wire), Input::Ignored);

        let request = transmit(&mut client);
        let message = Message::parse(&request).unwrap();
        assert_eq!(message.channel_number(), Some(Ok(number)));
        assert_eq!(message.xor_peer_address(), Some(Ok(peer)));
        client.handle_input(START, &grant(&request, |_| {}));
        let bound = Event::ChannelBound { number, peer };
        assert_eq!(client.poll_event(), Some(bound));
        assert_eq!(client.channel_to(peer), Some(number));

        let received = Input::Data {
            peer,
            channel: Some(number),
            payload: b"hi",
        };
        assert_eq!(client.handle_input(START, wire), received);
        let mut buffer = [0; 64];
        let start = ClientHeader::MAX_LEN;
        buffer[start..start + 2].copy_from_slice(b"hi");
        let payload = Span { start, len: 2 };
        let message = client
            .write_channel_data(number, &mut buffer, payload)
            .unwrap();
        assert_eq!(&buffer[message.range()], wire);

        client.handle_timeout(at(240));
        let request = transmit(&mut client);
        let message = Message::parse(&request).unwrap();
        assert_eq!(message.method(), Some(Method::ChannelBind));
        assert_eq!(message.channel_number(), Some(Ok(number)));
    }
}

#[test]
fn a_send_indication_names_peer_and_data() {
    let mut client = allocated(Transport::Udp);
    let peer = peer("[2001:db8::1]:7");
    let mut buffer = [0; 64];
    let payload = Span {
        start: ClientHeader::MAX_LEN,
        len: 5,
    };
    buffer[payload.range()].copy_from_slice(b"hello");
    let span = client
        .write_send_indication(peer, &mut buffer, payload)
        .unwrap();
    let bytes = &buffer[span.range()];
    let message = Message::parse(bytes).unwrap();
    assert_eq!(message.class(), Class::Indication);
    assert_eq!(message.method(), Some(Method::Send));
    assert_eq!(message.xor_peer_address(), Some(Ok(peer)));
    assert_eq!(&bytes[message.data().unwrap().range()], b"hello");
}

#[test]
fn an_icmp_attribute_about_a_permitted_peer_is_an_event() {
    let mut client = allocated(Transport::Udp);
    let (known, stranger) = (peer("203.0.113.1:7"), peer("203.0.113.2:7"));
    client.create_permission(START, &[known]).unwrap();
    let request = transmit(&mut client);
    client.handle_input(START, &grant(&request, |_| {}));
    client.poll_event();
    let icmp = Icmp::too_big(AddressFamily::V4, 1280);
    let indication = |peer: PeerAddr, value: &[u8]| {
        let mut bytes = Vec::new();
        let id = TransactionId([3; 12]);
        let mut writer = MessageWriter::new(&mut bytes, Class::Indication, Method::Data, id);
        writer.xor_peer_address(peer);
        writer.attribute(AttributeType::ICMP, value);
        writer.finish();
        bytes
    };
    // The reserved bytes are ignored.
    let value = [1, 2, 3, 4, 0, 0, 5, 0];
    let about_known = indication(known, &value);
    let input = client.handle_input(START, &about_known);
    assert_eq!(input, Input::Response);
    let event = Event::PeerError { peer: known, icmp };
    assert_eq!(client.poll_event(), Some(event));
    for (peer, value) in [(stranger, &value[..]), (known, &value[..7])] {
        let bytes = indication(peer, value);
        let input = client.handle_input(START, &bytes);
        assert_eq!(input, Input::Ignored);
    }
    assert_silent(&mut client);
}

#[test]
fn many_requests_fly_at_once() {
    let mut client = allocated(Transport::Udp);
    let peers: Vec<_> = (1..=100)
        .map(|n| peer(&format!("203.0.113.{n}:1")))
        .collect();
    for peer in &peers {
        client.bind_channel(START, *peer).unwrap();
    }
    let requests: Vec<_> = peers.iter().map(|_| transmit(&mut client)).collect();
    assert_eq!(client.requests_in_flight(), 100);
    for request in requests.iter().rev() {
        client.handle_input(START, &grant(request, |_| {}));
    }
    assert_eq!(client.requests_in_flight(), 0);
    for peer in &peers {
        assert!(client.channel_to(*peer).is_some());
    }
    let mut packet = Vec::new();
    ChannelData::write(ChannelNumber(0x4063), b"x", false, &mut packet);
    let Input::Data { peer, .. } = client.handle_input(START, &packet) else {
        panic!("no data");
    };
    assert_eq!(peer, peers[99]);
}

#[test]
fn a_client_is_small() {
    assert!(size_of::<Client>() <= 512, "{}", size_of::<Client>());
}
