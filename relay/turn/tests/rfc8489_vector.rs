//! The test vector of RFC 8489 Appendix B.1. Its length field counts the header, so that no parser can take the message, and
//! its MESSAGE-INTEGRITY-SHA256 is made over that length. The same message with its true length is read and verified here; the
//! value that is printed in the RFC is tested beside the code that makes it.

mod hex;

use hex::hex;
use turnfleet_turn::wire::{
    AttributeType, Class, IntegrityKind, LongTermKey, Message, MessageWriter, Method, ParseError,
    PasswordAlgorithm, TransactionId,
};

const REQUEST: &str = "00010088 2112a442 78ad3433 c6ad72c0 29da412e
    001e0020 4a3cf38f ef6992bd a952c678 0417da0f 24819415 569e60b2 05c46e41 407f1704
    00150029 6f624d61 744a6f73 32414141 43662f2f 3439396b 39353464 364f4c33 346f4c39 46535476 79363473 41000000
    0014000b 6578616d 706c652e 6f726700
    001c0020 234112fb d4e27f98 3eb40328 36f99821 6f5b23f8 d927753f bc4f882b fbdf0dec";

const USERNAME: &str = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";

const NONCE: &[u8] = b"obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA";

fn key(password: &str) -> LongTermKey {
    LongTermKey::derive_with(PasswordAlgorithm::Sha256, USERNAME, "example.org", password)
}

#[test]
fn the_request_with_its_true_length_is_verified_and_written_byte_for_byte() {
    let bytes = hex(REQUEST);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.nonce(), Some(Ok(NONCE)));
    assert_eq!(message.realm(), Some(Ok("example.org")));
    assert_eq!(message.integrity(), Some(IntegrityKind::Sha256));
    assert!(message.verify_integrity(&key("TheMatrIX")));
    assert!(!message.verify_integrity(&key("TheMatrix")));
    let by_md5 = LongTermKey::derive(USERNAME, "example.org", "TheMatrIX");
    assert!(!message.verify_integrity(&by_md5));

    let id = TransactionId(bytes[8..20].try_into().unwrap());
    let userhash = message.first(AttributeType::USERHASH).unwrap().value;
    let mut written = Vec::new();
    let mut writer = MessageWriter::new(&mut written, Class::Request, Method::Binding, id);
    writer
        .attribute(AttributeType::USERHASH, userhash)
        .nonce(NONCE)
        .realm("example.org");
    writer.finish_signed_by(IntegrityKind::Sha256, &key("TheMatrIX"));
    assert_eq!(written, bytes);
}

#[test]
fn the_request_as_it_is_printed_has_a_wrong_length() {
    let mut bytes = hex(REQUEST);
    bytes[3] = 0x9C;
    assert_eq!(Message::parse(&bytes).err(), Some(ParseError::BadLength));
}
