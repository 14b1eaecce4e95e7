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

/// Between two requests.
const PACE: Duration = Duration::from_millis(10);

/// One caller for each of some controllers.
pub(crate) struct Onlookers {
    threads: Vec<JoinHandle<Seen>>,
    over: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
}

/// What they saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) requests: usize,
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
        let (over, asked) = <(Arc<AtomicBool>, Arc<AtomicU64>)>::default();
        let count = fleet.controllers.len();
        let api = |number: usize| fleet.controllers[number % count].api.clone();
        let threads = controllers.into_iter().map(|number| {
            let (first, second) = (api(number), api(number + 1));
            let (told, asked) = (Arc::clone(&over), Arc::clone(&asked));
            std::thread::spawn(move || {
                let mut seen = Seen::default();
                while !told.load(Ordering::Relaxed) {
                    seen.look(&first, &second);
                    asked.fetch_add(1, Ordering::Relaxed);
                    std::thread::park_timeout(PACE);
                }
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
    fn look(&mut self, first: &Api, second: &Api) {
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
            "retried": self.retried,
            "failed": self.failed.len(),
            "shortest_list": self.shortest,
            "fewest_listed": self.fewest_listed,
            "slowest_ms": millis(self.slowest),
        })
    }
}
