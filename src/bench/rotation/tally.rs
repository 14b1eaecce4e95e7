//! What became of the clients.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use turnfleet_turn::client::Failure;

use super::client::Caller;

/// What has been granted, and what has not.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Counts {
    pub(super) allocations: u64,
    /// Those of them with a credential of the pinned secret.
    pub(super) pinned_allocations: u64,
    pub(super) refreshes: u64,
    /// What came to nothing and should not have: what was asked for, and the answer.
    pub(super) failures: BTreeMap<String, u64>,
    /// Ports of this machine that were somebody else's at the relay, so that another one was taken (RFC 8656 §7.4).
    pub(super) occupied_ports: u64,
}

impl Counts {
    /// How many failures these are.
    pub(super) fn sum(failures: &BTreeMap<String, u64>) -> u64 {
        failures.values().sum()
    }
}

/// What all clients share.
#[derive(Default)]
pub(super) struct Tally(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    counts: Counts,
    /// How long allocations took.
    took: Vec<Duration>,
    /// Clients that have come and have no allocation yet.
    waiting: BTreeSet<u64>,
    /// Those whose allocations live until the end.
    staying: Vec<Caller>,
}

/// What a client was granted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Granted {
    pub(super) pinned: bool,
    pub(super) took: Duration,
    pub(super) occupied_ports: u64,
}

impl Tally {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Each change is complete before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client with that number comes.
    pub(super) fn comes(&self, number: u64) {
        self.lock().waiting.insert(number);
    }

    /// It has been served, or has not.
    pub(super) fn served(&self, number: u64, granted: Option<Granted>) {
        let mut kept = self.lock();
        kept.waiting.remove(&number);
        let Some(granted) = granted else { return };
        kept.counts.allocations += 1;
        kept.counts.pinned_allocations += u64::from(granted.pinned);
        kept.counts.occupied_ports += granted.occupied_ports;
        kept.took.push(granted.took);
    }

    /// How many have come and are not served yet.
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Whether all clients below `number` have been served.
    pub(super) fn is_past(&self, number: u64) -> bool {
        self.lock()
            .waiting
            .first()
            .is_none_or(|first| *first >= number)
    }

    /// An allocation was refreshed, or was not.
    pub(super) fn refreshed(&self, answer: Result<(), Failure>) -> bool {
        match answer {
            Ok(()) => self.lock().counts.refreshes += 1,
            Err(why) => self.failed(&format!("Refresh: {}", reason(why))),
        }
        answer.is_ok()
    }

    /// Something came to nothing.
    pub(super) fn failed(&self, what: &str) {
        let mut kept = self.lock();
        *kept.counts.failures.entry(what.to_owned()).or_default() += 1;
    }

    /// The allocation of this client lives until the end.
    pub(super) fn stays(&self, caller: Caller) {
        self.lock().staying.push(caller);
    }

    /// Those that have stayed.
    pub(super) fn take_staying(&self) -> Vec<Caller> {
        std::mem::take(&mut self.lock().staying)
    }

    pub(super) fn counts(&self) -> Counts {
        self.lock().counts.clone()
    }

    pub(super) fn take_times(&self) -> Vec<Duration> {
        std::mem::take(&mut self.lock().took)
    }
}

/// Why a request came to nothing, for people.
pub(super) fn reason(why: Failure) -> String {
    match why {
        Failure::Refused(code) => code.code().to_string(),
        Failure::Timeout => "no answer".to_owned(),
        Failure::IntegrityViolated | Failure::BidDown | Failure::Malformed => format!("{why:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_past_when_all_that_came_before_are_served() {
        let tally = Tally::default();
        (0..3).for_each(|number| tally.comes(number));
        tally.served(0, None);
        tally.served(2, None);
        assert_eq!(
            (tally.is_past(1), tally.is_past(2), tally.waiting()),
            (true, false, 1)
        );
        tally.served(1, None);
        assert!(tally.is_past(9));
    }
}
