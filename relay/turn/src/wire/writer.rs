//! Makes STUN messages: appends to the caller's buffer, with a length field that is right after every step.

use std::net::SocketAddr;

use super::attribute::AttributeType;
use super::integrity::{FINGERPRINT_LEN, INTEGRITY_LEN, INTEGRITY_SHA256_LEN, IntegrityKind};
use super::message::{Class, Method};
use super::{
    ChannelNumber, ConnectionId, ErrorCode, HEADER_LEN, LongTermKey, MAGIC_COOKIE,
    PasswordAlgorithm, ReservationToken, TransactionId, address, integrity, padded,
};
use crate::addr::{AddressFamily, PeerAddr};

/// Appends one message to a buffer. Attributes are written in the order of the calls; padding is zero.
///
/// A message has at most 65,535 bytes behind its header. Whoever writes values from elsewhere keeps to that: a message
/// beyond it is a programmer's error and panics.
#[derive(Debug)]
pub struct MessageWriter<'b> {
    buffer: &'b mut Vec<u8>,
    start: usize,
    id: TransactionId,
    fingerprint: bool,
}

impl<'b> MessageWriter<'b> {
    /// At most this many types are listed in UNKNOWN-ATTRIBUTES, which bounds the work of telling them apart.
    const MAX_UNKNOWN_LISTED: usize = 16;

    /// Begins a message behind what `buffer` already holds.
    pub fn new(buffer: &'b mut Vec<u8>, class: Class, method: Method, id: TransactionId) -> Self {
        let start = buffer.len();
        buffer.extend_from_slice(&(class.bits() | method.code()).to_be_bytes());
        buffer.extend_from_slice(&[0, 0]);
        buffer.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
        buffer.extend_from_slice(&id.0);
        Self {
            buffer,
            start,
            id,
            fingerprint: false,
        }
    }

    /// Any attribute.
    pub fn attribute(&mut self, kind: AttributeType, value: &[u8]) -> &mut Self {
        self.open(kind, value.len());
        self.buffer.extend_from_slice(value);
        self.close()
    }

    /// USERNAME.
    pub fn username(&mut self, username: &str) -> &mut Self {
        self.attribute(AttributeType::USERNAME, username.as_bytes())
    }

    /// REALM.
    pub fn realm(&mut self, realm: &str) -> &mut Self {
        self.attribute(AttributeType::REALM, realm.as_bytes())
    }

    /// NONCE.
    pub fn nonce(&mut self, nonce: &[u8]) -> &mut Self {
        self.attribute(AttributeType::NONCE, nonce)
    }

    /// PASSWORD-ALGORITHMS with `algorithms`, the preferred one first.
    pub fn password_algorithms(&mut self, algorithms: &[PasswordAlgorithm]) -> &mut Self {
        let entries = algorithms.iter().flat_map(|algorithm| algorithm.entry());
        self.open(AttributeType::PASSWORD_ALGORITHMS, 4 * algorithms.len());
        self.buffer.extend(entries);
        self.close()
    }

    /// PASSWORD-ALGORITHM.
    pub fn password_algorithm(&mut self, algorithm: PasswordAlgorithm) -> &mut Self {
        self.attribute(AttributeType::PASSWORD_ALGORITHM, &algorithm.entry())
    }

    /// SOFTWARE.
    pub fn software(&mut self, software: &str) -> &mut Self {
        self.attribute(AttributeType::SOFTWARE, software.as_bytes())
    }

    /// ERROR-CODE with a reason, which may be empty.
    pub fn error_code(&mut self, code: ErrorCode, reason: &str) -> &mut Self {
        let [class, number] = code.parts();
        self.open(AttributeType::ERROR_CODE, 4 + reason.len());
        self.buffer.extend_from_slice(&[0, 0, class, number]);
        self.buffer.extend_from_slice(reason.as_bytes());
        self.close()
    }

    /// ADDRESS-ERROR-CODE: the family that could not be had, and why; without a reason text.
    pub fn address_error_code(&mut self, family: AddressFamily, code: ErrorCode) -> &mut Self {
        let [class, number] = code.parts();
        let value = [address::family_code(family), 0, class, number];
        self.attribute(AttributeType::ADDRESS_ERROR_CODE, &value)
    }

    /// UNKNOWN-ATTRIBUTES, with each of `kinds` once, the first sixteen of them.
    pub fn unknown_attributes(&mut self, kinds: impl Iterator<Item = u16>) -> &mut Self {
        let mut value = [0; 2 * Self::MAX_UNKNOWN_LISTED];
        let mut len = 0;
        for kind in kinds.map(u16::to_be_bytes) {
            if len < value.len() && value[..len].chunks_exact(2).all(|known| known != kind) {
                value[len..len + 2].copy_from_slice(&kind);
                len += 2;
            }
        }
        self.attribute(AttributeType::UNKNOWN_ATTRIBUTES, &value[..len])
    }

    /// LIFETIME in seconds.
    pub fn lifetime(&mut self, seconds: u32) -> &mut Self {
        self.attribute(AttributeType::LIFETIME, &seconds.to_be_bytes())
    }

    /// XOR-MAPPED-ADDRESS.
    pub fn xor_mapped_address(&mut self, address: SocketAddr) -> &mut Self {
        self.xor_address(AttributeType::XOR_MAPPED_ADDRESS, address)
    }

    /// XOR-RELAYED-ADDRESS.
    pub fn xor_relayed_address(&mut self, address: SocketAddr) -> &mut Self {
        self.xor_address(AttributeType::XOR_RELAYED_ADDRESS, address)
    }

