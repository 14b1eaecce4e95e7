//! Random damage for the tests of the parsers that strangers' first bytes meet: the same for the same seed.

/// A small generator of random numbers.
pub(super) struct Noise(u64);

impl Noise {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        // Knuth's linear congruential generator; its upper bits are good enough.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }

    /// Changes, cuts or lengthens `bytes`.
    pub(super) fn spoil(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let place = self.below(bytes.len().max(1));
            match self.below(5) {
                0 => bytes.truncate(place),
                1 => bytes.insert(place, self.byte()),
                2 => bytes.push(self.byte()),
                _ => {
                    if let Some(byte) = bytes.get_mut(place) {
                        *byte = self.byte();
                    }
                }
            }
        }
    }
}
