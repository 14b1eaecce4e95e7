//! The clocks, read once a batch by a shard and by nobody else on the packet path.

#![expect(unsafe_code, reason = "std hides the value of CLOCK_MONOTONIC")]

use std::time::{SystemTime, UNIX_EPOCH};

use turnfleet_turn::{Instant, Now};

/// Reads both clocks.
pub(crate) fn now() -> Now {
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
    fn time_goes_forward() {
        let earlier = now();
        let later = now();
        assert!(later.instant >= earlier.instant);
        assert!(earlier.instant > Instant(0));
    }
}
