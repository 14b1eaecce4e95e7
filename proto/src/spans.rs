//! What relays and controllers agree on about traces: the target that marks their spans, and what became of spans in this
//! process. It makes no span and sends none; the program that runs them does, where it is told to.

use std::sync::atomic::{AtomicU64, Ordering};

/// The target of every span that is meant for a trace. The log knows nothing of them.
pub const TARGET: &str = "turnfleet::span";

/// The attribute of a span that is made when what it tells of is over: nanoseconds that it took.
pub const TOOK: &str = "took_nanos";

/// What an address of a collector looks like, for errors.
pub const ENDPOINT_FORM: &str =
    "http://host:port of a collector that takes OTLP by gRPC, or nothing";

/// Whether spans can be sent to `endpoint`: `http`, a host and a port, and no path. What goes on from the collector may be
/// encrypted; the way to it is that of this machine or cluster.
#[must_use]
pub fn is_endpoint(endpoint: &str) -> bool {
    let rest = endpoint.strip_prefix("http://");
    let rest = rest.map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    let Some((host, port)) = rest.and_then(|rest| rest.rsplit_once(':')) else {
        return false;
    };
    let host_is_good = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            !host.is_empty() && host.bytes().all(is_of_name)
        }
    };
    host_is_good && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// What became of the spans of this process.
pub static FIGURES: Figures = Figures::new();

/// Counts of spans; everything in one process shares them, as it shares the way to the collector.
#[derive(Debug)]
pub struct Figures {
    exported: AtomicU64,
    lost_queue: AtomicU64,
    lost_export: AtomicU64,
}

impl Figures {
    const fn new() -> Self {
        Self {
            exported: AtomicU64::new(0),
            lost_queue: AtomicU64::new(0),
            lost_export: AtomicU64::new(0),
        }
    }

    /// Counts `count` spans that the collector took.
    pub fn count_exported(&self, count: u64) {
        self.exported.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts a span that found the queue full.
    pub fn count_lost_in_queue(&self) {
        self.lost_queue.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts `count` spans that the collector did not take.
    pub fn count_lost_in_export(&self, count: u64) {
        self.lost_export.fetch_add(count, Ordering::Relaxed);
    }

    /// Spans by what became of them, as metrics name it.
    pub fn outcomes(&self) -> [(&'static str, u64); 3] {
        let counters = [
            ("exported", &self.exported),
            ("queue_full", &self.lost_queue),
            ("refused", &self.lost_export),
        ];
        counters.map(|(outcome, counter)| (outcome, counter.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_plain_http_with_a_port() {
        for good in [
            "http://127.0.0.1:4317",
            "http://[::1]:4317",
            "http://collector.monitoring.svc:4317/",
        ] {
            assert!(is_endpoint(good), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1:4317",
            "https://collector:4317",
            "http://collector",
            "http://collector:0",
            "http://:4317",
            "http://::1:4317",
            "http://collector:4317/v1/traces",
            "http://user@collector:4317",
        ] {
            assert!(!is_endpoint(bad), "{bad}");
        }
    }

    #[test]
    fn spans_are_counted_by_what_became_of_them() {
        let figures = Figures::new();
        figures.count_exported(3);
        figures.count_lost_in_queue();
        figures.count_lost_in_export(2);
        let expected = [("exported", 3), ("queue_full", 1), ("refused", 2)];
        assert_eq!(figures.outcomes(), expected);
    }
}
