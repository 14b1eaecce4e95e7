//! Messages byte for byte, and what must not be taken for one.

mod hex;

use hex::hex;
use turnfleet_turn::wire::{
    AttributeError, AttributeType, ChannelData, ChannelNumber, Class, ErrorCode, Fingerprint,
    Frame, IntegrityKind, LongTermKey, MAX_FRAME_LEN, Message, MessageWriter, Method, ParseError,
    PasswordAlgorithm, ReservationToken, TransactionId, deframe,
};
use turnfleet_turn::{AddressFamily, ClientHeader, PeerAddr, Span};

const ID: TransactionId = TransactionId([
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0A, 0x0B,
]);

#[track_caller]
fn written(class: Class, method: Method, write: impl FnOnce(&mut MessageWriter<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = MessageWriter::new(&mut bytes, class, method, ID);
    write(&mut writer);
    writer.finish();
    bytes
}

fn peer(text: &str) -> PeerAddr {
    PeerAddr(text.parse().expect("an address"))
}

#[test]
fn an_allocate_request_is_written_byte_for_byte() {
    let bytes = written(Class::Request, Method::Allocate, |writer| {
        writer
            .requested_transport(17)
            .requested_address_family(AddressFamily::V6)
            .additional_address_family(AddressFamily::V6)
            .even_port(true)
            .reservation_token(ReservationToken(*b"12345678"))
            .lifetime(3600);
    });
    let expected = hex("0003 0034 2112a442 00010203 04050607 08090a0b
        0019 0004 11000000
        0017 0004 02000000
        8000 0004 02000000
        0018 0001 80000000
        0022 0008 31323334 35363738
        000d 0004 00000e10");
    assert_eq!(bytes, expected);

    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.requested_transport(), Some(Ok(17)));
    assert_eq!(
        message.requested_address_family(),
        Some(Ok(AddressFamily::V6))
    );
    assert_eq!(
        message.additional_address_family(),
        Some(Ok(AddressFamily::V6))
    );
    assert_eq!(message.even_port(), Some(Ok(true)));
    assert_eq!(
        message.reservation_token(),
        Some(Ok(ReservationToken(*b"12345678")))
    );
    assert_eq!(message.lifetime(), Some(Ok(3600)));
    assert_eq!(message.username(), None);
}

#[test]
fn a_refusal_is_written_byte_for_byte() {
    let bytes = written(Class::ErrorResponse, Method::Allocate, |writer| {
        writer
            .error_code(ErrorCode::UNKNOWN_ATTRIBUTE, "")
            .unknown_attributes([0x001A, 0x7FFF, 0x0003].into_iter())
            .address_error_code(AddressFamily::V6, ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED);
    });
    let expected = hex("0113 001c 2112a442 00010203 04050607 08090a0b
        0009 0004 00000414
        000a 0006 001a7fff 00030000
        8001 0004 02000428");
    assert_eq!(bytes, expected);

    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.error_code(), Some(Ok(ErrorCode::UNKNOWN_ATTRIBUTE)));
    assert_eq!(
        message.unknown_attributes().collect::<Vec<_>>(),
        [0x001A, 0x7FFF, 0x0003]
    );
    assert_eq!(
        message.address_error_code(),
        Some(Ok((
            AddressFamily::V6,
            ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED
        )))
    );
}

#[test]
fn at_most_sixteen_unknown_attributes_are_listed() {
    let bytes = written(Class::ErrorResponse, Method::Binding, |writer| {
        writer.unknown_attributes(0x0100..0x0200);
    });
    let message = Message::parse(&bytes).unwrap();
    assert!(message.unknown_attributes().eq(0x0100..0x0110));
}

#[test]
fn every_class_and_method_has_its_message_type() {
    for (class, method, kind) in [
        (Class::Request, Method::Binding, 0x0001_u16),
        (Class::Indication, Method::Binding, 0x0011),
        (Class::SuccessResponse, Method::Binding, 0x0101),
        (Class::ErrorResponse, Method::Binding, 0x0111),
        (Class::SuccessResponse, Method::Allocate, 0x0103),
        (Class::ErrorResponse, Method::Refresh, 0x0114),
        (Class::Indication, Method::Send, 0x0016),
        (Class::Indication, Method::Data, 0x0017),
        (Class::Request, Method::CreatePermission, 0x0008),
        (Class::ErrorResponse, Method::ChannelBind, 0x0119),
    ] {
        let bytes = written(class, method, |_| {});
        assert_eq!(bytes[..2], kind.to_be_bytes());
        let message = Message::parse(&bytes).unwrap();
        assert_eq!((message.class(), message.method()), (class, Some(method)));
        assert_eq!(message.method_code(), method.code());
    }
}

#[test]
fn a_method_beyond_ours_is_a_sound_message() {
    let bytes = hex("3eef 0000 2112a442 00010203 04050607 08090a0b");
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.class(), Class::Request);
    assert_eq!(message.method(), None);
    assert_eq!(message.method_code(), 0xFFF);
}

