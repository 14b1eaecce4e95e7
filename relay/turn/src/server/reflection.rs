//! How many answers an address may have that has proven nothing: a spoofed source must not turn the server into a
//! reflector, and a legitimate client behind a spoofed address must still get in.
//!
//! Each source (an IPv4 address or an IPv6 /64) may have so many answers at once and so many a second, Binding responses
//! and errors apart. A fifth of the rate is kept for retransmissions: a flood of ever different packets cannot use it, and
//! a repeated packet uses it a few times only, so that a client gets in with its first retransmission.
//!
//! Memory is fixed. Budgets stand in two rows of slots picked by a keyed hash of the source, and an answer is allowed as
//! long as either slot has room: whoever shares one slot with a flooded source has the other. Nothing is evicted, so no
//! number of sources gives a victim a fresh budget. TCP, TLS and five-tuples with an allocation never come here.

use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};

use foldhash::quality::FixedState;

use crate::peer_filter::Cidr;
use crate::random::Random;
use crate::time::Instant;
use crate::wire::TransactionId;

const TICKS_PER_SECOND: u32 = 100_000;
const NANOS_PER_TICK: u64 = 10_000;

/// Answers that an unknown source may have at once beyond its rate, of each kind.
const BURST: u32 = 1000;
/// A source that authenticated within this time has ten times the errors.
const PROVEN_FOR_SECONDS: u32 = 600;
const PROVEN_FACTOR: u32 = 10;

/// Retransmissions of one request that are answered: RFC 8489 §6.2.1 sends it seven times in all.
const MAX_RETRANSMISSIONS: u16 = 7;
/// Sightings are dated in 1/64 s.
const SIGHTINGS_PER_SECOND: u16 = 64;
/// What comes again within 200 ms is a repetition of a flood: a client waits for longer (RFC 8489 §6.2.1).
const RETRANSMITTED_AFTER: u16 = SIGHTINGS_PER_SECOND / 5 + 2;
/// A client has given up after 39.5 seconds.
const FORGOTTEN_AFTER: u16 = 40 * SIGHTINGS_PER_SECOND;

const SLOTS: usize = 4096;
const PROVEN_SETS: usize = 1024;
const SIGHTING_SETS: usize = 4096;
const WAYS: usize = 8;

/// What an unproven source asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerKind {
    /// An error to a request whose integrity was not verified: 401, 438, 400, 420 and the like. 100 a second.
    Challenge,
    /// A Binding success response. 300 a second.
    Binding,
}

/// The budgets of all sources of one shard, in less than 512 kB.
#[derive(Debug)]
pub struct ReflectionBudget {
    trusted_sources: Vec<Cidr>,
    hasher: FixedState,
    challenge: Tariff,
    binding: Tariff,
    rows: [Box<[Slot]>; 2],
    /// Sources that authenticated, with the second at which they last did.
    proven: TagTable<u32>,
    /// Requests that were refused an answer.
    sightings: TagTable<Sighting>,
}

/// The prices of answers of one kind.
#[derive(Clone, Copy, Debug)]
struct Tariff {
    first: Price,
    retransmitted: Price,
}

/// One answer costs `interval`, as long as the source is not more than `window` ahead of time.
#[derive(Clone, Copy, Debug)]
struct Price {
    interval: u32,
    window: u32,
}

/// Until when a source has used up its budgets, in ticks modulo 2^32.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    challenge: Spent,
    binding: Spent,
}

#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    first: u32,
    retransmitted: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sighting {
    first_seen: u16,
    retransmissions: u16,
}

/// One reading of the clock in the units of the tables, each modulo its size.
#[derive(Clone, Copy)]
struct Moment {
    tick: u32,
    second: u32,
    sighting: u16,
}

