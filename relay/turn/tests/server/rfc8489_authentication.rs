//! What RFC 8489 §9.2 says of the long-term credential mechanism.

use turnfleet_turn::wire::{AttributeType, Class, LongTermKey, MessageWriter, Method};

use crate::support::{Answer, Caller, Net, REALM, assert_challenge, signed_allocate};

// RFC 8489 §9.2.4
#[test]
fn a_request_without_integrity_gets_401_with_realm_nonce_and_password_algorithms_only() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    for method in [
        Method::Allocate,
        Method::Refresh,
        Method::CreatePermission,
        Method::ChannelBind,
    ] {
        let packet = caller.unsigned(method, |_| {});
        assert_challenge(&caller.send(&mut net, &packet), 401);
    }
}

// RFC 8489 §16.1.2
#[test]
fn the_first_401_has_at_most_100_bytes() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let packet = caller.unsigned(Method::Allocate, |_| {});
    let answer = caller.send(&mut net, &packet);
    assert!(answer.0.len() <= 100, "{}", answer.0.len());
    assert!(!answer.has(AttributeType::SOFTWARE));
}

// RFC 8489 §9.2.4
#[test]
fn two_source_addresses_never_get_the_same_nonce() {
    let mut net = Net::new();
    let one = Caller::new(&mut net, "192.0.2.1:5000");
    let other_port = Caller::new(&mut net, "192.0.2.1:5001");
    let other_ip = Caller::new(&mut net, "192.0.2.2:5000");
    assert_ne!(one.nonce, other_port.nonce);
    assert_ne!(one.nonce, other_ip.nonce);
}

// RFC 8489 §9.2.4
#[test]
fn a_signed_request_without_username_realm_or_nonce_gets_400_without_any_of_them() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let (key, nonce) = (caller.key(), caller.nonce.clone());
    for missing in 0..3 {
        let packet = signed_allocate(&mut caller, &key, |writer| {
            if missing != 0 {
                writer.username("alice");
            }
            if missing != 1 {
                writer.realm(REALM);
            }
            if missing != 2 {
                writer.nonce(&nonce);
            }
        });
        let answer = caller.send(&mut net, &packet);
        assert_eq!(answer.code(), 400, "{missing}");
        for kind in [
            AttributeType::USERNAME,
            AttributeType::REALM,
            AttributeType::NONCE,
            AttributeType::MESSAGE_INTEGRITY,
        ] {
            assert!(!answer.has(kind), "{answer:?} has {kind:?}");
        }
    }
}

// RFC 8489 §9.2.4
#[test]
fn a_username_that_nobody_has_gets_401() {
    let mut net = Net::new();
    let mut caller = Caller::named(&mut net, "192.0.2.1:5000", "mallory");
    assert_challenge(&caller.allocate(&mut net, |_| {}), 401);
}

// RFC 8489 §9.2.4
#[test]
fn a_userhash_is_taken_for_a_username_that_nobody_has() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let (key, nonce) = (caller.key(), caller.nonce.clone());
    let packet = signed_allocate(&mut caller, &key, |writer| {
        writer
            .attribute(AttributeType::USERHASH, &[7; 32])
            .realm(REALM)
            .nonce(&nonce);
    });
    assert_challenge(&caller.send(&mut net, &packet), 401);
}

// RFC 8489 §9.2.4, §14.3
#[test]
fn a_username_that_is_no_text_gets_401() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let (key, nonce) = (caller.key(), caller.nonce.clone());
    let packet = signed_allocate(&mut caller, &key, |writer| {
        writer
            .attribute(AttributeType::USERNAME, &[0xFF, 0xFE])
            .realm(REALM)
            .nonce(&nonce);
    });
    assert_challenge(&caller.send(&mut net, &packet), 401);
}

// RFC 8489 §14.3
#[test]
fn a_username_of_up_to_763_bytes_can_be_read() {
    let mut net = Net::new();
    for (port, len) in (5000..).zip([1, 508, 509, 763]) {
        let username = "u".repeat(len);
        net.keys.set(&username, &["secret"]);
        let mut caller = Caller::named(&mut net, &format!("192.0.2.1:{port}"), &username);
        assert_eq!(caller.allocate(&mut net, |_| {}).code(), 200, "{len}");
        assert_eq!(caller.refresh(&mut net, Some(0)).code(), 200, "{len}");
    }
}