#[test]
fn what_is_no_message_is_refused() {
    for (text, error) in [
        ("", ParseError::TooShort),
        (
            "0001 0000 2112a442 00010203 04050607 08090a",
            ParseError::TooShort,
        ),
        (
            "4001 0000 2112a442 00010203 04050607 08090a0b",
            ParseError::NotStun,
        ),
        (
            "0001 0000 2112a443 00010203 04050607 08090a0b",
            ParseError::BadCookie,
        ),
        (
            "0001 0002 2112a442 00010203 04050607 08090a0b 0000",
            ParseError::BadLength,
        ),
        (
            "0001 0004 2112a442 00010203 04050607 08090a0b",
            ParseError::BadLength,
        ),
        (
            "0001 0000 2112a442 00010203 04050607 08090a0b 8022 0000",
            ParseError::BadLength,
        ),
        (
            "0001 0004 2112a442 00010203 04050607 08090a0b 8022 0001",
            ParseError::BadAttribute,
        ),
        (
            "0001 0008 2112a442 00010203 04050607 08090a0b 8022 ffff 00000000",
            ParseError::BadAttribute,
        ),
    ] {
        assert_eq!(Message::parse(&hex(text)).err(), Some(error), "{text}");
    }
}

#[test]
fn absent_and_malformed_are_told_apart() {
    let bytes = written(Class::Request, Method::Allocate, |writer| {
        writer
            .attribute(AttributeType::LIFETIME, &[0, 0, 1])
            .attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[3, 0, 0, 0])
            .attribute(AttributeType::USERNAME, &[0xFF])
            .attribute(AttributeType::REALM, &[b'r'; 764])
            .attribute(AttributeType::ERROR_CODE, &[0, 0, 7, 0])
            .attribute(AttributeType::XOR_PEER_ADDRESS, &[0, 1, 0, 0, 1, 2, 3]);
    });
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.lifetime(), Some(Err(AttributeError::Length)));
    assert_eq!(
        message.requested_address_family(),
        Some(Err(AttributeError::Family))
    );
    assert_eq!(message.username(), Some(Err(AttributeError::Value)));
    assert_eq!(message.realm(), Some(Err(AttributeError::Length)));
    assert_eq!(message.error_code(), Some(Err(AttributeError::Value)));
    assert_eq!(
        message.xor_peer_address(),
        Some(Err(AttributeError::Length))
    );
    assert_eq!(message.nonce(), None);
    assert_eq!(message.data(), None);
    assert_eq!(message.channel_number(), None);
}

#[test]
fn the_first_of_several_counts() {
    let bytes = written(Class::Request, Method::Refresh, |writer| {
        writer.lifetime(1).lifetime(2);
    });
    assert_eq!(Message::parse(&bytes).unwrap().lifetime(), Some(Ok(1)));
}

#[test]
fn an_additional_address_family_may_bear_the_number_that_coturn_gives_it() {
    let bytes = written(Class::Request, Method::Allocate, |writer| {
        writer.attribute(AttributeType(0x8032), &[2, 0, 0, 0]);
    });
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(
        message.additional_address_family(),
        Some(Ok(AddressFamily::V6))
    );
}

