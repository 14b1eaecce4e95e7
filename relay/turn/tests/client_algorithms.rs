//! The client and what a server offers: password algorithms, MESSAGE-INTEGRITY-SHA256, and somebody on the path who takes
//! them away (RFC 8489 §9.2.1, §9.2.5).

use std::time::Duration;

use turnfleet_turn::client::{AllocateOptions, Client, Config, Event, Failure, Input};
use turnfleet_turn::wire::PasswordAlgorithm::{Md5, Sha256};
use turnfleet_turn::wire::{
    AttributeType, Class, ErrorCode, IntegrityKind, LongTermKey, Message, MessageWriter, Method,
    PasswordAlgorithm,
};
use turnfleet_turn::{Instant, Transport};

const REALM: &str = "example.org";
const START: Instant = Instant(1_000_000_000_000);

/// Nonces that announce password algorithms, and one that does not.
const NONCE: &[u8] = b"obMatJos2gAAAn1";
const NEXT_NONCE: &[u8] = b"obMatJos2gAAAn2";
const PLAIN_NONCE: &[u8] = b"obMatJos2AAAAn1";

const BOTH: [PasswordAlgorithm; 2] = [Sha256, Md5];

/// A client that has sent its first Allocate, and the request.
fn asking(transport: Transport, password_algorithms: bool) -> (Client, Vec<u8>) {
    let mut client = Client::new(Config {
        transport,
        username: "user".into(),
        password: "pass".into(),
        password_algorithms,
        seed: [1; 32],
    });
    let called = client.allocate(START, AllocateOptions::default());
    assert_eq!(called, Ok(()));
    let request = transmit(&mut client);
    (client, request)
}

/// A client that has taken up SHA-256, with an allocation of 600 seconds.
fn allocated(transport: Transport) -> Client {
    let (mut client, request) = asking(transport, true);
    client.handle_input(START, &challenge(&request, 401, NONCE, Some(&BOTH)));
    let request = transmit(&mut client);
    let granted = answer(&request, Class::SuccessResponse, |writer| {
        writer
            .xor_relayed_address("198.51.100.1:49200".parse().expect("an address"))
            .lifetime(600)
            .xor_mapped_address("192.0.2.1:5000".parse().expect("an address"));
        writer.integrity_sha256(&key(Sha256));
    });
    client.handle_input(START, &granted);
    let event = client.poll_event();
    assert!(matches!(event, Some(Event::Allocated(_))), "{event:?}");
    client
}

fn key(algorithm: PasswordAlgorithm) -> LongTermKey {
    LongTermKey::derive_with(algorithm, "user", REALM, "pass")
}

#[track_caller]
fn transmit(client: &mut Client) -> Vec<u8> {
    let mut request = Vec::new();
    assert!(client.poll_transmit(&mut request), "nothing to send");
    request
}

