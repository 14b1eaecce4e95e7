//! A message that parses can be read in full, and written again as it was.

use turnfleet_turn::wire::{
    Fingerprint, IntegrityKind, LongTermKey, Message, MessageWriter, announces_password_algorithms,
};

const KEY: LongTermKey = LongTermKey::Md5([0; 16]);

pub fn run(data: &[u8]) {
    let Ok(message) = Message::parse(data) else {
        return;
    };
    read_text_and_numbers(message);
    read_addresses(message);
    assert!(message.attributes().count() <= message.all_attributes().count());
    if message.verify_integrity(&KEY) {
        assert!(message.has_integrity());
    }
    assert_eq!(message.has_integrity(), message.integrity().is_some());
    rewrite(message);
}

fn read_text_and_numbers(message: Message<'_>) {
    let _ = (message.username(), message.realm(), message.nonce());
    let _ = (
        message.alternate_servers().count(),
        message.alternate_domain(),
    );
    let _ = (message.error_code(), message.address_error_code());
    let _ = message.password_algorithm();
    if let Some(algorithms) = message.password_algorithms() {
        assert!(algorithms.known().count() <= algorithms.as_bytes().len() / 4);
    }
    if let Some(Ok(nonce)) = message.nonce() {
        let _ = announces_password_algorithms(nonce);
    }
    let _ = (message.lifetime(), message.channel_number());
    let _ = (message.requested_transport(), message.even_port());
    let _ = (
        message.requested_address_family(),
        message.additional_address_family(),
    );
    let _ = message.reservation_token();
    assert!(message.unknown_attributes().count() <= message.as_bytes().len() / 2);
    for kind in message.unknown_required() {
        assert!(kind < 0x8000);
    }
}

fn read_addresses(message: Message<'_>) {
    let _ = (message.xor_mapped_address(), message.xor_relayed_address());
    let _ = message.xor_relayed_addresses().count();
    for peer in message.xor_peer_addresses() {
        let _ = peer;
    }
    if let Some(data) = message.data() {
        assert!(message.as_bytes().get(data.range()).is_some());
    }
}

fn rewrite(message: Message<'_>) {
    let Some(method) = message.method() else {
        return;
    };
    let mut bytes = Vec::new();
    let mut writer = MessageWriter::new(
        &mut bytes,
        message.class(),
        method,
        message.transaction_id(),
    );
    for attribute in message.all_attributes() {
        writer.attribute(attribute.kind, attribute.value);
    }
    writer.finish();
    let again = Message::parse(&bytes).expect("what was written can be read");
    assert!(again.all_attributes().eq(message.all_attributes()));
    assert_eq!(bytes.len(), message.as_bytes().len());

    for kind in [IntegrityKind::Sha1, IntegrityKind::Sha256] {
        bytes.clear();
        let mut writer = MessageWriter::new(
            &mut bytes,
            message.class(),
            method,
            message.transaction_id(),
        );
        writer.with_fingerprint();
        writer.finish_signed_by(kind, &KEY);
        let signed = Message::parse(&bytes).expect("what was written can be read");
        assert_eq!(signed.integrity(), Some(kind));
        assert!(signed.verify_integrity(&KEY));
        assert_eq!(signed.fingerprint(), Fingerprint::Valid);
    }
}
