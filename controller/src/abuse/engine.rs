//! The engine: who is suspected, since when, and what follows.
//!
//! Whoever is found is told at once, or, where calls look alike when they begin, when a second report says so too. A verdict
//! always waits for the second report: nobody is banned for one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::exempt::Fleetwide;
use super::measure::{Measured, Reading, readings};
use super::memory::Memory;
use super::rule::{Base, Rule};
use super::settings::{RuleSettings, Settings, Verdict};
use super::signals::Signals;
use super::subject::Subject;
use crate::fleet::quota;

/// Milliseconds in which every relay reports once more.
const SECOND_LOOK: u64 = 6000;
/// Milliseconds between two words about the same.
const TELL_EVERY: u64 = 60_000;
/// Who was not found for so many milliseconds is not suspected any more.
const FORGOTTEN_AFTER: u64 = 600_000;
/// Cases at a time; who was found longest ago goes.
const MAX_CASES: usize = 4096;
/// Users that are throttled at a time; others are when there is room.
const MAX_THROTTLED: usize = 1000;

/// Somebody whom a rule found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// When first and last, by the clock of the caller, in milliseconds.
    pub since: u64,
    /// See `since`.
    pub last: u64,
    /// What was counted within the window, last.
    pub count: u64,
    /// The most that it ever was.
    pub peak: u64,
    /// In words, without a name.
    pub evidence: String,
    /// What is wanted of the rule.
    pub verdict: Verdict,
    /// What is done, or would be.
    pub act: Act,
    /// Whether it needs no second look to be told.
    is_plain: bool,
    /// When it was told.
    told_at: Option<u64>,
    /// When a ban or a throttle was decided on.
    acted_at: Option<u64>,
    /// When a throttle ends.
    throttled_until: Option<u64>,
}

/// What a rule does where it may, and would do where it observes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A ban for so long.
    Ban(Duration),
    /// No further allocation, and little bandwidth, for so long.
    Throttle(Duration),
    /// Nothing, for this reason.
    Nothing(&'static str),
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ban(time) => write!(f, "ban for {}", Shown(*time)),
            Self::Throttle(time) => write!(f, "throttle for {}", Shown(*time)),
            Self::Nothing(why) => write!(f, "nothing: {why}"),
        }
    }
}

impl Act {
    /// In words, with whom it concerns: `ban source 192.0.2.0/24 for 1h`.
    #[must_use]
    pub fn about(&self, subject: &Subject) -> String {
        match self {
            Self::Ban(time) => format!("ban {} {subject} for {}", subject.kind(), Shown(*time)),
            Self::Throttle(time) => {
                let kind = subject.kind();
                format!("throttle {kind} {subject} for {}", Shown(*time))
            }
            Self::Nothing(_) => self.to_string(),
        }
    }
}

impl Case {
    /// Whether it is throttled at `millis`.
    #[must_use]
    pub fn is_throttled(&self, millis: u64) -> bool {
        self.throttled_until.is_some_and(|until| millis < until)
    }

    /// For how long `verdict` falls at `millis`, where it is wanted, and did not fall within `time`: what an operator has
    /// lifted does not come back for the same.
    fn falls(&mut self, millis: u64, verdict: Verdict, time: Duration) -> Option<Duration> {
        let has_fallen = self.acted_at.is_some_and(|at| millis < after(at, time));
        let falls = self.verdict == verdict && !has_fallen;
        if falls {
            self.acted_at = Some(millis);
        }
        falls.then_some(time)
    }
}

fn after(millis: u64, time: Duration) -> u64 {
    millis.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// A time in its largest whole unit.
struct Shown(Duration);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let units = [(86_400, "d"), (3600, "h"), (60, "m")];
        let whole = units.iter().find(|(unit, _)| seconds.is_multiple_of(*unit));
        let (unit, name) = whole.copied().unwrap_or((1, "s"));
        write!(f, "{}{name}", seconds / unit)
    }
}

/// What has to be said or done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which rule.
    pub rule: Rule,
    /// Whom it found.
    pub subject: Subject,
    /// How it stands.
    pub case: Case,
    /// Whether it is to be told.
    pub tell: bool,
    /// Whether a ban is to be placed.
    pub ban: Option<Duration>,
    /// Whether a throttle begins.
    pub throttle: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Engine {
    settings: Settings,
    memory: Memory,
    cases: BTreeMap<(Rule, Subject), Case>,
    /// Cases that went because there were too many.
    dropped: u64,
    /// Whether other settings may leave some of them alone.
    is_changed: bool,
}

