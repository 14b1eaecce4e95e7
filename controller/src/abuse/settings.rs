//! What the operator wants of the rules.

use std::time::Duration;

use super::exempt::{Exempt, Fleetwide};
use super::rule::Rule;
use super::subject::Subject;

/// What follows where a rule finds somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is told, with what would have been done.
    Observe,
    /// The user gets no further allocation, and what it has goes on slowly.
    Throttle,
    /// Whoever it is is banned.
    Ban,
}

impl Verdict {
    /// Every verdict, in the order of their weight.
    pub const ALL: [Self; 3] = [Self::Observe, Self::Throttle, Self::Ban];

    /// Its name in configuration and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Throttle => "throttle",
            Self::Ban => "ban",
        }
    }
}

/// One rule, as the operator wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleSettings {
    /// Whether it looks at anything.
    pub enabled: bool,
    /// What is more than this within the window is found.
    pub threshold: u64,
    /// A multiple of the rule's base, at most an hour.
    pub window: Duration,
    /// What follows.
    pub verdict: Verdict,
    /// How long a ban or a throttle lasts, or would.
    pub ban_for: Duration,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// By [`Rule::index`].
    pub rules: [RuleSettings; Rule::ALL.len()],
    /// Whom no rule judges.
    pub exempt: Exempt,
}

impl Settings {
    /// Settings by which no rule looks at anything.
    #[must_use]
    pub fn off() -> Self {
        let off = RuleSettings {
            enabled: false,
            threshold: u64::MAX,
            window: Duration::ZERO,
            verdict: Verdict::Observe,
            ban_for: Duration::ZERO,
        };
        Self {
            rules: [off; Rule::ALL.len()],
            exempt: Exempt::default(),
        }
    }

    /// Whether `rule` looks at `subject`.
    pub(super) fn judge(&self, rule: Rule, subject: &Subject, fleet: &Fleetwide) -> bool {
        self.of(rule).enabled && !self.exempt.covers(subject, fleet)
    }

    /// Those of `rule`.
    #[must_use]
    pub fn of(&self, rule: Rule) -> &RuleSettings {
        &self.rules[rule.index()]
    }
}
