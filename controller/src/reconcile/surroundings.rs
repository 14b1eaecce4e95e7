//! What the reconciler takes from the world beside its store: the clocks, and chance. A simulation brings its own.

use std::sync::Arc;

use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::Instant as TokioInstant;
use turnfleet_turn::{Instant, Now};

use crate::wall_clock::since_epoch;

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// This moment. The monotonic part never goes back.
    fn now(&self) -> Now;
}

/// Gives random bytes.
pub trait Random: Send + Sync + 'static {
    /// Fills `bytes` with what nobody can guess; `None` where the system gives nothing.
    fn fill(&self, bytes: &mut [u8]) -> Option<()>;
}

/// Where the reconciler has its time and its random bytes from.
#[derive(Clone)]
pub struct Surroundings {
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub random: Arc<dyn Random>,
}

impl Surroundings {
    /// Those of this machine.
    #[must_use]
    pub fn real() -> Self {
        Self {
            clock: Arc::new(SystemClock {
                origin: TokioInstant::now(),
            }),
            random: Arc::new(SystemRandom::new()),
        }
    }
}

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) -> Option<()> {
        SecureRandom::fill(self, bytes).ok()
    }
}

struct SystemClock {
    origin: TokioInstant,
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let nanos = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Now {
            instant: Instant(nanos),
            unix: since_epoch().as_secs(),
        }
    }
}
