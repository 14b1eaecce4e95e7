//! What RFC 8489 says of servers about password algorithms and MESSAGE-INTEGRITY-SHA256, one test for each statement.

use turnfleet_turn::wire::PasswordAlgorithm::{Md5, Sha256};
use turnfleet_turn::wire::{
    AttributeType, Class, IntegrityKind, LongTermKey, MessageWriter, Method, PasswordAlgorithm,
    announces_password_algorithms,
};
use turnfleet_turn::{OpenError, Transport};

use crate::support::{Answer, Caller, Net, OFFERED, PEER, REALM, assert_challenge};

const ECHO: &[u8] = &[0, 2, 0, 0, 0, 1, 0, 0];

/// What a request does with the offered algorithms, before it is signed.
struct Choice<'a> {
    /// The value of PASSWORD-ALGORITHMS.
    list: Option<&'a [u8]>,
    /// The value of PASSWORD-ALGORITHM.
    one: Option<&'a [u8]>,
    /// What makes the key.
    key: PasswordAlgorithm,
    kind: IntegrityKind,
}

impl Choice<'_> {
    /// What a client of RFC 8489 does.
    const SHA256: Self = Self {
        list: Some(ECHO),
        one: Some(&[0, 2, 0, 0]),
        key: Sha256,
        kind: IntegrityKind::Sha256,
    };

    /// What a client of RFC 5389 does.
    const PLAIN: Self = Self {
        list: None,
        one: None,
        key: Md5,
        kind: IntegrityKind::Sha1,
    };
}

fn key(caller: &Caller, algorithm: PasswordAlgorithm) -> LongTermKey {
    LongTermKey::derive_with(algorithm, &caller.username, REALM, &caller.password)
}

fn signed(
    caller: &mut Caller,
    choice: &Choice<'_>,
    method: Method,
    write: impl FnOnce(&mut MessageWriter<'_>),
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = MessageWriter::new(&mut bytes, Class::Request, method, caller.next_id());
    write(&mut writer);
    writer
        .username(&caller.username)
        .realm(REALM)
        .nonce(&caller.nonce);
    if let Some(list) = choice.list {
        writer.attribute(AttributeType::PASSWORD_ALGORITHMS, list);
    }
    if let Some(one) = choice.one {
        writer.attribute(AttributeType::PASSWORD_ALGORITHM, one);
    }
    writer.finish_signed_by(choice.kind, &key(caller, choice.key));
    bytes
}

#[track_caller]
fn request(
    net: &mut Net,
    caller: &mut Caller,
    choice: &Choice<'_>,
    method: Method,
    write: impl FnOnce(&mut MessageWriter<'_>),
) -> Answer {
    let packet = signed(caller, choice, method, write);
    caller.send(net, &packet)
}

#[track_caller]
fn allocate(net: &mut Net, caller: &mut Caller, choice: &Choice<'_>) -> Answer {
    request(net, caller, choice, Method::Allocate, |writer| {
        writer.requested_transport(17);
    })
}

/// Whether the answer has the attribute of `kind`, not the other one, and is signed by `key`.
#[track_caller]
fn assert_signed(answer: &Answer, kind: IntegrityKind, key: &LongTermKey) {
    let (there, absent) = match kind {
        IntegrityKind::Sha1 => (
            AttributeType::MESSAGE_INTEGRITY,
            AttributeType::MESSAGE_INTEGRITY_SHA256,
        ),
        IntegrityKind::Sha256 => (
            AttributeType::MESSAGE_INTEGRITY_SHA256,
            AttributeType::MESSAGE_INTEGRITY,
        ),
    };
    assert!(answer.has(there) && !answer.has(absent), "{answer:?}");
    assert!(answer.message().verify_integrity(key), "{answer:?}");
}

#[track_caller]
fn assert_bad_request(answer: &Answer) {
    assert_eq!(answer.code(), 400);
    for kind in [
        AttributeType::USERNAME,
        AttributeType::REALM,
        AttributeType::NONCE,
        AttributeType::MESSAGE_INTEGRITY,
        AttributeType::MESSAGE_INTEGRITY_SHA256,
    ] {
        assert!(!answer.has(kind), "{answer:?}");
    }
}

// RFC 8489 §9.2, §9.2.4, §18.1
#[test]
fn a_nonce_begins_with_the_nonce_cookie_and_the_bit_of_password_algorithms() {
    let mut net = Net::new();
    let caller = Caller::new(&mut net, "192.0.2.1:5000");
    assert!(caller.nonce.starts_with(b"obMatJos2gAAA"));
    assert!(announces_password_algorithms(&caller.nonce));
    assert!(caller.nonce.len() < 128);
}

// RFC 8489 §9.2.4, §14.11
#[test]
fn a_challenge_lists_sha256_before_md5() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let packet = caller.unsigned(Method::Allocate, |_| {});
    let first = caller.send(&mut net, &packet);
    caller.password = "wrong".into();
    let wrong = caller.allocate(&mut net, |_| {});
    caller.password = "secret".into();
    net.advance_seconds(3601);
    let stale = caller.allocate(&mut net, |_| {});
    for (answer, code) in [(first, 401), (wrong, 401), (stale, 438)] {
        assert_challenge(&answer, code);
        let list = answer.message().password_algorithms().unwrap();
        assert_eq!(list.as_bytes(), ECHO);
        assert!(list.is(&OFFERED));
    }
}

// RFC 8489 §9.2.4, §16.1.2: what a forged request can make the server send.
#[test]
fn a_challenge_with_password_algorithms_has_100_bytes() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let packet = caller.unsigned(Method::Allocate, |writer| {
        writer.requested_transport(17);
    });
    let answer = caller.send(&mut net, &packet);
    assert_eq!((packet.len(), answer.0.len()), (28, 100));
}

