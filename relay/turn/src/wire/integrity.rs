//! MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256 and FINGERPRINT: who sent a message, and whether it is a STUN message at all.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;

use super::crc32::crc32;
use super::message::Message;
use super::{HEADER_LEN, LongTermKey, read_u16};

/// Length of the value of MESSAGE-INTEGRITY (RFC 8489 §14.5).
pub(super) const INTEGRITY_LEN: usize = 20;

/// Length of the value of MESSAGE-INTEGRITY-SHA256. It may be cut only where a usage of STUN says so (RFC 8489 §14.6), which
/// TURN does not.
pub(super) const INTEGRITY_SHA256_LEN: usize = 32;

/// Length of the value of FINGERPRINT (RFC 8489 §14.7).
pub(super) const FINGERPRINT_LEN: usize = 4;

/// What the CRC-32 is combined with, so that it differs from that of another protocol (RFC 8489 §14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554E;

/// The attributes that say who sent a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IntegrityKind {
    /// MESSAGE-INTEGRITY (RFC 8489 §14.5).
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256 (RFC 8489 §14.6).
    Sha256,
}

/// What a message's FINGERPRINT says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fingerprint {
    /// The message has none.
    Absent,
    /// It is the last attribute and fits the bytes before it.
    Valid,
    /// It is not the last attribute, has the wrong length or does not fit.
    Invalid,
}

impl Message<'_> {
    /// Whether the message has a MESSAGE-INTEGRITY or a MESSAGE-INTEGRITY-SHA256, right or wrong.
    #[must_use]
    pub fn has_integrity(&self) -> bool {
        self.integrity().is_some()
    }

    /// Which attribute is to be verified: MESSAGE-INTEGRITY-SHA256 where both are there (RFC 8489 §9.2.4).
    #[must_use]
    pub fn integrity(&self) -> Option<IntegrityKind> {
        let sha1 = self.integrity_at.map(|_| IntegrityKind::Sha1);
        self.integrity_sha256_at
            .map(|_| IntegrityKind::Sha256)
            .or(sha1)
    }

    /// Whether [`Message::integrity`] was made with `key`; the comparison takes the same time for every value.
    #[must_use]
    pub fn verify_integrity(&self, key: &LongTermKey) -> bool {
        if let Some(at) = self.integrity_sha256_at {
            self.value_of(at, INTEGRITY_SHA256_LEN)
                .is_some_and(|value| {
                    let mac: Hmac<Sha256> = mac(&self.bytes[..at], key.as_bytes(), value.len());
                    mac.verify_slice(value).is_ok()
                })
        } else if let Some(at) = self.integrity_at {
            self.value_of(at, INTEGRITY_LEN).is_some_and(|value| {
                let mac: Hmac<Sha1> = mac(&self.bytes[..at], key.as_bytes(), value.len());
                mac.verify_slice(value).is_ok()
            })
        } else {
            false
        }
    }

    /// The value of the attribute at `at`, where it has `len` bytes.
    fn value_of(&self, at: usize, len: usize) -> Option<&[u8]> {
        (usize::from(read_u16(self.bytes, at + 2)) == len)
            .then(|| &self.bytes[at + 4..at + 4 + len])
    }

    /// Judges the FINGERPRINT.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let Some(at) = self.fingerprint_at else {
            return Fingerprint::Absent;
        };
        let value = &self.bytes[at + 4..];
        // A value of four bytes that ends the message is one whose length field says four.
        if value == fingerprint(&self.bytes[..at])
            && usize::from(read_u16(self.bytes, at + 2)) == FINGERPRINT_LEN
        {
            Fingerprint::Valid
        } else {
            Fingerprint::Invalid
        }
    }
}

/// The value of MESSAGE-INTEGRITY behind `bytes`, a message up to that attribute.
pub(super) fn integrity(bytes: &[u8], key: &LongTermKey) -> [u8; INTEGRITY_LEN] {
    let mac: Hmac<Sha1> = mac(bytes, key.as_bytes(), INTEGRITY_LEN);
    mac.finalize().into_bytes().into()
}

/// The value of MESSAGE-INTEGRITY-SHA256 behind `bytes`, a message up to that attribute.
pub(super) fn integrity_sha256(bytes: &[u8], key: &LongTermKey) -> [u8; INTEGRITY_SHA256_LEN] {
    let mac: Hmac<Sha256> = mac(bytes, key.as_bytes(), INTEGRITY_SHA256_LEN);
    mac.finalize().into_bytes().into()
}

/// The value of FINGERPRINT behind `bytes`, a message up to that attribute whose length field already counts it.
pub(super) fn fingerprint(bytes: &[u8]) -> [u8; FINGERPRINT_LEN] {
    (crc32(bytes) ^ FINGERPRINT_XOR).to_be_bytes()
}

