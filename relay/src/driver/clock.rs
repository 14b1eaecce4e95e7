//! The clocks, read once a batch by a shard and by nobody else on the packet path.

#![expect(unsafe_code, reason = "std hides the value of CLOCK_MONOTONIC")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use turnfleet_turn::{Instant, Now};

/// Seconds: a wall clock that is further behind what a controller has said is not believed.
const TOLERANCE: u64 = 30;
/// Seconds: a controller that is further ahead is not believed.
const MAX_AHEAD: u64 = 86_400;

/// What a controller has said of the time, for a machine whose own wall clock is behind.
#[derive(Debug, Default)]
pub(crate) struct ToldTime {
    /// Unix seconds at which the monotonic clock stood at zero; zero where nothing was said.
    origin: AtomicU64,
}

impl ToldTime {
    /// It is second `unix`.
    pub(crate) fn tell(&self, unix: u64) {
        let origin = unix.saturating_sub(seconds(monotonic()));
        self.origin.store(origin, Ordering::Relaxed);
    }

    /// Nothing was said.
    pub(crate) fn forget(&self) {
        self.origin.store(0, Ordering::Relaxed);
    }

    /// Reads both clocks; the wall clock as it should stand.
    pub(crate) fn now(&self) -> Now {
        let Now { instant, unix } = now();
        let told = match self.origin.load(Ordering::Relaxed) {
            0 => unix,
            origin => origin.saturating_add(seconds(instant)),
        };
        Now {
            instant,
            unix: believed(unix, told),
        }
    }
}

/// The second to judge by where the machine's own clock and the controller say so.
fn believed(own: u64, told: u64) -> u64 {
    match told.saturating_sub(own) {
        0..=TOLERANCE => own,
        ahead if ahead <= MAX_AHEAD => told,
        _ => own,
    }
}

fn seconds(instant: Instant) -> u64 {
    instant.0 / 1_000_000_000
}

/// Reads both clocks.
fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH);
    Now {
        instant: monotonic(),
        unix: unix.map_or(0, |since| since.as_secs()),
    }
}

/// Nanoseconds of `CLOCK_MONOTONIC`: the origin that the kernel's own timers share.
fn monotonic() -> Instant {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a local timespec; CLOCK_MONOTONIC always exists, so the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Instant(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_is_believed_unless_it_is_behind() {
        assert_eq!(believed(1000, 0), 1000);
        assert_eq!(believed(1000, 1030), 1000);
        assert_eq!(believed(1000, 4600), 4600);
        assert_eq!(believed(1000, 1000 + MAX_AHEAD + 1), 1000);
    }

    #[test]
    fn what_was_said_goes_on_by_the_monotonic_clock_until_it_is_forgotten() {
        let (told, own) = (ToldTime::default(), now().unix);
        assert!(told.now().unix.abs_diff(own) < 60);
        told.tell(own + 3600);
        assert!(told.now().unix >= own + 3600 - 1);
        told.forget();
        assert!(told.now().unix.abs_diff(own) < 60);
    }

    #[test]
    fn time_goes_forward() {
        let earlier = now();
        let later = now();
        assert!(later.instant >= earlier.instant);
        assert!(earlier.instant > Instant(0));
    }
}
