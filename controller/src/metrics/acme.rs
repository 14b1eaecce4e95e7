//! The fleet's certificate, in metrics.

use prometheus::{IntCounterVec, IntGauge};

use super::{Maker, signed};
use crate::fleet::FleetView;

/// Counted where orders end.
#[derive(Debug)]
pub(crate) struct AcmeCounters {
    /// By outcome.
    pub(crate) orders: IntCounterVec,
    /// By reason.
    pub(crate) failures: IntCounterVec,
    expiry: IntGauge,
    failing: IntGauge,
}

impl AcmeCounters {
    pub(super) fn new(make: &Maker) -> Self {
        Self {
            orders: make.counters(
                "acme_orders_total",
                "Orders of a certificate that this controller has brought to an end: issued, or failed.",
                &["outcome"],
            ),
            failures: make.counters(
                "acme_failures_total",
                "Orders that failed, by reason.",
                &["reason"],
            ),
            expiry: make.gauge(
                "acme_certificate_expiry_seconds",
                "When the fleet's certificate ends, in Unix seconds; 0 where there is none.",
            ),
            failing: make.gauge(
                "acme_failures_in_a_row",
                "How often the order of the next certificate has failed since the last good one.",
            ),
        }
    }

    pub(super) fn set(&self, view: &FleetView) {
        let certificate = view.issuance.certificate.as_ref();
        self.expiry
            .set(signed(certificate.map_or(0, |it| it.not_after)));
        self.failing.set(view.issuance.attempt.failures.into());
    }
}
