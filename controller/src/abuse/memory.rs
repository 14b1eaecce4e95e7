//! What rules with longer windows remember of what relays told: relays themselves tell of the last minutes only.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use turnfleet_turn::usage::Spread;

use super::rule::{Base, Rule};
use super::subject::Subject;

/// Subjects of rules that are remembered. Who comes beyond it is judged by what relays tell at the moment.
const MAX_REMEMBERED: usize = 4096;
/// Nothing is remembered longer, in milliseconds.
const LONGEST: u64 = 3_600_000;
/// Milliseconds for which spreads stand as relays tell them.
const TOLD: u64 = 600_000;

/// What one rule counts of one subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Amount {
    /// Happenings.
    Times(u64),
    /// Different things, and what they are compared with.
    Different([Spread; 2]),
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    kept: HashMap<(Rule, Subject), VecDeque<(u64, Amount)>>,
    swept_at: u64,
    /// How often somebody was not remembered.
    unremembered: u64,
}

impl Memory {
    /// What was counted within `window` before `millis`, with `told` as what relays tell at that moment.
    pub(super) fn over(
        &mut self,
        rule: Rule,
        subject: &Subject,
        window: Duration,
        millis: u64,
        told: Amount,
    ) -> Amount {
        let window = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        let step = rule.base().step_seconds() * 1000;
        let is_told_whole = match rule.base() {
            Base::Times => window <= step,
            Base::Different => window <= TOLD,
        };
        if is_told_whole {
            return told;
        }
        self.sweep(millis);
        let key = (rule, subject.clone());
        if !self.kept.contains_key(&key) && self.kept.len() >= MAX_REMEMBERED {
            self.unremembered += 1;
            return told;
        }
        let spans = self.kept.entry(key).or_default();
        let (now, first) = (millis / step, millis.saturating_sub(window) / step);
        while spans.front().is_some_and(|(span, _)| *span < first) {
            spans.pop_front();
        }
        // What is told at the end of a span is what happened within it.
        match spans.back_mut() {
            Some((span, last)) if *span == now => *last = told,
            Some(_) | None => spans.push_back((now, told)),
        }
        // The span before overlaps with what is told of now.
        let before = spans.iter().filter(|(span, _)| span + 1 < now);
        before.fold(told, |sum, (_, amount)| sum.plus(amount))
    }

    /// How often somebody was not remembered, because there were too many.
    pub(super) fn unremembered(&self) -> u64 {
        self.unremembered
    }

    fn sweep(&mut self, millis: u64) {
        if millis.saturating_sub(self.swept_at) < 60_000 {
            return;
        }
        self.swept_at = millis;
        self.kept.retain(|(rule, _), spans| {
            let step = rule.base().step_seconds() * 1000;
            let first = millis.saturating_sub(LONGEST) / step;
            spans.back().is_some_and(|(span, _)| *span >= first)
        });
    }
}

impl Amount {
    fn plus(self, other: &Self) -> Self {
        match (self, other) {
            (Self::Times(one), Self::Times(other)) => Self::Times(one.saturating_add(*other)),
            (Self::Different(mut pair), Self::Different(others)) => {
                for (mine, theirs) in pair.iter_mut().zip(others) {
                    mine.add(theirs);
                }
                Self::Different(pair)
            }
            (Self::Times(_), Self::Different(_)) | (Self::Different(_), Self::Times(_)) => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn subject() -> Subject {
        Subject::Claim("ann".to_owned())
    }

    fn times(memory: &mut Memory, window: Duration, seconds: u64, told: u64) -> Amount {
        let rule = Rule::FailuresOfUser;
        let told = Amount::Times(told);
        memory.over(rule, &subject(), window, seconds * 1000, told)
    }

    #[test]
    fn a_long_window_sums_minutes_and_counts_none_twice() {
        let mut memory = Memory::default();
        let mut sum = Amount::Times(0);
        // One a second: relays tell of 60 within every minute.
        for second in 0..3600 {
            sum = times(&mut memory, HOUR, second, 60);
        }
        let Amount::Times(sum) = sum else {
            panic!("{sum:?}");
        };
        assert!((3420..=3600).contains(&sum), "{sum}");
        let minute = times(&mut memory, Duration::from_secs(60), 3600, 60);
        assert_eq!(minute, Amount::Times(60));
        let later = times(&mut memory, HOUR, 3 * 3600, 7);
        assert_eq!(later, Amount::Times(7));
    }

    #[test]
    fn different_things_of_an_hour_are_put_together() {
        let mut memory = Memory::default();
        let (rule, mut seen) = (Rule::SharedCredential, Spread::default());
        for part in 0..10u8 {
            let mut told = Spread::default();
            told.insert(&[part]);
            let told = Amount::Different([told, Spread::default()]);
            let millis = u64::from(part) * 300_000;
            let Amount::Different([all, _]) = memory.over(rule, &subject(), HOUR, millis, told)
            else {
                panic!("spreads stay spreads");
            };
            seen = all;
        }
        // The span before the last is told by relays together with the last.
        assert_eq!(seen.estimate(), 9);
    }

    #[test]
    fn who_comes_beyond_the_bound_is_judged_by_the_moment() {
        let mut memory = Memory::default();
        let of = |memory: &mut Memory, n: usize, second: u64| {
            let subject = Subject::Claim(n.to_string());
            let told = Amount::Times(5);
            memory.over(Rule::FailuresOfUser, &subject, HOUR, second * 1000, told)
        };
        for n in 0..=MAX_REMEMBERED {
            of(&mut memory, n, 0);
        }
        assert_eq!(memory.kept.len(), MAX_REMEMBERED);
        assert_eq!(memory.unremembered(), 1);
        assert_eq!(of(&mut memory, 0, 180), Amount::Times(10));
        assert_eq!(of(&mut memory, MAX_REMEMBERED, 180), Amount::Times(5));
    }
}
