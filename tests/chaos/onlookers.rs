//! Callers of the API that ask for credentials all the while, and look at the lists that come with them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::{Api, text};
use crate::figures::millis;
use crate::fleet::Fleet;

/// Requests for credentials that one caller makes in a second.
const RATE: u32 = 80;
/// Between two looks at the lists.
const LOOK: Duration = Duration::from_millis(20);

/// One caller for each of some controllers.
pub(crate) struct Onlookers {
    threads: Vec<JoinHandle<Seen>>,
    over: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
}

/// What they saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) requests: u32,
    /// How long they asked for.
    pub(crate) lasted: Duration,
    /// Requests that needed a second controller.
    pub(crate) retried: usize,
    /// Requests that came to nothing.
    pub(crate) failed: Vec<String>,
    /// The fewest relays that a list had and could have had: both at least.
    pub(crate) shortest: Option<usize>,
    pub(crate) fewest_listed: Option<usize>,
    /// What was said of relays that were not listed, each thing once.
    missed: BTreeSet<String>,
    pub(crate) slowest: Duration,
}

impl Onlookers {
    /// Asks each of `controllers`, and the one after it where that does not answer.
    pub(crate) fn of(fleet: &Fleet<'_>, controllers: impl IntoIterator<Item = usize>) -> Self {
        let controllers: Vec<usize> = controllers.into_iter().collect();
        let rate = RATE * u32::try_from(controllers.len()).unwrap();
        Self::asking(fleet, controllers, rate)
    }

    /// The same with `rate` requests for credentials a second, of all callers together.
    pub(crate) fn asking(
        fleet: &Fleet<'_>,
        controllers: impl IntoIterator<Item = usize>,
        rate: u32,
    ) -> Self {
        let controllers: Vec<usize> = controllers.into_iter().collect();
        let pace = Duration::from_secs(1) * u32::try_from(controllers.len()).unwrap() / rate;
        let (over, asked) = <(Arc<AtomicBool>, Arc<AtomicU64>)>::default();
        let count = fleet.controllers.len();
        let api = |number: usize| fleet.controllers[number % count].api.clone();
        let threads = controllers.into_iter().map(|number| {
            let (first, second) = (api(number), api(number + 1));
            let (told, asked) = (Arc::clone(&over), Arc::clone(&asked));
            std::thread::spawn(move || {
                let mut seen = Seen::default();
                let begun = Instant::now();
                let mut looked = None;
                while !told.load(Ordering::Relaxed) {
                    seen.ask(&first, &second);
                    asked.fetch_add(1, Ordering::Relaxed);
                    if looked.is_none_or(|looked: Instant| looked.elapsed() >= LOOK) {
                        seen.look(&first, &second);
                        looked = Some(Instant::now());
                    }
                    let due = pace * seen.requests;
                    std::thread::park_timeout(due.saturating_sub(begun.elapsed()));
                }
                seen.lasted = begun.elapsed();
                seen
            })
        });
        Self {
            threads: threads.collect(),
            over,
            asked,
        }
    }

    /// How often they have asked.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    #[track_caller]
    pub(crate) fn stop(self) -> Seen {
        self.over.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for thread in self.threads {
            let seen = thread.join().unwrap();
            all.requests += seen.requests;
            all.lasted = all.lasted.max(seen.lasted);
            all.retried += seen.retried;
            all.failed.extend(seen.failed);
            all.shortest = lesser(all.shortest, seen.shortest);
            all.fewest_listed = lesser(all.fewest_listed, seen.fewest_listed);
            all.missed.extend(seen.missed);
            all.slowest = all.slowest.max(seen.slowest);
        }
        all
    }
}

/// What a controller says of a relay that it does not list.
fn why(node: &Value) -> String {
    let parts = ["node", "health", "reason"].map(|key| text(&node[key]));
    parts.join(" ")
}

fn lesser(one: Option<usize>, other: Option<usize>) -> Option<usize> {
    [one, other].into_iter().flatten().min()
}

impl Seen {
    fn ask(&mut self, first: &Api, second: &Api) {
        self.requests += 1;
        let user = format!("onlooker{}", self.requests);
        let begun = Instant::now();
        let answer = first.credential(&user).or_else(|_| {
            self.retried += 1;
            second.credential(&user)
        });
        self.slowest = self.slowest.max(begun.elapsed());
        match answer {
            Ok((_, servers)) => self.shortest = lesser(self.shortest, Some(servers.len())),
            Err(error) => self.failed.push(error),
        }
    }

    fn look(&mut self, first: &Api, second: &Api) {
        match first.nodes().or_else(|_| second.nodes()) {
            Ok(nodes) => {
                let (listed, missed): (Vec<_>, Vec<_>) =
                    nodes.iter().partition(|node| node["listed"] == true);
                self.fewest_listed = lesser(self.fewest_listed, Some(listed.len()));
                self.missed.extend(missed.into_iter().map(why));
            }
            Err(error) => self.failed.push(error),
        }
    }

    /// No request failed, and lists never had fewer relays to choose from.
    #[track_caller]
    pub(crate) fn assert_served(&self, listed: usize) {
        assert!(self.requests > 0 && self.failed.is_empty(), "{self:?}");
        assert!(self.fewest_listed >= Some(listed), "{self:?}");
    }

    pub(crate) fn figures(&self) -> Value {
        json!({
            "requests": self.requests,
            "requests_per_second": (f64::from(self.requests) / self.lasted.as_secs_f64()).round(),
            "retried": self.retried,
            "failed": self.failed.len(),
            "shortest_list": self.shortest,
            "fewest_listed": self.fewest_listed,
            "slowest_ms": millis(self.slowest),
        })
    }
}
