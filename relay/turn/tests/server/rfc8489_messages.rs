//! What RFC 8489 says of messages and their answers: which are discarded, what is ignored, Binding (§5-§7, §12, §14).

use turnfleet_turn::wire::{AttributeType, Class, Fingerprint, Message, MessageWriter, Method};
use turnfleet_turn::{DropReason, Transport};

use crate::support::{
    Caller, Net, Outcome, REALM, Setup, V4, addr, assert_challenge, host, signed_allocate,
};

// RFC 8489 §5
#[test]
fn a_message_whose_first_bits_are_not_zero_is_discarded() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let mut packet = caller.unsigned(Method::Binding, |_| {});
    packet[0] |= 0x80;
    caller.assert_dropped(&mut net, &packet, DropReason::Malformed);
}

// RFC 8489 §6.3
#[test]
fn a_message_without_the_magic_cookie_is_discarded() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let mut packet = caller.unsigned(Method::Binding, |_| {});
    packet[4] ^= 1;
    caller.assert_dropped(&mut net, &packet, DropReason::Malformed);
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
        caller.assert_dropped(&mut net, &packet, DropReason::Unexpected);
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
        caller.assert_dropped(&mut net, &packet, DropReason::Unexpected);
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
        caller.assert_dropped(&mut net, &packet, DropReason::Unexpected);
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
    caller.assert_dropped(&mut net, &packet, DropReason::BadFingerprint);
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
    caller.assert_dropped(&mut net, &packet, DropReason::BadFingerprint);
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
    let packet = signed_allocate(&mut caller, &key, |writer| {
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
    caller.assert_dropped(&mut net, &packet, DropReason::UnknownAttributes);
}

// RFC 8489 §6.3.2
#[test]
fn a_binding_indication_gets_no_answer() {
    let mut net = Net::new();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let packet = caller.indication(Method::Binding, |_| {});
    caller.assert_dropped(&mut net, &packet, DropReason::Keepalive);
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
