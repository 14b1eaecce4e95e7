//! How often something may happen: a burst, and then once in each interval.

use std::time::Duration;

use crate::time::Instant;

/// The state of one such bound, eight bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// When everything that was let through is paid for.
    paid_at: Instant,
}

impl Pace {
    /// Whether it may happen at `now`, with `burst` times at once where it has not happened for a while.
    pub(crate) fn admit(&mut self, now: Instant, burst: u32, interval: Duration) -> bool {
        let owed = self.paid_at.since(now);
        let admitted = owed <= interval * (burst - 1);
        if admitted {
            self.paid_at = self.paid_at.max(now).after(interval);
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_in_each_interval() {
        let interval = Duration::from_millis(100);
        let mut pace = Pace::default();
        let admitted = |pace: &mut Pace, now: Instant| {
            let tries = (0..10).filter(|_| pace.admit(now, 3, interval));
            tries.count()
        };
        let start = Instant(0).after(Duration::from_secs(5));
        assert_eq!(admitted(&mut pace, start), 3);
        assert_eq!(admitted(&mut pace, start.after(interval / 2)), 0);
        assert_eq!(admitted(&mut pace, start.after(interval)), 1);
        assert_eq!(admitted(&mut pace, start.after(interval * 3)), 2);
        assert_eq!(admitted(&mut pace, start.after(interval * 60)), 3);
    }
}