impl ReflectionBudget {
    /// Full budgets for one of `shards` shards, among which the relay's rates are divided. Loopback and
    /// `trusted_sources` have no budget; `seed` keeps others from choosing who shares a slot.
    #[must_use]
    pub fn new(shards: u8, trusted_sources: Vec<Cidr>, seed: [u8; 32]) -> Self {
        let shards = u32::from(shards.max(1));
        Self {
            trusted_sources,
            hasher: FixedState::with_seed(Random::new(seed).u64()),
            challenge: Tariff::of(100, shards),
            binding: Tariff::of(300, shards),
            rows: std::array::from_fn(|_| vec![Slot::default(); SLOTS].into_boxed_slice()),
            proven: TagTable::new(PROVEN_SETS),
            sightings: TagTable::new(SIGHTING_SETS),
        }
    }

    /// Whether the request `id` of `source` may be answered. Each yes is charged, so it is asked once for each answer.
    pub fn answer_allowed(
        &mut self,
        now: Instant,
        source: SocketAddr,
        kind: AnswerKind,
        id: TransactionId,
    ) -> bool {
        let ip = source.ip().to_canonical();
        if ip.is_loopback() || self.trusted_sources.iter().any(|block| block.contains(ip)) {
            return true;
        }
        let now = Moment::of(now);
        let hash = self.hash_of(ip);
        let (tariff, factor) = match kind {
            AnswerKind::Challenge if self.is_proven(now, hash) => (self.challenge, PROVEN_FACTOR),
            AnswerKind::Challenge => (self.challenge, 1),
            AnswerKind::Binding => (self.binding, 1),
        };
        self.charge(now, hash, tariff.first, factor, |slot| {
            &mut slot.spent(kind).first
        }) || self.is_retransmission(now, (ip, source.port(), id))
            && self.charge(now, hash, tariff.retransmitted, factor, |slot| {
                &mut slot.spent(kind).retransmitted
            })
    }

    /// A request of `source` was authenticated: one challenge is paid back, and the source is known for ten minutes.
    pub fn authenticated(&mut self, now: Instant, source: SocketAddr) {
        let now = Moment::of(now);
        let hash = self.hash_of(source.ip().to_canonical());
        let price = self.challenge.first;
        for slot in slots(&mut self.rows, hash) {
            let ahead = price.ahead(slot.challenge.first, now);
            let paid_back = ahead.saturating_sub(price.interval / PROVEN_FACTOR);
            slot.challenge.first = now.tick.wrapping_add(paid_back);
        }
        let (proven_at, _) = self.proven.entry(hash, |at| now.second.wrapping_sub(at));
        *proven_at = now.second;
    }

    fn is_proven(&self, now: Moment, hash: u64) -> bool {
        let proven_at = self.proven.find(hash);
        proven_at.is_some_and(|at| now.second.wrapping_sub(at) < PROVEN_FOR_SECONDS)
    }

    /// Takes the price of one answer from each of the two slots that has room for it; `false` where none has.
    fn charge(
        &mut self,
        now: Moment,
        hash: u64,
        price: Price,
        factor: u32,
        field: impl Fn(&mut Slot) -> &mut u32,
    ) -> bool {
        let mut allowed = false;
        for slot in slots(&mut self.rows, hash) {
            let spent_until = field(slot);
            let ahead = price.ahead(*spent_until, now) + price.interval / factor;
            if ahead <= price.window {
                *spent_until = now.tick.wrapping_add(ahead);
                allowed = true;
            }
        }
        allowed
    }

    /// Whether a request that is to go without an answer has done so before, long enough ago and not too often. It is
    /// remembered in any case.
    fn is_retransmission(&mut self, now: Moment, request: (IpAddr, u16, TransactionId)) -> bool {
        let hash = self.hasher.hash_one(request);
        let age = |sighting: Sighting| now.sighting.wrapping_sub(sighting.first_seen);
        let (sighting, is_known) = self.sightings.entry(hash, |sighting| age(sighting).into());
        if !is_known || age(*sighting) > FORGOTTEN_AFTER {
            *sighting = Sighting {
                first_seen: now.sighting,
                retransmissions: 0,
            };
            return false;
        }
        let counts =
            age(*sighting) >= RETRANSMITTED_AFTER && sighting.retransmissions < MAX_RETRANSMISSIONS;
        if counts {
            sighting.retransmissions += 1;
        }
        counts
    }

