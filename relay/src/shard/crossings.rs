//! Payloads on their way from the clients of one shard to those of another, without a trip through the kernel.
//!
//! Each pair of shards has a lane for each direction: a bundle of payloads behind a lock that is held while two bundles
//! change places. The sender gathers a bundle of its own for a batch of packets and brings it to the lane as a whole; the
//! receiver takes what lies there, and leaves its empty bundle. A full lane drops what comes, as a full socket buffer does.
//!
//! A bell tells the receiver. It costs a system call only when the receiver sleeps: one that is awake looks at its bell
//! before it goes to sleep.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mio::Waker;
use turnfleet_turn::{ClientHeader, RelayedId, ShardId, Span};

use crate::driver::directory::Owner;

/// Payloads in a bundle.
const MAX_PAYLOADS: usize = 1024;
/// Bytes in a bundle, with the room around the payloads.
const MAX_BYTES: usize = 256 << 10;

/// A payload for a relayed socket, as if it had been received there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crossing {
    /// The socket of the receiving shard.
    pub(super) on: RelayedId,
    /// The local address of the socket that it would have been sent from.
    pub(super) from: SocketAddr,
    /// Where it stands in the bundle, with room for a header before it and for padding behind it.
    pub(super) payload: Span,
}

/// Payloads in their order.
#[derive(Default)]
pub(super) struct Bundle {
    pub(super) crossings: Vec<Crossing>,
    pub(super) bytes: Vec<u8>,
}

impl Bundle {
    /// Adds a payload; `false` where the bundle is full.
    fn push(&mut self, on: RelayedId, from: SocketAddr, payload: &[u8]) -> bool {
        let start = self.bytes.len() + ClientHeader::MAX_LEN;
        let end = start + payload.len() + ClientHeader::MAX_PADDING;
        if self.crossings.len() == MAX_PAYLOADS || end > MAX_BYTES {
            return false;
        }
        self.bytes.resize(start, 0);
        self.bytes.extend_from_slice(payload);
        self.bytes.resize(end, 0);
        let len = payload.len();
        let payload = Span { start, len };
        self.crossings.push(Crossing { on, from, payload });
        true
    }

    /// Takes everything over from `other`, and returns how many payloads found no room.
    fn take_over(&mut self, other: &mut Self) -> u64 {
        if self.crossings.is_empty() {
            std::mem::swap(self, other);
            return 0;
        }
        let mut dropped = 0;
        for Crossing { on, from, payload } in &other.crossings {
            let taken = self.push(*on, *from, &other.bytes[payload.range()]);
            dropped += u64::from(!taken);
        }
        other.clear();
        dropped
    }

    fn clear(&mut self) {
        self.crossings.clear();
        self.bytes.clear();
    }
}

/// What tells a shard that something lies in one of its lanes.
struct Bell {
    state: AtomicU8,
    waker: Arc<Waker>,
}

/// The shard will look at its bell.
const AWAKE: u8 = 0;
/// Something was brought since the shard looked last.
const RUNG: u8 = 1;
/// The shard waits for events, the waker's among them.
const ASLEEP: u8 = 2;

impl Bell {
    /// Says that something was brought, which the shard sees once it has seen this.
    fn ring(&self) {
        if self.state.swap(RUNG, Ordering::AcqRel) == ASLEEP {
            // A shard that cannot be woken looks with its next event.
            let _ = self.waker.wake();
        }
    }
}

/// What all shards share.
struct Crossroads {
    shards: usize,
    /// By sender, then by receiver.
    lanes: Vec<Mutex<Bundle>>,
    bells: Vec<Bell>,
}

