//! The events that no controller has taken yet: numbered, bounded in number and size, the oldest pushed out first.

use std::collections::VecDeque;

use prost::Message as _;
use turnfleet_proto::fleet;
use turnfleet_proto::fleet::event::What;
use turnfleet_proto::fleet::events_lost::Reason;

/// The most events that wait.
const MAX_EVENTS: usize = 20_000;
/// The most bytes that they have on the wire.
const MAX_BYTES: usize = 8 << 20;
/// The most events of a batch.
const BATCH_EVENTS: usize = 1000;
/// The most bytes of a batch: controllers take messages of 64 KiB.
const BATCH_BYTES: usize = 48 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Ring {
    /// Without gaps in their numbers.
    events: VecDeque<(fleet::Event, usize)>,
    bytes: usize,
    /// The number of the latest event.
    latest: u64,
    /// Everything up to that number needs no saying again.
    taken: u64,
    taken_in_all: u64,
    /// What the events stood for that were pushed out since `taken`, beyond one each.
    lost_extra: u64,
    pushed_out: u64,
}

impl Ring {
    pub(super) fn new() -> Self {
        Self {
            events: VecDeque::new(),
            bytes: 0,
            latest: 0,
            taken: 0,
            taken_in_all: 0,
            lost_extra: 0,
            pushed_out: 0,
        }
    }

    /// Keeps `event` under the next number.
    pub(super) fn push(&mut self, event: fleet::Event) {
        self.latest += 1;
        let event = fleet::Event {
            number: self.latest,
            ..event
        };
        let size = event.encoded_len();
        self.bytes += size;
        self.events.push_back((event, size));
        while self.events.len() > MAX_EVENTS || self.bytes > MAX_BYTES {
            let Some((event, size)) = self.events.pop_front() else {
                break;
            };
            self.bytes -= size;
            self.pushed_out += 1;
            if let Some(What::Lost(lost)) = event.what {
                self.lost_extra += lost.count.saturating_sub(1);
            }
        }
    }

    /// The events behind `after` that make the next batch, and in the place of those that were pushed out how many they are.
    pub(super) fn batch(&self, after: u64) -> Vec<fleet::Event> {
        let mut batch = Vec::new();
        let first = self.latest + 1 - self.events.len() as u64;
        let after = after.max(self.taken);
        if after + 1 < first {
            let count = first - 1 - after + self.lost_extra;
            batch.push(fleet::Event {
                number: first - 1,
                unix_millis: self
                    .events
                    .front()
                    .map_or(0, |(event, _)| event.unix_millis),
                ..super::wire::lost(count, Reason::Room)
            });
        }
        let skipped = (after + 1).saturating_sub(first);
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        let mut bytes = 0;
        for (event, size) in self.events.iter().skip(skipped).take(BATCH_EVENTS) {
            bytes += size + FRAMING;
            if bytes > BATCH_BYTES {
                break;
            }
            batch.push(event.clone());
        }
        batch
    }

    /// A controller has what came up to `number`.
    pub(super) fn taken(&mut self, number: u64) {
        let number = number.min(self.latest);
        if number <= self.taken {
            return;
        }
        let first = self.latest + 1 - self.events.len() as u64;
        if number + 1 >= first {
            self.lost_extra = 0;
        }
        self.taken = number;
        while let Some((event, size)) = self.events.front() {
            if event.number > number {
                break;
            }
            self.bytes -= size;
            self.taken_in_all += 1;
            self.events.pop_front();
        }
    }

    pub(super) fn latest(&self) -> u64 {
        self.latest
    }

    /// Everything up to that number has been taken.
    pub(super) fn taken_up_to(&self) -> u64 {
        self.taken
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) fn taken_in_all(&self) -> u64 {
        self.taken_in_all
    }

    pub(super) fn pushed_out(&self) -> u64 {
        self.pushed_out
    }

    /// Whether there is room only for what cannot wait.
    pub(super) fn is_crowded(&self) -> bool {
        self.events.len() > MAX_EVENTS / 2 || self.bytes > MAX_BYTES / 2
    }
}

/// What an event of a batch has around it, at most.
const FRAMING: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn event(username: &str) -> fleet::Event {
        fleet::Event {
            client: Some(fleet::EventClient {
                username: username.to_owned(),
                ..fleet::EventClient::default()
            }),
            ..fleet::Event::default()
        }
    }

    fn numbers(batch: &[fleet::Event]) -> Vec<u64> {
        batch.iter().map(|event| event.number).collect()
    }

    fn lost(event: &fleet::Event) -> Option<u64> {
        match &event.what {
            Some(What::Lost(lost)) => Some(lost.count),
            _ => None,
        }
    }

    #[test]
    fn what_is_not_taken_is_said_again() {
        let mut ring = Ring::new();
        for _ in 0..3 {
            ring.push(event("a"));
        }
        assert_eq!(numbers(&ring.batch(0)), [1, 2, 3]);
        assert_eq!(numbers(&ring.batch(2)), [3]);
        ring.taken(2);
        assert_eq!(numbers(&ring.batch(0)), [3]);
        ring.taken(1);
        assert_eq!(numbers(&ring.batch(0)), [3]);
        ring.taken(u64::MAX);
        assert_eq!(ring.batch(0), []);
        ring.push(event("b"));
        assert_eq!(numbers(&ring.batch(0)), [4], "numbers go on");
        assert_eq!((ring.taken_in_all(), ring.pushed_out()), (3, 0));
    }

    #[test]
    fn what_is_pushed_out_is_counted_and_told_until_it_is_taken() {
        let mut ring = Ring::new();
        for _ in 0..MAX_EVENTS + 5 {
            ring.push(event("a"));
        }
        assert_eq!((ring.len(), ring.pushed_out()), (MAX_EVENTS, 5));
        let batch = ring.batch(0);
        assert_eq!((batch[0].number, lost(&batch[0])), (5, Some(5)));
        assert_eq!(batch[1].number, 6);
        // The first two had been said.
        assert_eq!(lost(&ring.batch(2)[0]), Some(3));
        assert_eq!(ring.batch(5)[0].number, 6);
        ring.taken(5);
        assert_eq!(ring.batch(0)[0].number, 6);
    }

    #[test]
    fn a_number_of_lost_events_that_is_pushed_out_is_told_with_the_others() {
        let mut ring = Ring::new();
        ring.push(super::super::wire::lost(40, Reason::Rate));
        for _ in 0..MAX_EVENTS + 1 {
            ring.push(event("a"));
        }
        assert_eq!(lost(&ring.batch(0)[0]), Some(41));
    }

    #[test]
    fn memory_and_messages_are_bounded_whatever_the_names() {
        let mut ring = Ring::new();
        let name = "x".repeat(508);
        for _ in 0..MAX_EVENTS {
            ring.push(event(&name));
        }
        assert!(ring.bytes <= MAX_BYTES && ring.len() < MAX_EVENTS);
        let batch = ring.batch(ring.latest() - 1000);
        let said = fleet::Events { events: batch };
        assert!(said.encoded_len() <= BATCH_BYTES, "{}", said.encoded_len());
        assert!(said.events.len() > 50);
    }
}
