//! The way of events out of the shards, to the task that keeps them for the controller: a bounded queue that no shard ever
//! waits for. What finds it full is counted, and lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::mpsc;
use turnfleet_turn::Event;

use super::event_log::Rate;
use crate::policy::TenantNames;

/// Events on their way out of all shards.
const QUEUE: usize = 8192;
/// Refusals that one shard tells of in one second: they cost an attacker nothing.
const REFUSALS_A_SECOND: u32 = 20;
/// Allocations that one shard says will be evicted, before it looks after its clients again.
const EVICTING_AT_ONCE: usize = 256;

/// Something that happened, on its way out of a shard.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) shard: u8,
    /// The name of the tenant whose user it is; `None` for the default one.
    pub(crate) tenant: Option<Box<str>>,
    pub(crate) event: Event,
}

/// What both ends of the way know.
#[derive(Debug, Default)]
pub(crate) struct Way {
    /// Events that found the queue full.
    pub(crate) too_fast: AtomicU64,
    /// Refusals beyond the rate.
    pub(crate) refusals: AtomicU64,
    /// Events that left a shard and are not kept yet.
    pub(crate) under_way: AtomicUsize,
    /// Whether those that are kept leave room for what can wait.
    pub(crate) is_crowded: AtomicBool,
}

/// The shards' end of the way.
#[derive(Clone, Debug)]
pub(crate) struct Teller {
    queue: mpsc::Sender<Told>,
    way: Arc<Way>,
}

/// The other end.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) queue: mpsc::Receiver<Told>,
    pub(crate) way: Arc<Way>,
}

impl Teller {
    /// Both ends of a way.
    pub(crate) fn new() -> (Self, Heard) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let way = Arc::new(Way::default());
        let teller = Self {
            queue: sender,
            way: Arc::clone(&way),
        };
        let queue = receiver;
        (teller, Heard { queue, way })
    }
}

/// One shard's place at the way; it leads nowhere where nobody listens.
pub(super) struct ShardTeller {
    teller: Option<Teller>,
    shard: u8,
    refusals: Rate,
}

impl ShardTeller {
    pub(super) fn new(teller: Option<Teller>, shard: u8) -> Self {
        Self {
            teller,
            shard,
            refusals: Rate::default(),
        }
    }

    /// Sends `event` on, which happened in second `unix`, unless it is one that only the log tells.
    pub(super) fn tell(&mut self, event: Event, unix: u64, tenants: &TenantNames) {
        let Some(teller) = &self.teller else { return };
        match &event {
            Event::Opened { .. } | Event::Closed { .. } | Event::Evicting { .. } => {}
            Event::Refused { .. } => {
                if !self.refusals.admits(unix, REFUSALS_A_SECOND) {
                    teller.way.refusals.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
            Event::PeerConnected { .. } | Event::PeerDenied { .. } => return,
        }
        let tenant = event.tenant().and_then(|tenant| tenants.of(tenant));
        let told = Told {
            shard: self.shard,
            tenant: tenant.map(Into::into),
            event,
        };
        teller.way.under_way.fetch_add(1, Ordering::Relaxed);
        if teller.queue.try_send(told).is_err() {
            teller.way.under_way.fetch_sub(1, Ordering::Relaxed);
            teller.way.too_fast.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many allocations may be told of at this moment that they will be evicted.
    pub(super) fn room_for_evicting(&self) -> usize {
        let crowded = self.teller.as_ref().is_some_and(|teller| {
            teller.way.is_crowded.load(Ordering::Relaxed) || teller.queue.capacity() < QUEUE / 2
        });
        if crowded { 0 } else { EVICTING_AT_ONCE }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use turnfleet_turn::{FiveTuple, Transport};

    use super::*;

    fn refused() -> Event {
        let address: SocketAddr = "192.0.2.1:5000".parse().unwrap();
        Event::Refused {
            client: FiveTuple {
                transport: Transport::Udp,
                client: address,
                server: address,
            },
            username: None,
            code: 401,
        }
    }

    #[test]
    fn refusals_are_told_at_a_bounded_rate_and_the_others_counted() {
        let (teller, heard) = Teller::new();
        let mut shard = ShardTeller::new(Some(teller), 0);
        for _ in 0..100 {
            shard.tell(refused(), 7, &TenantNames::default());
        }
        assert_eq!(heard.queue.len(), 20);
        assert_eq!(heard.way.refusals.load(Ordering::Relaxed), 80);
    }

    #[test]
    fn a_shard_never_waits_for_a_queue_that_nobody_empties() {
        let (teller, heard) = Teller::new();
        let mut shard = ShardTeller::new(Some(teller), 0);
        let seconds = QUEUE as u64 / 20 + 10;
        for second in 0..seconds {
            for _ in 0..20 {
                shard.tell(refused(), second, &TenantNames::default());
            }
        }
        assert_eq!(heard.queue.len(), QUEUE);
        let lost = heard.way.too_fast.load(Ordering::Relaxed);
        assert_eq!(lost, seconds * 20 - QUEUE as u64);
        assert_eq!(heard.way.under_way.load(Ordering::Relaxed), QUEUE);
        assert_eq!(shard.room_for_evicting(), 0);
    }
}
