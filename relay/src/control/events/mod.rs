//! What happens to allocations, told to the controller at least once: kept in a bounded ring until a controller has taken it,
//! over the end of a session and the change of a controller. What there is no room for is counted, and the number told.
//!
//! Shards never wait for any of it. What a process has not told when it dies is lost.

mod ring;
mod telling;
mod wire;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use turnfleet_proto::fleet;
use turnfleet_proto::fleet::events_lost::Reason;

use self::ring::Ring;
pub(super) use self::telling::Telling;
use crate::driver::clock::ToldTime;
use crate::shard::{Heard, Way};

/// Events that are written down at once.
const AT_ONCE: usize = 512;
/// How often it is looked at what was lost on the way.
const LOOK: Duration = Duration::from_secs(1);
/// Between two looks for whether everything has been written down.
const SETTLING: Duration = Duration::from_millis(5);

/// Events on their way to the controller.
#[derive(Debug)]
pub(crate) struct Outbox {
    ring: Mutex<Ring>,
    way: Arc<Way>,
    /// The number of the latest event.
    latest: watch::Sender<u64>,
}

/// What has become of the events of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EventCounts {
    /// Taken by a controller.
    pub(crate) taken: u64,
    /// That wait.
    pub(crate) waiting: u64,
    /// Pushed out by later ones.
    pub(crate) lost_room: u64,
    /// Too fast to be written down.
    pub(crate) lost_speed: u64,
    /// Refusals beyond the rate.
    pub(crate) lost_rate: u64,
}

impl Outbox {
    /// One that is filled by [`Self::collect`].
    pub(crate) fn new(heard: &Heard) -> Self {
        Self {
            ring: Mutex::new(Ring::new()),
            way: Arc::clone(&heard.way),
            latest: watch::Sender::new(0),
        }
    }

    pub(crate) fn counts(&self) -> EventCounts {
        let ring = self.ring();
        EventCounts {
            taken: ring.taken_in_all(),
            waiting: ring.len() as u64,
            lost_room: ring.pushed_out(),
            lost_speed: self.way.too_fast.load(Ordering::Relaxed),
            lost_rate: self.way.refusals.load(Ordering::Relaxed),
        }
    }

    /// Writes down what shards tell. Ends with the last shard.
    pub(crate) async fn collect(&self, mut heard: Heard, time: &ToldTime) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = Vec::with_capacity(AT_ONCE);
        let (mut too_fast, mut refusals) = (0, 0);
        loop {
            tokio::select! {
                count = heard.queue.recv_many(&mut told, AT_ONCE) => if count == 0 {
                    return;
                },
                _ = look.tick() => {
                    let way = &self.way;
                    let lost = [
                        (Reason::Speed, way.too_fast.load(Ordering::Relaxed), &mut too_fast),
                        (Reason::Rate, way.refusals.load(Ordering::Relaxed), &mut refusals),
                    ];
                    for (reason, count, before) in lost {
                        let more = count - std::mem::replace(before, count);
                        if more > 0 {
                            self.keep([wire::lost(more, reason)], time);
                        }
                    }
                }
            }
            let count = told.len();
            if count > 0 {
                self.keep(told.drain(..).map(wire::event), time);
                self.way.under_way.fetch_sub(count, Ordering::Relaxed);
            }
        }
    }

    /// Waits until what the shards have told so far is written down.
    pub(crate) async fn settled(&self) {
        while self.way.under_way.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(SETTLING).await;
        }
    }

    fn keep(&self, events: impl IntoIterator<Item = fleet::Event>, time: &ToldTime) {
        let unix_millis = unix_millis(time);
        let mut ring = self.ring();
        for event in events {
            ring.push(fleet::Event {
                unix_millis,
                ..event
            });
        }
        self.note(&ring);
        self.latest.send_replace(ring.latest());
    }

    fn taken(&self, number: u64) {
        let mut ring = self.ring();
        ring.taken(number);
        self.note(&ring);
    }

    fn note(&self, ring: &Ring) {
        let crowded = &self.way.is_crowded;
        crowded.store(ring.is_crowded(), Ordering::Relaxed);
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // No operation leaves the ring half changed.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds since the Unix epoch, by the controller's word where the own clock is behind.
fn unix_millis(time: &ToldTime) -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let own = since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    });
    let behind = time.now().unix.saturating_sub(own / 1000);
    own.saturating_add(behind.saturating_mul(1000))
}