// RFC 8489 §9.2.4
#[test]
fn every_answer_to_a_request_that_names_an_algorithm_is_signed_by_sha256() {
    for (port, algorithm, one) in [(5000, Sha256, &[0, 2, 0, 0]), (5001, Md5, &[0, 1, 0, 0])] {
        let choice = Choice {
            one: Some(one),
            key: algorithm,
            ..Choice::SHA256
        };
        let mut net = Net::new();
        let mut caller = Caller::new(&mut net, &format!("192.0.2.1:{port}"));
        let (net, caller) = (&mut net, &mut caller);
        let peer = |writer: &mut MessageWriter<'_>| {
            let peer = turnfleet_turn::PeerAddr(PEER.parse().unwrap());
            writer.xor_peer_address(peer);
        };
        let answers = [
            request(net, caller, &choice, Method::Refresh, |_| {}),
            request(net, caller, &choice, Method::Allocate, |_| {}),
            allocate(net, caller, &choice),
            allocate(net, caller, &choice),
            request(net, caller, &choice, Method::CreatePermission, peer),
            request(net, caller, &choice, Method::ChannelBind, |writer| {
                writer.channel_number(turnfleet_turn::wire::ChannelNumber(0x4000));
                peer(writer);
            }),
            request(net, caller, &choice, Method::Refresh, |_| {}),
            request(net, caller, &choice, Method::Refresh, |writer| {
                writer.attribute(AttributeType(0x7ABC), b"what?");
            }),
        ];
        let codes: Vec<u16> = answers.iter().map(Answer::code).collect();
        assert_eq!(codes, [437, 400, 200, 437, 200, 200, 200, 420]);
        for answer in answers {
            assert_signed(&answer, IntegrityKind::Sha256, &key(caller, algorithm));
            for kind in [AttributeType::REALM, AttributeType::NONCE] {
                assert!(!answer.has(kind), "{answer:?}");
            }
        }
    }
}