impl Crossroads {
    fn lane(&self, from: usize, to: usize) -> MutexGuard<'_, Bundle> {
        let lane = &self.lanes[from * self.shards + to];
        lane.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One shard's ends of its lanes.
pub(super) struct Crossings {
    own: ShardId,
    shared: Arc<Crossroads>,
    /// What waits to be brought to the lanes, by receiver.
    outgoing: Vec<Bundle>,
    /// How many payloads that are.
    waiting: usize,
    /// An empty bundle, to be left where a full one is taken.
    spare: Bundle,
}

impl Crossings {
    /// Links `wakers.len()` shards with each other.
    pub(super) fn connect(wakers: &[Arc<Waker>]) -> Vec<Self> {
        let shards = wakers.len();
        let bell = |waker: &Arc<Waker>| Bell {
            state: AtomicU8::new(AWAKE),
            waker: Arc::clone(waker),
        };
        let shared = Arc::new(Crossroads {
            shards,
            lanes: (0..shards * shards).map(|_| Mutex::default()).collect(),
            bells: wakers.iter().map(bell).collect(),
        });
        let own = (0..=u8::MAX).take(shards);
        own.map(|own| Self {
            own: ShardId(own),
            shared: Arc::clone(&shared),
            outgoing: (0..shards).map(|_| Bundle::default()).collect(),
            waiting: 0,
            spare: Bundle::default(),
        })
        .collect()
    }

    /// Whether `owner` is a socket of this shard.
    pub(super) fn is_own(&self, owner: Owner) -> bool {
        owner.shard == self.own
    }

    /// Gathers a payload for a socket of another shard; it leaves with the next [`Crossings::flush`]. Returns how many
    /// payloads were dropped on that occasion.
    pub(super) fn push(&mut self, to: Owner, from: SocketAddr, payload: &[u8]) -> u64 {
        let shard = usize::from(to.shard.0);
        let mut dropped = 0;
        if !self.gather(shard, to.id, from, payload) {
            dropped = self.flush();
            dropped += u64::from(!self.gather(shard, to.id, from, payload));
        }
        dropped
    }

    fn gather(&mut self, shard: usize, on: RelayedId, from: SocketAddr, payload: &[u8]) -> bool {
        let bundle = self.outgoing.get_mut(shard);
        let taken = bundle.is_some_and(|bundle| bundle.push(on, from, payload));
        self.waiting += usize::from(taken);
        taken
    }

    /// Brings what was gathered to the lanes. Returns how many payloads were dropped, because their lane was full.
    pub(super) fn flush(&mut self) -> u64 {
        if self.waiting == 0 {
            return 0;
        }
        self.waiting = 0;
        let own = usize::from(self.own.0);
        let mut dropped = 0;
        let gathered = self.outgoing.iter_mut().enumerate();
        for (shard, bundle) in gathered.filter(|(_, bundle)| !bundle.crossings.is_empty()) {
            dropped += self.shared.lane(own, shard).take_over(bundle);
            self.shared.bells[shard].ring();
        }
        dropped
    }

    /// What `sender` has brought, if anything; goes back with [`Crossings::recycle`].
    pub(super) fn receive(&mut self, sender: usize) -> Option<Bundle> {
        let mut lane = self.shared.lane(sender, usize::from(self.own.0));
        if lane.crossings.is_empty() {
            return None;
        }
        Some(std::mem::replace(
            &mut lane,
            std::mem::take(&mut self.spare),
        ))
    }

    /// Takes back the memory of a bundle.
    pub(super) fn recycle(&mut self, mut bundle: Bundle) {
        bundle.clear();
        self.spare = bundle;
    }

    /// How many shards there are.
    pub(super) fn shards(&self) -> usize {
        self.shared.shards
    }

    /// Whether the shard may wait for events: from here on the bell wakes it, and not where it has rung already.
    pub(super) fn may_sleep(&self) -> bool {
        let state = &self.bell().state;
        let slept = state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire);
        slept != Err(RUNG)
    }

    /// The shard is awake; whether its bell has rung since the last time.
    pub(super) fn wake(&self) -> bool {
        self.bell().state.swap(AWAKE, Ordering::AcqRel) == RUNG
    }

