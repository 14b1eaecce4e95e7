//! What can happen and has not happened yet is on the page as a zero: a counter that appears with its first count is none
//! to who looks at how it grows.

use prometheus::IntCounterVec;

use super::{Metrics, StoreCounters};
use crate::abuse::{Rule, Verdict};

impl Metrics {
    /// Puts every counter on the page whose labels have few values.
    pub(super) fn begin_at_zero(&self) {
        begin(&self.enrolments, &["good", "refused"]);
        begin(&self.sessions_ended, &["reset", "goodbye"]);
        begin(&self.reloads, &["good", "refused"]);
        begin(&self.webhook_events, &["delivered", "given_up"]);
        begin(&self.homeserver_answers, &["busy"]);
        begin(&self.connections_refused, &["http", "grpc"]);
        begin(&self.store.failures, &StoreCounters::OPERATIONS);
        self.policy.begin_at_zero();
        for rule in Rule::ALL.map(Rule::name) {
            for verdict in Verdict::ALL.map(Verdict::name) {
                let labels = [rule, verdict];
                self.abuse.found.with_label_values(&labels).inc_by(0);
            }
            begin(&self.abuse.bans, &[rule]);
            begin(&self.abuse.throttles, &[rule]);
        }
    }
}

/// Puts a counter with one label on the page, with each of `values`.
pub(super) fn begin(counters: &IntCounterVec, values: &[&str]) {
    for value in values {
        counters.with_label_values(&[value]).inc_by(0);
    }
}