// RFC 8489 §9.2.4
#[test]
fn a_request_that_names_no_algorithm_is_processed_as_with_md5_and_answered_by_sha1() {
    for (port, kind) in [(5000, IntegrityKind::Sha1), (5001, IntegrityKind::Sha256)] {
        let mut net = Net::new();
        let mut caller = Caller::new(&mut net, &format!("192.0.2.1:{port}"));
        let choice = Choice {
            kind,
            ..Choice::PLAIN
        };
        let answer = allocate(&mut net, &mut caller, &choice);
        assert_eq!(answer.code(), 200, "{kind:?}");
        assert_signed(&answer, IntegrityKind::Sha1, &key(&caller, Md5));
        let by_sha256 = Choice {
            key: Sha256,
            ..choice
        };
        let answer = request(&mut net, &mut caller, &by_sha256, Method::Refresh, |_| {});
        assert_challenge(&answer, 401);
    }
}

// RFC 8489 §9.2.4
#[test]
fn a_message_integrity_with_a_named_algorithm_is_verified_and_answered_by_sha256() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let choice = Choice {
        kind: IntegrityKind::Sha1,
        ..Choice::SHA256
    };
    let answer = allocate(&mut net, &mut caller, &choice);
    assert_eq!(answer.code(), 200);
    assert_signed(&answer, IntegrityKind::Sha256, &key(&caller, Sha256));
}

// RFC 8489 §9.2.4
#[test]
fn password_algorithm_without_password_algorithms_gets_400_and_so_the_other_way_round() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    for (list, one) in [(None, Choice::SHA256.one), (Choice::SHA256.list, None)] {
        let choice = Choice {
            list,
            one,
            ..Choice::SHA256
        };
        assert_bad_request(&allocate(&mut net, &mut caller, &choice));
    }
}

// RFC 8489 §9.2.4
#[test]
fn password_algorithms_other_than_those_that_were_offered_get_400() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    for list in [
        &[0, 1, 0, 0][..],
        &[0, 2, 0, 0],
        &[0, 1, 0, 0, 0, 2, 0, 0],
        &[0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0],
        &[0, 2, 0, 0, 0, 1, 0],
        &[],
    ] {
        for (one, key) in [(&[0, 1, 0, 0], Md5), (&[0, 2, 0, 0], Sha256)] {
            let choice = Choice {
                list: Some(list),
                one: Some(one),
                key,
                ..Choice::SHA256
            };
            assert_bad_request(&allocate(&mut net, &mut caller, &choice));
        }
    }
}

// RFC 8489 §9.2.4
#[test]
fn a_password_algorithm_that_was_not_offered_gets_400() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    for one in [
        &[0, 0, 0, 0][..],
        &[0, 3, 0, 0],
        &[0x80, 2, 0, 0],
        &[0, 2, 0, 4, 1, 2, 3, 4],
        &[0, 2, 0, 0, 0, 1, 0, 0],
        &[0, 2],
        &[],
    ] {
        let choice = Choice {
            one: Some(one),
            ..Choice::SHA256
        };
        assert_bad_request(&allocate(&mut net, &mut caller, &choice));
    }
}

// RFC 8489 §9.2.4
#[test]
fn the_algorithms_are_checked_before_username_integrity_and_nonce() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let choice = Choice {
        list: None,
        ..Choice::SHA256
    };
    caller.username = "nobody".into();
    assert_bad_request(&allocate(&mut net, &mut caller, &choice));
    caller.username = "alice".into();
    caller.password = "wrong".into();
    assert_bad_request(&allocate(&mut net, &mut caller, &choice));
    net.advance_seconds(3601);
    assert_bad_request(&allocate(&mut net, &mut caller, &choice));
}

// RFC 8489 §9.2.4
#[test]
fn a_missing_credential_is_seen_before_the_algorithms() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let packet = caller.unsigned(Method::Allocate, |writer| {
        writer
            .attribute(AttributeType::PASSWORD_ALGORITHM, &[0, 9, 0, 0])
            .realm(REALM);
    });
    assert_challenge(&caller.send(&mut net, &packet), 401);
}