    fn bell(&self) -> &Bell {
        &self.shared.bells[usize::from(self.own.0)]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll, Token};

    use super::*;

    fn linked() -> (Vec<Crossings>, Vec<Poll>) {
        let polls: Vec<_> = (0..3).map(|_| Poll::new().unwrap()).collect();
        let waker = |poll: &Poll| Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let wakers: Vec<_> = polls.iter().map(waker).collect();
        (Crossings::connect(&wakers), polls)
    }

    fn owner(shard: u8) -> Owner {
        Owner {
            shard: ShardId(shard),
            id: RelayedId::new(5, 1),
        }
    }

    fn from() -> SocketAddr {
        "192.0.2.1:50000".parse().unwrap()
    }

    fn payloads(bundle: &Bundle) -> Vec<&[u8]> {
        let payload = |crossing: &Crossing| &bundle.bytes[crossing.payload.range()];
        bundle.crossings.iter().map(payload).collect()
    }

    fn was_woken(poll: &mut Poll) -> bool {
        let mut events = Events::with_capacity(1);
        poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        !events.is_empty()
    }

    #[test]
    fn payloads_cross_in_their_order_and_only_to_whom_they_are_for() {
        let (mut shards, _polls) = linked();
        assert_eq!(shards[0].push(owner(1), from(), b"one"), 0);
        assert_eq!(shards[0].flush(), 0);
        assert_eq!(shards[0].push(owner(1), from(), b""), 0);
        assert_eq!(shards[0].push(owner(1), from(), b"three"), 0);
        assert_eq!(shards[0].flush(), 0);
        assert!(!shards[2].wake());
        assert!(shards[1].wake());
        assert!(shards[1].receive(2).is_none());
        let bundle = shards[1].receive(0).unwrap();
        assert_eq!(payloads(&bundle), [&b"one"[..], b"", b"three"]);
        let first = bundle.crossings[0];
        assert_eq!((first.on, first.from), (owner(1).id, from()));
        assert!(first.payload.start >= ClientHeader::MAX_LEN);
        shards[1].recycle(bundle);
        assert!(shards[1].receive(0).is_none());
    }

    #[test]
    fn a_lane_is_bounded_in_payloads_and_in_bytes() {
        for len in [0, 60_000] {
            let (mut shards, _polls) = linked();
            let payload = vec![0; len];
            let mut dropped = 0;
            for _ in 0..3 * MAX_PAYLOADS {
                dropped += shards[0].push(owner(1), from(), &payload);
            }
            dropped += shards[0].flush();
            let bundle = shards[1].receive(0).unwrap();
            let expected = if len == 0 {
                MAX_PAYLOADS
            } else {
                MAX_BYTES / 60_051
            };
            assert_eq!(bundle.crossings.len(), expected);
            assert!(bundle.bytes.len() <= MAX_BYTES);
            assert_eq!(dropped, (3 * MAX_PAYLOADS - expected) as u64);
            assert_eq!(shards[0].push(owner(1), from(), &payload), 0);
            assert_eq!(shards[0].flush(), 0);
        }
    }

    #[test]
    fn a_sleeping_shard_is_woken_once_and_one_that_is_awake_is_not() {
        let (mut shards, mut polls) = linked();
        let bring = |shards: &mut Vec<Crossings>| {
            shards[0].push(owner(1), from(), b"payload");
            shards[0].flush();
        };
        bring(&mut shards);
        assert!(!was_woken(&mut polls[1]));
        assert!(!shards[1].may_sleep(), "the bell has rung");
        assert!(shards[1].wake());
        assert!(shards[1].may_sleep());
        assert!(shards[1].may_sleep(), "after an interrupted wait");
        bring(&mut shards);
        assert!(was_woken(&mut polls[1]));
        bring(&mut shards);
        assert!(!was_woken(&mut polls[1]));
        assert!(shards[1].wake());
        assert!(!shards[1].wake());
    }
}
