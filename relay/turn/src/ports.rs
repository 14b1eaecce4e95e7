//! The ports of one public address: which are granted, which are in use, and which of the free ones goes out next.
//!
//! A port is drawn at random from the longest-idle half of the free ports: unpredictable, and long enough out of use that
//! the peers of its last allocation have forgotten it. Even and odd ports rest apart, so that EVEN-PORT has as many to draw
//! from when nothing else is asked for. Under pressure a port goes out again at once, which is counted; only when none is
//! left is there none.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::random::Random;
use crate::time::Instant;

/// A port that goes out again before it was idle for this long is counted.
const REST: Duration = Duration::from_secs(60);

const PORTS: usize = 1 << 16;
const PORTS_PER_WORD: usize = 64;
const WORDS_PER_BLOCK: usize = 16;
const EVEN_PORTS: u64 = 0x5555_5555_5555_5555;

/// What an Allocate request asks of its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortRequest {
    /// Nothing.
    Any,
    /// EVEN-PORT with R = 0 (RFC 8656 §18.7): an even port; its neighbour is not touched.
    Even,
    /// EVEN-PORT with R = 1: an even port, and the next higher one with it.
    EvenWithNext,
}

impl PortRequest {
    const ALL: [Self; 3] = [Self::Any, Self::Even, Self::EvenWithNext];

    /// The ports of `word` that fit the request. A pair never lies across two words: 64 is even.
    fn fits(self, word: u64) -> u64 {
        match self {
            Self::Any => word,
            Self::Even => word & EVEN_PORTS,
            Self::EvenWithNext => word & (word >> 1) & EVEN_PORTS,
        }
    }
}

/// The ports of one public address. To draw takes at most 80 steps more than the constant time of a release; memory is
/// eight bytes for each port that was ever granted, and 40 kB.
#[derive(Debug)]
pub struct PortPool {
    granted: PortSet,
    used: PortSet,
    free: PortSet,
    /// At least half of the free ports of each parity, idle for at least as long as those of the same parity in `recent`.
    rested: PortSet,
    /// The other free ports.
    recent: IdleQueues,
    /// The second at which each port was last in use, plus one; zero where it never was.
    last_used: Box<[u32]>,
    reused_at_once: u64,
    unavailable: u64,
}

impl Default for PortPool {
    fn default() -> Self {
        Self::new()
    }
}

impl PortPool {
    /// A pool without ports.
    #[must_use]
    pub fn new() -> Self {
        Self {
            granted: PortSet::new(),
            used: PortSet::new(),
            free: PortSet::new(),
            rested: PortSet::new(),
            recent: IdleQueues::new(),
            last_used: vec![0; PORTS].into_boxed_slice(),
            reused_at_once: 0,
            unavailable: 0,
        }
    }

    /// Replaces the granted ranges, which may overlap; ports 0 and 1 are never granted. A port that is in use outside of them
    /// stays in use, and does not come back when it is released.
    pub fn set_granted(&mut self, ranges: impl IntoIterator<Item = RangeInclusive<u16>>) {
        let mut wanted = PortSet::new();
        for ports in ranges {
            wanted.insert_all(ports);
        }
        wanted.remove(0);
        wanted.remove(1);
        if wanted == self.granted {
            return;
        }
        for port in self.granted.minus(&wanted) {
            if self.free.contains(port) {
                self.unlist(port);
            }
        }
        let added = wanted.minus(&self.granted);
        self.granted = wanted;
        for port in added {
            if !self.used.contains(port) {
                self.list(port);
            }
        }
        self.balance();
    }

    /// Takes a port out of the pool; `None` where no free one fits. With [`PortRequest::EvenWithNext`] the next higher
    /// port is taken too, and is released on its own.
    pub fn draw(&mut self, request: PortRequest, random: &mut Random, now: Instant) -> Option<u16> {
        // Half of the pairs need not be rested where even and odd ports rest apart; too few of them could be foreseen.
        let enough = self.free.count(request).div_ceil(8);
        let set = if self.rested.count(request) >= enough {
            &self.rested
        } else {
            &self.free
        };
        let port = set.draw(request, random)?;
        self.take(port, now);
        if request == PortRequest::EvenWithNext {
            self.take(port + 1, now);
        }
        self.balance();
        Some(port)
    }

    /// Gives a drawn port back. Ignored where the port is not in use.
    pub fn release(&mut self, port: u16, now: Instant) {
        if !self.used.contains(port) {
            return;
        }
        self.used.remove(port);
        self.last_used[usize::from(port)] = second(now);
        if self.granted.contains(port) {
            self.list(port);
            self.balance();
        }
    }

