//! What RFC 8489 says of servers, one test for each statement.

use turnfleet_turn::wire::{
    AttributeType, Class, Fingerprint, LongTermKey, Message, MessageWriter, Method,
};
use turnfleet_turn::{DropReason, Transport};

use crate::support::{Answer, Caller, Net, OFFERED, Outcome, REALM, Setup, V4, addr, host};

/// A signed Refresh with the attributes before MESSAGE-INTEGRITY chosen by `write`.
fn signed(
    caller: &mut Caller,
    key: &LongTermKey,
    write: impl FnOnce(&mut MessageWriter<'_>),
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let id = caller.next_id();
    let mut writer = MessageWriter::new(&mut bytes, Class::Request, Method::Allocate, id);
    writer.requested_transport(17);
    write(&mut writer);
    writer.finish_signed(key);
    bytes
}

/// A 401 or 438 with all that its receiver needs to try again, and no more.
#[track_caller]
pub(crate) fn assert_challenge(answer: &Answer, code: u16) {
    assert_eq!(answer.code(), code);
    assert_eq!(answer.message().realm(), Some(Ok(REALM)));
    assert!(answer.message().nonce().is_some_and(|nonce| nonce.is_ok()));
    let offered = answer.message().password_algorithms();
    assert!(offered.is_some_and(|it| it.is(&OFFERED)));
    for kind in [
        AttributeType::USERNAME,
        AttributeType::USERHASH,
        AttributeType::MESSAGE_INTEGRITY,
        AttributeType::MESSAGE_INTEGRITY_SHA256,
    ] {
        assert!(!answer.has(kind), "{answer:?} has {kind:?}");
    }
}

// RFC 8489 §5
#[test]
fn a_message_whose_first_bits_are_not_zero_is_discarded() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let mut packet = caller.unsigned(Method::Binding, |_| {});
    packet[0] |= 0x80;
    let outcome = net.client_sends(caller.five_tuple, &packet);
    assert_eq!(outcome, Outcome::Dropped(DropReason::Malformed));
}

// RFC 8489 §6.3
#[test]
fn a_message_without_the_magic_cookie_is_discarded() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let mut packet = caller.unsigned(Method::Binding, |_| {});
    packet[4] ^= 1;
    let outcome = net.client_sends(caller.five_tuple, &packet);
    assert_eq!(outcome, Outcome::Dropped(DropReason::Malformed));
}

// RFC 8489 §6.3
#[test]
fn a_message_with_a_wrong_length_is_discarded() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let packet = caller.unsigned(Method::Binding, |_| {});
    for length in [4, 1, 65_532] {
        let mut packet = packet.clone();
        packet[2..4].copy_from_slice(&u16::to_be_bytes(length));
        let outcome = net.client_sends(caller.five_tuple, &packet);
        assert_eq!(outcome, Outcome::Dropped(DropReason::Malformed), "{length}");
    }
}

// RFC 8489 §6.3
#[test]
fn a_message_cut_anywhere_is_discarded() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let packet = caller.signed(Method::Allocate, |_| {});
    for len in 0..packet.len() {
        let outcome = net.client_sends(caller.five_tuple, &packet[..len]);
        assert_eq!(outcome, Outcome::Dropped(DropReason::Malformed), "{len}");
    }
}

// RFC 8489 §6.3
#[test]
fn a_request_of_an_unsupported_method_is_discarded() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    for method in [0x000_u16, 0x002, 0x005, 0x00A, 0x00B, 0x00C, 0x0FF] {
        let mut packet = caller.unsigned(Method::Binding, |_| {});
        let bits = (method & 0xF) | (method & 0x70) << 1 | (method & 0xF80) << 2;
        packet[..2].copy_from_slice(&bits.to_be_bytes());
        let outcome = net.client_sends(caller.five_tuple, &packet);
        assert_eq!(
            outcome,
            Outcome::Dropped(DropReason::Unexpected),
            "{method:#x}"
        );
    }
}

// RFC 8489 §6.3
#[test]
fn a_request_of_a_method_that_has_only_indications_is_discarded() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    for method in [Method::Send, Method::Data] {
        let packet = caller.unsigned(method, |_| {});
        let outcome = net.client_sends(caller.five_tuple, &packet);
        assert_eq!(outcome, Outcome::Dropped(DropReason::Unexpected));
    }
}

// RFC 8489 §6.3
#[test]
fn an_indication_of_a_method_that_has_only_requests_is_discarded() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    for method in [
        Method::Allocate,
        Method::Refresh,
        Method::CreatePermission,
        Method::ChannelBind,
        Method::Data,
    ] {
        let packet = caller.indication(method, |_| {});
        let outcome = net.client_sends(caller.five_tuple, &packet);
        assert_eq!(outcome, Outcome::Dropped(DropReason::Unexpected));
    }
}

// RFC 8489 §6.3
#[test]
fn a_response_to_nothing_is_discarded() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    for class in [Class::SuccessResponse, Class::ErrorResponse] {
        let mut packet = Vec::new();
        MessageWriter::new(&mut packet, class, Method::Binding, caller.next_id()).finish();
        let outcome = net.client_sends(caller.five_tuple, &packet);
        assert_eq!(outcome, Outcome::Dropped(DropReason::Unexpected));
    }
}

