//! Where the sockets meet the zone: an answer for each message, and everything counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hickory_proto::rr::RecordType;
use prometheus::IntCounter;
use tokio::sync::watch;

use super::answer::{Manner, Outcome};
use super::query::Ignored;
use super::zone::Zone;
use crate::metrics::Metrics;

/// The types that metrics tell apart.
const NAMED: [(RecordType, &str); 8] = [
    (RecordType::A, "a"),
    (RecordType::AAAA, "aaaa"),
    (RecordType::SRV, "srv"),
    (RecordType::NAPTR, "naptr"),
    (RecordType::NS, "ns"),
    (RecordType::SOA, "soa"),
    (RecordType::ANY, "any"),
    (RecordType::AXFR, "axfr"),
];
/// All the others.
const OTHER: &str = "other";
/// A query that could not be read.
const NONE: &str = "none";

/// What the sockets of one address answer from.
#[derive(Clone)]
pub(super) struct Desk {
    zones: watch::Receiver<Arc<Zone>>,
    metrics: Arc<Metrics>,
    /// The number of the next answer: one for all connections, most of which ask no more than once.
    turn: Arc<AtomicU64>,
}

impl Desk {
    pub(super) fn new(zones: watch::Receiver<Arc<Zone>>, metrics: Arc<Metrics>) -> Self {
        Self {
            zones,
            metrics,
            turn: Arc::default(),
        }
    }

    /// The zone at this moment.
    pub(super) fn zone(&self) -> Arc<Zone> {
        Arc::clone(&self.zones.borrow())
    }

    /// Puts the answer to `message` into `out`, and returns whether there is one.
    pub(super) fn answer(
        &self,
        zone: &Zone,
        message: &[u8],
        manner: Manner,
        out: &mut Vec<u8>,
    ) -> bool {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let outcome = zone.answer(message, manner, turn, out);
        match outcome {
            Ok(outcome) => self.count(outcome),
            Err(Ignored::Short) => self.unanswered("short"),
            Err(Ignored::Response) => self.unanswered("response"),
        }
        outcome.is_ok()
    }

    /// Counts a message that gets no answer.
    pub(super) fn unanswered(&self, reason: &str) {
        let unanswered = &self.metrics.dns.unanswered;
        unanswered.with_label_values(&[reason]).inc();
    }

    /// Counts of queries beyond the rate: those sent to TCP, or those dropped.
    pub(super) fn limited(&self, outcome: &str) -> IntCounter {
        self.metrics.dns.limited.with_label_values(&[outcome])
    }

    fn count(&self, outcome: Outcome) {
        let named = |kind| NAMED.iter().find(|(named, _)| *named == kind);
        let kind = match outcome.kind {
            Some(kind) => named(kind).map_or(OTHER, |(_, name)| name),
            None => NONE,
        };
        let labels = [kind, outcome.rcode.name()];
        self.metrics.dns.queries.with_label_values(&labels).inc();
    }
}
