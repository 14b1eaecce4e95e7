//! The events that wait for one receiver: bounded in number, size and age, in lanes whose order is kept.
//!
//! Events of one allocation are of one lane. A lane has one request under way at a time, and goes on behind it only when the
//! receiver has taken it; so no event of an allocation overtakes another, however often a request fails. Pure: it is told the
//! time, and what came of each request.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::event::Event;
use super::receipt::Token;

/// Lanes, and so requests at a time.
pub(super) const LANES: usize = 8;
/// The most events of a request.
const BATCH_EVENTS: usize = 100;
/// The most bytes of a request's events, about.
const BATCH_BYTES: usize = 256 * 1024;
/// The most events that wait.
const MAX_EVENTS: usize = 20_000;
/// The most bytes that they take, about.
const MAX_BYTES: usize = 16 << 20;
/// The last of what was given up that is shown.
const SHOWN_DEAD: usize = 10;
/// The first pause after a failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
    lanes: [Lane; LANES],
    max_age: Duration,
    events: usize,
    bytes: usize,
    delivered: u64,
    failures: u64,
    dead: u64,
    dead_letters: VecDeque<DeadLetter>,
    failing: Option<Failing>,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Item>,
    /// How many of them, from the front, are in the request under way.
    under_way: usize,
    failures: u32,
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Item {
    event: Arc<Event>,
    since: Instant,
    /// Gone with the item: whoever waits for it knows then that it was delivered or given up.
    _token: Token,
}

/// Something that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    /// The event.
    pub(crate) event: Arc<Event>,
    /// Why: `age` or `room`.
    pub(crate) reason: &'static str,
}

/// Since when requests fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failing {
    pub(super) since: Instant,
    pub(super) error: String,
}

/// A request to be made.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) lane: usize,
    pub(super) events: Vec<Arc<Event>>,
}

/// How the queue stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    pub(super) queued: usize,
    pub(super) bytes: usize,
    pub(super) delivered: u64,
    pub(super) failures: u64,
    pub(super) dead: u64,
    pub(super) dead_letters: Vec<DeadLetter>,
    pub(super) failing: Option<Failing>,
}

impl Queue {
    /// One that gives up what has waited for `max_age`.
    pub(super) fn new(max_age: Duration) -> Self {
        Self {
            lanes: Default::default(),
            max_age,
            events: 0,
            bytes: 0,
            delivered: 0,
            failures: 0,
            dead: 0,
            dead_letters: VecDeque::new(),
            failing: None,
        }
    }

    /// Keeps `event` for the receiver. Where there is no room, the oldest is given up.
    pub(super) fn push(&mut self, now: Instant, event: Arc<Event>, token: Token) {
        self.events += 1;
        self.bytes += event.size();
        self.lanes[lane_of(&event)].waiting.push_back(Item {
            event,
            since: now,
            _token: token,
        });
        while self.events > MAX_EVENTS || self.bytes > MAX_BYTES {
            let oldest = |lane: &Lane| lane.waiting.get(lane.under_way).map(|item| item.since);
            let lanes = self.lanes.iter().enumerate();
            let lane = lanes
                .filter_map(|(place, lane)| Some((oldest(lane)?, place)))
                .min();
            let Some((_, lane)) = lane else { break };
            let place = self.lanes[lane].under_way;
            self.give_up(lane, place, "room");
        }
    }