    /// XOR-PEER-ADDRESS.
    pub fn xor_peer_address(&mut self, peer: PeerAddr) -> &mut Self {
        self.xor_address(AttributeType::XOR_PEER_ADDRESS, peer.0)
    }

    /// ALTERNATE-SERVER.
    pub fn alternate_server(&mut self, address: SocketAddr) -> &mut Self {
        let mut value = [0; address::MAX_LEN];
        let len = address::write_plain(&mut value, address);
        self.attribute(AttributeType::ALTERNATE_SERVER, &value[..len])
    }

    /// ALTERNATE-DOMAIN.
    pub fn alternate_domain(&mut self, domain: &str) -> &mut Self {
        self.attribute(AttributeType::ALTERNATE_DOMAIN, domain.as_bytes())
    }

    /// DATA.
    pub fn data(&mut self, data: &[u8]) -> &mut Self {
        self.attribute(AttributeType::DATA, data)
    }

    /// CHANNEL-NUMBER.
    pub fn channel_number(&mut self, number: ChannelNumber) -> &mut Self {
        let [high, low] = number.0.to_be_bytes();
        self.attribute(AttributeType::CHANNEL_NUMBER, &[high, low, 0, 0])
    }

    /// REQUESTED-TRANSPORT with a protocol number: 17 is UDP, 6 is TCP.
    pub fn requested_transport(&mut self, protocol: u8) -> &mut Self {
        self.attribute(AttributeType::REQUESTED_TRANSPORT, &[protocol, 0, 0, 0])
    }

    /// REQUESTED-ADDRESS-FAMILY.
    pub fn requested_address_family(&mut self, family: AddressFamily) -> &mut Self {
        let value = [address::family_code(family), 0, 0, 0];
        self.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &value)
    }

    /// ADDITIONAL-ADDRESS-FAMILY.
    pub fn additional_address_family(&mut self, family: AddressFamily) -> &mut Self {
        let value = [address::family_code(family), 0, 0, 0];
        self.attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &value)
    }

    /// EVEN-PORT; `reserve` is its R bit.
    pub fn even_port(&mut self, reserve: bool) -> &mut Self {
        self.attribute(AttributeType::EVEN_PORT, &[if reserve { 0x80 } else { 0 }])
    }

    /// RESERVATION-TOKEN.
    pub fn reservation_token(&mut self, token: ReservationToken) -> &mut Self {
        self.attribute(AttributeType::RESERVATION_TOKEN, &token.0)
    }

    /// CONNECTION-ID.
    pub fn connection_id(&mut self, id: ConnectionId) -> &mut Self {
        self.attribute(AttributeType::CONNECTION_ID, &id.0.to_be_bytes())
    }

    /// MESSAGE-INTEGRITY over all that was written so far.
    pub fn integrity(&mut self, key: &LongTermKey) -> &mut Self {
        let value: [u8; INTEGRITY_LEN] = integrity::integrity(&self.buffer[self.start..], key);
        self.attribute(AttributeType::MESSAGE_INTEGRITY, &value)
    }

    /// MESSAGE-INTEGRITY-SHA256 over all that was written so far.
    pub fn integrity_sha256(&mut self, key: &LongTermKey) -> &mut Self {
        let value: [u8; INTEGRITY_SHA256_LEN] =
            integrity::integrity_sha256(&self.buffer[self.start..], key);
        self.attribute(AttributeType::MESSAGE_INTEGRITY_SHA256, &value)
    }

    /// Lets the message end with a FINGERPRINT.
    pub fn with_fingerprint(&mut self) -> &mut Self {
        self.fingerprint = true;
        self
    }

    /// Ends the message.
    pub fn finish(mut self) {
        if self.fingerprint {
            // The length field counts the attribute before the CRC is taken.
            self.attribute(AttributeType::FINGERPRINT, &[0; FINGERPRINT_LEN]);
            let at = self.buffer.len() - FINGERPRINT_LEN;
            let value = integrity::fingerprint(&self.buffer[self.start..at - 4]);
            self.buffer[at..].copy_from_slice(&value);
        }
    }

    /// Ends the message with MESSAGE-INTEGRITY.
    pub fn finish_signed(self, key: &LongTermKey) {
        self.finish_signed_by(IntegrityKind::Sha1, key);
    }

    /// Ends the message with the integrity attribute of `kind`.
    pub fn finish_signed_by(mut self, kind: IntegrityKind, key: &LongTermKey) {
        match kind {
            IntegrityKind::Sha1 => self.integrity(key),
            IntegrityKind::Sha256 => self.integrity_sha256(key),
        };
        self.finish();
    }

    fn xor_address(&mut self, kind: AttributeType, address: SocketAddr) -> &mut Self {
        let mut value = [0; address::MAX_LEN];
        let len = address::write_xor(&mut value, address, self.id);
        self.attribute(kind, &value[..len])
    }

    fn open(&mut self, kind: AttributeType, len: usize) {
        let len = u16::try_from(len).expect("an attribute has at most 65,535 bytes");
        self.buffer.extend_from_slice(&kind.0.to_be_bytes());
        self.buffer.extend_from_slice(&len.to_be_bytes());
    }

    /// Pads what was written and counts it in the header.
    fn close(&mut self) -> &mut Self {
        let len = padded(self.buffer.len() - self.start);
        self.buffer.resize(self.start + len, 0);
        let len = u16::try_from(len - HEADER_LEN).expect("a message has at most 65,535 bytes");
        self.buffer[self.start + 2..self.start + 4].copy_from_slice(&len.to_be_bytes());
        self
    }
}
