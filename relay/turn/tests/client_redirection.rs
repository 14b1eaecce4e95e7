//! The client and servers that send it elsewhere (RFC 8489 §10).

#![expect(clippy::unwrap_used, reason = "what a test takes for granted fails it")]

use std::net::SocketAddr;

use turnfleet_turn::client::{AllocateOptions, Client, Config, Event, Failure, Input, Redirect};
use turnfleet_turn::wire::{Class, ErrorCode, LongTermKey, Message, MessageWriter, Method};
use turnfleet_turn::{Instant, Transport};

const REALM: &str = "example.org";
const NOW: Instant = Instant(1_000_000_000_000);

fn other() -> SocketAddr {
    "203.0.113.50:5349".parse().unwrap()
}

fn key() -> LongTermKey {
    LongTermKey::derive("user", REALM, "pass")
}

/// A client that has sent its first Allocate request, and the request.
fn asking() -> (Client, Vec<u8>) {
    let mut client = Client::new(Config {
        transport: Transport::Udp,
        username: "user".into(),
        password: "pass".into(),
        password_algorithms: false,
        seed: [1; 32],
    });
    assert_eq!(client.allocate(NOW, AllocateOptions::default()), Ok(()));
    let request = transmit(&mut client);
    (client, request)
}

/// The same, once the client knows what to sign with.
fn asking_signed() -> (Client, Vec<u8>) {
    let (mut client, request) = asking();
    let challenge = answer(&request, None, |writer| {
        writer
            .error_code(ErrorCode::UNAUTHENTICATED, "")
            .realm(REALM)
            .nonce(b"n1");
    });
    assert_eq!(client.handle_input(NOW, &challenge), Input::Response);
    let request = transmit(&mut client);
    (client, request)
}

fn transmit(client: &mut Client) -> Vec<u8> {
    let mut request = Vec::new();
    assert!(client.poll_transmit(&mut request), "nothing to send");
    request
}

fn answer(
    request: &[u8],
    key: Option<&LongTermKey>,
    write: impl FnOnce(&mut MessageWriter<'_>),
) -> Vec<u8> {
    let id = Message::parse(request).unwrap().transaction_id();
    let mut bytes = Vec::new();
    let mut writer = MessageWriter::new(&mut bytes, Class::ErrorResponse, Method::Allocate, id);
    write(&mut writer);
    match key {
        Some(key) => writer.finish_signed(key),
        None => writer.finish(),
    }
    bytes
}

fn redirection(request: &[u8], key: Option<&LongTermKey>) -> Vec<u8> {
    answer(request, key, |writer| {
        writer
            .error_code(ErrorCode::TRY_ALTERNATE, "")
            .alternate_server(other())
            .alternate_domain("b.example.org");
    })
}

fn refused() -> Option<Event> {
    Some(Event::Failed {
        method: Method::Allocate,
        peer: None,
        why: Failure::Refused(ErrorCode::TRY_ALTERNATE),
    })
}

#[test]
fn an_authentic_redirection_names_the_other_server_and_its_certificate() {
    let (mut client, request) = asking_signed();
    let packet = redirection(&request, Some(&key()));
    assert_eq!(client.handle_input(NOW, &packet), Input::Response);
    let expected = Event::Redirected(Redirect {
        servers: [other()].into(),
        domain: Some("b.example.org".into()),
    });
    assert_eq!(client.poll_event(), Some(expected));
    assert_eq!(client.requests_in_flight(), 0);
}

#[test]
fn a_redirection_that_anybody_could_have_sent_is_not_followed() {
    let (mut client, request) = asking_signed();
    for key in [None, Some(LongTermKey::derive("user", REALM, "wrong"))] {
        let packet = redirection(&request, key.as_ref());
        assert_eq!(client.handle_input(NOW, &packet), Input::Ignored);
        assert_eq!(client.poll_event(), None);
    }
    let (mut client, request) = asking();
    let packet = redirection(&request, None);
    assert_eq!(client.handle_input(NOW, &packet), Input::Response);
    assert_eq!(client.poll_event(), refused());
}

#[test]
fn a_redirection_that_leads_nowhere_is_a_refusal() {
    let nowhere = |writer: &mut MessageWriter<'_>| {
        writer.error_code(ErrorCode::TRY_ALTERNATE, "");
    };
    let malformed = |writer: &mut MessageWriter<'_>| {
        writer
            .error_code(ErrorCode::TRY_ALTERNATE, "")
            .alternate_server(other())
            .alternate_domain("not a name");
    };
    let (mut client, request) = asking_signed();
    client.handle_input(NOW, &answer(&request, Some(&key()), nowhere));
    assert_eq!(client.poll_event(), refused());
    let (mut client, request) = asking_signed();
    client.handle_input(NOW, &answer(&request, Some(&key()), malformed));
    assert_eq!(client.poll_event(), refused());
}
