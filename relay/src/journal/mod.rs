//! The journal of allocations: who had which relayed address when, for those who have to answer for a packet that came
//! from there.
//!
//! It holds times, the client's address and transport, the relayed addresses, the tenant and a keyed hash of the user;
//! never a peer, a payload or a secret. The key of the hash comes from the controller and is never written to this
//! machine's disk: whoever steals the disk can neither read nor try users. Shards hand events to a bounded queue
//! ([`Recorder`]) and never wait; a thread ([`writer`]) writes them at once and syncs them within a second. What was not
//! written, and when nobody wrote, shows as a gap in what a search finds.

mod fields;
mod held;
mod log;
mod record;
mod search;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tracing::Span;
use turnfleet_proto::user_hash::UserKey;
use turnfleet_turn::{CloseReason, Event, ShardId};

use crate::config::JournalConfig;
use crate::driver::clock::ToldTime;
use record::{Key, Opened};
use search::Reader;
use writer::Writer;

pub(crate) use search::{Ending, Findings, Found, Gap, GapReason, Question};

/// Events that wait for the writer: some tenths of a second of the most that a relay of two cores opens and closes.
const QUEUE: usize = 8192;

/// What the journal may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    /// Seconds.
    retention: u64,
    /// Of all files together.
    bytes: u64,
}

impl From<JournalConfig> for Bounds {
    fn from(config: JournalConfig) -> Self {
        Self {
            retention: config.retention.as_secs(),
            bytes: config.bytes,
        }
    }
}

/// What the journal has counted, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Events that were not written.
    pub(crate) lost: u64,
    /// Times that the disk refused.
    pub(crate) failures: u64,
    /// Files that were dropped before their age, for want of room.
    pub(crate) dropped: u64,
    /// Of all files.
    pub(crate) bytes: u64,
    /// Unix seconds of the earliest moment that it tells of; zero for none.
    pub(crate) covers_since: u64,
}

/// The same while it is counted.
#[derive(Debug, Default)]
struct Counts {
    lost: AtomicU64,
    failures: AtomicU64,
    dropped: AtomicU64,
    bytes: AtomicU64,
    covers_since: AtomicU64,
}

/// What the handle, the shards and the writer share.
#[derive(Debug, Default)]
struct Shared {
    counts: Counts,
    key: Mutex<Option<UserKey>>,
}

impl Shared {
    fn key(&self) -> Option<UserKey> {
        let key = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        key.clone()
    }
}

/// The journal of one node.
#[derive(Debug)]
pub(crate) struct Journal {
    folder: PathBuf,
    incarnation: [u8; 16],
    shared: Arc<Shared>,
    time: Arc<ToldTime>,
    /// `None` where no journal is kept.
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    queue: SyncSender<Item>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What waits for the writer.
#[derive(Debug)]
enum Item {
    /// With the USERNAME.
    Opened(Box<(Opened, Box<str>)>),
    Closed {
        key: Key,
        at: u64,
        reason: CloseReason,
    },
    Stop,
}

/// The shards' end of the journal. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    queue: SyncSender<Item>,
    shared: Arc<Shared>,
}

impl Journal {
    /// Writes to `folder` from here on, within the bounds of `config`; deletes what is there without.
    ///
    /// A disk that is full or fails is no error: it is tried again, and what was not written shows.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start(
        folder: PathBuf,
        config: Option<JournalConfig>,
        incarnation: [u8; 16],
        time: Arc<ToldTime>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let running = match config.map(Bounds::from) {
            None => {
                forget(&folder);
                None
            }
            Some(bounds) => {
                let (queue, items) = sync_channel(QUEUE);
                let writer = Writer::new(
                    (folder.clone(), bounds, incarnation),
                    Arc::clone(&shared),
                    Arc::clone(&time),
                );
                let thread = thread::Builder::new().name("journal".into());
                let span = Span::current();
                let thread = thread.spawn(move || span.in_scope(|| writer.run(&items)))?;
                let thread = Mutex::new(Some(thread));
                Some(Running { queue, thread })
            }
        };
        Ok(Self {
            folder,
            incarnation,
            shared,
            time,
            running,
        })
    }

    /// Whether a journal is kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.running.is_some()
    }

    /// Takes what happens to allocations; `None` where no journal is kept.
    pub(crate) fn recorder(&self) -> Option<Recorder> {
        Some(Recorder {
            queue: self.running.as_ref()?.queue.clone(),
            shared: Arc::clone(&self.shared),
        })
    }

    /// Hashes users with this key from here on.
    pub(crate) fn hash_with(&self, key: UserKey) {
        let mut known = self
            .shared
            .key
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *known = Some(key);
    }

    pub(crate) fn figures(&self) -> Figures {
        let counts = &self.shared.counts;
        Figures {
            lost: counts.lost.load(Ordering::Relaxed),
            failures: counts.failures.load(Ordering::Relaxed),
            dropped: counts.dropped.load(Ordering::Relaxed),
            bytes: counts.bytes.load(Ordering::Relaxed),
            covers_since: counts.covers_since.load(Ordering::Relaxed),
        }
    }

    /// Reads what the journal has to say. Blocks for some seconds at the most, as far as the disk lets it.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(crate) fn search(&self, question: &Question) -> io::Result<Findings> {
        let reader = Reader {
            incarnation: self.incarnation,
            now: self.time.now().unix,
            by: Instant::now() + search::PATIENCE,
        };
        search::search(&self.folder, question, reader)
    }

    /// Writes what waits, and the end. The shards have stopped before.
    pub(crate) fn stop(&self) {
        let Some(running) = &self.running else { return };
        let mut thread = running
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // A writer that has panicked takes nothing, and has ended.
            let _ = running.queue.send(Item::Stop);
            let _ = thread.join();
        }
    }
}

impl Recorder {
    /// Takes `event`, which happened in a shard in second `unix`, if it is for the journal. Never waits.
    pub(crate) fn record(&self, shard: ShardId, event: &Event, unix: u64) {
        let key = |number: u64| Key {
            shard: shard.0,
            number,
        };
        let item = match event {
            Event::Opened {
                allocation,
                client,
                username,
                tenant,
                relayed_transport,
                relayed,
                took: _,
            } => {
                let opened = Opened {
                    key: key(*allocation),
                    at: unix,
                    client: client.client,
                    transport: client.transport,
                    relayed: relayed.clone(),
                    relayed_transport: *relayed_transport,
                    tenant: *tenant,
                    user: None,
                };
                Item::Opened(Box::new((opened, username.clone())))
            }
            Event::Closed {
                allocation, reason, ..
            } => Item::Closed {
                key: key(*allocation),
                at: unix,
                reason: *reason,
            },
            Event::Evicting { .. }
            | Event::Refused { .. }
            | Event::PeerConnected { .. }
            | Event::PeerDenied { .. } => return,
        };
        if self.queue.try_send(item).is_err() {
            self.shared.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Deletes the journal of a node that keeps none any longer.
fn forget(folder: &Path) {
    let kept = segment::list(folder).unwrap_or_default();
    for segment in kept {
        if let Err(error) = std::fs::remove_file(&segment.path) {
            tracing::warn!(%error, path = %segment.path.display(), "cannot delete a part of the journal");
        }
    }
}
