//! What a tenant or a user may send and receive: a rate for each direction, shared by the shards of a relay.
//!
//! Each direction is a generic cell rate algorithm in one word: the time at which everything that went through is paid for.
//! What may go into debt is bounded by [`BURST`], and by one packet. A rate changes by a store into another word, without a
//! word to the shards. Datagrams beyond the rate are dropped; byte streams, which must not lose any, are asked to wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::time::Instant;

/// How much may go through at once, as time at the full rate.
pub const BURST: Duration = Duration::from_millis(250);

const BURST_NANOS: u64 = 250_000_000;

/// The way that application data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a client to its peers.
    ToPeers,
    /// From peers to a client.
    ToClient,
}

impl Direction {
    /// Both of them, in the order of their declaration.
    pub const ALL: [Self; 2] = [Self::ToPeers, Self::ToClient];
}

/// The rates of one tenant or one user on one relay.
#[derive(Debug, Default)]
pub struct Shaper {
    lanes: [Lane; 2],
}

#[derive(Debug, Default)]
struct Lane {
    /// Bits of application data a second; zero for no limit.
    rate: AtomicU64,
    /// When everything that went through is paid for.
    paid_at: AtomicU64,
    /// Bytes that somebody wanted to send, those that were dropped included.
    offered: AtomicU64,
}

impl Shaper {
    /// A shaper with these rates in bits of application data a second, by [`Direction`]; zero for no limit.
    #[must_use]
    pub fn new(rates: [u64; 2]) -> Self {
        let shaper = Self::default();
        shaper.set_rates(rates);
        shaper
    }

    /// Changes the rates. What is in debt pays it by the old ones.
    pub fn set_rates(&self, rates: [u64; 2]) {
        for (lane, rate) in self.lanes.iter().zip(rates) {
            lane.rate.store(rate, Ordering::Relaxed);
        }
    }

    /// The rates in bits a second, by [`Direction`].
    #[must_use]
    pub fn rates(&self) -> [u64; 2] {
        self.read(|lane| &lane.rate)
    }

    /// Bytes that somebody wanted to send since the start, by [`Direction`]; those that were dropped are among them.
    #[must_use]
    pub fn offered(&self) -> [u64; 2] {
        self.read(|lane| &lane.offered)
    }

    fn read(&self, word: impl Fn(&Lane) -> &AtomicU64) -> [u64; 2] {
        let [to_peers, to_client] = &self.lanes;
        [to_peers, to_client].map(|lane| word(lane).load(Ordering::Relaxed))
    }

    fn lane(&self, direction: Direction) -> &Lane {
        let [to_peers, to_client] = &self.lanes;
        match direction {
            Direction::ToPeers => to_peers,
            Direction::ToClient => to_client,
        }
    }
}

impl Lane {
    /// Nanoseconds of the burst that are not in debt; the whole burst where there is no limit.
    fn credit(&self, now: Instant) -> u64 {
        if self.rate.load(Ordering::Relaxed) == 0 {
            return BURST_NANOS;
        }
        let debt = self.paid_at.load(Ordering::Relaxed).saturating_sub(now.0);
        BURST_NANOS.saturating_sub(debt)
    }

    fn charge(&self, now: Instant, bytes: u64) {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return;
        }
        let cost = bytes.saturating_mul(8_000_000_000) / rate;
        let paid = |paid: u64| Some(paid.max(now.0).saturating_add(cost));
        // Shards that charge at the same time each add their part.
        let _ = self
            .paid_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, paid);
    }

    /// Bytes that fit into what is left of the burst.
    fn room(&self, now: Instant) -> u64 {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return u64::MAX;
        }
        let bits = u128::from(self.credit(now)) * u128::from(rate) / 1_000_000_000;
        u64::try_from(bits / 8).unwrap_or(u64::MAX)
    }
}

/// What bounds one allocation: the rates of its tenant and of its user, as far as they have any.
#[derive(Clone, Debug)]
pub(crate) struct Shapers {
    pub(crate) tenant: Option<Arc<Shaper>>,
    pub(crate) user: Option<Arc<Shaper>>,
}

impl Shapers {
    fn lanes(&self, direction: Direction) -> impl Iterator<Item = &Lane> {
        let both = [&self.tenant, &self.user].into_iter().flatten();
        both.map(move |shaper| shaper.lane(direction))
    }

    /// Whether a datagram of `len` bytes may go its way. What may not costs nobody anything.
    pub(crate) fn admit(&self, direction: Direction, now: Instant, len: usize) -> bool {
        let admitted = self.lanes(direction).all(|lane| lane.credit(now) > 0);
        for lane in self.lanes(direction) {
            lane.offered.fetch_add(len as u64, Ordering::Relaxed);
            if admitted {
                lane.charge(now, len as u64);
            }
        }
        admitted
    }

