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
        match *self {
            Self::ChannelData {
                number,
                padded: pad,
            } => {
                let header = ChannelData::header(number, payload.len)?;
                let padding = if pad { padding(payload.len) } else { 0 };
                enclose(buffer, &header, payload, padding)
            }
            Self::DataIndication {
                transaction_id,
                peer,
            } => write_indication(Method::Data, transaction_id, peer, buffer, payload),
        }
    }
}

/// Writes a Data or Send indication (RFC 8656 §11) around `payload`, as [`ClientHeader::write`] does.
pub(crate) fn write_indication(
    method: Method,
    id: TransactionId,
    peer: PeerAddr,
    buffer: &mut [u8],
    payload: Span,
) -> Option<Span> {
    let mut address = [0; address::MAX_LEN];
    let address_len = address::write_xor(&mut address, peer.0, id);
    let data_at = HEADER_LEN + 4 + address_len;
    let data_len = u16::try_from(payload.len).ok()?;
    let message_len = u16::try_from(data_at + 4 - HEADER_LEN + padded(payload.len)).ok()?;

    let mut header = [0; ClientHeader::MAX_LEN];
    let kind = method.code() | Class::Indication.bits();
    header[..2].copy_from_slice(&kind.to_be_bytes());
    header[2..4].copy_from_slice(&message_len.to_be_bytes());
    header[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    header[8..HEADER_LEN].copy_from_slice(&id.0);
    header[HEADER_LEN..HEADER_LEN + 2]
        .copy_from_slice(&AttributeType::XOR_PEER_ADDRESS.0.to_be_bytes());
    // An address has 8 or 20 bytes: one byte says it.
    header[HEADER_LEN + 3] = u8::try_from(address_len).ok()?;
    header[HEADER_LEN + 4..data_at].copy_from_slice(&address[..address_len]);
    header[data_at..data_at + 2].copy_from_slice(&AttributeType::DATA.0.to_be_bytes());
    header[data_at + 2..data_at + 4].copy_from_slice(&data_len.to_be_bytes());
    enclose(
        buffer,
        &header[..data_at + 4],
        payload,
        padding(payload.len),
    )
}

/// Puts `header` before the payload and `padding` zeros behind it.
fn enclose(buffer: &mut [u8], header: &[u8], payload: Span, padding: usize) -> Option<Span> {
    let start = payload.start.checked_sub(header.len())?;
    let payload_end = payload.start.checked_add(payload.len)?;
    buffer.get_mut(payload_end..)?.get_mut(..padding)?.fill(0);
    buffer[start..payload.start].copy_from_slice(header);
    Some(Span {
        start,
        len: header.len() + payload.len + padding,
    })
}

fn padding(len: usize) -> usize {
    padded(len) - len
}