    /// The next request to be made at `now`, if there is one.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Attempt> {
        self.expire(now);
        let is_due = |lane: &Lane| {
            lane.under_way == 0
                && !lane.waiting.is_empty()
                && lane.not_before.is_none_or(|due| due <= now)
        };
        let place = self.lanes.iter().position(is_due)?;
        let lane = &mut self.lanes[place];
        let (mut events, mut bytes) = (Vec::new(), 0);
        for item in lane.waiting.iter().take(BATCH_EVENTS) {
            bytes += item.event.size();
            if bytes > BATCH_BYTES && !events.is_empty() {
                break;
            }
            events.push(Arc::clone(&item.event));
        }
        lane.under_way = events.len();
        Some(Attempt {
            lane: place,
            events,
        })
    }

    /// When there is something to do next, if it is not a push that comes first.
    pub(super) fn due(&self) -> Option<Instant> {
        let idle = self.lanes.iter().filter(|lane| lane.under_way == 0);
        let waiting = idle.filter_map(|lane| {
            let oldest = lane.waiting.front()?;
            let end = oldest.since + self.max_age;
            Some(lane.not_before.map_or(oldest.since, |due| due.min(end)))
        });
        waiting.min()
    }

    /// The receiver has taken what was under way in `lane`.
    pub(super) fn delivered(&mut self, lane: usize) {
        let count = std::mem::take(&mut self.lanes[lane].under_way);
        for _ in 0..count {
            if let Some(item) = self.lanes[lane].waiting.pop_front() {
                self.forget(&item);
                self.delivered += 1;
            }
        }
        (self.lanes[lane].failures, self.lanes[lane].not_before) = (0, None);
        if self.lanes.iter().all(|lane| lane.failures == 0) {
            self.failing = None;
        }
    }

    /// It has not: what was under way in `lane` is tried again after a pause, of which `chance`, from 0 to 1, is the share that
    /// is left to chance.
    pub(super) fn failed(&mut self, now: Instant, lane: usize, error: String, chance: f64) {
        let failing = self.failing.get_or_insert(Failing {
            since: now,
            error: String::new(),
        });
        failing.error = error;
        self.failures += 1;
        let lane = &mut self.lanes[lane];
        lane.under_way = 0;
        lane.failures = lane.failures.saturating_add(1);
        lane.not_before = Some(now + pause(lane.failures, chance));
    }

    /// How it stands.
    pub(super) fn standing(&self) -> Standing {
        Standing {
            queued: self.events,
            bytes: self.bytes,
            delivered: self.delivered,
            failures: self.failures,
            dead: self.dead,
            dead_letters: self.dead_letters.iter().cloned().collect(),
            failing: self.failing.clone(),
        }
    }

    /// Gives up what is too old, unless it is under way.
    fn expire(&mut self, now: Instant) {
        for lane in 0..LANES {
            while self.lanes[lane].under_way == 0
                && let Some(oldest) = self.lanes[lane].waiting.front()
                && now.duration_since(oldest.since) >= self.max_age
            {
                self.give_up(lane, 0, "age");
            }
        }
    }

    fn give_up(&mut self, lane: usize, place: usize, reason: &'static str) {
        let Some(item) = self.lanes[lane].waiting.remove(place) else {
            return;
        };
        self.forget(&item);
        self.dead += 1;
        if self.dead_letters.len() == SHOWN_DEAD {
            self.dead_letters.pop_front();
        }
        self.dead_letters.push_back(DeadLetter {
            event: item.event,
            reason,
        });
    }

    fn forget(&mut self, item: &Item) {
        self.events -= 1;
        self.bytes -= item.event.size();
    }
}

fn lane_of(event: &Event) -> usize {
    let mut hasher = DefaultHasher::new();
    event.lane().hash(&mut hasher);
    let lanes = LANES as u64;
    usize::try_from(hasher.finish() % lanes).unwrap_or(0)
}