// RFC 8489 §14.3, §14.8
#[test]
fn a_username_longer_than_that_is_malformed_and_gets_400() {
    let mut net = Net::new();
    for len in [764, 2000] {
        let username = "u".repeat(len);
        net.keys.set(&username, &["secret"]);
        let mut caller = Caller::named(&mut net, "192.0.2.1:5000", &username);
        let answer = caller.allocate(&mut net, |_| {});
        assert_eq!(answer.code(), 400, "{len}");
        assert!(!answer.has(AttributeType::NONCE));
    }
}

// RFC 8489 §9.2.4, §14.9
#[test]
fn credentials_of_another_realm_get_401() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let nonce = caller.nonce.clone();
    for key in [
        caller.key(),
        LongTermKey::derive("alice", "example.org", "secret"),
    ] {
        let packet = signed_allocate(&mut caller, &key, |writer| {
            writer.username("alice").realm("example.org").nonce(&nonce);
        });
        assert_challenge(&caller.send(&mut net, &packet), 401);
    }
}

// RFC 8489 §9.2.4
#[test]
fn a_live_allocation_outlives_a_change_of_the_realm() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    caller.allocated(&mut net);
    net.change_policy(|policy| policy.realm = "example.org".into());
    assert_eq!(caller.refresh(&mut net, None).code(), 200);
}

// RFC 8489 §9.2.4
#[test]
fn a_wrong_password_gets_401_that_looks_like_that_for_an_unknown_user() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    caller.password = "wrong".into();
    let wrong = caller.allocate(&mut net, |_| {});
    assert_challenge(&wrong, 401);
    caller.username = "nobody".into();
    let unknown = caller.allocate(&mut net, |_| {});
    let same = |answer: &Answer| [&answer.0[..8], &answer.0[20..]].concat();
    assert_eq!(same(&wrong), same(&unknown));
}

// RFC 8489 §9.2.4
#[test]
fn a_message_changed_on_its_way_gets_401() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let mut packet = caller.signed(Method::Allocate, |writer| {
        writer.requested_transport(17).lifetime(600);
    });
    packet[20 + 8 + 7] ^= 1;
    assert_challenge(&caller.send(&mut net, &packet), 401);
}

// RFC 8489 §14.5
#[test]
fn an_integrity_of_the_wrong_length_gets_401() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let nonce = caller.nonce.clone();
    let packet = caller.unsigned(Method::Allocate, |writer| {
        writer
            .requested_transport(17)
            .username("alice")
            .realm(REALM)
            .nonce(&nonce);
        writer.attribute(AttributeType::MESSAGE_INTEGRITY, &[0; 8]);
    });
    assert_challenge(&caller.send(&mut net, &packet), 401);
}

// RFC 8489 §9.2.4
#[test]
fn a_nonce_that_is_too_old_gets_438_with_one_that_works() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    net.advance_seconds(3601);
    let answer = caller.allocate(&mut net, |_| {});
    assert_challenge(&answer, 438);
    caller.nonce = answer.message().nonce().unwrap().unwrap().to_vec();
    assert_eq!(caller.allocate(&mut net, |_| {}).code(), 200);
}

// RFC 8489 §9.2.4
#[test]
fn a_nonce_of_another_source_address_gets_438() {
    let mut net = Net::new();
    let other = Caller::new(&mut net, "192.0.2.2:5000");
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    caller.nonce = other.nonce;
    assert_challenge(&caller.allocate(&mut net, |_| {}), 438);
    caller.nonce = b"obMatJos2gAAAmade up".to_vec();
    assert_challenge(&caller.allocate(&mut net, |_| {}), 438);
}

// RFC 8489 §9.2.4
#[test]
fn the_integrity_is_checked_before_the_nonce() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    caller.nonce = b"stale".to_vec();
    caller.password = "wrong".into();
    assert_challenge(&caller.allocate(&mut net, |_| {}), 401);
}

