//! The allocations of one shard and its relayed sockets, each found from the other.
//!
//! The table keeps three views in step: allocations by place, their places by five-tuple, relayed sockets by place. Data
//! from a client costs one look-up by hash, data from a peer none. It decides nothing, and opens or closes nothing.

use std::collections::HashMap;

use crate::addr::FiveTuple;
use crate::allocation::Allocation;
use crate::command::RelayedId;
use crate::pace::Pace;
use crate::random::KeyedHash;
use crate::time::Instant;
use crate::wire::ReservationToken;

/// The place of an allocation. The generation tells it from its predecessors in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AllocationId {
    index: u32,
    generation: u32,
}

impl AllocationId {
    /// Dense: the number under which expiry knows the allocation.
    pub(crate) fn index(self) -> u32 {
        self.index
    }
}

/// Who uses a relayed socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RelayedUse {
    /// The driver was asked for it; the allocation waits.
    Opening(AllocationId),
    /// The driver was asked for it; its allocation is gone in the meantime.
    Abandoned,
    /// It belongs to an allocation.
    Allocated(AllocationId),
    /// It is held for whoever presents the token.
    Held(ReservationToken),
}

/// A relayed socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RelayedSocket {
    /// Index into `Config::relayed_hosts`.
    pub(crate) host: u8,
    /// Zero while a socket of another shard is claimed.
    pub(crate) port: u16,
    pub(crate) used: RelayedUse,
    /// Bounds the ICMP messages that a client is told of.
    pub(crate) errors: Pace,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Table {
    by_five_tuple: HashMap<FiveTuple, AllocationId, KeyedHash>,
    allocations: Slab<Allocation>,
    relayed: Slab<RelayedSocket>,
}

impl Table {
    pub(crate) fn new(hash: KeyedHash) -> Self {
        Self {
            by_five_tuple: HashMap::with_hasher(hash),
            allocations: Slab::new(),
            relayed: Slab::new(),
        }
    }

    /// The allocation of a client, pending ones included.
    pub(crate) fn find(&self, client: &FiveTuple) -> Option<AllocationId> {
        self.by_five_tuple.get(client).copied()
    }

    pub(crate) fn allocation(&self, id: AllocationId) -> Option<&Allocation> {
        self.allocations.entry(id.index, id.generation)
    }

    pub(crate) fn allocation_mut(&mut self, id: AllocationId) -> Option<&mut Allocation> {
        self.allocations.entry_mut(id.index, id.generation)
    }

    /// Adds an allocation for a five-tuple that has none.
    pub(crate) fn insert(&mut self, allocation: Allocation) -> AllocationId {
        let client = allocation.client;
        let (index, generation) = self.allocations.insert(allocation);
        let id = AllocationId { index, generation };
        let before = self.by_five_tuple.insert(client, id);
        assert!(before.is_none(), "a five-tuple has one allocation");
        id
    }

    pub(crate) fn remove(&mut self, id: AllocationId) -> Option<Allocation> {
        let allocation = self.allocations.remove(id.index, id.generation)?;
        self.by_five_tuple.remove(&allocation.client);
        Some(allocation)
    }

    /// The allocation at a place.
    pub(crate) fn id_at(&self, index: u32) -> Option<AllocationId> {
        let generation = self.allocations.generation(index)?;
        Some(AllocationId { index, generation })
    }

    /// The places that were ever taken: more than that [`Self::id_at`] does not know.
    pub(crate) fn places(&self) -> u32 {
        self.allocations.len()
    }

    /// Every allocation, for the operator's will only: packets and timers never scan.
    pub(crate) fn ids(&self) -> Vec<AllocationId> {
        let places = self.allocations.places();
        places
            .map(|(index, generation)| AllocationId { index, generation })
            .collect()
    }

    pub(crate) fn relayed(&self, id: RelayedId) -> Option<&RelayedSocket> {
        self.relayed.entry(id.slot(), id.generation())
    }

    pub(crate) fn relayed_mut(&mut self, id: RelayedId) -> Option<&mut RelayedSocket> {
        self.relayed.entry_mut(id.slot(), id.generation())
    }

    /// The allocation of a relayed socket whose lifetime is not over.
    pub(crate) fn live_on(&mut self, id: RelayedId, now: Instant) -> Option<&mut Allocation> {
        let RelayedUse::Allocated(owner) = self.relayed(id)?.used else {
            return None;
        };
        self.allocation_mut(owner)
            .filter(|allocation| allocation.live(now).any(|relayed| relayed.id == id))
    }