impl Engine {
    /// An engine that has found nobody yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            memory: Memory::default(),
            cases: BTreeMap::new(),
            dropped: 0,
            is_changed: false,
        }
    }

    /// Takes over other settings, from the next look on.
    pub fn configure(&mut self, settings: Settings) {
        if self.settings != settings {
            self.settings = settings;
            self.is_changed = true;
        }
    }

    /// Judges what is known at `millis`. Only one who `leads` says or does anything about it.
    pub fn judge(
        &mut self,
        millis: u64,
        signals: &Signals,
        fleet: &Fleetwide,
        leads: bool,
    ) -> Vec<Finding> {
        if std::mem::take(&mut self.is_changed) {
            let settings = &self.settings;
            self.cases
                .retain(|(rule, subject), _| settings.judge(*rule, subject, fleet));
            for ((rule, _), case) in &mut self.cases {
                if settings.of(*rule).verdict != Verdict::Throttle {
                    case.throttled_until = None;
                }
            }
        }
        for reading in readings(signals, fleet) {
            if !self.settings.judge(reading.rule, &reading.subject, fleet) {
                continue;
            }
            let settings = *self.settings.of(reading.rule);
            let (rule, window) = (reading.rule, settings.window);
            let amount = self
                .memory
                .over(rule, &reading.subject, window, millis, reading.told);
            let measured = reading.measured(&amount, window);
            if measured.count >= needed(&reading, &settings) {
                let act = act(&reading, &measured, &settings, fleet);
                self.found(millis, &reading, measured, act, settings.verdict);
            }
        }
        self.cases.retain(|_, case| {
            let is_recent = millis.saturating_sub(case.last) < FORGOTTEN_AFTER;
            is_recent || case.is_throttled(millis)
        });
        match leads {
            true => self.due(millis),
            false => Vec::new(),
        }
    }

    /// Who is suspected, whoever was found last first.
    #[must_use]
    pub fn cases(&self) -> Vec<(Rule, &Subject, &Case)> {
        let cases = self.cases.iter();
        let mut cases: Vec<_> = cases
            .map(|((rule, subject), case)| (*rule, subject, case))
            .collect();
        cases.sort_by_key(|(_, _, case)| std::cmp::Reverse(case.last));
        cases
    }

    /// Whose users are throttled at `millis`.
    #[must_use]
    pub fn throttled(&self, millis: u64) -> BTreeSet<quota::Subject> {
        let held = self.cases.iter().filter(|(_, it)| it.is_throttled(millis));
        held.filter_map(|((_, subject), _)| subject.quota())
            .collect()
    }

    /// What is wanted.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A ban could not be placed: it is due again.
    pub fn undone(&mut self, rule: Rule, subject: &Subject) {
        if let Some(case) = self.cases.get_mut(&(rule, subject.clone())) {
            case.acted_at = None;
        }
    }

    /// Cases that went, and looks at somebody that nothing was remembered of, because there were too many.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.saturating_add(self.memory.unremembered())
    }

    fn found(
        &mut self,
        millis: u64,
        reading: &Reading,
        measured: Measured,
        act: Act,
        verdict: Verdict,
    ) {
        let key = (reading.rule, reading.subject.clone());
        if !self.cases.contains_key(&key) && self.cases.len() >= MAX_CASES {
            self.drop_oldest();
        }
        let case = self.cases.entry(key).or_insert_with(|| Case {
            since: millis,
            last: millis,
            count: 0,
            peak: 0,
            evidence: String::new(),
            verdict,
            act,
            is_plain: false,
            told_at: None,
            acted_at: None,
            throttled_until: None,
        });
        // One moment long ago is no second look.
        if millis.saturating_sub(case.last) > 2 * SECOND_LOOK {
            case.since = millis;
        }
        case.last = millis;
        case.count = measured.count;
        case.peak = case.peak.max(measured.count);
        case.evidence = measured.evidence;
        (case.verdict, case.act) = (verdict, act);
        let threshold = self.settings.of(reading.rule).threshold;
        case.is_plain = reading.plain == 1 || case.count >= threshold.saturating_mul(reading.plain);
    }

    fn drop_oldest(&mut self) {
        let cases = self.cases.iter();
        let oldest = cases.min_by_key(|(_, case)| (case.throttled_until, case.last));
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.cases.remove(&key);
            self.dropped += 1;
        }
    }

    /// What has to be said or done at `millis` of what was found then.
    fn due(&mut self, millis: u64) -> Vec<Finding> {
        let mut room = MAX_THROTTLED.saturating_sub(self.throttled(millis).len());
        let found = self.cases.iter_mut().filter(|(_, it)| it.last == millis);
        let due = found.filter_map(|((rule, subject), case)| {
            let is_confirmed = case.last.saturating_sub(case.since) >= SECOND_LOOK;
            let is_told = case.told_at.is_some_and(|at| millis < at + TELL_EVERY);
            let tell = (is_confirmed || case.is_plain) && !is_told;
            if tell {
                case.told_at = Some(millis);
            }
            let (ban, throttle) = match case.act {
                Act::Ban(time) if is_confirmed => (case.falls(millis, Verdict::Ban, time), None),
                Act::Throttle(time) if is_confirmed && room > 0 => {
                    (None, case.falls(millis, Verdict::Throttle, time))
                }
                Act::Ban(_) | Act::Throttle(_) | Act::Nothing(_) => (None, None),
            };
            if let Some(time) = throttle {
                case.throttled_until = Some(after(millis, time));
                room -= 1;
            }
            (tell || ban.is_some() || throttle.is_some()).then(|| Finding {
                rule: *rule,
                subject: subject.clone(),
                case: case.clone(),
                tell,
                ban,
                throttle: throttle.is_some(),
            })
        });
        due.collect()
    }
}

/// How many are found. What is counted by bits may be a tenth less than it is.
fn needed(reading: &Reading, settings: &RuleSettings) -> u64 {
    let threshold = settings.threshold.saturating_mul(reading.doubt);
    match reading.rule.base() {
        Base::Times => threshold,
        Base::Different => threshold - threshold / 10,
    }
}

fn act(reading: &Reading, measured: &Measured, settings: &RuleSettings, fleet: &Fleetwide) -> Act {
    if let Some(why) = reading.rule.bans_nobody_because() {
        return Act::Nothing(why);
    }
    if fleet.is_own(&reading.subject) {
        return Act::Nothing("relays, controllers or trusted proxies of the fleet are there");
    }
    match measured.holds_back {
        Some(why) => Act::Nothing(why),
        None if settings.verdict == Verdict::Throttle => Act::Throttle(settings.ban_for),
        None => Act::Ban(settings.ban_for),
    }
}
