//! When what runs out: one deadline for each of a server's small dense numbers.
//!
//! A heap that knows where each number stands, so there is never more than one entry for a number, however often its
//! deadline moves. A deadline that moves into the future, as every Refresh does, costs nothing: the entry stays where it
//! is and finds its place when its old turn comes.

use crate::time::Instant;

/// The deadlines of numbers below a bound that the caller keeps: memory grows with the largest number ever armed.
#[derive(Debug, Default)]
pub struct ExpiryQueue {
    entries: Vec<Entry>,
    /// A binary heap of indexes into `entries`, the earliest turn first.
    heap: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// When the number is due.
    deadline: Instant,
    /// By what the entry is sorted in the heap: never after the deadline.
    turn: Instant,
    /// The place in the heap; `None` where the number is not armed.
    place: Option<u32>,
}

impl Entry {
    const IDLE: Self = Self {
        deadline: Instant(0),
        turn: Instant(0),
        place: None,
    };
}

impl ExpiryQueue {
    /// A queue without deadlines.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives `id` the deadline `at`, in place of the one that it has.
    pub fn arm(&mut self, id: u32, at: Instant) {
        let index = id as usize;
        if self.entries.len() <= index {
            self.entries.resize(index + 1, Entry::IDLE);
        }
        let entry = &mut self.entries[index];
        entry.deadline = at;
        match entry.place {
            Some(_) if at >= entry.turn => {}
            Some(place) => {
                entry.turn = at;
                self.sift_up(place as usize);
            }
            None => {
                entry.turn = at;
                self.heap.push(id);
                self.sift_up(self.heap.len() - 1);
            }
        }
    }

    /// Takes the deadline of `id` away, if it has one.
    pub fn disarm(&mut self, id: u32) {
        let place = self.entries.get(id as usize).and_then(|entry| entry.place);
        if let Some(place) = place {
            self.remove(place as usize);
        }
    }

    /// When [`ExpiryQueue::pop_due`] is worth a call. Nothing is due before that, and perhaps nothing then either.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.heap.first().map(|&id| self.entries[id as usize].turn)
    }

    /// Takes out a number whose deadline is not after `now`, the earliest turn first.
    pub fn pop_due(&mut self, now: Instant) -> Option<u32> {
        loop {
            let id = *self.heap.first()?;
            let entry = &mut self.entries[id as usize];
            if entry.turn > now {
                return None;
            }
            if entry.deadline <= now {
                self.remove(0);
                return Some(id);
            }
            entry.turn = entry.deadline;
            self.sift_down(0);
        }
    }

    /// How many numbers have a deadline.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether no number has a deadline.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    fn remove(&mut self, place: usize) {
        let id = self.heap.swap_remove(place);
        self.entries[id as usize].place = None;
        if place < self.heap.len() {
            self.sift_down(place);
            self.sift_up(place);
        }
    }

    fn turn_at(&self, place: usize) -> Instant {
        self.entries[self.heap[place] as usize].turn
    }

    fn sift_up(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.turn_at(parent) <= self.turn_at(place) {
                break;
            }
            self.swap(place, parent);
            place = parent;
        }
        self.note_place(place);
    }

    fn sift_down(&mut self, mut place: usize) {
        loop {
            let children = 2 * place + 1..(2 * place + 3).min(self.heap.len());
            let Some(child) = children.min_by_key(|&child| self.turn_at(child)) else {
                break;
            };
            if self.turn_at(place) <= self.turn_at(child) {
                break;
            }
            self.swap(place, child);
            place = child;
        }
        self.note_place(place);
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.note_place(a);
        self.note_place(b);
    }

    fn note_place(&mut self, place: usize) {
        let id = self.heap[place];
        let place = u32::try_from(place).expect("there are no more entries than u32 numbers");
        self.entries[id as usize].place = Some(place);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::ExpiryQueue;
    use crate::random::Random;
    use crate::time::Instant;

    fn drain(queue: &mut ExpiryQueue, now: u64) -> Vec<u32> {
        let mut due: Vec<u32> = std::iter::from_fn(|| queue.pop_due(Instant(now))).collect();
        due.sort_unstable();
        due
    }

    #[test]
    fn a_number_is_due_at_its_last_deadline_only() {
        let mut queue = ExpiryQueue::new();
        queue.arm(3, Instant(10));
        queue.arm(3, Instant(30));
        assert_eq!(queue.poll_timeout(), Some(Instant(10)));
        assert_eq!(drain(&mut queue, 29), []);
        assert_eq!(queue.poll_timeout(), Some(Instant(30)));

        queue.arm(3, Instant(20));
        assert_eq!(queue.poll_timeout(), Some(Instant(20)));
        assert_eq!(drain(&mut queue, 20), [3]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_disarmed_number_is_never_due() {
        let mut queue = ExpiryQueue::new();
        queue.arm(0, Instant(1));
        queue.arm(1, Instant(2));
        queue.disarm(0);
        queue.disarm(7);
        assert_eq!(drain(&mut queue, 100), [1]);
        assert_eq!(queue.poll_timeout(), None);
    }

    #[test]
    fn ten_thousand_random_steps_agree_with_a_plain_map() {
        let mut random = Random::new([3; 32]);
        let mut queue = ExpiryQueue::new();
        let mut model = BTreeMap::new();
        for now in 0..10_000u64 {
            let id = random.below(100);
            match random.below(4) {
                0 => {
                    queue.disarm(id);
                    model.remove(&id);
                }
                _ => {
                    let at = now + u64::from(random.below(200));
                    queue.arm(id, Instant(at));
                    model.insert(id, at);
                }
            }
            let expected: Vec<u32> = model
                .iter()
                .filter(|&(_, &at)| at <= now)
                .map(|(&id, _)| id)
                .collect();
            model.retain(|_, at| *at > now);
            assert_eq!(drain(&mut queue, now), expected, "at {now}");
            assert_eq!(queue.len(), model.len());
            let earliest = model.values().min().copied();
            assert!(queue.poll_timeout().map(|at| at.0) <= earliest);
        }
    }
}
