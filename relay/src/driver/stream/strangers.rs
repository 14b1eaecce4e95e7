//! Streams without an allocation: when each is closed, and which of them makes room for a newcomer.

use std::collections::BTreeSet;

use turnfleet_turn::Instant;

/// Since when a stream has no allocation, and until when it may live without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stranger {
    pub(crate) since: Instant,
    pub(crate) until: Instant,
}

/// The strangers among the streams of one shard, by their places.
#[derive(Default)]
pub(super) struct Strangers {
    by_end: BTreeSet<(Instant, usize)>,
    by_age: BTreeSet<(Instant, usize)>,
}

impl Strangers {
    pub(super) fn len(&self) -> usize {
        self.by_age.len()
    }

    pub(super) fn insert(&mut self, index: usize, stranger: Stranger) {
        self.by_end.insert((stranger.until, index));
        self.by_age.insert((stranger.since, index));
    }

    pub(super) fn remove(&mut self, index: usize, stranger: Stranger) {
        self.by_end.remove(&(stranger.until, index));
        self.by_age.remove(&(stranger.since, index));
    }

    /// The one that has been here for longest.
    pub(super) fn oldest(&self) -> Option<usize> {
        self.by_age.first().map(|&(_, index)| index)
    }

    /// When the first of them is to be closed.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.by_end.first().map(|&(until, _)| until)
    }

    /// One that is to be closed.
    pub(super) fn due(&self, now: Instant) -> Option<usize> {
        let &(until, index) = self.by_end.first()?;
        (until <= now).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room_and_the_one_whose_time_is_over_goes() {
        let mut strangers = Strangers::default();
        let stranger = |since, until| Stranger {
            since: Instant(since),
            until: Instant(until),
        };
        let (early, late) = (stranger(1, 100), stranger(2, 50));
        strangers.insert(7, early);
        strangers.insert(8, late);
        assert_eq!(strangers.oldest(), Some(7));
        assert_eq!(strangers.poll_timeout(), Some(Instant(50)));
        assert_eq!(strangers.due(Instant(49)), None);
        assert_eq!(strangers.due(Instant(50)), Some(8));
        strangers.remove(8, late);
        assert_eq!(strangers.due(Instant(50)), None);
        strangers.remove(7, early);
        assert_eq!((strangers.oldest(), strangers.len()), (None, 0));
    }
}
