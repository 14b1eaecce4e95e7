//! The journal as it is written: segments in one folder, bounded in size and age.
//!
//! Every segment begins with the allocations that lived when it was made ([`Held`]), so that each tells by itself who had
//! which address while it was written, and the oldest can be dropped without a word lost about later times. They are found by
//! reading the segment before it, so nothing of the journal stays in memory.
//!
//! The wall clock may be wrong. Where it is set back another segment begins, so that within one it goes forward; and where it
//! is set, nothing is dropped for its age until the time has been the same for an hour.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::Bounds;
use super::held::Held;
use super::record::Record;
use super::segment::{self, Segment};

/// The total is cut into so many segments, of which the oldest goes when another one is begun.
const SEGMENTS_BY_SIZE: u64 = 16;
/// No segment takes more than this: one is read at once when the next is begun.
const MAX_SEGMENT: u64 = 32 << 20;
/// A segment is written to for this part of the retention, so that little is kept for longer.
const SEGMENTS_BY_AGE: u64 = 28;
/// Seconds: a wall clock that is set back by less goes on in the same segment.
const STEP_BACK: u64 = 60;
/// Seconds: a wall clock that goes so far within two looks was set, or the machine slept.
const STEP_FORWARD: u64 = 3600;
/// Seconds: what a clock says for so long after it was set is believed.
const TRIAL: u64 = 3600;

/// The journal of one process.
#[derive(Debug)]
pub(super) struct Log {
    folder: PathBuf,
    bounds: Bounds,
    incarnation: [u8; 16],
    /// All but the last are whole.
    segments: Vec<Kept>,
    file: File,
    /// How many bytes of the last segment stand for what was there before it.
    carried: u64,
    next_number: u64,
    /// Whether something was written since the last sync.
    dirty: bool,
    /// Segments that were dropped before their age, for want of room.
    dropped_early: u64,
    /// Unix seconds of the last look at the clock.
    looked: u64,
    /// Unix seconds from which on age counts.
    believed_from: u64,
}

#[derive(Debug)]
struct Kept {
    segment: Segment,
    /// Unix seconds; `None` where it cannot be read.
    begun: Option<u64>,
}

impl Log {
    /// Begins a segment for this process, behind those of earlier ones.
    pub(super) fn begin(
        folder: PathBuf,
        bounds: Bounds,
        incarnation: [u8; 16],
        now: u64,
    ) -> io::Result<Self> {
        segment::make_folder(&folder)?;
        let earlier = segment::list(&folder)?;
        let number = earlier.last().map_or(0, |last| last.number) + 1;
        let (kept, file) = begin_segment(&folder, number, incarnation, now, &[])?;
        let mut segments: Vec<_> = earlier.into_iter().map(Kept::of).collect();
        segments.push(kept);
        let mut log = Self {
            folder,
            bounds,
            incarnation,
            carried: 0,
            next_number: number + 1,
            segments,
            file,
            dirty: false,
            dropped_early: 0,
            looked: now,
            believed_from: now,
        };
        log.carried = log.current().bytes;
        log.drop_old(now);
        Ok(log)
    }

    /// Writes `records`, whole or not at all.
    ///
    /// # Errors
    /// When the disk fails or is full.
    pub(super) fn append(&mut self, records: &[u8]) -> io::Result<()> {
        let before = self.current().bytes;
        if let Err(error) = self.file.write_all(records) {
            // What follows a torn record would never be read. Where it cannot be cut off, the next segment begins without.
            let _ = self.file.set_len(before);
            return Err(error);
        }
        self.current_mut().bytes += u64::try_from(records.len()).unwrap_or(u64::MAX);
        self.dirty = true;
        Ok(())
    }

