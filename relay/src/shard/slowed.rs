//! Connections whose tenants or users send or receive as much as they may: they are looked at again after a while.

use std::time::Duration;

use turnfleet_turn::Instant;

/// Until they are looked at again: a small part of what may go through at once.
const PAUSE: Duration = Duration::from_millis(10);

/// See the module. One connection may stand here twice; that costs a turn in which nothing moves.
#[derive(Default)]
pub(super) struct Slowed {
    indexes: Vec<usize>,
    due: Option<Instant>,
}

impl Slowed {
    /// Remembers the connection at `index`.
    pub(super) fn push(&mut self, index: usize, now: Instant) {
        if self.indexes.last() != Some(&index) {
            self.indexes.push(index);
        }
        self.due.get_or_insert_with(|| now.after(PAUSE));
    }

    /// When they are due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// All of them, once they are due.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<usize> {
        if self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.due = None;
        std::mem::take(&mut self.indexes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_slowed_down_comes_back_together() {
        let mut slowed = Slowed::default();
        assert_eq!(slowed.poll_timeout(), None);
        let start = Instant(5);
        slowed.push(3, start);
        slowed.push(4, start.after(PAUSE / 2));
        let due = slowed.poll_timeout().unwrap();
        assert_eq!(slowed.take_due(Instant(due.0 - 1)), Vec::<usize>::new());
        assert_eq!(slowed.take_due(due), [3, 4]);
        assert_eq!(slowed.poll_timeout(), None);
    }
}