    fn hash_of(&self, ip: IpAddr) -> u64 {
        match ip {
            IpAddr::V4(ip) => self.hasher.hash_one(ip.octets()),
            IpAddr::V6(ip) => {
                let [network @ .., _, _, _, _] = ip.segments();
                self.hasher.hash_one::<[u16; 4]>(network)
            }
        }
    }
}

impl Tariff {
    /// `rate` answers a second over all shards, of which a fifth is kept for retransmissions.
    fn of(rate: u32, shards: u32) -> Self {
        let kept = rate / 5;
        // A fifth of a second's worth at once for retransmissions, and the rest of the burst for what is seen first.
        Self {
            first: Price::of(rate - kept, BURST - kept, shards),
            retransmitted: Price::of(kept, kept, shards),
        }
    }
}

impl Price {
    /// A shard has its part of rate and burst, and of both so much that one answer can be had.
    fn of(rate: u32, burst: u32, shards: u32) -> Self {
        let interval = (TICKS_PER_SECOND * shards).div_ceil(rate);
        let window = burst * TICKS_PER_SECOND / rate;
        Self {
            interval,
            window: window.max(interval),
        }
    }

    /// By how many ticks a source is ahead of its rate. What is in the past, or further ahead than can be, is none.
    fn ahead(self, spent_until: u32, now: Moment) -> u32 {
        let ahead = spent_until.wrapping_sub(now.tick);
        if ahead <= self.window { ahead } else { 0 }
    }
}

impl Slot {
    fn spent(&mut self, kind: AnswerKind) -> &mut Spent {
        match kind {
            AnswerKind::Challenge => &mut self.challenge,
            AnswerKind::Binding => &mut self.binding,
        }
    }
}

impl Moment {
    fn of(now: Instant) -> Self {
        let seconds = now.0 / 1_000_000_000;
        let [.., sighting_high, sighting_low] =
            (now.0 / (1_000_000_000 / u64::from(SIGHTINGS_PER_SECOND))).to_be_bytes();
        Self {
            tick: low_half(now.0 / NANOS_PER_TICK),
            second: low_half(seconds),
            sighting: u16::from_be_bytes([sighting_high, sighting_low]),
        }
    }
}

fn slots(rows: &mut [Box<[Slot]>; 2], hash: u64) -> [&mut Slot; 2] {
    let [one, other] = rows;
    let index = |hash: u64| low_half(hash) as usize % SLOTS;
    [
        &mut one[index(hash)],
        &mut other[index(hash / SLOTS as u64)],
    ]
}

fn low_half(value: u64) -> u32 {
    let [.., a, b, c, d] = value.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// A table of fixed size from 32-bit tags to values: in a full set the oldest entry makes room.
#[derive(Debug)]
struct TagTable<V> {
    sets: Box<[[(u32, V); WAYS]]>,
}

impl<V: Copy + Default> TagTable<V> {
    fn new(sets: usize) -> Self {
        Self {
            sets: vec![[(0, V::default()); WAYS]; sets].into_boxed_slice(),
        }
    }

    /// The value of `hash`, and whether it was there before; else it is the default.
    fn entry(&mut self, hash: u64, age: impl Fn(V) -> u32) -> (&mut V, bool) {
        let (index, tag) = self.place(hash);
        let set = &mut self.sets[index];
        let known = set.iter().position(|&(other, _)| other == tag);
        let way = known.unwrap_or_else(|| {
            let age_of = |way: &usize| match set[*way] {
                (0, _) => u32::MAX,
                (_, value) => age(value),
            };
            (0..WAYS).max_by_key(age_of).expect("a set has ways")
        });
        if known.is_none() {
            set[way] = (tag, V::default());
        }
        (&mut set[way].1, known.is_some())
    }

    fn find(&self, hash: u64) -> Option<V> {
        let (index, tag) = self.place(hash);
        self.sets[index]
            .iter()
            .find(|(other, _)| *other == tag)
            .map(|&(_, value)| value)
    }

    /// The set and the tag, from different bits. Zero marks an entry that is empty.
    fn place(&self, hash: u64) -> (usize, u32) {
        (
            low_half(hash) as usize % self.sets.len(),
            low_half(hash >> 32).max(1),
        )
    }
}

#[cfg(test)]
mod tests;