    /// Makes what was written last, begins another segment where this one is long or old enough, and drops the oldest.
    ///
    /// # Errors
    /// When the disk fails or is full.
    pub(super) fn keep(&mut self, now: u64) -> io::Result<()> {
        if std::mem::take(&mut self.dirty) {
            self.file.sync_data()?;
        }
        let looked = std::mem::replace(&mut self.looked, now);
        let is_back = now.saturating_add(STEP_BACK) < looked;
        if is_back || now > looked.saturating_add(STEP_FORWARD) {
            self.believed_from = now.saturating_add(TRIAL);
        }
        let written = self.current().bytes.saturating_sub(self.carried);
        let is_full = written >= MAX_SEGMENT.min(self.bounds.bytes / SEGMENTS_BY_SIZE);
        let begun = self.segments.last().and_then(|last| last.begun);
        let age = now.saturating_sub(begun.unwrap_or(now));
        let is_old = age >= (self.bounds.retention / SEGMENTS_BY_AGE).max(1);
        // Somebody may have cleared the folder.
        if is_full || is_old || is_back || !self.current().path.exists() {
            self.roll(now)?;
        }
        self.drop_old(now);
        Ok(())
    }

    /// Begins another segment, with the allocations that live by what can be read of this one.
    ///
    /// # Errors
    /// When the disk fails or is full; this segment is still the last one then.
    pub(super) fn roll(&mut self, now: u64) -> io::Result<()> {
        let horizon = now.saturating_sub(self.bounds.retention);
        let held = Held::of(&self.file, now).into_records(horizon);
        segment::make_folder(&self.folder)?;
        let number = self.next_number;
        self.next_number += 1;
        let (kept, file) = begin_segment(&self.folder, number, self.incarnation, now, &held)?;
        self.segments.retain(|kept| kept.segment.path.exists());
        self.carried = kept.segment.bytes;
        self.segments.push(kept);
        self.file = file;
        self.dirty = false;
        Ok(())
    }

    /// Drops segments that nothing needs any more, and the oldest ones beyond the bound. The last one stays.
    fn drop_old(&mut self, now: u64) {
        let horizon = now.saturating_sub(self.bounds.retention);
        while let [oldest, later @ ..] = &*self.segments
            && !later.is_empty()
        {
            // A segment ended before any later one began; what a later one says is nearer to a clock that has been set right.
            let ended = later.iter().filter_map(|it| it.begun).min();
            let is_old = now >= self.believed_from && ended.is_some_and(|ended| ended < horizon);
            let is_surplus = self.bytes() > self.bounds.bytes;
            if !is_old && !is_surplus {
                return;
            }
            if let Err(error) = fs::remove_file(&oldest.segment.path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, path = %oldest.segment.path.display(), "cannot drop a part of the journal");
            }
            self.dropped_early += u64::from(!is_old);
            self.segments.remove(0);
        }
    }

    /// The size of all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|kept| kept.segment.bytes).sum()
    }

    /// Unix seconds of the earliest moment that the journal tells of.
    pub(super) fn covers_since(&self) -> Option<u64> {
        self.segments.iter().filter_map(|kept| kept.begun).min()
    }

    pub(super) fn dropped_early(&self) -> u64 {
        self.dropped_early
    }

    fn current(&self) -> &Segment {
        let last = self.segments.last();
        &last.expect("there is always one to write to").segment
    }

    fn current_mut(&mut self) -> &mut Segment {
        let last = self.segments.last_mut();
        &mut last.expect("there is always one to write to").segment
    }
}

/// Makes a segment that begins with `held`; leaves none behind where that fails.
fn begin_segment(
    folder: &Path,
    number: u64,
    incarnation: [u8; 16],
    at: u64,
    held: &[Record],
) -> io::Result<(Kept, File)> {
    let mut records = Vec::new();
    Record::Begin { at, incarnation }.encode(&mut records);
    held.iter().for_each(|record| record.encode(&mut records));
    let (mut segment, mut file) = segment::create(folder, number)?;
    let written = file.write_all(&records).and_then(|()| file.sync_data());
    if let Err(error) = written {
        // One that stays is read as an empty one.
        let _ = fs::remove_file(&segment.path);
        return Err(error);
    }
    segment.bytes = u64::try_from(records.len()).unwrap_or(u64::MAX);
    let begun = Some(at);
    Ok((Kept { segment, begun }, file))
}

impl Kept {
    fn of(segment: Segment) -> Self {
        Self {
            begun: segment::beginning(&segment).map(|(at, _)| at),
            segment,
        }
    }
}