// RFC 8489 §6.3, §7
#[test]
fn a_message_with_a_wrong_fingerprint_is_discarded() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let mut packet = Vec::new();
    let mut writer = MessageWriter::new(
        &mut packet,
        Class::Request,
        Method::Binding,
        caller.next_id(),
    );
    writer.with_fingerprint();
    writer.finish();
    let last = packet.len() - 1;
    packet[last] ^= 1;
    let outcome = net.client_sends(caller.five_tuple, &packet);
    assert_eq!(outcome, Outcome::Dropped(DropReason::BadFingerprint));
}

// RFC 8489 §14.7
#[test]
fn a_message_whose_fingerprint_is_not_its_last_attribute_is_discarded() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let mut packet = caller.unsigned(Method::Binding, |writer| {
        writer.with_fingerprint();
    });
    packet.extend_from_slice(&[0x80, 0x22, 0, 0]);
    let len = u16::try_from(packet.len() - 20).unwrap();
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    let outcome = net.client_sends(caller.five_tuple, &packet);
    assert_eq!(outcome, Outcome::Dropped(DropReason::BadFingerprint));
}

// RFC 8489 §14
#[test]
fn the_bits_of_padding_are_ignored() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let mut packet = caller.unsigned(Method::Binding, |writer| {
        writer.software("odd");
    });
    *packet.last_mut().unwrap() = 0xFF;
    assert_eq!(caller.send(&mut net, &packet).code(), 200);
}

// RFC 8489 §7
#[test]
fn an_answer_has_a_fingerprint_where_its_request_has_one() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    for method in [Method::Binding, Method::Allocate, Method::Refresh] {
        let mut packet = Vec::new();
        let mut writer = MessageWriter::new(&mut packet, Class::Request, method, caller.next_id());
        writer.with_fingerprint();
        writer.finish();
        let answer = caller.send(&mut net, &packet);
        assert_eq!(
            answer.message().fingerprint(),
            Fingerprint::Valid,
            "{method:?}"
        );
        let plain = caller.unsigned(method, |_| {});
        let answer = caller.send(&mut net, &plain);
        assert_eq!(
            answer.message().fingerprint(),
            Fingerprint::Absent,
            "{method:?}"
        );
    }
}

// RFC 8489 §14.7
#[test]
fn a_delayed_allocate_answer_has_a_fingerprint_where_its_request_has_one() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let nonce = caller.nonce.clone();
    let key = caller.key();
    let packet = signed(&mut caller, &key, |writer| {
        writer
            .username("alice")
            .realm(REALM)
            .nonce(&nonce)
            .with_fingerprint();
    });
    let answer = caller.send(&mut net, &packet);
    assert_eq!(answer.code(), 200);
    assert_eq!(answer.message().fingerprint(), Fingerprint::Valid);
    assert!(answer.is_signed_for(&caller));
}

// RFC 8489 §6.3.1
#[test]
fn a_binding_request_with_an_unknown_required_attribute_gets_420_that_lists_it() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let packet = caller.unsigned(Method::Binding, |writer| {
        writer.attribute(AttributeType(0x7ABC), b"what?");
        writer.attribute(AttributeType(0x0031), b"");
    });
    let answer = caller.send(&mut net, &packet);
    assert_eq!(answer.code(), 420);
    let unknown: Vec<u16> = answer.message().unknown_attributes().collect();
    assert_eq!(unknown, [0x7ABC, 0x0031]);
}

// RFC 8489 §14.13
#[test]
fn an_unknown_attribute_is_listed_once_however_often_it_is_there() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let packet = caller.unsigned(Method::Binding, |writer| {
        for kind in [0x7ABC, 0x7ABD, 0x7ABC, 0x7ABD] {
            writer.attribute(AttributeType(kind), b"what?");
        }
    });
    let answer = caller.send(&mut net, &packet);
    let unknown: Vec<u16> = answer.message().unknown_attributes().collect();
    assert_eq!(unknown, [0x7ABC, 0x7ABD]);
}

// RFC 8489 §6.3.1, §14.4
#[test]
fn what_only_a_server_with_its_nonce_bit_understands_gets_420() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let answer = caller.allocate(&mut net, |writer| {
        writer.attribute(AttributeType::USERHASH, &[0; 32]);
    });
    assert_eq!(answer.code(), 420);
    let unknown: Vec<u16> = answer.message().unknown_attributes().collect();
    assert_eq!(unknown, [AttributeType::USERHASH.0]);
}

// RFC 8489 §6.3.1, §9.2.4
#[test]
fn a_request_is_authenticated_before_its_unknown_attributes_are_looked_at() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let unknown = |writer: &mut MessageWriter<'_>| {
        writer.requested_transport(17);
        writer.attribute(AttributeType(0x7ABC), b"what?");
    };
    let packet = caller.unsigned(Method::Allocate, unknown);
    let answer = caller.send(&mut net, &packet);
    assert_challenge(&answer, 401);
    let answer = caller.request(&mut net, Method::Allocate, unknown);
    assert_eq!(answer.code(), 420);
    assert_eq!(
        answer.message().unknown_attributes().collect::<Vec<_>>(),
        [0x7ABC]
    );
    assert!(answer.is_signed_for(&caller));
}