/// The HMAC over `bytes`, a message up to its integrity attribute, with a length field that ends behind that attribute, whose
/// value has `value_len` bytes.
fn mac<M: Mac + KeyInit>(bytes: &[u8], key: &[u8], value_len: usize) -> M {
    let len = bytes.len() - HEADER_LEN + 4 + value_len;
    let len = u16::try_from(len).expect("a message that holds the attribute has such a length");
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(&bytes[..2]);
    mac.update(&len.to_be_bytes());
    mac.update(&bytes[4..]);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::PasswordAlgorithm;

    /// RFC 5769 §2.2: a response signed with the short-term credential, its password being the key.
    #[test]
    fn hmac_fits_the_vector_with_a_key_of_another_length() {
        let up_to_integrity = [
            0x01, 0x01, 0x00, 0x3C, 0x21, 0x12, 0xA4, 0x42, 0xB7, 0xE7, 0xA7, 0x01, 0xBC, 0x34,
            0xD6, 0x86, 0xFA, 0x87, 0xDF, 0xAE, 0x80, 0x22, 0x00, 0x0B, 0x74, 0x65, 0x73, 0x74,
            0x20, 0x76, 0x65, 0x63, 0x74, 0x6F, 0x72, 0x20, 0x00, 0x20, 0x00, 0x08, 0x00, 0x01,
            0xA1, 0x47, 0xE1, 0x12, 0xA6, 0x43,
        ];
        let expected = [
            0x2B, 0x91, 0xF5, 0x99, 0xFD, 0x9E, 0x90, 0xC3, 0x8C, 0x74, 0x89, 0xF9, 0x2A, 0xF9,
            0xBA, 0x53, 0xF0, 0x6B, 0xE7, 0xD7,
        ];
        let key = b"VOkJxbRl1RmTxUk/WvJxBt";
        let mac: Hmac<Sha1> = mac(&up_to_integrity, key, INTEGRITY_LEN);
        assert!(mac.verify_slice(&expected).is_ok());
    }

    /// RFC 8489 Appendix B.1: the value is made with a length field that counts the header as well.
    #[test]
    fn hmac_and_key_fit_the_vector_with_sha256() {
        let up_to_integrity = [
            0x00, 0x01, 0x00, 0x9C, 0x21, 0x12, 0xA4, 0x42, 0x78, 0xAD, 0x34, 0x33, 0xC6, 0xAD,
            0x72, 0xC0, 0x29, 0xDA, 0x41, 0x2E, 0x00, 0x1E, 0x00, 0x20, 0x4A, 0x3C, 0xF3, 0x8F,
            0xEF, 0x69, 0x92, 0xBD, 0xA9, 0x52, 0xC6, 0x78, 0x04, 0x17, 0xDA, 0x0F, 0x24, 0x81,
            0x94, 0x15, 0x56, 0x9E, 0x60, 0xB2, 0x05, 0xC4, 0x6E, 0x41, 0x40, 0x7F, 0x17, 0x04,
            0x00, 0x15, 0x00, 0x29, 0x6F, 0x62, 0x4D, 0x61, 0x74, 0x4A, 0x6F, 0x73, 0x32, 0x41,
            0x41, 0x41, 0x43, 0x66, 0x2F, 0x2F, 0x34, 0x39, 0x39, 0x6B, 0x39, 0x35, 0x34, 0x64,
            0x36, 0x4F, 0x4C, 0x33, 0x34, 0x6F, 0x4C, 0x39, 0x46, 0x53, 0x54, 0x76, 0x79, 0x36,
            0x34, 0x73, 0x41, 0x00, 0x00, 0x00, 0x00, 0x14, 0x00, 0x0B, 0x65, 0x78, 0x61, 0x6D,
            0x70, 0x6C, 0x65, 0x2E, 0x6F, 0x72, 0x67, 0x00,
        ];
        let expected = [
            0xE4, 0x68, 0x6C, 0x8F, 0x0E, 0xDE, 0xB5, 0x90, 0x13, 0xE0, 0x70, 0x90, 0x01, 0x0A,
            0x93, 0xEF, 0xCC, 0xBC, 0xCC, 0x54, 0x4C, 0x0A, 0x45, 0xD9, 0xF8, 0x30, 0xAA, 0x6D,
            0x6F, 0x73, 0x5A, 0x01,
        ];
        let username = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";
        let algorithm = PasswordAlgorithm::Sha256;
        let key = LongTermKey::derive_with(algorithm, username, "example.org", "TheMatrIX");
        let len = INTEGRITY_SHA256_LEN + HEADER_LEN;
        let mac: Hmac<Sha256> = mac(&up_to_integrity, key.as_bytes(), len);
        assert!(mac.verify_slice(&expected).is_ok());
    }
}