    /// Gives a drawn port back that somebody else on this machine holds: it is the last to be tried again.
    pub fn mark_unavailable(&mut self, port: u16, now: Instant) {
        self.unavailable += 1;
        self.release(port, now);
    }

    /// How many ports are granted.
    #[must_use]
    pub fn granted(&self) -> u32 {
        self.granted.len()
    }

    /// How many ports are in use, those outside of the granted ranges included.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.used.len()
    }

    /// The granted ports, as runs from their first to their last one.
    #[must_use]
    pub fn open_runs(&self) -> Vec<(u16, u16)> {
        runs(self.granted.minus(&PortSet::new()), 1)
    }

    /// Where ports are in use that are not granted, as runs; at most 256 of them, because close ones count as one.
    #[must_use]
    pub fn withdrawn_runs(&self) -> Vec<(u16, u16)> {
        runs(self.used.minus(&self.granted), 256)
    }

    /// How many ports can be drawn.
    #[must_use]
    pub fn free(&self) -> u32 {
        self.free.len()
    }

    /// How many ports went out again within a minute of their last use.
    #[must_use]
    pub fn reused_at_once(&self) -> u64 {
        self.reused_at_once
    }

    /// How many drawn ports turned out to be somebody else's.
    #[must_use]
    pub fn unavailable(&self) -> u64 {
        self.unavailable
    }

    fn take(&mut self, port: u16, now: Instant) {
        self.unlist(port);
        self.used.insert(port);
        let last_used = self.last_used[usize::from(port)];
        let rested_until = u64::from(last_used) + REST.as_secs();
        if last_used != 0 && u64::from(second(now)) < rested_until {
            self.reused_at_once += 1;
        }
    }

    /// Adds a port to the free ones. What was never used is idle for longer than all that was.
    fn list(&mut self, port: u16) {
        self.free.insert(port);
        if self.last_used[usize::from(port)] == 0 {
            self.rested.insert(port);
        } else {
            self.recent.push(port);
        }
    }

    fn unlist(&mut self, port: u16) {
        self.free.remove(port);
        if self.rested.contains(port) {
            self.rested.remove(port);
        } else {
            self.recent.unlink(port);
        }
    }

    fn balance(&mut self) {
        for parity in [Parity::Even, Parity::Odd] {
            while self.rested.count_of(parity) < self.free.count_of(parity).div_ceil(2) {
                let port = self
                    .recent
                    .pop(parity)
                    .expect("what is free and not rested is recent");
                self.rested.insert(port);
            }
        }
    }
}

/// Ascending `ports` as runs; two that lie at most `reach` apart belong to one.
fn runs(ports: Vec<u16>, reach: u16) -> Vec<(u16, u16)> {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for port in ports {
        match runs.last_mut() {
            Some((_, last)) if port - *last <= reach => *last = port,
            Some(_) | None => runs.push((port, port)),
        }
    }
    runs
}

#[derive(Clone, Copy)]
enum Parity {
    Even = 0,
    Odd = 1,
}

fn second(now: Instant) -> u32 {
    let seconds = now.since(Instant(0)).as_secs();
    u32::try_from(seconds).unwrap_or(u32::MAX).saturating_add(1)
}

/// A set of ports that can draw one at random: a bit for each port, and for each block of 1,024 ports how many members
/// fit each kind of request.
#[derive(Debug, PartialEq, Eq)]
struct PortSet {
    words: Box<[u64]>,
    blocks: Box<[[u32; PortRequest::ALL.len()]]>,
    total: [u32; PortRequest::ALL.len()],
}

impl PortSet {
    fn new() -> Self {
        let words = PORTS / PORTS_PER_WORD;
        Self {
            words: vec![0; words].into_boxed_slice(),
            blocks: vec![[0; PortRequest::ALL.len()]; words / WORDS_PER_BLOCK].into_boxed_slice(),
            total: [0; PortRequest::ALL.len()],
        }
    }

    fn len(&self) -> u32 {
        self.count(PortRequest::Any)
    }

    /// How many members fit the request.
    fn count(&self, request: PortRequest) -> u32 {
        self.total[request as usize]
    }

    fn count_of(&self, parity: Parity) -> u32 {
        let even = self.count(PortRequest::Even);
        match parity {
            Parity::Even => even,
            Parity::Odd => self.len() - even,
        }
    }

    fn contains(&self, port: u16) -> bool {
        let (index, bit) = place(port);
        self.words[index] & bit != 0
    }

