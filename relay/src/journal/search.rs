//! Who had an address when, by what the files of the journal say; and where they are silent.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use turnfleet_turn::CloseReason;

use super::record::{Key, Next, Opened, Record};
use super::segment::{self, Segment};

/// How often the writer marks that it writes.
pub(super) const MARK_SECONDS: u64 = 10;
/// Silence of so many seconds is a gap: three marks.
const SILENCE: u64 = 3 * MARK_SECONDS;
/// A wall clock may have been set back by so many seconds while segments were written.
const CLOCK_SLACK: u64 = 3600;
/// The most allocations of an answer. One address has few in the minutes that are asked for.
const MAX_FOUND: usize = 100;
/// The most gaps of an answer.
const MAX_GAPS: usize = 100;

/// Who had `relayed` between two moments, in Unix seconds, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) relayed: SocketAddr,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// In the order of the journal.
    pub(crate) found: Vec<Found>,
    /// Where the journal cannot say who had the address; within the time that was asked for.
    pub(crate) gaps: Vec<Gap>,
    /// Unix seconds of the earliest moment that the journal tells of; `None` for an empty one.
    pub(crate) covers_since: Option<u64>,
    /// Whether there was more than an answer holds.
    pub(crate) has_more: bool,
}

/// An allocation that had the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) opened: Opened,
    /// `None` where it lives.
    pub(crate) ending: Option<Ending>,
}

/// How an allocation ended. Times are Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As the reason says, where it is known.
    Closed {
        at: u64,
        reason: Option<CloseReason>,
    },
    /// Its process ended at some time after this, without a word.
    Died { after: u64 },
    /// Its end was not written; the address was another's at this time.
    Unseen { before: u64 },
}

impl Ending {
    /// The last second in which the allocation may have lived.
    fn latest(self) -> u64 {
        match self {
            Self::Closed { at, .. } => at,
            Self::Died { after } => after.saturating_add(SILENCE),
            Self::Unseen { before } => before,
        }
    }
}

/// A time of which the journal does not know all. In Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) reason: GapReason,
}

/// Why the journal does not know all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GapReason {
    /// It begins later: what was before has been dropped, or its disk was lost.
    BeforeJournal,
    /// The process had ended in good order; nothing was relayed.
    Stopped,
    /// The process ended without a word, at some time in between.
    Died,
    /// Nothing was written though the process lived, or its clock was set forward.
    Silent,
    /// The queue was full, or the disk refused.
    Lost,
    /// Something there cannot be read.
    Damaged,
}

/// Answers `question` from the files of `folder`, at second `now`.
///
/// # Errors
/// When the disk fails.
pub(super) fn search(folder: &Path, question: &Question, now: u64) -> io::Result<Findings> {
    let segments = segment::list(folder)?;
    let begun: Vec<_> = segments.iter().map(segment::beginning).collect();
    let covers_since = begun.iter().flatten().map(|(at, _)| *at).next();
    let mut search = Search::new(*question);
    search.gap(
        0,
        covers_since.unwrap_or(now.max(question.to)),
        GapReason::BeforeJournal,
    );
    // Each segment tells by itself who had an address while it was written.
    let early = question.from.saturating_sub(CLOCK_SLACK);
    let first = begun
        .iter()
        .rposition(|begun| begun.is_some_and(|(at, _)| at <= early));
    let late = question.to.saturating_add(CLOCK_SLACK);
    for (segment, begun) in segments.iter().zip(&begun).skip(first.unwrap_or(0)) {
        if let Some((at, incarnation)) = *begun
            && at > late
            && search.is_settled()
        {
            // It ends the time of the one before.
            search.begin(at, incarnation);
            search.is_over = true;
            break;
        }
        search.read(segment)?;
    }
    search.end(now);
    search.findings.covers_since = covers_since;
    Ok(search.findings)
}

/// The state of one search, from the first segment that matters on.
struct Search {
    question: Question,
    findings: Findings,
    /// Those of the incarnation that is read: who had the address, and how it ended.
    seen: Vec<Found>,
    incarnation: Option<[u8; 16]>,
    /// Unix seconds of the latest word of the incarnation.
    last: Option<u64>,
    /// Whether the incarnation has ended in good order.
    ended: bool,
    /// Whether the segment before could not be read to its end.
    torn: bool,
    /// Whether later segments were left unread.
    is_over: bool,
}

impl Search {
    fn new(question: Question) -> Self {
        Self {
            question,
            findings: Findings::default(),
            seen: Vec::new(),
            incarnation: None,
            last: None,
            ended: false,
            torn: false,
            is_over: false,
        }
    }

    /// Whether later segments can add nothing about what was found.
    fn is_settled(&self) -> bool {
        self.seen.iter().all(|found| found.ending.is_some())
    }