    /// How many bytes of a stream may be read now.
    pub(crate) fn room(&self, direction: Direction, now: Instant) -> usize {
        let rooms = self.lanes(direction).map(|lane| lane.room(now));
        usize::try_from(rooms.min().unwrap_or(u64::MAX)).unwrap_or(usize::MAX)
    }

    /// So many bytes of a stream have gone by.
    pub(crate) fn charge(&self, direction: Direction, now: Instant, len: usize) {
        for lane in self.lanes(direction) {
            lane.offered.fetch_add(len as u64, Ordering::Relaxed);
            lane.charge(now, len as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn of_tenant(rates: [u64; 2]) -> Shapers {
        Shapers {
            tenant: Some(Arc::new(Shaper::new(rates))),
            user: None,
        }
    }

    /// Bytes that go through when `len` bytes come each millisecond for `millis`.
    fn passed(shapers: &Shapers, from: u64, millis: u64, len: usize) -> usize {
        let admitted = (0..millis).filter(|at| {
            let now = Instant(from + at * 1_000_000);
            shapers.admit(Direction::ToPeers, now, len)
        });
        admitted.count() * len
    }

    #[test]
    fn a_rate_holds_within_a_hundredth_after_its_burst() {
        for rate in [100_000u64, 10_000_000, 1_000_000_000] {
            let shapers = of_tenant([rate, 0]);
            // Twice the rate comes in.
            let len = usize::try_from(rate / 8 / 500).unwrap();
            let burst = passed(&shapers, SECOND, 1000, len);
            let steady = passed(&shapers, 2 * SECOND, 10_000, len);
            let expected = usize::try_from(rate / 8 * 10).unwrap();
            assert!(burst <= expected / 8 + 2 * len, "{rate}: burst {burst}");
            assert!(
                steady.abs_diff(expected) <= expected / 100,
                "{rate}: {steady} of {expected}"
            );
        }
    }

    #[test]
    fn the_other_direction_and_a_rate_of_zero_have_no_bound() {
        let shapers = of_tenant([1, 0]);
        let now = Instant(SECOND);
        for _ in 0..1000 {
            assert!(shapers.admit(Direction::ToClient, now, 1200));
        }
        assert!(shapers.admit(Direction::ToPeers, now, 1200));
        assert!(!shapers.admit(Direction::ToPeers, now, 1200));
        assert_eq!(shapers.room(Direction::ToPeers, now), 0);
        assert_eq!(shapers.room(Direction::ToClient, now), usize::MAX);
    }

    #[test]
    fn what_one_of_the_two_refuses_costs_the_other_nothing() {
        let user = Arc::new(Shaper::new([8_000, 0]));
        let shapers = Shapers {
            user: Some(Arc::clone(&user)),
            ..of_tenant([8_000_000, 0])
        };
        let now = Instant(SECOND);
        while shapers.admit(Direction::ToPeers, now, 100) {}
        let tenant = shapers.tenant.as_ref().unwrap().lane(Direction::ToPeers);
        let room = tenant.room(now);
        assert!(!shapers.admit(Direction::ToPeers, now, 100));
        assert_eq!(tenant.room(now), room);
        assert!(user.offered()[0] >= 200, "what was refused was offered");
    }

    #[test]
    fn a_changed_rate_holds_at_once() {
        let shapers = of_tenant([1_000_000, 0]);
        let shaper = shapers.tenant.clone().unwrap();
        passed(&shapers, SECOND, 1000, 1000);
        shaper.set_rates([10_000_000, 0]);
        let steady = passed(&shapers, 3 * SECOND, 1000, 5000);
        let expected = 10_000_000 / 8 * 5 / 4;
        assert!(steady.abs_diff(expected) <= expected / 50, "{steady}");
    }

    #[test]
    fn a_stream_is_told_how_much_it_may_read() {
        let shapers = of_tenant([0, 800_000]);
        let now = Instant(SECOND);
        assert_eq!(shapers.room(Direction::ToClient, now), 25_000);
        shapers.charge(Direction::ToClient, now, 20_000);
        assert_eq!(shapers.room(Direction::ToClient, now), 5_000);
        shapers.charge(Direction::ToClient, now, 20_000);
        assert_eq!(shapers.room(Direction::ToClient, now), 0);
        let later = now.after(Duration::from_millis(200));
        assert_eq!(shapers.room(Direction::ToClient, later), 5_000);
    }
}
