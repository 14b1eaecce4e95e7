//! The channel bindings of one allocation (RFC 8656 §12): channel number and peer, each naming the other.
//!
//! Both look-ups, by number for the client's data and by peer for the peer's, cost the same however many bindings there
//! are: a few stand in place, more of them spill into a pair of maps.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::random::KeyedHash;
use crate::time::Instant;
use crate::wire::ChannelNumber;

/// How many bindings stand in the allocation itself.
const IN_PLACE: usize = 2;

/// One channel binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Channel {
    pub(crate) number: ChannelNumber,
    pub(crate) peer: SocketAddr,
    pub(crate) expires_at: Instant,
}

/// The number is bound to another peer, or the peer to another number (RFC 8656 §12.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BoundOtherwise;

/// Bindings by number and by peer.
#[derive(Debug)]
pub(crate) struct Channels {
    store: Store,
    /// No binding ends before this instant; it may be earlier than the first end.
    earliest: Instant,
}

#[derive(Debug)]
enum Store {
    InPlace([Option<Channel>; IN_PLACE]),
    Spilled(Box<Spilled>),
}

/// Every channel of `by_number` has its number in `by_peer`, and nothing else is there.
#[derive(Debug)]
struct Spilled {
    by_number: HashMap<ChannelNumber, Channel, KeyedHash>,
    by_peer: HashMap<SocketAddr, ChannelNumber, KeyedHash>,
}

impl Channels {
    pub(crate) fn new() -> Self {
        Self {
            store: Store::InPlace([None; IN_PLACE]),
            earliest: Instant(u64::MAX),
        }
    }

    /// The peer that `number` is bound to.
    pub(crate) fn peer(&self, number: ChannelNumber, now: Instant) -> Option<SocketAddr> {
        self.by_number(number)
            .filter(|channel| channel.expires_at > now)
            .map(|channel| channel.peer)
    }

    /// The number that `peer` is bound to.
    pub(crate) fn number(&self, peer: SocketAddr, now: Instant) -> Option<ChannelNumber> {
        self.by_peer(peer)
            .filter(|channel| channel.expires_at > now)
            .map(|channel| channel.number)
    }

    /// Whether `number` may be bound to `peer`: `Ok(true)` where it is bound to it already.
    pub(crate) fn check(
        &self,
        number: ChannelNumber,
        peer: SocketAddr,
        now: Instant,
    ) -> Result<bool, BoundOtherwise> {
        match (self.peer(number, now), self.number(peer, now)) {
            (None, None) => Ok(false),
            (Some(_), Some(bound)) if bound == number => Ok(true),
            (_, _) => Err(BoundOtherwise),
        }
    }

    /// The number of bindings, those included that ended since the last sweep.
    pub(crate) fn len(&self) -> usize {
        match &self.store {
            Store::InPlace(list) => list.iter().flatten().count(),
            Store::Spilled(maps) => maps.by_number.len(),
        }
    }

    /// Before this instant no binding ends; the end of time where there is none.
    pub(crate) fn earliest(&self) -> Instant {
        self.earliest
    }

    /// Binds or refreshes; the caller has swept, and [`Self::check`]ed. `true` where the binding was made.
    pub(crate) fn bind(&mut self, channel: Channel, hash: &KeyedHash) -> bool {
        self.earliest = self.earliest.min(channel.expires_at);
        let Store::InPlace(list) = &mut self.store else {
            return self.bind_spilled(channel);
        };
        let same = |known: &&mut Channel| known.number == channel.number;
        if let Some(known) = list.iter_mut().flatten().find(same) {
            *known = channel;
            return false;
        }
        if let Some(free) = list.iter_mut().find(|place| place.is_none()) {
            *free = Some(channel);
            return true;
        }
        let mut maps = Spilled {
            by_number: HashMap::with_capacity_and_hasher(2 * IN_PLACE, hash.clone()),
            by_peer: HashMap::with_capacity_and_hasher(2 * IN_PLACE, hash.clone()),
        };
        for known in list.iter().flatten() {
            maps.by_number.insert(known.number, *known);
            maps.by_peer.insert(known.peer, known.number);
        }
        self.store = Store::Spilled(Box::new(maps));
        self.bind_spilled(channel)
    }

    /// Removes what has ended at `now`, and returns how many that were. Costs nothing before [`Self::earliest`].
    pub(crate) fn sweep(&mut self, now: Instant) -> usize {
        if now < self.earliest {
            return 0;
        }
        self.retain(|channel| channel.expires_at > now)
    }

