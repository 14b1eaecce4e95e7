//! What rules of abuse do, in metrics.

use prometheus::{IntCounter, IntCounterVec};

use super::Maker;

/// Counted where a rule finds somebody.
#[derive(Debug)]
pub(crate) struct AbuseCounters {
    /// By rule and verdict.
    pub(crate) found: IntCounterVec,
    /// By rule.
    pub(crate) bans: IntCounterVec,
    /// By rule.
    pub(crate) throttles: IntCounterVec,
    /// What there was no room for.
    pub(crate) forgotten: IntCounter,
}

impl AbuseCounters {
    pub(super) fn new(make: &Maker) -> Self {
        Self {
            found: make.counters(
                "abuse_found_total",
                "What rules of abuse found, as often as it was told, by rule and by what the rule is wanted to do. Counted by the controller that leads.",
                &["rule", "verdict"],
            ),
            bans: make.counters(
                "abuse_bans_total",
                "Bans that rules of abuse have placed.",
                &["rule"],
            ),
            throttles: make.counters(
                "abuse_throttles_total",
                "Users that rules of abuse have throttled, as often as a throttle began.",
                &["rule"],
            ),
            forgotten: make.counter(
                "abuse_forgotten_total",
                "Suspects, and names in bad credentials, that were forgotten because there were too many, and looks without the memory of a long window for the same reason.",
            ),
        }
    }
}
