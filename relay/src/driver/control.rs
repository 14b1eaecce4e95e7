//! Control messages as the kernel lays them out (`cmsghdr`), read and written byte by byte: cheap, and without `unsafe`.
//!
//! Each is a length, a level, a type and a value, and begins at a multiple of the machine's word.

use libc::c_int;
use turnfleet_turn::IpMeta;

const WORD: usize = size_of::<usize>();
/// Length, level and type.
const HEADER_LEN: usize = WORD + 8;
const INT_LEN: usize = size_of::<c_int>();
/// What a message takes whose value is an `int`, or less.
const SPACE: usize = (HEADER_LEN + INT_LEN).next_multiple_of(WORD);

/// Room for the control messages of one datagram: TTL or hop limit, and type of service or traffic class.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(super) struct Control {
    bytes: [u8; Self::LEN],
}

impl Control {
    /// Bytes of the room.
    pub(super) const LEN: usize = 2 * SPACE;

    pub(super) const fn empty() -> Self {
        Self {
            bytes: [0; Self::LEN],
        }
    }

    /// What the kernel says in the first `len` bytes about the header of a datagram.
    pub(super) fn read(&self, len: usize) -> IpMeta {
        let mut ip = IpMeta::default();
        for message in Messages::new(self.bytes.get(..len).unwrap_or(&[])) {
            match (message.level, message.kind) {
                (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                    ip.ttl = message.byte();
                }
                (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    ip.tos = message.byte();
                }
                (_, _) => {}
            }
        }
        ip
    }

    /// Tells the kernel what stands in the header of a datagram; returns how many bytes that takes.
    pub(super) fn write(&mut self, is_v6: bool, ttl: Option<u8>, tos: Option<u8>) -> usize {
        let (level, ttl_kind, tos_kind) = if is_v6 {
            (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, libc::IPV6_TCLASS)
        } else {
            (libc::IPPROTO_IP, libc::IP_TTL, libc::IP_TOS)
        };
        let mut len = 0;
        for (kind, value) in [(ttl_kind, ttl), (tos_kind, tos)] {
            if let Some(value) = value {
                self.put(len, level, kind, c_int::from(value));
                len += SPACE;
            }
        }
        len
    }

    fn put(&mut self, at: usize, level: c_int, kind: c_int, value: c_int) {
        let parts = [
            &(HEADER_LEN + INT_LEN).to_ne_bytes()[..],
            &level.to_ne_bytes(),
            &kind.to_ne_bytes(),
            &value.to_ne_bytes(),
        ];
        let mut at = at;
        for part in parts {
            self.bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
    }
}

/// One control message.
pub(super) struct Message<'a> {
    pub(super) level: c_int,
    pub(super) kind: c_int,
    pub(super) value: &'a [u8],
}

impl Message<'_> {
    /// A value that is a byte, or an `int` that is as small.
    fn byte(&self) -> Option<u8> {
        match *self.value {
            [byte] => Some(byte),
            _ => u8::try_from(int(self.value, 0)?).ok(),
        }
    }
}

/// The messages in what the kernel has written.
pub(super) struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let len = usize::from_ne_bytes(*self.rest.first_chunk()?);
        let message = Message {
            level: int(self.rest, WORD)?,
            kind: int(self.rest, WORD + INT_LEN)?,
            value: self.rest.get(HEADER_LEN..len)?,
        };
        let next = len.next_multiple_of(WORD);
        self.rest = self.rest.get(next..).unwrap_or(&[]);
        Some(message)
    }
}

/// The `int` at `at`.
pub(super) fn int(bytes: &[u8], at: usize) -> Option<c_int> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(c_int::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for is_v6 in [false, true] {
            for (ttl, tos) in [
                (Some(63), Some(0xB8)),
                (None, Some(0)),
                (Some(255), None),
                (None, None),
            ] {
                let mut control = Control::empty();
                let len = control.write(is_v6, ttl, tos);
                let read = control.read(len);
                assert_eq!((read.ttl, read.tos), (ttl, tos));
            }
        }
    }

    #[test]
    fn a_message_that_does_not_fit_ends_the_walk() {
        for len in [0, HEADER_LEN - 1, 100, usize::MAX] {
            let mut bytes = [0; 2 * SPACE];
            bytes[..WORD].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(Messages::new(&bytes).count(), 0, "{len}");
        }
        assert_eq!(Messages::new(&[1]).count(), 0);
    }
}
