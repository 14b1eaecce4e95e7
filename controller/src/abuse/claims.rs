//! Requests with bad credentials, by the user that they name: anybody can make up names, so few are remembered, and whoever is
//! named most stays.

use std::collections::BTreeMap;

/// Names that are remembered.
const MAX_NAMES: usize = 512;
/// The longest name that is.
const MAX_NAME: usize = 512;
/// Milliseconds of one part of the last minute.
const SPAN: u64 = 5000;
/// Parts of it.
const SPANS: usize = 12;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    names: BTreeMap<String, [u64; SPANS]>,
    /// The number of the current part.
    span: u64,
    /// Failures whose name was not remembered.
    unnamed: u64,
}

impl Claims {
    /// A request that named `user` failed at `millis`.
    pub fn failed(&mut self, millis: u64, user: &str) {
        self.advance(millis);
        if user.is_empty() || user.len() > MAX_NAME {
            return;
        }
        if !self.names.contains_key(user) && self.names.len() >= MAX_NAMES {
            self.make_room();
            if self.names.len() >= MAX_NAMES {
                self.unnamed += 1;
                return;
            }
        }
        let spans = self.names.entry(user.to_owned()).or_default();
        spans[place(self.span)] += 1;
    }

    /// What failed within the minute before `millis`, by name.
    pub fn of_last_minute(&mut self, millis: u64) -> BTreeMap<String, u64> {
        self.advance(millis);
        let sum = |spans: &[u64; SPANS]| spans.iter().sum();
        let names = self.names.iter();
        names.map(|(name, it)| (name.clone(), sum(it))).collect()
    }

    /// Failures whose name was not remembered, because there were too many.
    #[must_use]
    pub fn unnamed(&self) -> u64 {
        self.unnamed
    }

    /// Forgets who was named once.
    fn make_room(&mut self) {
        self.names.retain(|_, spans| spans.iter().sum::<u64>() > 1);
    }

    fn advance(&mut self, millis: u64) {
        let now = millis / SPAN;
        if now <= self.span {
            return;
        }
        let passed = (now - self.span).min(SPANS as u64);
        for spans in self.names.values_mut() {
            for back in 0..passed {
                spans[place(now - back)] = 0;
            }
        }
        self.span = now;
        self.names.retain(|_, spans| spans.iter().any(|it| *it > 0));
    }
}

fn place(span: u64) -> usize {
    usize::try_from(span % SPANS as u64).unwrap_or(0)
}
