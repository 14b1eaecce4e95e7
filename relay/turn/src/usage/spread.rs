//! About how many different things were seen, in 64 bytes.
//!
//! Linear counting: each thing sets one bit of 512, and the number of bits that are set tells how many there were. A few
//! are told to within one or two, some hundreds to within a tenth; more than two thousand look alike. What several relays
//! saw is put together by adding the bits, so all of them use one hash.

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread([u64; WORDS]);

const WORDS: usize = 8;
const BITS: u32 = 512;

impl Spread {
    /// The number of bytes of its form on the wire.
    pub const LEN: usize = WORDS * 8;

    /// Notes a thing.
    pub fn insert(&mut self, thing: &[u8]) {
        let hash = hash(thing);
        let word = usize::try_from((hash >> 6) % WORDS as u64).unwrap_or(0);
        self.0[word] |= 1 << (hash % 64);
    }

    /// Adds what `other` has seen.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine |= theirs;
        }
    }

    /// About how many there were: as many as it takes, on average, to set so many bits.
    #[must_use]
    pub fn estimate(&self) -> u32 {
        let set: u32 = self.0.iter().map(|word| word.count_ones()).sum();
        let draws: u32 = (0..set).map(|n| (BITS << 12) / (BITS - n)).sum();
        (draws + (1 << 11)) >> 12
    }

    /// Its form on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    /// Reads what [`Self::to_bytes`] made; `None` for anything of another length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        let (chunks, _) = bytes.as_chunks::<8>();
        let mut words = [0; WORDS];
        for (word, chunk) in words.iter_mut().zip(chunks) {
            *word = u64::from_be_bytes(*chunk);
        }
        Some(Self(words))
    }
}

/// FNV-1a with the finish of `SplitMix64`, which spreads its weak low bits. Whoever chooses collisions looks less spread than
/// it is, as one does who spreads less.
fn hash(thing: &[u8]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in thing {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(things: std::ops::Range<u32>) -> Spread {
        let mut spread = Spread::default();
        for thing in things {
            spread.insert(&thing.to_be_bytes());
        }
        spread
    }

    #[test]
    fn the_estimate_is_near_the_number_of_different_things() {
        for (count, error) in [(0, 0), (1, 0), (20, 2), (100, 8), (500, 50), (1000, 120)] {
            let estimate = of(0..count).estimate();
            assert!(estimate.abs_diff(count) <= error, "{count}: {estimate}");
        }
        assert!(of(0..100_000).estimate() > 2000);
    }

    #[test]
    fn what_two_have_seen_is_put_together_without_counting_twice() {
        let (mut one, other) = (of(0..15), of(10..25));
        one.add(&other);
        assert_eq!(one, of(0..25));
        assert_eq!(Spread::from_bytes(&one.to_bytes()), Some(one));
        assert_eq!(Spread::from_bytes(&[0; 7]), None);
    }
}
