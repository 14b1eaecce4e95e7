//! From a query's bytes to the answer's, with no clock, no socket and no state: what is sent follows from the zone, the query
//! and the number of the answer.
//!
//! Names are looked up in lower case and answered in the asker's own letters: records point at the question for their name.

use hickory_proto::rr::{DNSClass, RecordType};

use super::deck::{Body, Card, Deck};
use super::query::{AskerEdns, Fault, HEADER_BYTES, Ignored, Query, Rcode};
use super::zone::Zone;

/// The longest answer by UDP: it passes every path with IPv6 in one piece.
pub(super) const MAX_DATAGRAM: u16 = 1232;
/// The longest one for an asker that does not say what it takes, RFC 1035 §4.2.1.
const PLAIN_DATAGRAM: u16 = 512;
/// An OPT record without options.
const OPT_BYTES: usize = 11;
/// The highest offset that a name can be pointed to at, RFC 1035 §4.1.4.
const MAX_POINTER: usize = 0x3fff;
/// The bits of the third byte of a header that a query hands on to its answer: opcode and RD.
const KEPT: u8 = 0x79;
/// QR, AA and TC.
const RESPONSE: u8 = 0x80;
const AUTHORITATIVE: u8 = 0x04;
const TRUNCATED: u8 = 0x02;

/// How an answer goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// In a datagram.
    Datagram,
    /// In a datagram that says no more than to ask by TCP, which proves the asker's address.
    Refer,
    /// On a TCP connection.
    Stream,
}

/// What was asked and answered, for those who count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// `None` where the query could not be read.
    pub kind: Option<RecordType>,
    /// The code of the answer.
    pub rcode: Rcode,
}

/// What there is for a query.
enum Found<'z> {
    Records(&'z Deck),
    /// Asked for everything: told that this is not served, RFC 8482 §4.2.
    Any(&'z Body),
    /// The name is there, and has no such record; or there is no such name.
    Nothing(Rcode),
    /// It is not ours to answer, or not known.
    Error(Rcode),
}

impl Found<'_> {
    fn rcode(&self) -> Rcode {
        match self {
            Self::Records(_) | Self::Any(_) => Rcode::NoError,
            Self::Nothing(rcode) | Self::Error(rcode) => *rcode,
        }
    }
}

impl Zone {
    /// Puts the answer to `message` into `out`, in place of what it held. Answers with the same `turn` have the same records.
    ///
    /// # Errors
    /// When nothing shall be sent; `out` is empty then.
    pub fn answer(
        &self,
        message: &[u8],
        manner: Manner,
        turn: u64,
        out: &mut Vec<u8>,
    ) -> Result<Outcome, Ignored> {
        out.clear();
        let query = match Query::read(message) {
            Ok(query) => query,
            Err(Fault::Ignored(why)) => return Err(why),
            Err(Fault::Answered(rcode)) => {
                Writer::begin(out, message, &[], usize::MAX).end(rcode, 0, None);
                return Ok(Outcome { kind: None, rcode });
            }
        };
        let found = self.look_up(&query);
        let rcode = found.rcode();
        let mut writer = Writer::begin(out, message, query.question, room(&query, manner));
        let mut flags = AUTHORITATIVE;
        let whole = match found {
            Found::Error(_) => {
                flags = 0;
                true
            }
            _ if manner == Manner::Refer => false,
            Found::Records(deck) => writer.records(deck, turn),
            Found::Any(body) => writer.record(Section::Answer, HEADER_BYTES, body),
            Found::Nothing(_) => {
                let apex = HEADER_BYTES + query.name().len() - self.apex().len();
                writer.record(Section::Authority, apex, self.soa())
            }
        };
        if !whole {
            writer.empty(query.question.len());
            flags |= TRUNCATED;
        }
        writer.end(rcode, flags, query.edns);
        let kind = Some(query.kind);
        Ok(Outcome { kind, rcode })
    }

    fn look_up(&self, query: &Query<'_>) -> Found<'_> {
        if query.edns.is_some_and(|edns| edns.version != 0) {
            return Found::Error(Rcode::BadVers);
        }
        let transfer = [RecordType::AXFR, RecordType::IXFR].contains(&query.kind);
        if transfer || query.class != DNSClass::IN || !self.holds(query.name()) {
            return Found::Error(Rcode::Refused);
        }
        if query.kind == RecordType::OPT {
            return Found::Error(Rcode::FormErr);
        }
        let Some(records) = self.records(query.name()) else {
            return self.missing(Rcode::NxDomain);
        };
        if query.kind == RecordType::ANY && !records.is_empty() {
            return Found::Any(self.no_any());
        }
        match records.of(query.kind) {
            Some(deck) => Found::Records(deck),
            None => self.missing(Rcode::NoError),
        }
    }

    fn missing(&self, rcode: Rcode) -> Found<'_> {
        if self.is_unknown() {
            Found::Error(Rcode::ServFail)
        } else {
            Found::Nothing(rcode)
        }
    }
}

