//! MESSAGE-INTEGRITY and FINGERPRINT: who sent a message, and whether it is a STUN message at all.

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;

use super::message::Message;
use super::{HEADER_LEN, LongTermKey, read_u16};

/// Length of the value of MESSAGE-INTEGRITY (RFC 8489 §14.5).
pub(super) const INTEGRITY_LEN: usize = 20;

/// Length of the value of FINGERPRINT (RFC 8489 §14.7).
pub(super) const FINGERPRINT_LEN: usize = 4;

/// What the CRC-32 is combined with, so that it differs from that of another protocol (RFC 8489 §14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554E;

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

impl LongTermKey {
    /// MD5 over username, realm and password, joined by colons (RFC 8489 §9.2.2). The texts are taken as they are: bringing
    /// them into the OpaqueString profile is up to who chose them.
    #[must_use]
    pub fn derive(username: &str, realm: &str, password: &str) -> Self {
        let digest = Md5::new()
            .chain_update(username)
            .chain_update(":")
            .chain_update(realm)
            .chain_update(":")
            .chain_update(password)
            .finalize();
        Self(digest.into())
    }
}

impl Message<'_> {
    /// Whether the message has a MESSAGE-INTEGRITY, right or wrong.
    #[must_use]
    pub fn has_integrity(&self) -> bool {
        self.integrity_at.is_some()
    }

    /// Whether the message has a MESSAGE-INTEGRITY made with `key`; the comparison takes the same time for every value.
    #[must_use]
    pub fn verify_integrity(&self, key: &LongTermKey) -> bool {
        let Some(at) = self.integrity_at else {
            return false;
        };
        let len = usize::from(read_u16(self.bytes, at + 2));
        len == INTEGRITY_LEN
            && mac(&self.bytes[..at], &key.0)
                .verify_slice(&self.bytes[at + 4..at + 4 + INTEGRITY_LEN])
                .is_ok()
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
    mac(bytes, &key.0).finalize().into_bytes().into()
}

/// The value of FINGERPRINT behind `bytes`, a message up to that attribute whose length field already counts it.
pub(super) fn fingerprint(bytes: &[u8]) -> [u8; FINGERPRINT_LEN] {
    (crc32(bytes) ^ FINGERPRINT_XOR).to_be_bytes()
}

/// The HMAC over `bytes`, a message up to its MESSAGE-INTEGRITY, with a length field that ends behind that attribute.
fn mac(bytes: &[u8], key: &[u8]) -> Hmac<Sha1> {
    let len = bytes.len() - HEADER_LEN + 4 + INTEGRITY_LEN;
    let len = u16::try_from(len).expect("a message that holds the attribute has such a length");
    let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(&bytes[..2]);
    mac.update(&len.to_be_bytes());
    mac.update(&bytes[4..]);
    mac
}

/// CRC-32 as in ISO 3309 and Ethernet.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        let [low, ..] = crc.to_le_bytes();
        (crc >> 8) ^ CRC_TABLE[usize::from(low ^ byte)]
    })
}

static CRC_TABLE: [u32; 256] = crc_table();

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut crc = 0;
    let mut index = 0;
    while index < table.len() {
        let mut value: u32 = crc;
        let mut bit = 0;
        while bit < 8 {
            value = (value >> 1) ^ if value & 1 == 1 { 0xEDB8_8320 } else { 0 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
        crc += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(mac(&up_to_integrity, key).verify_slice(&expected).is_ok());
    }

    /// The check value that is published with the CRC's parameters.
    #[test]
    fn crc32_fits_its_check_value() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }
}