#[test]
fn attributes_after_message_integrity_are_ignored() {
    let key = LongTermKey::Md5([7; 16]);
    let bytes = written(Class::Request, Method::Refresh, |writer| {
        writer
            .username("u")
            .integrity(&key)
            .lifetime(0)
            .attribute(AttributeType(0x7FFF), &[])
            .with_fingerprint();
    });
    let message = Message::parse(&bytes).unwrap();
    assert!(message.verify_integrity(&key));
    assert_eq!(message.lifetime(), None);
    assert_eq!(message.unknown_required().next(), None);
    assert_eq!(message.attributes().count(), 2);
    assert_eq!(message.all_attributes().count(), 5);
    assert_eq!(message.fingerprint(), Fingerprint::Valid);
}

#[test]
fn a_message_integrity_of_another_length_never_verifies() {
    let key = LongTermKey::Md5([7; 16]);
    for len in [0, 16, 19, 21, 32] {
        let bytes = written(Class::Request, Method::Refresh, |writer| {
            writer.attribute(AttributeType::MESSAGE_INTEGRITY, &vec![0; len]);
        });
        let message = Message::parse(&bytes).unwrap();
        assert!(message.has_integrity());
        assert!(!message.verify_integrity(&key));
    }
}

#[test]
fn a_sha256_integrity_counts_behind_the_other_one_and_is_the_one_to_verify() {
    let (key, other) = (LongTermKey::Md5([7; 16]), LongTermKey::Sha256([7; 32]));
    for (sha1, sha256, expected) in [
        (&key, &key, true),
        (&other, &key, true),
        (&key, &other, false),
    ] {
        let bytes = written(Class::Request, Method::Refresh, |writer| {
            writer.username("u").integrity(sha1).lifetime(0);
            writer.integrity_sha256(sha256).with_fingerprint();
        });
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.integrity(), Some(IntegrityKind::Sha256));
        assert_eq!(message.verify_integrity(&key), expected);
        assert_eq!(message.lifetime(), None);
        assert_eq!(message.attributes().count(), 2);
    }
}

#[test]
fn behind_a_sha256_integrity_only_the_fingerprint_counts() {
    let key = LongTermKey::Sha256([7; 32]);
    let bytes = written(Class::Request, Method::Refresh, |writer| {
        writer
            .integrity_sha256(&key)
            .attribute(AttributeType::MESSAGE_INTEGRITY, &[0; 20])
            .attribute(AttributeType::MESSAGE_INTEGRITY_SHA256, &[0; 32])
            .lifetime(0)
            .with_fingerprint();
    });
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.integrity(), Some(IntegrityKind::Sha256));
    assert!(message.verify_integrity(&key));
    assert_eq!(message.lifetime(), None);
    assert_eq!(message.fingerprint(), Fingerprint::Valid);
}

#[test]
fn a_sha256_integrity_of_another_length_never_verifies() {
    let key = LongTermKey::Sha256([7; 32]);
    let whole = written(Class::Request, Method::Refresh, |writer| {
        writer.integrity_sha256(&key);
    });
    assert!(Message::parse(&whole).unwrap().verify_integrity(&key));
    for len in [0, 15, 16, 20, 28, 31, 33, 36] {
        let bytes = written(Class::Request, Method::Refresh, |writer| {
            let mut value = whole[24..].to_vec();
            value.resize(len, 0);
            writer.attribute(AttributeType::MESSAGE_INTEGRITY_SHA256, &value);
        });
        let message = Message::parse(&bytes).unwrap();
        assert!(message.has_integrity());
        assert!(!message.verify_integrity(&key), "{len}");
    }
}