/// How long the answer may be, the OPT record apart.
fn room(query: &Query<'_>, manner: Manner) -> usize {
    let most = match (manner, query.edns) {
        (Manner::Stream, _) => u16::MAX,
        (Manner::Datagram | Manner::Refer, Some(edns)) => {
            edns.payload.clamp(PLAIN_DATAGRAM, MAX_DATAGRAM)
        }
        (Manner::Datagram | Manner::Refer, None) => PLAIN_DATAGRAM,
    };
    let opt = query.edns.map_or(0, |_| OPT_BYTES);
    usize::from(most) - opt
}

/// The parts of a message behind the question, in their order.
#[derive(Clone, Copy)]
enum Section {
    Answer,
    Authority,
    Additional,
}

/// An answer in the making.
struct Writer<'o> {
    out: &'o mut Vec<u8>,
    room: usize,
    kept: u8,
    questions: u16,
    counts: [u16; 3],
}

impl<'o> Writer<'o> {
    fn begin(out: &'o mut Vec<u8>, message: &[u8], question: &[u8], room: usize) -> Self {
        out.extend_from_slice(&message[..HEADER_BYTES]);
        out.extend_from_slice(question);
        Self {
            out,
            room,
            kept: message[2] & KEPT,
            questions: u16::from(!question.is_empty()),
            counts: [0; 3],
        }
    }

    /// The records of one answer, with addresses for the names in them as far as there is room; returns whether all of the
    /// records themselves fit.
    fn records(&mut self, deck: &Deck, turn: u64) -> bool {
        let begin = self.out.len();
        if !deck
            .draw(turn)
            .all(|card| self.record(Section::Answer, HEADER_BYTES, &card.body))
        {
            return false;
        }
        let mut record = begin;
        for (place, Card { body, target }) in deck.draw(turn).enumerate() {
            let own = record + 2;
            record = own + body.len();
            let Some(target) = target else { continue };
            let mut earlier = deck.draw(turn).take(place);
            if !earlier.any(|card| card.target.as_ref().is_some_and(|it| it.is(target))) {
                self.addresses(own + target.name_at, &target.addresses);
            }
        }
        true
    }

    /// The addresses of the name that stands at `name`: all of them or none, so that nobody takes some for all.
    fn addresses(&mut self, name: usize, bodies: &[Body]) {
        let bytes: usize = bodies.iter().map(|body| 2 + body.len()).sum();
        if self.out.len() + bytes <= self.room {
            for body in bodies {
                self.record(Section::Additional, name, body);
            }
        }
    }

    /// One record, whose name stands at `name` already; returns whether there was room for it.
    fn record(&mut self, section: Section, name: usize, body: &[u8]) -> bool {
        let pointer = u16::try_from(name).ok();
        let pointer = pointer.filter(|_| name <= MAX_POINTER);
        let fits = self.out.len() + 2 + body.len() <= self.room;
        let Some(pointer) = pointer.filter(|_| fits) else {
            return false;
        };
        self.out
            .extend_from_slice(&(0xc000 | pointer).to_be_bytes());
        self.out.extend_from_slice(body);
        self.counts[section as usize] += 1;
        true
    }

    /// Takes all records out again.
    fn empty(&mut self, question_bytes: usize) {
        self.out.truncate(HEADER_BYTES + question_bytes);
        self.counts = [0; 3];
    }

    fn end(mut self, rcode: Rcode, flags: u8, edns: Option<AskerEdns>) {
        let (low, high) = rcode.parts();
        if let Some(edns) = edns {
            let [size_high, size_low] = MAX_DATAGRAM.to_be_bytes();
            let dnssec_ok = if edns.dnssec_ok { 0x80 } else { 0 };
            // The root's name, type 41, our size in place of a class, RFC 6891 §6.1.2; DO goes back as it came, RFC 3225 §3.
            let opt: [u8; OPT_BYTES] = [0, 0, 41, size_high, size_low, high, 0, dnssec_ok, 0, 0, 0];
            self.out.extend_from_slice(&opt);
            self.counts[Section::Additional as usize] += 1;
        }
        self.out[2] = RESPONSE | self.kept | flags;
        self.out[3] = low;
        let [answers, authorities, additionals] = self.counts;
        let counts = [self.questions, answers, authorities, additionals];
        for (place, count) in counts.into_iter().enumerate() {
            let at = 4 + 2 * place;
            self.out[at..at + 2].copy_from_slice(&count.to_be_bytes());
        }
    }
}