// RFC 8489 §9.2.1, §9.2.4
#[test]
fn a_nonce_without_its_bit_is_none_of_the_servers_and_gets_438_with_one_that_has_it() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    caller.nonce[9..13].copy_from_slice(b"AAAA");
    for choice in [Choice::PLAIN, Choice::SHA256] {
        let answer = allocate(&mut net, &mut caller, &choice);
        assert_challenge(&answer, 438);
        let nonce = answer.message().nonce().unwrap().unwrap();
        assert!(announces_password_algorithms(nonce));
    }
    // Without its bit a nonce gives the attributes no meaning that could be wrong.
    let alone = Choice {
        list: None,
        ..Choice::SHA256
    };
    assert_challenge(&allocate(&mut net, &mut caller, &alone), 438);
}

// RFC 8489 §9.2.4
#[test]
fn a_stale_nonce_of_a_sha256_client_gets_438_with_one_that_works() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    assert_eq!(allocate(&mut net, &mut caller, &Choice::SHA256).code(), 200);
    net.advance_seconds(300);
    net.change_policy(|policy| policy.nonce_lifetime = std::time::Duration::from_secs(60));
    let answer = request(
        &mut net,
        &mut caller,
        &Choice::SHA256,
        Method::Refresh,
        |_| {},
    );
    assert_challenge(&answer, 438);
    caller.nonce = answer.message().nonce().unwrap().unwrap().to_vec();
    let answer = request(
        &mut net,
        &mut caller,
        &Choice::SHA256,
        Method::Refresh,
        |_| {},
    );
    assert_eq!(answer.code(), 200);
}

// RFC 8489 §9.2.4
#[test]
fn a_wrong_password_or_user_of_a_sha256_client_gets_401() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    caller.password = "wrong".into();
    assert_challenge(&allocate(&mut net, &mut caller, &Choice::SHA256), 401);
    caller.username = "nobody".into();
    assert_challenge(&allocate(&mut net, &mut caller, &Choice::SHA256), 401);
}

// RFC 8489 §9.2.2, §18.5.1
#[test]
fn the_key_of_another_algorithm_than_the_named_one_gets_401() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    for (one, key) in [(&[0, 2, 0, 0], Md5), (&[0, 1, 0, 0], Sha256)] {
        let choice = Choice {
            one: Some(one),
            key,
            ..Choice::SHA256
        };
        assert_challenge(&allocate(&mut net, &mut caller, &choice), 401);
    }
}

// RFC 8489 §14.6: TURN has no word about truncation, so the value is the full 32 bytes.
#[test]
fn a_truncated_sha256_integrity_gets_401() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let whole = signed(&mut caller, &Choice::SHA256, Method::Allocate, |writer| {
        writer.requested_transport(17);
    });
    let at = whole.len() - 36;
    for len in [0_u16, 4, 12, 16, 20, 28] {
        let end = at + 4 + usize::from(len);
        let mut packet = whole[..end].to_vec();
        let total = u16::try_from(packet.len() - 20).unwrap();
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet[at + 2..at + 4].copy_from_slice(&len.to_be_bytes());
        assert_challenge(&caller.send(&mut net, &packet), 401);
    }
    assert_eq!(caller.send(&mut net, &whole).code(), 200);
}

// RFC 8489 §9, §9.2.4
#[test]
fn of_two_integrities_the_sha256_one_decides() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let right = key(&caller, Md5);
    let wrong = LongTermKey::Md5([0; 16]);
    for (sha1, sha256, expected) in [
        (&right, &wrong, 401),
        (&wrong, &right, 200),
        (&right, &right, 437),
    ] {
        let nonce = caller.nonce.clone();
        let packet = caller.unsigned(Method::Allocate, |writer| {
            writer.requested_transport(17).username("alice");
            writer.realm(REALM).nonce(&nonce);
            writer.integrity(sha1).integrity_sha256(sha256);
        });
        let answer = caller.send(&mut net, &packet);
        assert_eq!(answer.code(), expected);
    }
}