    /// Removes every binding for which `keep` is false, and returns how many that were.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Channel) -> bool) -> usize {
        let before = self.len();
        match &mut self.store {
            Store::InPlace(list) => {
                for place in list.iter_mut() {
                    place.take_if(|channel| !keep(channel));
                }
            }
            Store::Spilled(maps) => {
                let Spilled { by_number, by_peer } = maps.as_mut();
                by_number.retain(|_, channel| {
                    let kept = keep(channel);
                    if !kept {
                        by_peer.remove(&channel.peer);
                    }
                    kept
                });
            }
        }
        let earliest = match &self.store {
            Store::InPlace(list) => list
                .iter()
                .flatten()
                .map(|channel| channel.expires_at)
                .min(),
            Store::Spilled(maps) => maps
                .by_number
                .values()
                .map(|channel| channel.expires_at)
                .min(),
        };
        self.earliest = earliest.unwrap_or(Instant(u64::MAX));
        before - self.len()
    }

    fn by_number(&self, number: ChannelNumber) -> Option<&Channel> {
        match &self.store {
            Store::InPlace(list) => list
                .iter()
                .flatten()
                .find(|channel| channel.number == number),
            Store::Spilled(maps) => maps.by_number.get(&number),
        }
    }

    fn by_peer(&self, peer: SocketAddr) -> Option<&Channel> {
        match &self.store {
            Store::InPlace(list) => list.iter().flatten().find(|channel| channel.peer == peer),
            Store::Spilled(maps) => {
                let number = maps.by_peer.get(&peer)?;
                maps.by_number.get(number)
            }
        }
    }

    fn bind_spilled(&mut self, channel: Channel) -> bool {
        match &mut self.store {
            Store::InPlace(_) => false,
            Store::Spilled(maps) => {
                maps.by_peer.insert(channel.peer, channel.number);
                maps.by_number.insert(channel.number, channel).is_none()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(n: u16, expires_at: u64) -> Channel {
        Channel {
            number: ChannelNumber(0x4000 + n),
            peer: SocketAddr::from(([203, 0, 113, 9], 1000 + n)),
            expires_at: Instant(expires_at),
        }
    }

    #[test]
    fn number_and_peer_name_each_other_until_the_binding_ends() {
        let hash = KeyedHash::with_seed(1);
        for count in [1, 2, 3, 40] {
            let mut channels = Channels::new();
            for n in 0..count {
                assert!(channels.bind(channel(n, 100 + u64::from(n)), &hash));
                assert!(!channels.bind(channel(n, 100 + u64::from(n)), &hash));
            }
            let first = channel(0, 100);
            assert_eq!(channels.peer(first.number, Instant(99)), Some(first.peer));
            assert_eq!(channels.number(first.peer, Instant(99)), Some(first.number));
            assert_eq!(channels.peer(first.number, Instant(100)), None);
            assert_eq!(channels.number(first.peer, Instant(100)), None);
            assert_eq!(channels.sweep(Instant(100)), 1);
            assert_eq!(channels.len(), usize::from(count) - 1);
            assert!(channels.bind(channel(0, 5000), &hash));
            assert_eq!(channels.sweep(Instant(4999)), usize::from(count) - 1);
            assert_eq!(channels.earliest(), Instant(5000));
        }
    }

    #[test]
    fn a_live_binding_forbids_another_one_of_its_number_or_its_peer() {
        let hash = KeyedHash::with_seed(1);
        let mut channels = Channels::new();
        for n in 0..4 {
            channels.bind(channel(n, 100), &hash);
        }
        let (a, b, free) = (channel(0, 0), channel(1, 0), channel(9, 0));
        assert_eq!(channels.check(a.number, a.peer, Instant(1)), Ok(true));
        assert_eq!(
            channels.check(a.number, b.peer, Instant(1)),
            Err(BoundOtherwise)
        );
        assert_eq!(
            channels.check(a.number, free.peer, Instant(1)),
            Err(BoundOtherwise)
        );
        assert_eq!(
            channels.check(free.number, a.peer, Instant(1)),
            Err(BoundOtherwise)
        );
        assert_eq!(
            channels.check(free.number, free.peer, Instant(1)),
            Ok(false)
        );
        assert_eq!(channels.check(a.number, b.peer, Instant(100)), Ok(false));
    }

    #[test]
    fn a_peer_whose_binding_ended_does_not_answer_to_the_next_peer_of_its_number() {
        let hash = KeyedHash::with_seed(1);
        let mut channels = Channels::new();
        for n in 0..4 {
            channels.bind(channel(n, 100 + u64::from(n)), &hash);
        }
        channels.sweep(Instant(100));
        let heir = Channel {
            number: channel(0, 0).number,
            ..channel(9, 200)
        };
        channels.bind(heir, &hash);
        assert_eq!(channels.number(heir.peer, Instant(101)), Some(heir.number));
        assert_eq!(channels.number(channel(0, 0).peer, Instant(101)), None);
    }
}
