//! One record of the journal, as bytes and back.
//!
//! ```text
//! length of the body (u16) | CRC-32 of the body (u32) | kind (u8) and fields
//! ```
//!
//! Integers are little-endian. A reader goes on as long as records are whole and their sums are right; what follows the
//! first one that is not was torn by the end of the process or damaged by the disk.

use std::io::{self, Read};
use std::net::SocketAddr;

use turnfleet_proto::user_hash::UserHash;
use turnfleet_turn::wire::crc32;
use turnfleet_turn::{CloseReason, TenantId, Transport};

use super::fields::{
    Fields, Short, put_address, put_key, put_u64, reason_code, reason_of, transport_code,
};
use super::held::Loss;

/// The most bytes of a body: a longer one was never written.
const MAX_BODY: usize = 128;
/// Bytes before a body.
const HEAD: usize = 6;

/// Names an allocation among those of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) shard: u8,
    /// The number that the shard gave it.
    pub(super) number: u64,
}

/// An allocation as it was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(super) key: Key,
    /// Unix seconds.
    pub(crate) at: u64,
    pub(crate) client: SocketAddr,
    pub(crate) transport: Transport,
    /// One or two, as peers see them.
    pub(crate) relayed: Vec<SocketAddr>,
    pub(crate) relayed_transport: Transport,
    pub(crate) tenant: TenantId,
    /// `None` where no controller had given the key yet.
    pub(crate) user: Option<UserHash>,
}

/// What the journal is made of. Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// The first one of every segment. Behind it stand the allocations that lived at this moment, as they were opened.
    Begin {
        at: u64,
        /// Of the process.
        incarnation: [u8; 16],
    },
    Opened(Opened),
    /// The user of an allocation that was opened before the key was known.
    Named {
        key: Key,
        user: UserHash,
    },
    Closed {
        key: Key,
        at: u64,
        /// `None` for one that this version does not know.
        reason: Option<CloseReason>,
    },
    /// Everything up to here has been written.
    Mark {
        at: u64,
    },
    /// At the beginning of a segment, too, for those that still cast doubt.
    Lost(Loss),
    /// The process has ended in good order.
    End {
        at: u64,
    },
}

/// What a reader comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Record(Record),
    /// Nothing more.
    End,
    /// Something that is no record.
    Torn,
}

impl Record {
    /// Appends the record to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEAD]);
        self.encode_body(out);
        let body = &out[start + HEAD..];
        let length = u16::try_from(body.len()).expect("every field of a record is bounded");
        let sum = crc32(body);
        out[start..start + 2].copy_from_slice(&length.to_le_bytes());
        out[start + 2..start + HEAD].copy_from_slice(&sum.to_le_bytes());
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::Begin { at, incarnation } => {
                out.push(1);
                put_u64(out, *at);
                out.extend_from_slice(incarnation);
            }
            Self::Opened(opened) => {
                out.push(2);
                opened.encode_body(out);
            }
            Self::Closed { key, at, reason } => {
                out.push(3);
                put_key(out, *key);
                put_u64(out, *at);
                out.push(reason.map_or(0, reason_code));
            }
            Self::Mark { at } => {
                out.push(4);
                put_u64(out, *at);
            }
            Self::Lost(loss) => {
                out.push(5);
                for value in [loss.since, loss.until, loss.count] {
                    put_u64(out, value);
                }
            }
            Self::End { at } => {
                out.push(6);
                put_u64(out, *at);
            }
            Self::Named { key, user } => {
                out.push(7);
                put_key(out, *key);
                out.extend_from_slice(user.as_bytes());
            }
        }
    }

    /// Reads one record. A kind of a later version is passed over.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn read(from: &mut impl Read) -> io::Result<Next> {
        let mut body = [0; MAX_BODY];
        loop {
            let mut head = [0; HEAD];
            match fill(from, &mut head)? {
                0 => return Ok(Next::End),
                HEAD => {}
                _ => return Ok(Next::Torn),
            }
            let [low, high, sum @ ..] = head;
            let length = usize::from(u16::from_le_bytes([low, high]));
            let Some(body) = body.get_mut(..length) else {
                return Ok(Next::Torn);
            };
            let whole = fill(from, body)? == length && length > 0;
            if !whole || crc32(body) != u32::from_le_bytes(sum) {
                return Ok(Next::Torn);
            }
            match Self::decode(body) {
                Ok(Some(record)) => return Ok(Next::Record(record)),
                Ok(None) => {}
                Err(Short) => return Ok(Next::Torn),
            }
        }
    }

    /// `None` for a kind of a later version.
    fn decode(body: &[u8]) -> Result<Option<Self>, Short> {
        let mut body = Fields(body);
        Ok(Some(match body.byte()? {
            1 => Self::Begin {
                at: body.u64()?,
                incarnation: body.array()?,
            },
            2 => Self::Opened(Opened::decode(&mut body)?),
            3 => Self::Closed {
                key: body.key()?,
                at: body.u64()?,
                reason: reason_of(body.byte()?),
            },
            4 => Self::Mark { at: body.u64()? },
            5 => Self::Lost(Loss {
                since: body.u64()?,
                until: body.u64()?,
                count: body.u64()?,
            }),
            6 => Self::End { at: body.u64()? },
            7 => Self::Named {
                key: body.key()?,
                user: UserHash(body.array()?),
            },
            _ => return Ok(None),
        }))
    }

    /// When it was written; `None` for what does not say.
    pub(super) fn at(&self) -> Option<u64> {
        match self {
            Self::Begin { at, .. }
            | Self::Closed { at, .. }
            | Self::Mark { at }
            | Self::End { at } => Some(*at),
            // What was carried over from an earlier segment is older than what stands before it.
            Self::Lost(_) | Self::Opened(_) | Self::Named { .. } => None,
        }
    }
}

