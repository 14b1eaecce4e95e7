//! The one source of randomness of the core: a stream that follows from a seed, so that a run can be repeated.
//!
//! SHA-256 over the seed and a counter: whoever does not know the seed cannot tell the stream from noise, and what was
//! drawn so far does not give away what comes. Ports, transaction ids, reservation tokens and hash keys come from here.

use std::fmt;

use sha2::{Digest, Sha256};

const BLOCK: usize = 32;

/// The hash of every map whose keys a client chooses: seeded for each shard, so that nobody can choose collisions.
pub(crate) type KeyedHash = foldhash::fast::FixedState;

/// A deterministic generator for unpredictable numbers.
#[derive(Clone)]
pub struct Random {
    seed: [u8; 32],
    blocks_made: u64,
    block: [u8; BLOCK],
    used: usize,
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Random(..)")
    }
}

impl Random {
    /// The stream of `seed`, which must be unpredictable: 32 bytes of the operating system's.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            seed,
            blocks_made: 0,
            block: [0; BLOCK],
            used: BLOCK,
        }
    }

    /// Fills `out` with random bytes.
    pub fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            if self.used == BLOCK {
                self.refill();
            }
            *byte = self.block[self.used];
            self.used += 1;
        }
    }

    /// Random bytes as an array: `let id: [u8; 12] = random.bytes();`.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }

    /// Any number, all equally likely.
    pub fn u32(&mut self) -> u32 {
        u32::from_ne_bytes(self.bytes())
    }

    /// Any number, all equally likely.
    pub fn u64(&mut self) -> u64 {
        u64::from_ne_bytes(self.bytes())
    }

    /// A number below `bound`, all equally likely.
    ///
    /// # Panics
    /// When `bound` is zero: there is no such number.
    pub fn below(&mut self, bound: u32) -> u32 {
        assert!(bound > 0, "no number is below zero");
        // Beyond the last whole multiple of the bound the small remainders would be likelier.
        let fair = u32::MAX - u32::MAX % bound;
        loop {
            let drawn = self.u32();
            if drawn < fair {
                return drawn % bound;
            }
        }
    }

    fn refill(&mut self) {
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(self.blocks_made.to_be_bytes());
        self.block = hash.finalize().into();
        self.blocks_made += 1;
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn the_same_seed_gives_the_same_stream_whatever_the_size_of_the_reads() {
        let mut whole = [0; 100];
        Random::new([7; 32]).fill(&mut whole);

        let mut pieces = Random::new([7; 32]);
        let mut joined = Vec::new();
        for size in [1, 31, 2, 60, 6] {
            let mut piece = vec![0; size];
            pieces.fill(&mut piece);
            joined.extend(piece);
        }
        assert_eq!(joined, whole);
        assert_ne!(Random::new([8; 32]).bytes::<32>(), whole[..32]);
    }

    #[test]
    fn numbers_below_a_bound_are_equally_likely() {
        let mut random = Random::new([1; 32]);
        let mut seen = [0u32; 10];
        for _ in 0..100_000 {
            seen[random.below(10) as usize] += 1;
        }
        // Nine degrees of freedom: 27.9 is exceeded once in a thousand.
        let chi_square: f64 = seen
            .iter()
            .map(|&n| (f64::from(n) - 1e4).powi(2) / 1e4)
            .sum();
        assert!(chi_square < 27.9, "{seen:?}");
        assert_eq!(random.below(1), 0);
    }
}
