//! A token bucket in one atomic word, for the requests of one API token and the messages of one control session.
//!
//! It never waits: it says at once whether there is room, and if not, when there will be.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const MINUTE_NANOS: u64 = 60_000_000_000;

/// Lets `rate` requests a second through, and `burst` at once after a rest.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    origin: Instant,
    /// Nanoseconds after `origin` at which the bucket is full again.
    full_at: AtomicU64,
    nanos_a_request: u64,
    depth_nanos: u64,
}

impl TokenBucket {
    /// A full bucket; `rate` and `burst` are at least one.
    pub(crate) fn new(rate: u32, burst: u32, now: Instant) -> Self {
        let nanos_a_request = 1_000_000_000 / u64::from(rate.max(1));
        Self {
            origin: now,
            full_at: AtomicU64::new(0),
            nanos_a_request,
            depth_nanos: nanos_a_request.saturating_mul(u64::from(burst.max(1))),
        }
    }

    /// A full bucket of `count` a minute, all of which may come at once; `count` is at least one.
    pub(crate) fn a_minute(count: u64, now: Instant) -> Self {
        Self {
            origin: now,
            full_at: AtomicU64::new(0),
            nanos_a_request: (MINUTE_NANOS / count.max(1)).max(1),
            depth_nanos: MINUTE_NANOS,
        }
    }

    /// The same, as empty as this one is, with another count a minute.
    pub(crate) fn with_count(&self, count: u64) -> Self {
        Self {
            full_at: AtomicU64::new(self.full_at.load(Ordering::Relaxed)),
            ..Self::a_minute(count, self.origin)
        }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// How long until there is one, when the bucket is empty.
    pub(crate) fn take(&self, now: Instant) -> Result<(), Duration> {
        let since_origin = now.saturating_duration_since(self.origin).as_nanos();
        let now = u64::try_from(since_origin).unwrap_or(u64::MAX);
        let after = |full_at: u64| full_at.max(now).saturating_add(self.nanos_a_request);
        let room = now.saturating_add(self.depth_nanos);
        self.full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                Some(after(full_at)).filter(|after| *after <= room)
            })
            .map(drop)
            .map_err(|full_at| Duration::from_nanos(after(full_at).saturating_sub(room)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_then_its_rate() {
        let start = Instant::now();
        let bucket = TokenBucket::new(10, 3, start);
        assert_eq!([(); 3].map(|()| bucket.take(start)), [Ok(()); 3]);
        assert_eq!(bucket.take(start), Err(Duration::from_millis(100)));
        let later = start + Duration::from_millis(100);
        assert_eq!(bucket.take(later), Ok(()));
        assert!(bucket.take(later).is_err());
    }

    #[test]
    fn a_rested_bucket_holds_no_more_than_its_burst() {
        let start = Instant::now();
        let bucket = TokenBucket::new(1000, 2, start);
        let later = start + Duration::from_secs(3600);
        assert_eq!([(); 2].map(|()| bucket.take(later)), [Ok(()); 2]);
        assert!(bucket.take(later).is_err());
    }

    #[test]
    fn a_minutes_worth_may_come_at_once_and_another_count_begins_where_the_last_one_was() {
        let start = Instant::now();
        let bucket = TokenBucket::a_minute(7, start);
        assert!((0..7).all(|_| bucket.take(start).is_ok()));
        assert!(bucket.take(start).is_err());
        let half = start + Duration::from_secs(30);
        let bucket = bucket.with_count(60);
        let taken = (0..60).take_while(|_| bucket.take(half).is_ok()).count();
        assert!((29..=30).contains(&taken), "{taken}");
        assert!(bucket.take(half).unwrap_err() <= Duration::from_secs(1));
    }
}
