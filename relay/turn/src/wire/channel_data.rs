//! ChannelData messages (RFC 8656 §12.4).

use super::message::ParseError;
use super::{ChannelNumber, padded, read_u16};
use crate::decision::Span;

/// A ChannelData message: which channel, and where in the packet the application data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelData {
    /// The channel number, 0x4000-0x7FFF.
    pub number: ChannelNumber,
    /// The application data; it may be empty.
    pub payload: Span,
}

impl ChannelData {
    /// Bytes before the application data.
    pub const HEADER_LEN: usize = 4;

    /// Reads one datagram, or one message deframed from a stream. What follows the data is ignored: over UDP padding is
    /// allowed (RFC 8656 §12.5), and only a datagram too short for its data is to be discarded (§12.6).
    pub fn parse(packet: &[u8]) -> Result<Self, ParseError> {
        if packet.len() < Self::HEADER_LEN {
            return Err(ParseError::TooShort);
        }
        if packet[0] & 0xC0 != 0x40 {
            return Err(ParseError::NotStun);
        }
        let len = usize::from(read_u16(packet, 2));
        if packet.len() < Self::HEADER_LEN + len {
            return Err(ParseError::BadLength);
        }
        Ok(Self {
            number: ChannelNumber(read_u16(packet, 0)),
            payload: Span {
                start: Self::HEADER_LEN,
                len,
            },
        })
    }

    /// The header of a message with `len` bytes of application data; `None` above 65,535.
    #[must_use]
    pub fn header(number: ChannelNumber, len: usize) -> Option<[u8; Self::HEADER_LEN]> {
        let [high, low] = number.0.to_be_bytes();
        let [len_high, len_low] = u16::try_from(len).ok()?.to_be_bytes();
        Some([high, low, len_high, len_low])
    }

    /// Appends a whole message to `out`, padded to four bytes where it is meant for a stream. `false`, and nothing appended,
    /// where `payload` is longer than 65,535 bytes.
    pub fn write(number: ChannelNumber, payload: &[u8], stream: bool, out: &mut Vec<u8>) -> bool {
        let Some(header) = Self::header(number, payload.len()) else {
            return false;
        };
        out.extend_from_slice(&header);
        out.extend_from_slice(payload);
        if stream {
            out.resize(out.len() + padded(payload.len()) - payload.len(), 0);
        }
        true
    }
}
