//! Who has the most of something, among more than can be remembered.
//!
//! Space-Saving (Metwally, Agrawal, El Abbadi 2005): so many names are watched; one that is not watched takes the place of the
//! lightest, with that one's weight, so that whoever has more than a `CAPACITY`th of all is always among them. What is told of
//! a name is what was seen while it was watched, which is never too much. Weights are halved now and then: who has the most
//! lately outweighs who had it long ago.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Names that are watched.
pub(super) const CAPACITY: usize = 512;

/// Weights are halved after so many milliseconds.
const HALF_LIFE: u64 = 600_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Talkers<K, V> {
    watched: HashMap<K, Watched<V>>,
    /// The watched ones, the lightest first.
    order: BTreeMap<(u64, u64), K>,
    /// Tells those of one weight apart.
    next_birth: u64,
    halved_at: u64,
}

#[derive(Debug)]
struct Watched<V> {
    weight: u64,
    birth: u64,
    value: V,
}

impl<K: Clone + Eq + Hash, V: Default> Talkers<K, V> {
    pub(super) fn new(millis: u64) -> Self {
        Self {
            watched: HashMap::with_capacity(CAPACITY),
            order: BTreeMap::new(),
            next_birth: 0,
            halved_at: millis,
        }
    }

    /// Adds `weight` to a name, and gives what is known of it.
    pub(super) fn add(&mut self, millis: u64, name: K, weight: u64) -> &mut V {
        self.halve(millis);
        let known = self.watched.remove(&name);
        let mut entry = match known {
            Some(entry) => {
                self.order.remove(&(entry.weight, entry.birth));
                entry
            }
            None => {
                self.next_birth += 1;
                Watched {
                    weight: self.make_room(),
                    birth: self.next_birth,
                    value: V::default(),
                }
            }
        };
        entry.weight = entry.weight.saturating_add(weight);
        self.order.insert((entry.weight, entry.birth), name.clone());
        &mut self
            .watched
            .entry(name)
            .insert_entry(entry)
            .into_mut()
            .value
    }

    /// What is known of a name that is watched.
    pub(super) fn find(&mut self, name: &K) -> Option<&mut V> {
        self.watched.get_mut(name).map(|entry| &mut entry.value)
    }

    /// Every watched name, in no order.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        let watched = self.watched.iter_mut();
        watched.map(|(name, entry)| (name, &mut entry.value))
    }

    /// The weight that a name begins with: that of the one that gives way, or nothing while there is room.
    fn make_room(&mut self) -> u64 {
        if self.watched.len() < CAPACITY {
            return 0;
        }
        match self.order.pop_first() {
            Some(((weight, _), lightest)) => {
                self.watched.remove(&lightest);
                weight
            }
            None => 0,
        }
    }

    fn halve(&mut self, millis: u64) {
        if millis.saturating_sub(self.halved_at) < HALF_LIFE {
            return;
        }
        self.halved_at = millis;
        self.order.clear();
        for (name, entry) in &mut self.watched {
            entry.weight /= 2;
            let place = (entry.weight, entry.birth);
            self.order.insert(place, name.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_much_is_found_among_ever_more_who_have_little() {
        let mut talkers = Talkers::<u32, u64>::new(0);
        for n in 0..100_000 {
            *talkers.add(n.into(), 1000 + n, 10) += 10;
            if n % 100 == 0 {
                *talkers.add(n.into(), 7, 5000) += 5000;
            }
        }
        assert_eq!(talkers.watched.len(), CAPACITY);
        assert_eq!(talkers.order.len(), CAPACITY);
        assert_eq!(talkers.find(&7), Some(&mut 5_000_000));
    }

    #[test]
    fn a_newcomer_outweighs_one_who_was_large_long_ago() {
        let mut talkers = Talkers::<u32, u64>::new(0);
        for n in 0..512 {
            talkers.add(0, n, 1_000_000);
        }
        for hour in 1..5 {
            talkers.add(hour * HALF_LIFE, 9000, 2_000_000);
        }
        for n in 0..400 {
            talkers.add(5 * HALF_LIFE, 10_000 + n, 1);
        }
        assert!(talkers.find(&9000).is_some());
    }
}