// RFC 8489 §9
#[test]
fn attributes_after_either_integrity_are_ignored() {
    let mut net = Net::new();
    let key_of = |caller: &Caller| key(caller, Sha256);
    for (port, both) in [(5000, false), (5001, true)] {
        let mut caller = Caller::new(&mut net, &format!("192.0.2.1:{port}"));
        let (key, nonce) = (key_of(&caller), caller.nonce.clone());
        let packet = caller.unsigned(Method::Allocate, |writer| {
            writer.requested_transport(17).username("alice");
            writer.realm(REALM).nonce(&nonce);
            writer.password_algorithms(&OFFERED);
            writer.password_algorithm(Sha256);
            if both {
                writer.integrity(&key);
                writer.lifetime(3600);
            }
            writer.integrity_sha256(&key);
            writer
                .lifetime(3600)
                .attribute(AttributeType::MESSAGE_INTEGRITY, &[0; 20])
                .attribute(AttributeType(0x7ABC), b"what?");
        });
        let answer = caller.send(&mut net, &packet);
        assert_eq!((answer.code(), answer.lifetime()), (200, 600), "{both}");
    }
}

// RFC 8489 §9.2.4, §14.5
#[test]
fn algorithms_after_the_integrity_are_not_there() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let (key, nonce) = (key(&caller, Md5), caller.nonce.clone());
    let packet = caller.unsigned(Method::Allocate, |writer| {
        writer.requested_transport(17).username("alice");
        writer.realm(REALM).nonce(&nonce).integrity(&key);
        writer.password_algorithm(Sha256);
    });
    let answer = caller.send(&mut net, &packet);
    assert_eq!(answer.code(), 200);
    assert_signed(&answer, IntegrityKind::Sha1, &key);
}

// RFC 8656 §7.2
#[test]
fn a_retransmitted_allocate_gets_the_same_answer_by_sha256() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let packet = signed(&mut caller, &Choice::SHA256, Method::Allocate, |writer| {
        writer.requested_transport(17);
    });
    let first = caller.send(&mut net, &packet);
    assert_signed(&first, IntegrityKind::Sha256, &key(&caller, Sha256));
    assert_eq!(caller.send(&mut net, &packet), first);
}

// RFC 8489 §9.2.4
#[test]
fn an_allocation_that_cannot_be_opened_is_refused_by_sha256() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    net.open_errors.push_back(OpenError::Exhausted);
    let answer = allocate(&mut net, &mut caller, &Choice::SHA256);
    assert_eq!(answer.code(), 508);
    assert_signed(&answer, IntegrityKind::Sha256, &key(&caller, Sha256));
}

// RFC 8489 §9.2.2
#[test]
fn an_allocation_made_by_sha256_outlives_a_change_of_its_password() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    assert_eq!(allocate(&mut net, &mut caller, &Choice::SHA256).code(), 200);
    net.keys.set("alice", &["another"]);
    let answer = request(
        &mut net,
        &mut caller,
        &Choice::SHA256,
        Method::Refresh,
        |_| {},
    );
    assert_eq!(answer.code(), 200);
    assert_signed(&answer, IntegrityKind::Sha256, &key(&caller, Sha256));
}

// RFC 8489 §9.2.4
#[test]
fn a_password_algorithm_is_served_on_streams_too() {
    let mut net = Net::new();
    for (port, transport) in (5000..).zip([Transport::Tcp, Transport::Tls]) {
        let client = format!("192.0.2.1:{port}");
        let mut caller = Caller::of(&mut net, &client, transport, "alice");
        let answer = allocate(&mut net, &mut caller, &Choice::SHA256);
        assert_eq!(answer.code(), 200);
    }
}