    fn read(&mut self, segment: &Segment) -> io::Result<()> {
        let file = match File::open(&segment.path) {
            // It was dropped meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        let mut records = segment::reader(&file);
        loop {
            match Record::read(&mut records)? {
                Next::Record(record) => self.follow(record),
                Next::End => return Ok(()),
                Next::Torn => {
                    self.torn = true;
                    return Ok(());
                }
            }
        }
    }

    fn follow(&mut self, record: Record) {
        match (&record, record.at()) {
            (Record::Begin { at, incarnation }, _) => self.begin(*at, *incarnation),
            (_, Some(at)) => self.hear(at),
            (_, None) => {}
        }
        match record {
            Record::Opened(opened) => self.opened(opened),
            Record::Named { key, user } => {
                if let Some(found) = self.of(key) {
                    found.opened.user = Some(user);
                }
            }
            Record::Closed { key, at, reason } => {
                if let Some(found) = self.of(key) {
                    found.ending = Some(Ending::Closed { at, reason });
                }
            }
            Record::Lost { since, until, .. } => {
                self.gap(since, until.max(since.saturating_add(1)), GapReason::Lost);
            }
            Record::End { .. } => self.ended = true,
            Record::Begin { .. } | Record::Mark { .. } => {}
        }
    }

    /// A segment begins at `at`, perhaps of another incarnation.
    fn begin(&mut self, at: u64, incarnation: [u8; 16]) {
        let torn = std::mem::take(&mut self.torn);
        if self.incarnation == Some(incarnation) {
            if let Some(last) = self.last.filter(|_| torn) {
                self.gap(last, at, GapReason::Damaged);
            }
            self.hear(at);
            return;
        }
        if let Some(last) = self.last {
            let reason = match self.ended {
                true => GapReason::Stopped,
                false => GapReason::Died,
            };
            self.gap(last, at, reason);
        }
        self.close_incarnation();
        self.incarnation = Some(incarnation);
        self.ended = false;
        self.last = Some(at);
    }

    /// The incarnation has written something at `at`.
    fn hear(&mut self, at: u64) {
        if let Some(last) = self.last
            && at.saturating_sub(last) > SILENCE
        {
            self.gap(last, at, GapReason::Silent);
        }
        self.last = Some(self.last.map_or(at, |last| last.max(at)));
    }

    fn opened(&mut self, opened: Opened) {
        if !opened.relayed.contains(&self.question.relayed) || self.of(opened.key).is_some() {
            // Another's, or told again at the beginning of a segment.
            return;
        }
        let before = opened.at;
        let transport = opened.relayed_transport;
        let unseen = self
            .seen
            .iter_mut()
            .filter(|found| found.ending.is_none() && found.opened.relayed_transport == transport);
        for found in unseen {
            found.ending = Some(Ending::Unseen { before });
        }
        self.seen.push(Found {
            opened,
            ending: None,
        });
        // An address changes hands often: what is surely past is not kept.
        let from = self.question.from;
        self.seen
            .retain(|found| found.ending.is_none_or(|ending| ending.latest() >= from));
        if self.seen.len() > MAX_FOUND {
            self.seen.truncate(MAX_FOUND);
            self.findings.has_more = true;
        }
    }

    fn of(&mut self, key: Key) -> Option<&mut Found> {
        self.seen.iter_mut().find(|found| found.opened.key == key)
    }

    /// The process that wrote so far has ended.
    fn close_incarnation(&mut self) {
        let after = self.last.unwrap_or(0);
        for found in &mut self.seen {
            found.ending.get_or_insert(Ending::Died { after });
        }
        self.take_seen();
    }

    /// Nothing more is to be read. The last incarnation is this process, unless it was not come to.
    fn end(&mut self, now: u64) {
        if let Some(last) = self.last.filter(|_| !self.is_over) {
            let reason = match self.ended {
                true => GapReason::Stopped,
                false => GapReason::Silent,
            };
            if self.ended || now.saturating_sub(last) > SILENCE {
                self.gap(last, now, reason);
            }
        }
        self.take_seen();
    }

    fn take_seen(&mut self) {
        let Question { from, to, .. } = self.question;
        for found in std::mem::take(&mut self.seen) {
            let lived =
                found.opened.at <= to && found.ending.is_none_or(|ending| ending.latest() >= from);
            if !lived {
                continue;
            }
            if self.findings.found.len() == MAX_FOUND {
                self.findings.has_more = true;
                return;
            }
            self.findings.found.push(found);
        }
    }

    /// Notes a gap as far as it concerns the question.
    fn gap(&mut self, from: u64, to: u64, reason: GapReason) {
        let Question {
            from: first,
            to: last,
            ..
        } = self.question;
        let concerns = from < to && from <= last && to > first;
        if concerns && self.findings.gaps.len() < MAX_GAPS {
            self.findings.gaps.push(Gap {
                from: from.max(first),
                to: to.min(last),
                reason,
            });
        }
    }
}
