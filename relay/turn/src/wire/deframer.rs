//! Where the messages of a byte stream begin and end (RFC 8489 §6.2.2, RFC 8656 §12.5).

use super::{ChannelData, HEADER_LEN, MAGIC_COOKIE, padded, read_u16};

/// No message of a stream is longer: ChannelData with the most application data, and its padding.
pub const MAX_FRAME_LEN: usize = 65_540;

/// What the unread bytes of a stream begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The beginning of a message: at least this many bytes more are needed to say more.
    NeedMore(usize),
    /// A whole message.
    Message {
        /// Its length without padding: what the server and the client are given.
        len: usize,
        /// Its length with padding: what is consumed from the stream.
        total: usize,
    },
    /// Neither STUN nor ChannelData, or longer than the bound: the stream has lost its way and is to be closed.
    Garbage,
}

/// Looks at the unread bytes of a stream. `limit` bounds the length of a message, and so what a client makes the caller
/// keep: small before it has authenticated, [`MAX_FRAME_LEN`] after.
#[must_use]
pub fn deframe(unread: &[u8], limit: usize) -> Frame {
    let Some(first) = unread.first() else {
        return Frame::NeedMore(ChannelData::HEADER_LEN);
    };
    let is_channel_data = match first & 0xC0 {
        0x00 => false,
        0x40 => true,
        _ => return Frame::Garbage,
    };
    if unread.len() < 4 {
        return Frame::NeedMore(4 - unread.len());
    }
    let len = usize::from(read_u16(unread, 2));
    let len = if is_channel_data {
        ChannelData::HEADER_LEN + len
    } else {
        if !len.is_multiple_of(4) || !could_be_cookie(&unread[4..]) {
            return Frame::Garbage;
        }
        HEADER_LEN + len
    };
    let total = padded(len);
    if total > limit.min(MAX_FRAME_LEN) {
        return Frame::Garbage;
    }
    match total.checked_sub(unread.len()) {
        None | Some(0) => Frame::Message { len, total },
        Some(missing) => Frame::NeedMore(missing),
    }
}

/// Whether `bytes`, as far as they are there, begin with the magic cookie.
fn could_be_cookie(bytes: &[u8]) -> bool {
    MAGIC_COOKIE
        .to_be_bytes()
        .iter()
        .zip(bytes)
        .all(|(cookie, byte)| cookie == byte)
}