    /// The relayed socket at a place.
    pub(crate) fn relayed_at(&self, slot: u32) -> Option<RelayedId> {
        let generation = self.relayed.generation(slot)?;
        Some(RelayedId::new(slot, generation))
    }

    /// Names a relayed socket.
    pub(crate) fn insert_relayed(&mut self, socket: RelayedSocket) -> RelayedId {
        let (index, generation) = self.relayed.insert(socket);
        RelayedId::new(index, generation)
    }

    /// Forgets a relayed socket; its place may be used again.
    pub(crate) fn remove_relayed(&mut self, id: RelayedId) -> Option<RelayedSocket> {
        self.relayed.remove(id.slot(), id.generation())
    }
}

/// Entries by place; a free place is used again, with the next generation.
#[derive(Debug)]
struct Slab<T> {
    places: Vec<Place<T>>,
    /// The free place used last, of a chain through the free places.
    free: Option<u32>,
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    entry: Entry<T>,
}

#[derive(Debug)]
enum Entry<T> {
    Taken(T),
    Free { next: Option<u32> },
}

impl<T> Slab<T> {
    fn new() -> Self {
        Self {
            places: Vec::new(),
            free: None,
        }
    }

    fn entry(&self, index: u32, generation: u32) -> Option<&T> {
        let place = self.places.get(index as usize)?;
        match &place.entry {
            Entry::Taken(entry) if place.generation == generation => Some(entry),
            Entry::Taken(_) | Entry::Free { .. } => None,
        }
    }

    fn entry_mut(&mut self, index: u32, generation: u32) -> Option<&mut T> {
        let place = self.places.get_mut(index as usize)?;
        match &mut place.entry {
            Entry::Taken(entry) if place.generation == generation => Some(entry),
            Entry::Taken(_) | Entry::Free { .. } => None,
        }
    }

    /// The generation of the entry at a place, where there is one.
    fn generation(&self, index: u32) -> Option<u32> {
        let place = self.places.get(index as usize)?;
        match place.entry {
            Entry::Taken(_) => Some(place.generation),
            Entry::Free { .. } => None,
        }
    }

    fn insert(&mut self, entry: T) -> (u32, u32) {
        if let Some(index) = self.free {
            let place = &mut self.places[index as usize];
            if let Entry::Free { next } = place.entry {
                self.free = next;
            }
            place.entry = Entry::Taken(entry);
            return (index, place.generation);
        }
        let index = self.len();
        self.places.push(Place {
            generation: 0,
            entry: Entry::Taken(entry),
        });
        (index, 0)
    }

    fn remove(&mut self, index: u32, generation: u32) -> Option<T> {
        self.entry(index, generation)?;
        let place = &mut self.places[index as usize];
        place.generation = place.generation.wrapping_add(1);
        let free = Entry::Free { next: self.free };
        self.free = Some(index);
        match std::mem::replace(&mut place.entry, free) {
            Entry::Taken(entry) => Some(entry),
            Entry::Free { .. } => None,
        }
    }

    /// Places, free ones included.
    fn len(&self) -> u32 {
        u32::try_from(self.places.len()).expect("ports bound the number of entries")
    }

    fn places(&self) -> impl Iterator<Item = (u32, u32)> {
        self.places
            .iter()
            .zip(0..)
            .filter_map(|(place, index)| match place.entry {
                Entry::Taken(_) => Some((index, place.generation)),
                Entry::Free { .. } => None,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_used_again_does_not_answer_to_its_former_name() {
        let mut slab = Slab::new();
        let (first, generation) = slab.insert('a');
        assert_eq!(slab.entry(first, generation), Some(&'a'));
        assert_eq!(slab.remove(first, generation), Some('a'));
        assert_eq!(slab.remove(first, generation), None);
        let (second, later) = slab.insert('b');
        assert_eq!(second, first);
        assert_ne!(later, generation);
        assert_eq!(slab.entry(first, generation), None);
        assert_eq!(slab.entry_mut(second, later), Some(&mut 'b'));
    }

    #[test]
    fn free_places_are_used_before_the_table_grows() {
        let mut slab = Slab::new();
        let names: Vec<_> = (0..4).map(|n| slab.insert(n)).collect();
        for (index, generation) in &names[1..3] {
            slab.remove(*index, *generation);
        }
        slab.insert(4);
        slab.insert(5);
        assert_eq!(slab.places.len(), 4);
        assert_eq!(slab.places().count(), 4);
    }
}
