//! What was sent and what arrived in a round.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::bench::as_float;

/// The counts of one round.
pub(super) struct Traffic {
    /// Payloads handed to the kernel.
    pub(super) sent: u64,
    /// Payloads that arrived whole.
    pub(super) received: u64,
    /// Payloads that arrived altered.
    pub(super) corrupt: u64,
    /// How often the server relays each payload.
    pub(super) hops: u64,
    /// How long the load lasted.
    pub(super) duration: Duration,
    /// When the round began, in nanoseconds on the clock of the run.
    began_at: u64,
    latency: Histogram<u64>,
}

impl Traffic {
    pub(super) fn new(hops: u64, began_at: u64) -> Self {
        let latency = Histogram::new(3).expect("three significant digits are within the bounds");
        Self {
            sent: 0,
            received: 0,
            corrupt: 0,
            hops,
            duration: Duration::ZERO,
            began_at,
            latency,
        }
    }

    /// A payload arrived; both times in nanoseconds on the clock of the run. Stragglers of an earlier round do not count.
    pub(super) fn arrived(&mut self, sent_at: u64, at: u64) {
        if sent_at < self.began_at {
            return;
        }
        self.received += 1;
        // The histogram grows with what it is given, up to hours.
        let _ = self.latency.record(at.saturating_sub(sent_at));
    }

    /// Packets that the server relayed.
    pub(super) fn packets(&self) -> u64 {
        self.received * self.hops
    }

    /// The part of the payloads that did not arrive, from 0 to 1.
    pub(super) fn loss(&self) -> f64 {
        if self.sent == 0 {
            0.0
        } else {
            1.0 - as_float(self.received) / as_float(self.sent)
        }
    }

    /// The latency that this part of the payloads does not exceed.
    pub(super) fn latency(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.latency.value_at_quantile(quantile))
    }

    /// One line while the round lasts.
    pub(super) fn summary(&self, elapsed: Duration) -> String {
        format!(
            "{:>3} s, {} payloads sent, {} received, {:.0} packets/s",
            elapsed.as_secs(),
            self.sent,
            self.received,
            as_float(self.packets()) / elapsed.as_secs_f64(),
        )
    }
}
