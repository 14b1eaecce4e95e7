//! How relays take what they are told of the policy, in metrics.

use std::time::Duration;

use prometheus::{Histogram, IntCounterVec};

use super::Maker;
use super::zeros::begin;

/// Counted by the sessions of relays.
#[derive(Debug)]
pub(crate) struct PolicyCounters {
    acknowledgement: Histogram,
    /// By outcome.
    words: IntCounterVec,
}

/// A relay's word on a policy that it was told, or that there was none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Applied,
    Refused,
    /// A relay that lacks what a delta rests on is told everything.
    NeedsWhole,
    Missing,
}

impl Word {
    /// Every word there is.
    pub(super) const ALL: [Self; 4] = [
        Self::Applied,
        Self::Refused,
        Self::NeedsWhole,
        Self::Missing,
    ];

    /// The name in metrics and traces.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
            Self::NeedsWhole => "needs_whole",
            Self::Missing => "missing",
        }
    }
}

impl PolicyCounters {
    pub(super) fn new(make: &Maker) -> Self {
        Self {
            acknowledgement: make.histogram(
                "policy_acknowledgement_seconds",
                "From telling a relay of a policy to its word that it runs it.",
                &[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0],
            ),
            words: make.counters(
                "policy_words_total",
                "What relays said of policies that they were told: applied, refused, that they need the whole, or nothing in time.",
                &["outcome"],
            ),
        }
    }

    pub(super) fn begin_at_zero(&self) {
        begin(&self.words, &Word::ALL.map(Word::name));
    }

    /// Counts the word on a policy that was told `after` ago.
    pub(crate) fn heard(&self, word: Word, after: Duration) {
        self.words.with_label_values(&[word.name()]).inc();
        if word == Word::Applied {
            self.acknowledgement.observe(after.as_secs_f64());
        }
    }
}
