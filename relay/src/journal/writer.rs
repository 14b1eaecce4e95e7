//! The thread that writes the journal.
//!
//! What comes is written within milliseconds, so that the end of the process loses next to nothing; it is synced within a
//! second, for the end of the machine. A disk that refuses is tried again each second, and
//! what came meanwhile is counted and told in the journal as lost.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use turnfleet_proto::user_hash::UserKey;

use super::held::Loss;
use super::log::Log;
use super::record::{Key, Record};
use super::search::MARK_SECONDS;
use super::{Bounds, Item, QUEUE, Shared};
use crate::driver::clock::ToldTime;

/// How often what was written is made to last.
const SYNC: Duration = Duration::from_secs(1);
/// How long the first event waits for others: while the writer sleeps no shard has to wake it.
const GATHERING: Duration = Duration::from_millis(5);
/// Users who wait for the key of the hash, which comes with the first control session.
const MAX_UNNAMED: usize = 4096;

/// The writer's world.
pub(super) struct Writer {
    /// The folder, the bounds and the incarnation.
    of: (PathBuf, Bounds, [u8; 16]),
    shared: Arc<Shared>,
    time: Arc<ToldTime>,
    /// `None` until the disk has taken the beginning.
    log: Option<Log>,
    /// Whether the disk refused, so that another segment has to be begun.
    is_broken: bool,
    key: Option<UserKey>,
    unnamed: Vec<(Key, Box<str>)>,
    /// Encoded records, and how many events they stand for.
    pending: (Vec<u8>, u64),
    /// Losses that the journal has told.
    told: u64,
    /// Unix seconds up to which nothing was lost that the journal has not told.
    whole_until: u64,
    /// Unix seconds of the last mark.
    marked: u64,
}

impl Writer {
    pub(super) fn new(
        of: (PathBuf, Bounds, [u8; 16]),
        shared: Arc<Shared>,
        time: Arc<ToldTime>,
    ) -> Self {
        let now = time.now().unix;
        Self {
            of,
            shared,
            time,
            log: None,
            is_broken: false,
            key: None,
            unnamed: Vec::new(),
            pending: Default::default(),
            told: 0,
            whole_until: now,
            marked: now,
        }
    }

    /// Writes until the journal stops, or everybody who could say something is gone.
    pub(super) fn run(mut self, items: &Receiver<Item>) {
        self.tick();
        let mut due = Instant::now() + SYNC;
        loop {
            let wait = due.saturating_duration_since(Instant::now());
            match items.recv_timeout(wait) {
                Ok(first) => {
                    thread::park_timeout(GATHERING);
                    self.key = self.shared.key();
                    let batch = std::iter::once(first).chain(items.try_iter().take(QUEUE));
                    let mut stops = false;
                    for item in batch {
                        stops |= !self.take(item);
                    }
                    self.flush();
                    if stops {
                        break;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if Instant::now() >= due {
                self.tick();
                due = Instant::now() + SYNC;
            }
        }
        self.end();
    }

    /// Encodes an event; `false` for the word to stop.
    fn take(&mut self, item: Item) -> bool {
        match item {
            Item::Opened(opened) => {
                let (mut opened, username) = *opened;
                match &self.key {
                    Some(key) => opened.user = Some(key.hash(&username)),
                    None if self.unnamed.len() < MAX_UNNAMED => {
                        self.unnamed.push((opened.key, username));
                    }
                    None => {}
                }
                self.write(&Record::Opened(opened));
            }
            Item::Closed { key, at, reason } => self.write(&Record::Closed {
                key,
                at,
                reason: Some(reason),
            }),
            Item::Stop => return false,
        }
        self.pending.1 += 1;
        true
    }

    fn write(&mut self, record: &Record) {
        record.encode(&mut self.pending.0);
    }

    /// Hands the encoded records to the disk.
    fn flush(&mut self) {
        let (records, events) = std::mem::take(&mut self.pending);
        let written = match &mut self.log {
            Some(log) if !self.is_broken => log.append(&records),
            Some(_) | None => {
                self.lost(events);
                return;
            }
        };
        if let Err(error) = written {
            self.lost(events);
            self.failed(&error);
        }
        self.pending.0 = records;
        self.pending.0.clear();
    }

    /// What has to be done each second.
    fn tick(&mut self) {
        let now = self.time.now().unix;
        if let Err(error) = self.open(now).and_then(|()| self.keep(now)) {
            self.failed(&error);
        }
        if let Some(log) = &self.log {
            let counts = &self.shared.counts;
            counts.bytes.store(log.bytes(), Ordering::Relaxed);
            let since = log.covers_since().unwrap_or(0);
            counts.covers_since.store(since, Ordering::Relaxed);
            counts.dropped.store(log.dropped_early(), Ordering::Relaxed);
        }
    }

    /// Begins the journal, or goes on with it after a failure.
    fn open(&mut self, now: u64) -> io::Result<()> {
        match &mut self.log {
            None => {
                let (folder, bounds, incarnation) = self.of.clone();
                self.log = Some(Log::begin(folder, bounds, incarnation, now)?);
            }
            Some(log) if self.is_broken => log.roll(now)?,
            Some(_) => return Ok(()),
        }
        if std::mem::take(&mut self.is_broken) {
            tracing::info!("the journal of allocations is written again");
        }
        Ok(())
    }

    /// Tells what was lost, names users, marks the time, and makes it all last.
    fn keep(&mut self, now: u64) -> io::Result<()> {
        self.key = self.shared.key();
        let lost = self.shared.counts.lost.load(Ordering::Relaxed);
        let (told, since) = (std::mem::replace(&mut self.told, lost), self.whole_until);
        if lost > told {
            self.write(&Record::Lost(Loss {
                since,
                until: now,
                count: lost - told,
            }));
        }
        if let Some(key) = self.key.clone() {
            for (allocation, username) in std::mem::take(&mut self.unnamed) {
                self.write(&Record::Named {
                    key: allocation,
                    user: key.hash(&username),
                });
            }
        }
        if now.abs_diff(self.marked) >= MARK_SECONDS {
            self.marked = now;
            self.write(&Record::Mark { at: now });
        }
        let (records, _) = std::mem::take(&mut self.pending);
        let Some(log) = &mut self.log else {
            return Ok(());
        };
        let kept = match records.is_empty() {
            true => Ok(()),
            false => log.append(&records),
        };
        if kept.is_err() {
            self.told = told;
        } else {
            self.whole_until = now;
        }
        kept?;
        log.keep(now)
    }

    /// So many events were not written.
    fn lost(&self, events: u64) {
        self.shared.counts.lost.fetch_add(events, Ordering::Relaxed);
    }

    fn failed(&mut self, error: &io::Error) {
        self.shared.counts.failures.fetch_add(1, Ordering::Relaxed);
        if !std::mem::replace(&mut self.is_broken, true) {
            let folder = self.of.0.display();
            tracing::warn!(%error, %folder, "cannot write the journal of allocations; trying on");
        }
    }

    /// Writes that the process ends in good order.
    fn end(&mut self) {
        self.tick();
        let at = self.time.now().unix;
        let Some(log) = self.log.as_mut().filter(|_| !self.is_broken) else {
            return;
        };
        let mut record = Vec::new();
        Record::End { at }.encode(&mut record);
        if let Err(error) = log.append(&record).and_then(|()| log.keep(at)) {
            tracing::warn!(%error, "the journal of allocations has no end");
        }
    }
}
