//! Who had an address when, by what the files of the journal say; and where they are silent.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::{Duration, Instant};

use turnfleet_turn::CloseReason;

use super::held::Loss;
use super::record::{Key, Next, Opened, Record};
use super::segment::{self, Segment};

/// How often the writer marks that it writes.
pub(super) const MARK_SECONDS: u64 = 10;
/// Silence of so many seconds is a gap: three marks.
const SILENCE: u64 = 3 * MARK_SECONDS;
/// Seconds: a wall clock is trusted this far.
const CLOCK_SLACK: u64 = 3600;
/// How long a search may take: all of the default size is read in less.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// Records between two looks at the time.
const STRIDE: u32 = 1024;
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
    /// Where the journal cannot say who had the address: within the time that was asked for, or before, where that casts
    /// doubt on it.
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
    /// It lived at this time; the search ended before it came to the end.
    Unread { after: u64 },
}

impl Ending {
    /// The last second in which the allocation may have lived.
    fn latest(self) -> u64 {
        match self {
            Self::Closed { at, .. } => at,
            Self::Died { after } => after.saturating_add(SILENCE),
            Self::Unseen { before } => before,
            Self::Unread { .. } => u64::MAX,
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
    /// There was too much to read.
    Unread,
}

/// The process that reads, which writes the journal, too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader {
    pub(super) incarnation: [u8; 16],
    /// Unix seconds.
    pub(super) now: u64,
    /// When it gives up.
    pub(super) by: Instant,
}

/// Answers `question` from the files of `folder`.
///
/// # Errors
/// When the folder cannot be read. A file that cannot is a gap.
pub(super) fn search(folder: &Path, question: &Question, reader: Reader) -> io::Result<Findings> {
    let segments = segment::list(folder)?;
    let begun: Vec<_> = segments.iter().map(segment::beginning).collect();
    let times: Vec<_> = begun.iter().map(|it| it.map(|(at, _)| at)).collect();
    let covers_since = times.iter().flatten().min().copied();
    let mut search = Search::new(*question, reader);
    search.findings.covers_since = covers_since;
    let beginning = covers_since.unwrap_or_else(|| reader.now.max(question.to));
    search.gap(0, beginning, GapReason::BeforeJournal);
    let Some(telling) = telling(&times, question) else {
        return Ok(search.findings);
    };
    let (first, last) = telling.into_inner();
    for (place, segment) in segments.iter().enumerate().skip(first) {
        if place > last
            && search.is_settled()
            && let Some((at, incarnation)) = begun[place]
        {
            // It ends the time of the one before.
            search.begin(at, incarnation);
            search.is_over = true;
            break;
        }
        search.read(segment);
        if search.gave_up {
            break;
        }
    }
    search.end();
    Ok(search.findings)
}

/// The places of the segments that tell of the time that was asked for, by when each began.
fn telling(begun: &[Option<u64>], question: &Question) -> Option<RangeInclusive<usize>> {
    let early = question.from.saturating_sub(CLOCK_SLACK);
    let late = question.to.saturating_add(CLOCK_SLACK);
    let tells = |place: &usize| {
        let Some(began) = begun[*place] else {
            return false;
        };
        // A segment ends where the next one begins, unless the clock was set back in between.
        let next = begun[place + 1..].iter().flatten().next();
        let ended = next.filter(|next| **next >= began);
        began <= late && ended.is_none_or(|ended| *ended >= early)
    };
    let first = (0..begun.len()).find(tells)?;
    let last = (0..begun.len()).rfind(tells)?;
    Some(first..=last)
}

/// The state of one search, from the first segment that matters on.
struct Search {
    question: Question,
    reader: Reader,
    findings: Findings,
    /// Those of the incarnation that is read: who had the address, and how it ended.
    seen: Vec<Found>,
    /// What was not written of this incarnation, since when and until when.
    losses: Vec<(u64, u64)>,
    incarnation: Option<[u8; 16]>,
    /// Unix seconds of the latest word of the incarnation.
    last: Option<u64>,
    /// Whether the incarnation has ended in good order.
    ended: bool,
    /// Whether the segment before could not be read to its end.
    torn: bool,
    /// Whether that was more than a last record, which the end of a process tears.
    damaged: bool,
    /// Whether later segments were left unread.
    is_over: bool,
    /// Whether it took too long.
    gave_up: bool,
}

impl Search {
    fn new(question: Question, reader: Reader) -> Self {
        Self {
            question,
            reader,
            findings: Findings::default(),
            seen: Vec::new(),
            losses: Vec::new(),
            incarnation: None,
            last: None,
            ended: false,
            torn: false,
            damaged: false,
            is_over: false,
            gave_up: false,
        }
    }

