//! What is sent: a stamp that says what it is and when it left, and bytes that show whether it arrived whole.
//!
//! ```text
//! 0      4      8          16         24         32
//! | mark | flow | sequence | sent at  | zero     | (sequence + index) mod 256 ...
//! ```

/// The shortest payload: the stamp alone.
pub(super) const MIN_LEN: usize = 32;

/// Which way a payload goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the flow's client.
    ToPeer,
    /// To the flow's client.
    ToClient,
}

impl Direction {
    fn mark(self) -> [u8; 4] {
        match self {
            Self::ToPeer => *b"tfp1",
            Self::ToClient => *b"tfc1",
        }
    }
}

/// What a payload says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) direction: Direction,
    pub(super) flow: u32,
    pub(super) sequence: u64,
    /// Nanoseconds on the clock of the run.
    pub(super) sent_at: u64,
}

impl Stamp {
    /// Fills `payload`, which has [`MIN_LEN`] bytes at least.
    pub(super) fn write(&self, payload: &mut [u8]) {
        payload[0..4].copy_from_slice(&self.direction.mark());
        payload[4..8].copy_from_slice(&self.flow.to_be_bytes());
        payload[8..16].copy_from_slice(&self.sequence.to_be_bytes());
        payload[16..24].copy_from_slice(&self.sent_at.to_be_bytes());
        payload[24..MIN_LEN].fill(0);
        let [.., base] = self.sequence.to_be_bytes();
        for (byte, expected) in payload[MIN_LEN..].iter_mut().zip(pattern(base)) {
            *byte = expected;
        }
    }

    /// The stamp of `payload`; `None` where it is not one of ours, or not as it was sent.
    pub(super) fn verify(payload: &[u8]) -> Option<Self> {
        let direction = [Direction::ToPeer, Direction::ToClient]
            .into_iter()
            .find(|direction| payload.starts_with(&direction.mark()))?;
        let number = |at: usize| Some(u64::from_be_bytes(*payload.get(at..)?.first_chunk()?));
        let flow = u32::from_be_bytes(*payload.get(4..)?.first_chunk()?);
        let stamp = Self {
            direction,
            flow,
            sequence: number(8)?,
            sent_at: number(16)?,
        };
        let [.., base] = stamp.sequence.to_be_bytes();
        let whole = payload
            .get(MIN_LEN..)?
            .iter()
            .zip(pattern(base))
            .all(|(byte, expected)| *byte == expected);
        whole.then_some(stamp)
    }
}

/// The bytes behind the stamp: counting up from `base`, around and around.
fn pattern(base: u8) -> impl Iterator<Item = u8> {
    (0..=u8::MAX)
        .cycle()
        .map(move |index: u8| base.wrapping_add(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_that_was_altered_is_not_verified() {
        let stamp = Stamp {
            direction: Direction::ToPeer,
            flow: 7,
            sequence: 300,
            sent_at: 5,
        };
        let mut payload = [0xFF; 160];
        stamp.write(&mut payload);
        assert_eq!(Stamp::verify(&payload), Some(stamp));
        assert_eq!(Stamp::verify(&payload[..31]), None);
        payload[100] ^= 1;
        assert_eq!(Stamp::verify(&payload), None);
    }
}