// RFC 8489 §9.2.4
#[test]
fn a_nonce_outlives_the_key_that_signs_while_that_key_still_verifies() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    net.change_policy(|policy| policy.nonce_keys = vec![[1; 32], [9; 32]]);
    caller.allocated(&mut net);
    net.change_policy(|policy| policy.nonce_keys = vec![[1; 32]]);
    assert_eq!(caller.refresh(&mut net, None).code(), 438);
}

// RFC 8489 §9.2.4
#[test]
fn every_answer_to_an_authentic_request_is_signed_with_its_key() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let mut answers = vec![
        caller.request(&mut net, Method::Allocate, |_| {}),
        caller.refresh(&mut net, None),
        caller.allocate(&mut net, |_| {}),
        caller.allocate(&mut net, |_| {}),
        caller.permit(&mut net, &["203.0.113.9:9"]),
        caller.permit(&mut net, &["127.0.0.1:9"]),
        caller.permit(&mut net, &[]),
        caller.bind(&mut net, 0x4000, "203.0.113.9:9"),
        caller.bind(&mut net, 0x4000, "203.0.113.9:10"),
        caller.refresh(&mut net, None),
        caller.refresh(&mut net, Some(0)),
    ];
    let codes: Vec<u16> = answers.iter().map(Answer::code).collect();
    assert_eq!(
        codes,
        [400, 437, 200, 437, 200, 403, 400, 200, 400, 200, 200]
    );
    for answer in answers.drain(..) {
        assert!(answer.is_signed_for(&caller), "{answer:?}");
    }
}

// RFC 8489 §9.2.4
#[test]
fn an_answer_to_an_authentic_request_repeats_no_credentials() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let answers = [
        caller.allocate(&mut net, |_| {}),
        caller.allocate(&mut net, |_| {}),
    ];
    for answer in answers {
        for kind in [
            AttributeType::REALM,
            AttributeType::NONCE,
            AttributeType::USERNAME,
        ] {
            assert!(!answer.has(kind), "{answer:?}");
        }
    }
}

// RFC 8489 §14.5
#[test]
fn attributes_after_the_integrity_are_ignored() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let (key, nonce) = (caller.key(), caller.nonce.clone());
    let mut packet = Vec::new();
    let id = caller.next_id();
    let mut writer = MessageWriter::new(&mut packet, Class::Request, Method::Allocate, id);
    writer
        .requested_transport(17)
        .username("alice")
        .realm(REALM)
        .nonce(&nonce);
    writer.integrity(&key);
    writer
        .lifetime(3600)
        .attribute(AttributeType(0x7ABC), b"what?");
    writer.finish();
    let answer = caller.send(&mut net, &packet);
    assert_eq!((answer.code(), answer.lifetime()), (200, 600));
}

// RFC 8489 §14
#[test]
fn of_an_attribute_that_is_there_twice_the_first_counts() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let answer = caller.allocate(&mut net, |writer| {
        writer.lifetime(700).lifetime(800);
    });
    assert_eq!(answer.lifetime(), 700);
}

// RFC 8489 §14.8
#[test]
fn an_error_to_an_authentic_request_says_its_reason() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let answer = caller.refresh(&mut net, None);
    let error = answer.message().first(AttributeType::ERROR_CODE).unwrap();
    assert_eq!(&error.value[4..], b"Allocation Mismatch");
}

// RFC 8489 §6.3.1.1
#[test]
fn a_stranger_gets_no_reason_phrase() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let packet = caller.unsigned(Method::Allocate, |_| {});
    let answer = caller.send(&mut net, &packet);
    assert_eq!(
        answer
            .message()
            .first(AttributeType::ERROR_CODE)
            .unwrap()
            .value
            .len(),
        4
    );
}

// RFC 8489 §9.2.2
#[test]
fn any_of_the_keys_of_a_user_authenticates_and_signs_the_answer() {
    let mut net = Net::new();
    net.keys.set("alice", &["first", "second", "third"]);
    for (port, password) in (5000..).zip(["first", "second", "third"]) {
        let mut caller = Caller::new(&mut net, &format!("192.0.2.1:{port}"));
        caller.password = password.into();
        let answer = caller.allocate(&mut net, |_| {});
        assert_eq!(answer.code(), 200);
        assert!(answer.is_signed_for(&caller));
    }
}