    /// Whether later segments can add nothing about what was found.
    fn is_settled(&self) -> bool {
        self.seen.iter().all(|found| found.ending.is_some())
    }

    fn read(&mut self, segment: &Segment) {
        let file = match File::open(&segment.path) {
            Ok(file) => file,
            // It was dropped meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(_) => {
                self.torn = true;
                self.damaged = true;
                return;
            }
        };
        let mut records = segment::reader(&file);
        let mut count = 0_u32;
        loop {
            match Record::read(&mut records) {
                Ok(Next::Record(record)) => self.follow(record),
                Ok(Next::End) => return,
                Ok(Next::Torn) | Err(_) => {
                    self.torn = true;
                    self.damaged = !matches!(records.read(&mut [0]), Ok(0));
                    return;
                }
            }
            count = count.wrapping_add(1);
            if count.is_multiple_of(STRIDE) && Instant::now() >= self.reader.by {
                self.gave_up = true;
                return;
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
            Record::Lost(loss) => self.lost(loss),
            Record::End { .. } => self.ended = true,
            Record::Begin { .. } | Record::Mark { .. } => {}
        }
    }

    /// A segment begins at `at`, perhaps of another incarnation.
    fn begin(&mut self, at: u64, incarnation: [u8; 16]) {
        let torn = std::mem::take(&mut self.torn);
        if self.incarnation == Some(incarnation) {
            self.damaged = false;
            if let Some(last) = self.last.filter(|_| torn) {
                self.gap(last, at, GapReason::Damaged);
            }
            self.hear(at);
            return;
        }
        self.close_incarnation(at);
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

    fn lost(&mut self, loss: Loss) {
        // It is told again at the beginning of each segment.
        let loss = (loss.since, loss.until.max(loss.since.saturating_add(1)));
        if !self.losses.contains(&loss) && self.losses.len() < MAX_GAPS {
            self.losses.push(loss);
        }
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

    /// The process that wrote so far has ended, at `at` at the latest.
    fn close_incarnation(&mut self, at: u64) {
        let damaged = std::mem::take(&mut self.damaged);
        let Some(last) = self.last else { return };
        let reason = match (damaged, self.ended) {
            // Nobody knows how much stood there: a second, or hours.
            (true, _) => GapReason::Damaged,
            (false, true) => GapReason::Stopped,
            (false, false) => GapReason::Died,
        };
        self.gap(last, at.max(last.saturating_add(1)), reason);
        self.end_all(Ending::Died { after: last });
        self.take_seen(at);
    }

    /// Nothing more is to be read.
    fn end(&mut self) {
        let Reader {
            incarnation, now, ..
        } = self.reader;
        match self.last {
            Some(last) if self.gave_up => {
                self.gap(last, u64::MAX, GapReason::Unread);
                self.end_all(Ending::Unread { after: last });
            }
            // Later segments tell of no time that was asked for.
            _ if self.is_over => {}
            // This process has not come to write.
            Some(_) if self.incarnation != Some(incarnation) => self.close_incarnation(now),
            Some(last) if now.saturating_sub(last) > SILENCE => {
                let reason = match self.damaged {
                    true => GapReason::Damaged,
                    false => GapReason::Silent,
                };
                self.gap(last, now, reason);
            }
            Some(_) | None => {}
        }
        self.take_seen(u64::MAX);
        self.findings.gaps.sort_by_key(|gap| (gap.from, gap.to));
    }

    /// So ended whatever has no end.
    fn end_all(&mut self, ending: Ending) {
        for found in &mut self.seen {
            found.ending.get_or_insert(ending);
        }
    }

    /// Keeps what concerns the question, of an incarnation that ended at `at` at the latest.
    fn take_seen(&mut self, at: u64) {
        let Question { from, to, .. } = self.question;
        for (since, until) in std::mem::take(&mut self.losses) {
            // What was lost then may have begun or ended until now.
            if since <= to && at >= from && self.findings.gaps.len() < MAX_GAPS {
                self.findings.gaps.push(Gap {
                    from: since,
                    to: until,
                    reason: GapReason::Lost,
                });
            }
        }
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
