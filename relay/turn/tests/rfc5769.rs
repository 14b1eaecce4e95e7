//! The test vectors of RFC 5769. Sections 2.1 to 2.3 are signed with a short-term credential, which TURN does not use: their
//! MESSAGE-INTEGRITY is tested beside the code that makes it.

mod hex;

use hex::hex;
use turnfleet_turn::wire::{
    AttributeType, Class, Fingerprint, LongTermKey, Message, MessageWriter, Method, TransactionId,
};

const REQUEST: &str = "00010058 2112a442 b7e7a701 bc34d686 fa87dfae
    80220010 5354554e 20746573 7420636c 69656e74
    00240004 6e0001ff
    80290008 932ff9b1 51263b36
    00060009 6576746a 3a683676 59202020
    00080014 9aeaa70c bfd8cb56 781ef2b5 b2d3f249 c1b571a2
    80280004 e57a3bcf";

const IPV4_RESPONSE: &str = "0101003c 2112a442 b7e7a701 bc34d686 fa87dfae
    8022000b 74657374 20766563 746f7220
    00200008 0001a147 e112a643
    00080014 2b91f599 fd9e90c3 8c7489f9 2af9ba53 f06be7d7
    80280004 c07d4c96";

const IPV6_RESPONSE: &str = "01010048 2112a442 b7e7a701 bc34d686 fa87dfae
    8022000b 74657374 20766563 746f7220
    00200014 0002a147 0113a9fa a5d3f179 bc25f4b5 bed2b9d9
    00080014 a382954e 4be67bf1 1784c97c 8292c275 bfe3ed41
    80280004 c8fb0b4c";

const LONG_TERM_REQUEST: &str = "00010060 2112a442 78ad3433 c6ad72c0 29da412e
    00060012 e3839ee3 8388e383 aae38383 e382afe3 82b90000
    0015001c 662f2f34 39396b39 35346436 4f4c3334 6f4c3946 53547679 36347341
    0014000b 6578616d 706c652e 6f726700
    00080014 f6702465 6dd64a3e 02b8e071 2e85c9a2 8ca89666";

#[test]
fn section_2_1_request_is_read() {
    let bytes = hex(REQUEST);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.class(), Class::Request);
    assert_eq!(message.method(), Some(Method::Binding));
    assert_eq!(message.username(), Some(Ok("evtj:h6vY")));
    assert_eq!(message.fingerprint(), Fingerprint::Valid);
    assert!(message.has_integrity());
    let software = message.first(AttributeType::SOFTWARE).unwrap();
    assert_eq!(software.value, b"STUN test client");
    // PRIORITY belongs to ICE: a TURN server does not understand it, nor needs ICE-CONTROLLED be understood.
    assert_eq!(message.unknown_required().collect::<Vec<_>>(), [0x0024]);
}

#[test]
fn section_2_2_ipv4_response_is_read() {
    let bytes = hex(IPV4_RESPONSE);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.class(), Class::SuccessResponse);
    assert_eq!(message.method(), Some(Method::Binding));
    assert_eq!(
        message.xor_mapped_address(),
        Some(Ok("192.0.2.1:32853".parse().unwrap()))
    );
    assert_eq!(message.fingerprint(), Fingerprint::Valid);
}

#[test]
fn section_2_3_ipv6_response_is_read() {
    let bytes = hex(IPV6_RESPONSE);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(
        message.xor_mapped_address(),
        Some(Ok("[2001:db8:1234:5678:11:2233:4455:6677]:32853"
            .parse()
            .unwrap()))
    );
    assert_eq!(message.fingerprint(), Fingerprint::Valid);
}

#[test]
fn section_2_4_request_is_verified_and_written_byte_for_byte() {
    let bytes = hex(LONG_TERM_REQUEST);
    let username = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";
    let key = LongTermKey::derive(username, "example.org", "TheMatrIX");

    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.username(), Some(Ok(username)));
    assert_eq!(message.realm(), Some(Ok("example.org")));
    assert_eq!(
        message.nonce(),
        Some(Ok(&b"f//499k954d6OL34oL9FSTvy64sA"[..]))
    );
    assert_eq!(message.fingerprint(), Fingerprint::Absent);
    assert!(message.verify_integrity(&key));
    let other = LongTermKey::derive(username, "example.org", "TheMatrix");
    assert!(!message.verify_integrity(&other));

    let id = TransactionId(bytes[8..20].try_into().unwrap());
    let mut written = Vec::new();
    let mut writer = MessageWriter::new(&mut written, Class::Request, Method::Binding, id);
    writer
        .username(username)
        .nonce(b"f//499k954d6OL34oL9FSTvy64sA")
        .realm("example.org");
    writer.finish_signed(&key);
    assert_eq!(written, bytes);
}

#[test]
fn a_fingerprint_covers_every_byte_before_it() {
    let bytes = hex(IPV4_RESPONSE);
    for at in 8..bytes.len() - 8 {
        let mut changed = bytes.clone();
        changed[at] ^= 0x01;
        if let Ok(message) = Message::parse(&changed) {
            assert_ne!(message.fingerprint(), Fingerprint::Valid, "byte {at}");
        }
    }
}
