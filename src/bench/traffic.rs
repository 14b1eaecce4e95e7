//! What was sent and what arrived in a round.

use std::time::Duration;

use hdrhistogram::Histogram;

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
    latency: Histogram<u64>,
}

impl Traffic {
    pub(super) fn new(hops: u64) -> Self {
        let latency = Histogram::new(3).expect("three significant digits are within the bounds");
        Self { sent: 0, received: 0, corrupt: 0, hops, duration: Duration::ZERO, latency }
    }

    /// A payload arrived `nanos` after it left.
    pub(super) fn arrived(&mut self, nanos: u64) {
        self.received += 1;
        self.latency.saturating_record(nanos);
    }

    /// Packets that the server relayed.
    pub(super) fn packets(&self) -> u64 {
        self.received * self.hops
    }

    /// The part of the payloads that did not arrive, from 0 to 1.
    pub(super) fn loss(&self) -> f64 {
        if self.sent == 0 { 0.0 } else { 1.0 - as_float(self.received) / as_float(self.sent) }
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

/// The nearest float: counts here stay far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts here stay far below 2^53")]
pub(super) fn as_float(count: u64) -> f64 {
    count as f64
}