#[test]
fn password_algorithms_are_read_as_they_were_written() {
    use PasswordAlgorithm::{Md5, Sha256};
    let bytes = written(Class::Request, Method::Allocate, |writer| {
        writer
            .password_algorithms(&[Sha256, Md5])
            .password_algorithm(Sha256);
    });
    assert_eq!(
        bytes[20..],
        hex("8002 0008 0002 0000 0001 0000 001d 0004 0002 0000")
    );
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.password_algorithm(), Some(Ok(Sha256)));
    let list = message.password_algorithms().unwrap();
    assert!(list.known().eq([Sha256, Md5]));
    assert!(list.is(&[Sha256, Md5]));
    assert!(!list.is(&[Md5, Sha256]));
    assert!(!list.is(&[Sha256]));
}

#[test]
fn a_fingerprint_that_is_not_the_last_attribute_is_invalid() {
    let mut bytes = written(Class::Request, Method::Binding, |writer| {
        writer.with_fingerprint();
    });
    assert_eq!(
        Message::parse(&bytes).unwrap().fingerprint(),
        Fingerprint::Valid
    );
    bytes.extend_from_slice(&hex("8022 0000"));
    bytes[3] += 4;
    assert_eq!(
        Message::parse(&bytes).unwrap().fingerprint(),
        Fingerprint::Invalid
    );
}

#[test]
fn the_reserved_bits_of_an_attribute_are_ignored() {
    let bytes = written(Class::Request, Method::Allocate, |writer| {
        writer
            .attribute(AttributeType::EVEN_PORT, &[0x7F])
            .attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 1, 2, 3])
            .attribute(AttributeType::CHANNEL_NUMBER, &[0x40, 0x01, 0xFF, 0xFF])
            .attribute(AttributeType::ERROR_CODE, &[0xFF, 0xFF, 0xFC, 1]);
    });
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.even_port(), Some(Ok(false)));
    assert_eq!(message.requested_transport(), Some(Ok(17)));
    assert_eq!(message.channel_number(), Some(Ok(ChannelNumber(0x4001))));
    assert_eq!(message.error_code(), Some(Ok(ErrorCode::UNAUTHENTICATED)));
}

#[test]
fn userhash_and_dont_fragment_are_not_understood() {
    let bytes = written(Class::Request, Method::Allocate, |writer| {
        for kind in [0x001A, 0x001D, 0x001E, 0x0006, 0x8002, 0x001C] {
            writer.attribute(AttributeType(kind), &[]);
        }
    });
    let message = Message::parse(&bytes).unwrap();
    assert!(message.unknown_required().eq([0x001A, 0x001E]));
}

#[track_caller]
fn assert_header(header: ClientHeader, payload: &[u8], expected: &str) {
    let headroom = ClientHeader::MAX_LEN;
    let mut buffer = vec![0xEE; headroom];
    buffer.extend_from_slice(payload);
    buffer.resize(buffer.len() + ClientHeader::MAX_PADDING, 0xEE);
    let span = Span {
        start: headroom,
        len: payload.len(),
    };
    let message = header
        .write(&mut buffer, span)
        .expect("there is room for the header");
    assert_eq!(buffer[message.range()], hex(expected));
}

#[test]
fn channel_data_is_written_in_place() {
    let number = ChannelNumber(0x4001);
    let plain = ClientHeader::ChannelData {
        number,
        padded: false,
    };
    let padded = ClientHeader::ChannelData {
        number,
        padded: true,
    };
    assert_header(plain, b"hello", "4001 0005 68656c6c 6f");
    assert_header(padded, b"hello", "4001 0005 68656c6c 6f000000");
    assert_header(padded, b"four", "4001 0004 666f7572");
    assert_header(plain, b"", "4001 0000");
}

#[test]
fn data_indications_are_written_in_place() {
    assert_header(
        ClientHeader::DataIndication {
            transaction_id: ID,
            peer: peer("192.0.2.1:32853"),
        },
        b"hello",
        "0017 0018 2112a442 00010203 04050607 08090a0b
         0012 0008 0001a147 e112a643
         0013 0005 68656c6c 6f000000",
    );
    let v6 = ClientHeader::DataIndication {
        transaction_id: ID,
        peer: peer("[2001:db8::1]:1"),
    };
    assert_header(
        v6,
        b"",
        "0017 001c 2112a442 00010203 04050607 08090a0b
         0012 0014 00022113 0113a9fa 00010203 04050607 08090a0a
         0013 0000",
    );
}

