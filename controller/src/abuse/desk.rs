//! What the watch and the API share.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::engine::{Case, Engine, Finding};
use super::exempt::Fleetwide;
use super::rule::Rule;
use super::settings::{RuleSettings, Settings};
use super::signals::Signals;
use super::subject::Subject;
use crate::fleet::quota;
use crate::wall_clock::since_epoch;

/// See the module. Cheap to clone. Until it is configured no rule looks at anything.
#[derive(Clone, Debug)]
pub struct AbuseDesk(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    started: Instant,
    /// Unix milliseconds then: the clock of the engine goes on from there, and never back.
    started_unix: u64,
    engine: Mutex<Engine>,
    /// Apart from the engine, so that nobody waits for a look.
    throttled: Mutex<Arc<BTreeSet<quota::Subject>>>,
}

/// Somebody who is suspected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Which rule.
    pub rule: Rule,
    /// Whom it found.
    pub subject: Subject,
    /// How it stands; its times are Unix milliseconds.
    pub case: Case,
}

impl Default for AbuseDesk {
    fn default() -> Self {
        let unix = u64::try_from(since_epoch().as_millis());
        Self(Arc::new(Shared {
            started: Instant::now(),
            started_unix: unix.unwrap_or(u64::MAX),
            engine: Mutex::new(Engine::new(Settings::off())),
            throttled: Mutex::default(),
        }))
    }
}

impl AbuseDesk {
    /// Who is suspected, whoever was found last first.
    #[must_use]
    pub fn suspects(&self) -> Vec<Suspect> {
        let engine = self.engine();
        let cases = engine.cases().into_iter();
        cases
            .map(|(rule, subject, case)| Suspect {
                rule,
                subject: subject.clone(),
                case: case.clone(),
            })
            .collect()
    }

    /// Every rule, as it is wanted.
    #[must_use]
    pub fn rules(&self) -> Vec<(Rule, RuleSettings)> {
        let engine = self.engine();
        Rule::ALL
            .map(|rule| (rule, *engine.settings().of(rule)))
            .into()
    }

    /// See [`Engine::dropped`].
    pub(super) fn dropped(&self) -> u64 {
        self.engine().dropped()
    }

    pub(super) fn configure(&self, settings: Settings) {
        self.engine().configure(settings);
    }

    /// See [`Engine::judge`].
    pub(super) fn judge(&self, signals: &Signals, fleet: &Fleetwide, leads: bool) -> Vec<Finding> {
        let now = self.millis();
        let mut engine = self.engine();
        let findings = engine.judge(now, signals, fleet, leads);
        let throttled = engine.throttled(now);
        drop(engine);
        let mut known = self.known_throttled();
        if **known != throttled {
            *known = Arc::new(throttled);
        }
        findings
    }

    /// See [`Engine::undone`].
    pub(super) fn undone(&self, rule: Rule, subject: &Subject) {
        self.engine().undone(rule, subject);
    }

    /// Whose users relays are to throttle, as of the last look.
    pub(crate) fn throttled(&self) -> Arc<BTreeSet<quota::Subject>> {
        Arc::clone(&self.known_throttled())
    }

    fn known_throttled(&self) -> MutexGuard<'_, Arc<BTreeSet<quota::Subject>>> {
        let known = self.0.throttled.lock();
        known.unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn millis(&self) -> u64 {
        let passed: Duration = self.0.started.elapsed();
        let passed = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        self.0.started_unix.saturating_add(passed)
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        // No operation leaves it half changed.
        let engine = self.0.engine.lock();
        engine.unwrap_or_else(PoisonError::into_inner)
    }
}
