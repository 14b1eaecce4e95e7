//! Time as the core sees it: a value that the caller brings along.

use std::time::Duration;

/// Nanoseconds of a monotonic clock whose origin only the caller knows (the relay's driver uses `CLOCK_MONOTONIC`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// The instant `duration` later; saturates at the end of time.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// How long after `earlier` this instant is; zero if it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The one reading of the clocks that a batch of inputs shares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock: lifetimes, permissions and timers.
    pub instant: Instant,
    /// Seconds since the Unix epoch: expiry of ephemeral credentials and age of nonces.
    pub unix: u64,
}
