//! The bytes of STUN and TURN (RFC 8489, RFC 8656): checked views to read them, a writer to make them.
//!
//! [`Message`] and [`ChannelData`] look at a packet once; whatever passed that check can be read without a panic and
//! without memory from the heap. Payloads are named by their place in the packet, never copied. [`MessageWriter`] appends
//! to the caller's buffer. [`deframe`] finds the messages of a byte stream.
//!
//! The module knows bytes only: whether a message is expected, allowed or authentic is decided elsewhere.

mod address;
mod attribute;
mod channel_data;
mod client_header;
mod crc32;
mod deframer;
mod error_code;
mod icmp;
mod integrity;
mod message;
mod password;
mod typed;
mod writer;

pub use attribute::{Attribute, AttributeError, AttributeType, Attributes};
pub use channel_data::ChannelData;
pub(crate) use client_header::write_indication;
pub use crc32::crc32;
pub use deframer::{Frame, MAX_FRAME_LEN, deframe};
pub use error_code::ErrorCode;
pub use icmp::Icmp;
pub use integrity::{Fingerprint, IntegrityKind};
pub use message::{Class, Message, Method, ParseError};
pub(crate) use password::NONCE_COOKIE;
pub use password::{
    LongTermKey, PasswordAlgorithm, PasswordAlgorithms, announces_password_algorithms,
};
pub use writer::MessageWriter;

/// The fixed value of bytes 4 to 7 of every STUN message (RFC 8489 §5).
pub const MAGIC_COOKIE: u32 = 0x2112_A442;

/// Bytes before the first attribute of a STUN message (RFC 8489 §5).
pub const HEADER_LEN: usize = 20;

/// The 96 bits that tie a response to its request (RFC 8489 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransactionId(pub [u8; 12]);

/// A channel number (RFC 8656 §12): 0x4000-0x4FFF, or up to 0x7FFF where RFC 5766's numbers are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelNumber(pub u16);

/// The value of RESERVATION-TOKEN (RFC 8656 §18.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReservationToken(pub [u8; 8]);

/// The value of CONNECTION-ID (RFC 6062 §6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u32);

/// The length of a value with its padding to 32 bits (RFC 8489 §14).
fn padded(len: usize) -> usize {
    len.next_multiple_of(4)
}

/// The 16 bits at `at`; the caller has checked that they are there.
fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