    fn insert(&mut self, port: u16) {
        let (index, bit) = place(port);
        self.replace(index, self.words[index] | bit);
    }

    fn insert_all(&mut self, ports: RangeInclusive<u16>) {
        let ((first, first_bit), (last, last_bit)) = (place(*ports.start()), place(*ports.end()));
        for index in first..=last {
            let from = if index == first { first_bit } else { 1 };
            let to = if index == last { last_bit } else { 1 << 63 };
            // The bits from the one of `from` to the one of `to`, and none where a range is empty.
            let bits = from.wrapping_neg() & (to | (to - 1));
            self.replace(index, self.words[index] | bits);
        }
    }

    fn remove(&mut self, port: u16) {
        let (index, bit) = place(port);
        self.replace(index, self.words[index] & !bit);
    }

    fn replace(&mut self, index: usize, after: u64) {
        let before = std::mem::replace(&mut self.words[index], after);
        let block = &mut self.blocks[index / WORDS_PER_BLOCK];
        for request in PortRequest::ALL {
            let (gone, come) = (
                request.fits(before).count_ones(),
                request.fits(after).count_ones(),
            );
            for count in [
                &mut block[request as usize],
                &mut self.total[request as usize],
            ] {
                *count = *count + come - gone;
            }
        }
    }

    /// A member that fits, all that fit being equally likely. It stays in the set.
    fn draw(&self, request: PortRequest, random: &mut Random) -> Option<u16> {
        let fitting = self.count(request);
        (fitting > 0).then(|| self.nth(request, random.below(fitting)))
    }

    /// The member that `skip` fitting ones come before; there are more than that.
    fn nth(&self, request: PortRequest, mut skip: u32) -> u16 {
        let mut block = 0;
        while skip >= self.blocks[block][request as usize] {
            skip -= self.blocks[block][request as usize];
            block += 1;
        }
        let mut index = block * WORDS_PER_BLOCK;
        let mut fitting = request.fits(self.words[index]);
        while skip >= fitting.count_ones() {
            skip -= fitting.count_ones();
            index += 1;
            fitting = request.fits(self.words[index]);
        }
        for _ in 0..skip {
            fitting &= fitting - 1;
        }
        port_at(index, fitting)
    }

    /// The members that `other` does not have.
    fn minus(&self, other: &Self) -> Vec<u16> {
        let mut ports = Vec::new();
        for (index, (mine, theirs)) in self.words.iter().zip(&other.words).enumerate() {
            let mut left = mine & !theirs;
            while left != 0 {
                ports.push(port_at(index, left));
                left &= left - 1;
            }
        }
        ports
    }
}

fn place(port: u16) -> (usize, u64) {
    let port = usize::from(port);
    (port / PORTS_PER_WORD, 1 << (port % PORTS_PER_WORD))
}

/// The lowest port of `bits` in the word at `index`.
fn port_at(index: usize, bits: u64) -> u16 {
    let port = index * PORTS_PER_WORD + bits.trailing_zeros() as usize;
    u16::try_from(port).expect("the words hold 65,536 bits, and `bits` is not empty")
}

/// Even and odd ports in the order in which they came to rest: two rings of links, through port 0 and through port 1,
/// which are never granted.
#[derive(Debug)]
struct IdleQueues {
    next: Box<[u16]>,
    previous: Box<[u16]>,
}

impl IdleQueues {
    fn new() -> Self {
        let mut queues = Self {
            next: vec![0; PORTS].into_boxed_slice(),
            previous: vec![0; PORTS].into_boxed_slice(),
        };
        queues.link(Parity::Even as u16, Parity::Even as u16);
        queues.link(Parity::Odd as u16, Parity::Odd as u16);
        queues
    }

    fn push(&mut self, port: u16) {
        let ring = port % 2;
        let last = self.previous[usize::from(ring)];
        self.link(last, port);
        self.link(port, ring);
    }

    /// Takes out the port that is idle for the longest.
    fn pop(&mut self, parity: Parity) -> Option<u16> {
        let ring = parity as u16;
        let first = self.next[usize::from(ring)];
        (first != ring).then(|| {
            self.unlink(first);
            first
        })
    }

    fn unlink(&mut self, port: u16) {
        let (before, after) = (
            self.previous[usize::from(port)],
            self.next[usize::from(port)],
        );
        self.link(before, after);
    }

    fn link(&mut self, before: u16, after: u16) {
        self.next[usize::from(before)] = after;
        self.previous[usize::from(after)] = before;
    }
}