/// Between half and all of a time that doubles with each failure.
fn pause(failures: u32, chance: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let longest = FIRST_PAUSE
        .saturating_mul(1 << doublings)
        .min(LONGEST_PAUSE);
    longest / 2 + (longest / 2).mul_f64(chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::super::receipt::Receipt;
    use super::*;
    use crate::events::{EventId, Field, Value};

    const AGE: Duration = Duration::from_secs(60);

    fn event(allocation: u64, number: u64) -> Arc<Event> {
        Arc::new(Event {
            id: EventId {
                source: "node/relay-0/00000000".into(),
                number,
            },
            at_milliseconds: 0,
            kind: "allocation.opened".into(),
            node: None,
            tenant: None,
            fields: vec![Field {
                name: "allocation".into(),
                value: Value::Number(allocation),
            }],
        })
    }

    fn push(queue: &mut Queue, now: Instant, allocation: u64, number: u64) {
        queue.push(now, event(allocation, number), Receipt::new().token());
    }

    fn numbers(attempt: &Attempt) -> Vec<u64> {
        attempt.events.iter().map(|event| event.id.number).collect()
    }

    #[test]
    fn a_later_event_of_an_allocation_waits_for_the_one_before() {
        let (mut queue, now) = (Queue::new(AGE), Instant::now());
        push(&mut queue, now, 1, 1);
        let first = queue.poll(now).unwrap();
        push(&mut queue, now, 1, 2);
        assert!(queue.poll(now).is_none(), "the first is under way");
        queue.failed(now, first.lane, "no".to_owned(), 1.0);
        assert!(queue.poll(now).is_none(), "there is a pause");
        let due = queue.due().unwrap();
        assert_eq!(due, now + FIRST_PAUSE);
        let again = queue.poll(due).unwrap();
        assert_eq!(numbers(&again), [1, 2]);
        queue.delivered(again.lane);
        assert!(queue.poll(due).is_none() && queue.due().is_none());
        let standing = queue.standing();
        assert_eq!((standing.delivered, standing.failures), (2, 1));
        assert_eq!((standing.queued, standing.bytes), (0, 0));
        assert_eq!(standing.failing, None);
    }

    #[test]
    fn allocations_do_not_wait_for_each_other() {
        let (mut queue, now) = (Queue::new(AGE), Instant::now());
        for allocation in 0..100 {
            push(&mut queue, now, allocation, allocation);
        }
        let mut under_way = 0;
        while let Some(attempt) = queue.poll(now) {
            under_way += attempt.events.len();
        }
        assert_eq!(under_way, 100);
    }

    #[test]
    fn a_receiver_that_is_down_costs_no_more_than_the_bounds() {
        let (mut queue, mut now) = (Queue::new(AGE), Instant::now());
        let receipt = Receipt::new();
        for number in 0..MAX_EVENTS as u64 * 2 {
            queue.push(now, event(number % 500, number), receipt.token());
            if let Some(attempt) = queue.poll(now) {
                queue.failed(now, attempt.lane, "refused".to_owned(), 0.5);
            }
        }
        let standing = queue.standing();
        assert_eq!(
            (standing.queued, standing.dead),
            (MAX_EVENTS, MAX_EVENTS as u64)
        );
        assert!(standing.bytes <= MAX_BYTES);
        assert_eq!(standing.dead_letters.len(), SHOWN_DEAD);
        assert_eq!(standing.dead_letters[0].reason, "room");
        now += AGE;
        assert!(queue.poll(now).is_none());
        let standing = queue.standing();
        assert_eq!((standing.queued, standing.bytes), (0, 0));
        assert_eq!(standing.dead, 2 * MAX_EVENTS as u64);
        assert_eq!(standing.failing.unwrap().error, "refused");
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_are_left_to_chance_by_half() {
        assert_eq!(pause(1, 1.0), FIRST_PAUSE);
        assert_eq!(pause(1, 0.0), FIRST_PAUSE / 2);
        assert_eq!(pause(3, 1.0), FIRST_PAUSE * 4);
        assert_eq!(pause(u32::MAX, 1.0), LONGEST_PAUSE);
    }

    #[test]
    fn what_is_under_way_is_not_given_up() {
        let (mut queue, now) = (Queue::new(AGE), Instant::now());
        push(&mut queue, now, 1, 1);
        let attempt = queue.poll(now).unwrap();
        push(&mut queue, now, 1, 2);
        assert!(queue.poll(now + AGE).is_none());
        queue.delivered(attempt.lane);
        assert!(queue.poll(now + AGE).is_none());
        let standing = queue.standing();
        assert_eq!((standing.delivered, standing.dead), (1, 1));
        assert_eq!(standing.dead_letters[0].event.id.number, 2);
    }
}
