//! The framing of peer data, written in place before and behind the payload.

use super::attribute::AttributeType;
use super::message::{Class, Method};
use super::{ChannelData, HEADER_LEN, MAGIC_COOKIE, TransactionId, address, padded};
use crate::addr::PeerAddr;
use crate::decision::{ClientHeader, Span};

impl ClientHeader {
    /// The headroom that a receive buffer leaves before the payload: a Data indication with an IPv6 peer.
    pub const MAX_LEN: usize = HEADER_LEN + 4 + address::MAX_LEN + 4;

    /// The room that a receive buffer leaves behind the payload.
    pub const MAX_PADDING: usize = 3;

    /// Writes the header into the bytes of `buffer` before `payload`, and zeros behind it where padding is due. Returns the
    /// span of the whole message; `None`, with the buffer untouched, where the room is missing or the payload is longer
    /// than its framing can say.
    #[must_use]
    pub fn write(&self, buffer: &mut [u8], payload: Span) -> Option<Span> {
        let mut header = [0; Self::MAX_LEN];
        let (header_len, padding) = match *self {
            Self::ChannelData {
                number,
                padded: pad,
            } => {
                header[..ChannelData::HEADER_LEN]
                    .copy_from_slice(&ChannelData::header(number, payload.len)?);
                let padding = if pad {
                    padded(payload.len) - payload.len
                } else {
                    0
                };
                (ChannelData::HEADER_LEN, padding)
            }
            Self::DataIndication {
                transaction_id,
                peer,
            } => {
                let len = data_indication(&mut header, transaction_id, peer, payload.len)?;
                (len, padded(payload.len) - payload.len)
            }
        };
        let start = payload.start.checked_sub(header_len)?;
        let payload_end = payload.start.checked_add(payload.len)?;
        buffer.get_mut(payload_end..payload_end + padding)?.fill(0);
        buffer[start..payload.start].copy_from_slice(&header[..header_len]);
        Some(Span {
            start,
            len: header_len + payload.len + padding,
        })
    }
}

/// Makes what stands before `payload_len` bytes in a Data indication (RFC 8656 §11.4) and returns its length.
fn data_indication(
    header: &mut [u8; ClientHeader::MAX_LEN],
    id: TransactionId,
    peer: PeerAddr,
    payload_len: usize,
) -> Option<usize> {
    let mut value = [0; address::MAX_LEN];
    let address_len = address::write_xor(&mut value, peer.0, id);
    let data_at = HEADER_LEN + 4 + address_len;
    let len = u16::try_from(data_at + 4 - HEADER_LEN + padded(payload_len)).ok()?;
    let kind = Method::Data.code() | Class::Indication.bits();
    header[..2].copy_from_slice(&kind.to_be_bytes());
    header[2..4].copy_from_slice(&len.to_be_bytes());
    header[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    header[8..HEADER_LEN].copy_from_slice(&id.0);
    write_tlv(
        header,
        HEADER_LEN,
        AttributeType::XOR_PEER_ADDRESS,
        address_len,
    )?;
    header[HEADER_LEN + 4..data_at].copy_from_slice(&value[..address_len]);
    write_tlv(header, data_at, AttributeType::DATA, payload_len)?;
    Some(data_at + 4)
}

fn write_tlv(header: &mut [u8], at: usize, kind: AttributeType, len: usize) -> Option<()> {
    header[at..at + 2].copy_from_slice(&kind.0.to_be_bytes());
    header[at + 2..at + 4].copy_from_slice(&u16::try_from(len).ok()?.to_be_bytes());
    Some(())
}