#[test]
fn a_header_without_room_is_not_written() {
    let number = ChannelNumber(0x4001);
    let padded = ClientHeader::ChannelData {
        number,
        padded: true,
    };
    let data = ClientHeader::DataIndication {
        transaction_id: ID,
        peer: peer("192.0.2.1:1"),
    };
    let mut buffer = [0xEE; 64];
    assert_eq!(padded.write(&mut buffer, Span { start: 3, len: 4 }), None);
    assert_eq!(padded.write(&mut buffer, Span { start: 5, len: 57 }), None);
    assert_eq!(padded.write(&mut buffer, Span { start: 4, len: 61 }), None);
    assert_eq!(data.write(&mut buffer, Span { start: 35, len: 0 }), None);
    assert_eq!(
        padded.write(
            &mut buffer,
            Span {
                start: 4,
                len: usize::MAX
            }
        ),
        None
    );
    assert_eq!(
        data.write(
            &mut [0; 70_000],
            Span {
                start: 48,
                len: 65_530
            }
        ),
        None
    );
    let endless = Span {
        start: 48,
        len: usize::MAX,
    };
    assert_eq!(data.write(&mut buffer, endless), None);
    assert_eq!(buffer, [0xEE; 64]);
}

#[test]
fn channel_data_may_be_shorter_than_its_datagram_but_not_longer() {
    let parse = |text| ChannelData::parse(&hex(text));
    let message = ChannelData {
        number: ChannelNumber(0x4001),
        payload: Span { start: 4, len: 2 },
    };
    assert_eq!(parse("4001 0002 6869"), Ok(message));
    assert_eq!(parse("4001 0002 6869 0000"), Ok(message));
    assert_eq!(parse("4001 0003 6869"), Err(ParseError::BadLength));
    assert_eq!(parse("4001 00"), Err(ParseError::TooShort));
    assert_eq!(parse("8001 0000"), Err(ParseError::NotStun));
    assert_eq!(parse("0001 0000"), Err(ParseError::NotStun));
}

#[test]
fn the_stream_is_cut_at_messages() {
    let frame = |text| deframe(&hex(text), MAX_FRAME_LEN);
    assert_eq!(frame(""), Frame::NeedMore(4));
    assert_eq!(frame("40"), Frame::NeedMore(3));
    assert_eq!(frame("4001 0005"), Frame::NeedMore(8));
    assert_eq!(frame("4001 0005 68656c6c 6f0000"), Frame::NeedMore(1));
    assert_eq!(
        frame("4001 0005 68656c6c 6f000000 40"),
        Frame::Message { len: 9, total: 12 }
    );
    assert_eq!(frame("4001 0000"), Frame::Message { len: 4, total: 4 });
    assert_eq!(frame("0001 0000 21"), Frame::NeedMore(15));
    assert_eq!(
        frame("0001 0000 2112a442 00010203 04050607 08090a0b"),
        Frame::Message { len: 20, total: 20 }
    );
}

#[test]
fn a_stream_of_something_else_is_garbage_at_once() {
    for text in [
        "80",
        "ff",
        "16",
        "0001 0001",
        "0001 0000 47",
        "0001 0000 2112a443",
    ] {
        let frame = deframe(&hex(text), MAX_FRAME_LEN);
        let expected = if text == "16" {
            Frame::NeedMore(3)
        } else {
            Frame::Garbage
        };
        assert_eq!(frame, expected, "{text}");
    }
}

#[test]
fn a_message_beyond_the_bound_is_garbage() {
    assert_eq!(deframe(&hex("4001 0061"), 100), Frame::Garbage);
    assert_eq!(deframe(&hex("4001 0060"), 100), Frame::NeedMore(96));
    assert_eq!(
        deframe(&hex("4001 ffff"), usize::MAX),
        Frame::NeedMore(MAX_FRAME_LEN - 4)
    );
    assert_eq!(deframe(&hex("0001 fffc"), usize::MAX), Frame::Garbage);
}