impl Opened {
    fn encode_body(&self, out: &mut Vec<u8>) {
        put_key(out, self.key);
        put_u64(out, self.at);
        out.push(transport_code(self.transport));
        put_address(out, self.client);
        out.push(transport_code(self.relayed_transport));
        // An allocation has two at most (RFC 8656 §7.2).
        let relayed = self.relayed.get(..2).unwrap_or(&self.relayed);
        out.push(u8::try_from(relayed.len()).expect("two at most"));
        relayed
            .iter()
            .for_each(|address| put_address(out, *address));
        out.extend_from_slice(&self.tenant.0.to_le_bytes());
        match &self.user {
            Some(user) => {
                out.push(1);
                out.extend_from_slice(user.as_bytes());
            }
            None => out.push(0),
        }
    }

    fn decode(body: &mut Fields<'_>) -> Result<Self, Short> {
        let key = body.key()?;
        let at = body.u64()?;
        let transport = body.transport()?;
        let client = body.address()?;
        let relayed_transport = body.transport()?;
        let count = body.byte()?;
        let relayed = (0..count).map(|_| body.address());
        let relayed = relayed.collect::<Result<_, _>>()?;
        let tenant = TenantId(u32::from_le_bytes(body.array()?));
        let user = match body.byte()? {
            0 => None,
            _ => Some(UserHash(body.array()?)),
        };
        Ok(Self {
            key,
            at,
            client,
            transport,
            relayed,
            relayed_transport,
            tenant,
            user,
        })
    }
}

/// Reads until `bytes` is full or nothing more comes, and gives how much came.
fn fill(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match from.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        let key = Key {
            shard: 3,
            number: 1 << 40,
        };
        let opened = Opened {
            key,
            at: 1_700_000_000,
            client: "[2001:db8::7]:5000".parse().unwrap(),
            transport: Transport::Tls,
            relayed: ["192.0.2.1:49152", "[2001:db8::1]:49153"]
                .map(|it| it.parse().unwrap())
                .to_vec(),
            relayed_transport: Transport::Udp,
            tenant: TenantId(7),
            user: Some(UserHash([7; 16])),
        };
        let plain = Opened {
            client: "198.51.100.9:40000".parse().unwrap(),
            relayed: vec!["192.0.2.1:49152".parse().unwrap()],
            tenant: TenantId::DEFAULT,
            user: None,
            ..opened
        };
        vec![
            Record::Begin {
                at: 1,
                incarnation: [9; 16],
            },
            Record::Opened(opened),
            Record::Opened(plain),
            Record::Named {
                key,
                user: UserHash([8; 16]),
            },
            Record::Closed {
                key,
                at: 2,
                reason: Some(CloseReason::Expired),
            },
            Record::Mark { at: 3 },
            Record::Lost(Loss {
                since: 4,
                until: 5,
                count: 6,
            }),
            Record::End { at: 7 },
        ]
    }

    fn read_all(mut bytes: &[u8]) -> (Vec<Record>, Next) {
        let mut read = Vec::new();
        loop {
            match Record::read(&mut bytes).unwrap() {
                Next::Record(record) => read.push(record),
                end @ (Next::End | Next::Torn) => return (read, end),
            }
        }
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let mut bytes = Vec::new();
        records()
            .iter()
            .for_each(|record| record.encode(&mut bytes));
        assert_eq!(read_all(&bytes), (records(), Next::End));
    }

    #[test]
    fn reasons_come_back() {
        for reason in CloseReason::ALL {
            assert_eq!(reason_of(reason_code(reason)), Some(reason));
        }
    }

    #[test]
    fn a_torn_tail_at_any_byte_leaves_what_stands_before_it() {
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        for record in records() {
            record.encode(&mut bytes);
            ends.push(bytes.len());
        }
        for cut in 0..bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            let (read, end) = read_all(&bytes[..cut]);
            assert_eq!(read, records()[..whole]);
            assert_eq!(end == Next::End, ends.contains(&cut), "cut at {cut}");
        }
    }

    #[test]
    fn a_changed_byte_ends_the_reading() {
        let mut bytes = Vec::new();
        records()
            .iter()
            .for_each(|record| record.encode(&mut bytes));
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x40;
            let (read, end) = read_all(&damaged);
            assert_eq!(end, Next::Torn, "byte {place}");
            assert!(records().starts_with(&read), "byte {place}");
        }
    }

    #[test]
    fn a_kind_of_a_later_version_is_passed_over() {
        let mut bytes = vec![2, 0];
        bytes.extend_from_slice(&crc32(&[200, 1]).to_le_bytes());
        bytes.extend_from_slice(&[200, 1]);
        Record::Mark { at: 3 }.encode(&mut bytes);
        assert_eq!(read_all(&bytes).0, [Record::Mark { at: 3 }]);
    }
}
