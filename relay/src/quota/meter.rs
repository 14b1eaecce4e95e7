//! How much a tenant or a user takes, from counts that only grow.

use tokio::time::Instant;
use turnfleet_proto::fleet;
use turnfleet_turn::quota::QuotaUse;

use super::{REFUSED, TELL, USER_PART};

/// The last look at one tenant or user.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    last: Option<(QuotaUse, Instant)>,
    /// Bits a second, of about the last second.
    rates: [u64; 2],
    refused_at: Option<Instant>,
    was_refused: bool,
}

impl Meter {
    pub(super) fn take(&mut self, used: QuotaUse, now: Instant) {
        if let Some((last, at)) = self.last {
            let millis = u64::try_from(now.duration_since(at).as_millis()).unwrap_or(u64::MAX);
            if millis == 0 {
                return;
            }
            for (rate, (now, before)) in self
                .rates
                .iter_mut()
                .zip(used.offered.iter().zip(last.offered))
            {
                // A shaper that was made anew has counted from zero.
                let bytes = now.checked_sub(before).unwrap_or(*now);
                let latest = bytes.saturating_mul(8_000) / millis;
                *rate = rate.midpoint(latest);
            }
            if used.refused > last.refused {
                self.refused_at = Some(now);
            }
        } else if used.refused > 0 {
            self.refused_at = Some(now);
        }
        self.was_refused = self
            .refused_at
            .is_some_and(|at| now.duration_since(at) < REFUSED);
        self.last = Some((used, now));
    }

    pub(super) fn allocations(&self) -> u32 {
        self.last.map_or(0, |(last, _)| last.allocations)
    }

    pub(super) fn rates(&self) -> [u64; 2] {
        self.rates
    }

    pub(super) fn was_refused(&self) -> bool {
        self.was_refused
    }

    /// Whether data was counted.
    pub(super) fn is_shaped(&self) -> bool {
        self.last.is_some_and(|(last, _)| last.offered != [0; 2])
    }

    /// Whether it was looked at lately.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        self.last
            .is_some_and(|(_, at)| now.duration_since(at) < 4 * TELL)
    }

    /// Whether a user takes a good part of what it may have in the fleet.
    pub(super) fn takes_much(&self, limits: &fleet::Quotas) -> bool {
        let much = |limit: u64, used: u64| limit > 0 && used.saturating_mul(USER_PART) >= limit;
        let [to_peers, to_clients] = self.rates;
        let rate = to_peers.max(to_clients);
        much(limits.allocations_per_user, self.allocations().into())
            || much(limits.user_bits_per_second, rate)
    }

    /// What comes first where there is no room for all.
    pub(super) fn weight(&self) -> (u32, u64) {
        (self.allocations(), self.rates[0].max(self.rates[1]))
    }
}