/// An answer to `request`; `write` signs it where it is signed.
fn answer(request: &[u8], class: Class, write: impl FnOnce(&mut MessageWriter<'_>)) -> Vec<u8> {
    let request = Message::parse(request).expect("the client's request is sound");
    let method = request.method().expect("the client speaks our methods");
    let mut bytes = Vec::new();
    let mut writer = MessageWriter::new(&mut bytes, class, method, request.transaction_id());
    write(&mut writer);
    writer.finish();
    bytes
}

fn challenge(
    request: &[u8],
    code: u16,
    nonce: &[u8],
    offered: Option<&[PasswordAlgorithm]>,
) -> Vec<u8> {
    let code = match code {
        401 => ErrorCode::UNAUTHENTICATED,
        _ => ErrorCode::STALE_NONCE,
    };
    answer(request, Class::ErrorResponse, |writer| {
        writer.error_code(code, "").realm(REALM).nonce(nonce);
        if let Some(offered) = offered {
            writer.password_algorithms(offered);
        }
    })
}

/// Whether the request takes up `algorithm` of what was offered.
#[track_caller]
fn assert_takes_up(request: &[u8], nonce: &[u8], algorithm: PasswordAlgorithm, offered: &[u8]) {
    let message = Message::parse(request).expect("the client's request is sound");
    assert_eq!(message.nonce(), Some(Ok(nonce)));
    assert_eq!(message.password_algorithm(), Some(Ok(algorithm)));
    let repeated = message.password_algorithms().map(|list| list.as_bytes());
    assert_eq!(repeated, Some(offered));
    assert_eq!(message.integrity(), Some(IntegrityKind::Sha256));
    assert!(message.first(AttributeType::MESSAGE_INTEGRITY).is_none());
    assert!(message.verify_integrity(&key(algorithm)));
}

/// Whether the request is one of a client of RFC 5389.
#[track_caller]
fn assert_plain(request: &[u8]) {
    let message = Message::parse(request).expect("the client's request is sound");
    assert!(message.password_algorithm().is_none());
    assert!(message.password_algorithms().is_none());
    assert_eq!(message.integrity(), Some(IntegrityKind::Sha1));
    assert!(message.verify_integrity(&key(Md5)));
}

#[track_caller]
fn assert_failed(client: &mut Client, method: Method, why: Failure) {
    let peer = None;
    let expected = Event::Failed { method, peer, why };
    assert_eq!(client.poll_event(), Some(expected));
    assert!(!client.poll_transmit(&mut Vec::new()), "tries again");
}

#[test]
fn the_first_algorithm_that_is_known_is_taken_and_the_list_repeated() {
    let lists = [
        (&[0, 2, 0, 0, 0, 1, 0, 0][..], Sha256),
        (&[0, 1, 0, 0, 0, 2, 0, 0], Md5),
        (&[0, 1, 0, 0], Md5),
        (&[0, 9, 0, 1, 7, 0, 0, 0, 0, 2, 0, 0], Sha256),
    ];
    for (list, expected) in lists {
        let (mut client, request) = asking(Transport::Udp, true);
        let challenge = answer(&request, Class::ErrorResponse, |writer| {
            writer
                .error_code(ErrorCode::UNAUTHENTICATED, "")
                .realm(REALM)
                .nonce(NONCE)
                .attribute(AttributeType::PASSWORD_ALGORITHMS, list);
        });
        client.handle_input(START, &challenge);
        assert_takes_up(&transmit(&mut client), NONCE, expected, list);
    }
}

#[test]
fn without_the_switch_the_client_is_one_of_rfc_5389() {
    for offered in [Some(&BOTH[..]), None] {
        let (mut client, request) = asking(Transport::Udp, false);
        client.handle_input(START, &challenge(&request, 401, NONCE, offered));
        assert_plain(&transmit(&mut client));
    }
}

#[test]
fn a_server_that_offers_nothing_gets_a_plain_request() {
    for nonce in [PLAIN_NONCE, b"of RFC 5389"] {
        let (mut client, request) = asking(Transport::Udp, true);
        client.handle_input(START, &challenge(&request, 401, nonce, None));
        assert_plain(&transmit(&mut client));
    }
}

#[test]
fn an_offer_of_nothing_that_is_known_is_not_answered() {
    let (mut client, request) = asking(Transport::Udp, true);
    client.handle_input(START, &challenge(&request, 401, NONCE, Some(&[])));
    let why = Failure::Refused(ErrorCode::UNAUTHENTICATED);
    assert_failed(&mut client, Method::Allocate, why);
}

#[test]
fn a_challenge_whose_nonce_offers_what_its_attributes_do_not_is_not_answered() {
    let (mut client, request) = asking(Transport::Udp, true);
    client.handle_input(START, &challenge(&request, 401, NONCE, None));
    assert_failed(&mut client, Method::Allocate, Failure::BidDown);

    let mut client = allocated(Transport::Udp);
    assert_eq!(client.refresh(START, 600), Ok(()));
    let request = transmit(&mut client);
    client.handle_input(START, &challenge(&request, 438, NEXT_NONCE, None));
    assert_failed(&mut client, Method::Refresh, Failure::BidDown);
}

#[test]
fn an_offer_that_was_made_once_is_not_to_be_withdrawn() {
    let mut client = allocated(Transport::Udp);
    assert_eq!(client.refresh(START, 600), Ok(()));
    let request = transmit(&mut client);
    client.handle_input(START, &challenge(&request, 438, PLAIN_NONCE, None));
    assert_failed(&mut client, Method::Refresh, Failure::BidDown);
}

#[test]
fn a_stale_nonce_is_replaced_and_the_algorithm_kept() {
    let mut client = allocated(Transport::Udp);
    assert_eq!(client.refresh(START, 600), Ok(()));
    let request = transmit(&mut client);
    client.handle_input(START, &challenge(&request, 438, NEXT_NONCE, Some(&BOTH)));
    let list = [0, 2, 0, 0, 0, 1, 0, 0];
    assert_takes_up(&transmit(&mut client), NEXT_NONCE, Sha256, &list);
}

#[test]
fn a_wrong_password_is_not_tried_again_with_another_algorithm() {
    let (mut client, request) = asking(Transport::Udp, true);
    client.handle_input(START, &challenge(&request, 401, NONCE, Some(&BOTH)));
    let request = transmit(&mut client);
    client.handle_input(START, &challenge(&request, 401, NEXT_NONCE, Some(&[Md5])));
    let why = Failure::Refused(ErrorCode::UNAUTHENTICATED);
    assert_failed(&mut client, Method::Allocate, why);
}

#[test]
fn an_answer_by_sha1_to_a_request_by_sha256_is_not_believed() {
    let mut client = allocated(Transport::Udp);
    assert_eq!(client.refresh(START, 600), Ok(()));
    let request = transmit(&mut client);
    for key in [key(Sha256), key(Md5)] {
        let weaker = answer(&request, Class::SuccessResponse, |writer| {
            writer.lifetime(0).integrity(&key);
        });
        assert_eq!(client.handle_input(START, &weaker), Input::Ignored);
    }
    let genuine = answer(&request, Class::SuccessResponse, |writer| {
        writer.lifetime(300).integrity_sha256(&key(Sha256));
    });
    assert_eq!(client.handle_input(START, &genuine), Input::Response);
    let refreshed = Event::Refreshed { lifetime: 300 };
    assert_eq!(client.poll_event(), Some(refreshed));
}

#[test]
fn a_weaker_answer_on_a_stream_ends_the_request() {
    let mut client = allocated(Transport::Tcp);
    assert_eq!(client.refresh(START, 600), Ok(()));
    let request = transmit(&mut client);
    let weaker = answer(&request, Class::SuccessResponse, |writer| {
        writer.lifetime(0).integrity(&key(Md5));
    });
    client.handle_input(START, &weaker);
    assert_failed(&mut client, Method::Refresh, Failure::IntegrityViolated);
}

#[test]
fn any_other_answer_whose_nonce_offers_what_its_attributes_do_not_is_ignored() {
    let mut client = allocated(Transport::Tcp);
    assert_eq!(client.refresh(START, 600), Ok(()));
    let request = transmit(&mut client);
    for (offered, expected) in [(false, Input::Ignored), (true, Input::Response)] {
        let granted = answer(&request, Class::SuccessResponse, |writer| {
            writer.lifetime(300).nonce(NONCE);
            if offered {
                writer.password_algorithms(&BOTH);
            }
            writer.integrity_sha256(&key(Sha256));
        });
        assert_eq!(client.handle_input(START, &granted), expected);
    }
}

#[test]
fn a_400_without_integrity_is_as_if_it_had_never_come() {
    let mut client = allocated(Transport::Udp);
    assert_eq!(client.refresh(START, 600), Ok(()));
    let request = transmit(&mut client);
    let forged = answer(&request, Class::ErrorResponse, |writer| {
        writer.error_code(ErrorCode::BAD_REQUEST, "");
    });
    assert_eq!(client.handle_input(START, &forged), Input::Ignored);
    client.handle_timeout(START.after(Duration::from_millis(500)));
    assert_eq!(transmit(&mut client), request);
}
