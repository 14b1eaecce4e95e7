//! What a node does a second.

use std::time::Duration;

use turnfleet_turn::Instant;

use super::node::Counters;

/// What a node does a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "each is the counter of its name, a second")]
pub struct Rates {
    pub bytes_from_clients: f64,
    pub bytes_to_clients: f64,
    pub packets_from_clients: f64,
    pub packets_to_clients: f64,
    pub packets_dropped: f64,
    pub allocations_opened: f64,
    pub requests_rejected: f64,
    pub authentication_failures: f64,
}

impl Rates {
    /// Bytes both ways.
    #[must_use]
    pub fn bytes(&self) -> f64 {
        self.bytes_from_clients + self.bytes_to_clients
    }

    /// Bits both ways.
    #[must_use]
    pub fn bits(&self) -> f64 {
        self.bytes() * 8.0
    }

    /// Packets both ways.
    #[must_use]
    pub fn packets(&self) -> f64 {
        self.packets_from_clients + self.packets_to_clients
    }
}

/// Turns cumulative counters into rates: lost reports lose nothing, and a restarted node begins at zero.
#[derive(Clone, Debug, Default)]
pub(super) struct RateMeter {
    last: Option<(Instant, Counters)>,
    pub(super) rates: Rates,
}

/// Reports closer together than this make no rate.
const SHORTEST_SPAN: Duration = Duration::from_millis(500);

impl RateMeter {
    pub(super) fn update(&mut self, now: Instant, counters: Counters) {
        let Some((before, last)) = self.last else {
            self.last = Some((now, counters));
            return;
        };
        let span = now.since(before);
        if span < SHORTEST_SPAN {
            return;
        }
        self.last = Some((now, counters));
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / span.as_secs_f64();
        self.rates = Rates {
            bytes_from_clients: rate(counters.bytes_from_clients, last.bytes_from_clients),
            bytes_to_clients: rate(counters.bytes_to_clients, last.bytes_to_clients),
            packets_from_clients: rate(counters.packets_from_clients, last.packets_from_clients),
            packets_to_clients: rate(counters.packets_to_clients, last.packets_to_clients),
            packets_dropped: rate(counters.packets_dropped, last.packets_dropped),
            allocations_opened: rate(counters.allocations_opened, last.allocations_opened),
            requests_rejected: rate(counters.requests_rejected, last.requests_rejected),
            authentication_failures: rate(
                counters.authentication_failures,
                last.authentication_failures,
            ),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(number: u64) -> Instant {
        Instant(number * 1_000_000_000)
    }

    #[test]
    fn rates_are_the_difference_of_cumulative_counters() {
        let mut meter = RateMeter::default();
        let counters = |bytes| Counters {
            bytes_to_clients: bytes,
            ..Counters::default()
        };
        meter.update(second(0), counters(1000));
        assert_eq!(meter.rates, Rates::default());
        meter.update(second(2), counters(5000));
        assert!((meter.rates.bytes_to_clients - 2000.0).abs() < 1e-9);
        assert!((meter.rates.bytes() - 2000.0).abs() < 1e-9);
        assert!((meter.rates.bits() - 16_000.0).abs() < 1e-9);
        meter.update(second(6), counters(5000));
        assert_eq!(meter.rates, Rates::default());
    }
}