// RFC 8489 §6.3
#[test]
fn an_unknown_optional_attribute_is_ignored() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let answer = caller.allocate(&mut net, |writer| {
        writer.attribute(AttributeType(0xFABC), b"never mind");
    });
    assert_eq!(answer.code(), 200);
}

// RFC 8489 §6.3
#[test]
fn a_known_attribute_where_it_is_not_expected_is_ignored() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let packet = caller.unsigned(Method::Binding, |writer| {
        writer.username("somebody").lifetime(7).data(b"data");
    });
    assert_eq!(caller.send(&mut net, &packet).code(), 200);
}

// RFC 8489 §6.3.2
#[test]
fn an_indication_with_an_unknown_required_attribute_is_discarded() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    caller.allocated(&mut net);
    caller.permit(&mut net, &["203.0.113.9:9"]);
    let packet = caller.indication(Method::Send, |writer| {
        writer
            .xor_peer_address(turnfleet_turn::PeerAddr(addr("203.0.113.9:9")))
            .data(b"hi");
        writer.attribute(AttributeType(0x7ABC), b"what?");
    });
    let outcome = net.client_sends(caller.five_tuple, &packet);
    assert_eq!(outcome, Outcome::Dropped(DropReason::UnknownAttributes));
}

// RFC 8489 §6.3.2
#[test]
fn a_binding_indication_gets_no_answer() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let packet = caller.indication(Method::Binding, |_| {});
    let outcome = net.client_sends(caller.five_tuple, &packet);
    assert_eq!(outcome, Outcome::Dropped(DropReason::Keepalive));
}

// RFC 8489 §6.3.1.1
#[test]
fn a_binding_response_tells_the_source_address_of_the_request() {
    let mut net = Net::new();
    for (client, transport) in [
        ("192.0.2.1:5000", Transport::Udp),
        ("[2001:db8::7]:5001", Transport::Udp),
        ("192.0.2.1:5002", Transport::Tcp),
        ("192.0.2.1:5003", Transport::Tls),
    ] {
        let mut caller = Caller::of(&mut net, client, transport, "alice");
        let packet = caller.unsigned(Method::Binding, |_| {});
        let answer = caller.send(&mut net, &packet);
        assert_eq!(answer.code(), 200);
        assert_eq!(answer.message().method(), Some(Method::Binding));
        assert_eq!(
            answer.message().xor_mapped_address(),
            Some(Ok(addr(client)))
        );
    }
}

// RFC 8489 §12
#[test]
fn a_binding_request_needs_no_credentials_and_ignores_wrong_ones() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    caller.password = "wrong".into();
    let answer = caller.request(&mut net, Method::Binding, |_| {});
    assert_eq!(answer.code(), 200);
    assert!(!answer.has(AttributeType::MESSAGE_INTEGRITY));
}

// RFC 8489 §16.1.2
#[test]
fn a_binding_response_is_little_longer_than_its_request() {
    let mut net = Net::new();
    for (client, len) in [("192.0.2.1:5000", 32), ("[2001:db8::7]:5001", 44)] {
        let mut caller = Caller::new(&mut net, client);
        let packet = caller.unsigned(Method::Binding, |_| {});
        assert_eq!(caller.send(&mut net, &packet).0.len(), len);
    }
}

// RFC 8489 §5
#[test]
fn an_answer_carries_the_transaction_id_and_the_method_of_its_request() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    for method in [
        Method::Allocate,
        Method::Refresh,
        Method::CreatePermission,
        Method::ChannelBind,
    ] {
        for packet in [
            caller.unsigned(method, |_| {}),
            caller.signed(method, |_| {}),
        ] {
            let answer = caller.send(&mut net, &packet);
            let request = Message::parse(&packet).unwrap();
            assert_eq!(answer.message().transaction_id(), request.transaction_id());
            assert_eq!(answer.message().method(), Some(method));
            assert_eq!(answer.message().class(), Class::ErrorResponse);
        }
    }
}

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
        let packet = signed(&mut caller, &key, |writer| {
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
    let packet = signed(&mut caller, &key, |writer| {
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
    let packet = signed(&mut caller, &key, |writer| {
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
        let packet = signed(&mut caller, &key, |writer| {
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

// RFC 8489 §6.3.1
#[test]
fn a_stranger_leaves_no_state() {
    let mut net = Net::with(Setup {
        hosts: vec![host(V4, V4)],
        ..Setup::default()
    });
    for source in 0..2000 {
        let client = format!("10.{}.{}.1:5000", source / 250, source % 250);
        let mut caller = Caller::new(&mut net, &client);
        caller.password = "wrong".into();
        let packet = caller.signed(Method::Allocate, |writer| {
            writer.requested_transport(17);
        });
        net.client_sends(caller.five_tuple, &packet);
    }
    net.assert_idle();
}
