//! Queries as they come from strangers: one question, and what the asker can take.
//!
//! The message is read by hickory-proto; the question is checked by hand first, because it goes into the answer as it came.

use hickory_proto::op::{Header, Message, OpCode, Query as Question};
use hickory_proto::rr::{DNSClass, RecordType};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder};

/// The header of every message, RFC 1035 §4.1.1.
pub(super) const HEADER_BYTES: usize = 12;
/// The longest name on the wire, RFC 1035 §2.3.4.
const MAX_NAME_BYTES: usize = 255;
/// The longest label.
const MAX_LABEL_BYTES: usize = 63;
/// Type and class behind the name of a question.
const QUESTION_TAIL_BYTES: usize = 4;
/// The bit of the third byte that marks an answer.
const RESPONSE: u8 = 0x80;

/// Why a message gets no answer at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// It is shorter than a header.
    Short,
    /// It is an answer: to answer those would let two servers talk to each other for ever.
    Response,
}

/// RFC 1035 §4.1.1 and RFC 6891 §9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rcode {
    /// There is an answer, if only that there is no such record.
    NoError,
    /// The query cannot be read.
    FormErr,
    /// It is not known at the moment.
    ServFail,
    /// There is no such name.
    NxDomain,
    /// Something else than a query.
    NotImp,
    /// Not ours to answer.
    Refused,
    /// A version of EDNS that we do not speak.
    BadVers,
}

impl Rcode {
    /// The name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoError => "noerror",
            Self::FormErr => "formerr",
            Self::ServFail => "servfail",
            Self::NxDomain => "nxdomain",
            Self::NotImp => "notimp",
            Self::Refused => "refused",
            Self::BadVers => "badvers",
        }
    }

    /// The four bits of the header, and the eight of the OPT record.
    pub(super) fn parts(self) -> (u8, u8) {
        match self {
            Self::NoError => (0, 0),
            Self::FormErr => (1, 0),
            Self::ServFail => (2, 0),
            Self::NxDomain => (3, 0),
            Self::NotImp => (4, 0),
            Self::Refused => (5, 0),
            Self::BadVers => (0, 1),
        }
    }
}

/// Why a message is not a query that can be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing is sent.
    Ignored(Ignored),
    /// A header alone is sent.
    Answered(Rcode),
}

/// What the asker says in its OPT record, RFC 6891 §6.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AskerEdns {
    pub(super) version: u8,
    /// The longest datagram that it takes.
    pub(super) payload: u16,
    pub(super) dnssec_ok: bool,
}

/// A query that can be looked up.
#[derive(Debug)]
pub(super) struct Query<'q> {
    /// The question as it came: name, type and class.
    pub(super) question: &'q [u8],
    pub(super) kind: RecordType,
    pub(super) class: DNSClass,
    pub(super) edns: Option<AskerEdns>,
    lower: [u8; MAX_NAME_BYTES],
}

impl<'q> Query<'q> {
    /// Reads a message.
    pub(super) fn read(message: &'q [u8]) -> Result<Self, Fault> {
        if message.len() < HEADER_BYTES {
            return Err(Fault::Ignored(Ignored::Short));
        }
        if message[2] & RESPONSE != 0 {
            return Err(Fault::Ignored(Ignored::Response));
        }
        let malformed = Fault::Answered(Rcode::FormErr);
        let mut decoder = BinDecoder::new(message);
        let header = Header::read(&mut decoder).map_err(|_| malformed)?;
        if header.metadata.op_code != OpCode::Query {
            return Err(Fault::Answered(Rcode::NotImp));
        }
        // RFC 9619: one question, neither none nor two.
        if header.metadata.truncation || header.counts.queries != 1 {
            return Err(malformed);
        }
        let end = question_end(message).ok_or(malformed)?;
        let asked = Question::read(&mut decoder).map_err(|_| malformed)?;
        let kind = asked.query_type;
        let mut query = Self {
            question: message.get(HEADER_BYTES..end).ok_or(malformed)?,
            kind,
            class: asked.query_class,
            edns: None,
            lower: [0; MAX_NAME_BYTES],
        };
        // Lengths of labels are below `A`, so that only letters change.
        let name = &query.question[..query.name_len()];
        query.lower[..name.len()].copy_from_slice(name);
        query.lower.make_ascii_lowercase();
        // RFC 1995 §3: such a query brings a record of its own, and is refused whatever that is.
        if kind == RecordType::IXFR {
            return Ok(query);
        }
        if header.counts.answers != 0 || header.counts.authorities != 0 {
            return Err(malformed);
        }
        let additionals = usize::from(header.counts.additionals);
        let read = Message::read_records(&mut decoder, additionals, true, OpCode::Query);
        let (_, edns, _) = read.map_err(|_| malformed)?;
        if !decoder.is_empty() {
            return Err(malformed);
        }
        query.edns = edns.map(|edns| AskerEdns {
            version: edns.version(),
            payload: edns.max_payload(),
            dnssec_ok: edns.flags().dnssec_ok,
        });
        Ok(query)
    }

    /// The name on the wire, in lower case.
    pub(super) fn name(&self) -> &[u8] {
        &self.lower[..self.name_len()]
    }

    fn name_len(&self) -> usize {
        self.question.len() - QUESTION_TAIL_BYTES
    }
}

/// Where the question ends. Its name is the first of the message, so that there is nothing that it could point to.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = HEADER_BYTES;
    loop {
        let label = usize::from(*message.get(at)?);
        at += 1 + label;
        if label > MAX_LABEL_BYTES || at - HEADER_BYTES > MAX_NAME_BYTES {
            return None;
        }
        if label == 0 {
            return Some(at + QUESTION_TAIL_BYTES);
        }
    }
}
