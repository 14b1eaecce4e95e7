//! Who uses the relay: what its shards tally is added up here, kept over restarts, and told to the controller.
//!
//! [`UsageBook`] is shared by the shards, which bring a tally about once a second and never from the path of packets, the
//! task that keeps it in the state folder, and the control session. What is reported has been kept before, so that a
//! restart never tells less than was told already.

mod book;
mod kept;
mod report;
mod talkers;
mod window;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use turnfleet_proto::fleet;
use turnfleet_turn::usage::Tally;

use self::book::Book;
use self::kept::Kept;
pub(crate) use self::report::Told;
use crate::control::StateDir;

/// How often what was counted is kept.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct UsageBook {
    book: Mutex<Book>,
    kept: Kept,
    /// What was kept last.
    latest: ArcSwap<fleet::Usage>,
}

impl UsageBook {
    /// Goes on with what the state folder has, or begins another epoch.
    pub(crate) fn open(dir: Arc<StateDir>, unix_millis: u64) -> std::io::Result<Self> {
        let kept = Kept::open(dir);
        let usage = match kept.load() {
            Some(usage) => usage,
            None => fleet::Usage {
                epoch: kept::another_epoch()?,
                begun_millis: unix_millis,
                ..fleet::Usage::default()
            },
        };
        Ok(Self {
            book: Mutex::new(Book::from_kept(&usage, unix_millis)),
            kept,
            latest: ArcSwap::from_pointee(usage),
        })
    }

    /// Adds what a shard has counted.
    pub(crate) fn absorb(&self, tally: Tally) {
        if !tally.is_empty() {
            self.book().absorb(tally);
        }
    }

    /// What was kept last, as a controller is told. At most a second old.
    pub(crate) fn latest(&self) -> Arc<fleet::Usage> {
        self.latest.load_full()
    }

    /// What was counted without a name, because there were too many.
    pub(crate) fn unnamed(&self) -> u64 {
        self.book().unnamed()
    }

    /// Keeps what was counted, over and over, until `stop` turns true.
    pub(crate) async fn keep(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut tick = interval(KEEP_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let book = Arc::clone(&self);
            let kept = tokio::task::spawn_blocking(move || book.keep_now(false)).await;
            if let Err(error) = kept {
                tracing::error!(%error, "keeping what was counted failed");
            }
        }
    }

    /// Keeps what was counted; `finally` where the process ends and nothing will be counted any more.
    pub(crate) fn keep_now(&self, finally: bool) {
        let (mut usage, has_changed) = self.book().report(crate::control::unix_millis());
        if has_changed || finally {
            self.kept.store(&usage, finally);
        } else {
            usage.number = self.latest().number;
        }
        self.latest.store(Arc::new(usage));
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // No operation leaves the book half changed.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
