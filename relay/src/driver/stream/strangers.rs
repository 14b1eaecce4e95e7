//! Streams without an allocation: when each is closed, and which of them makes room for a newcomer.
//!
//! They share one pool, whose oldest member goes when it is full; and so that no single source fills it, each source (an
//! IPv4 address or an IPv6 /64) has a share of its own, whose oldest member goes first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use turnfleet_turn::Instant;

/// Since when a stream has no allocation, until when it may live without, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stranger {
    pub(crate) since: Instant,
    pub(crate) until: Instant,
    /// Who is counted for it: nobody while only its balancer is known, or where a source stands for many.
    pub(crate) source: Option<StreamSource>,
}

/// Whom streams are counted by: an IPv4 address, or the first 64 bits of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StreamSource(IpAddr);

impl StreamSource {
    pub(crate) fn of(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) & !u128::from(u64::MAX)).into(),
        })
    }
}

/// The strangers among the streams of one shard, by their places.
#[derive(Default)]
pub(super) struct Strangers {
    by_end: BTreeSet<(Instant, usize)>,
    by_age: BTreeSet<(Instant, usize)>,
    by_source: BTreeMap<StreamSource, BTreeSet<(Instant, usize)>>,
}

impl Strangers {
    pub(super) fn len(&self) -> usize {
        self.by_age.len()
    }

    /// How many come from `source`.
    pub(super) fn len_from(&self, source: StreamSource) -> usize {
        self.by_source.get(&source).map_or(0, BTreeSet::len)
    }

    pub(super) fn insert(&mut self, index: usize, stranger: Stranger) {
        self.by_end.insert((stranger.until, index));
        self.by_age.insert((stranger.since, index));
        if let Some(source) = stranger.source {
            let streams = self.by_source.entry(source).or_default();
            streams.insert((stranger.since, index));
        }
    }

    pub(super) fn remove(&mut self, index: usize, stranger: Stranger) {
        self.by_end.remove(&(stranger.until, index));
        self.by_age.remove(&(stranger.since, index));
        if let Some(source) = stranger.source
            && let Some(streams) = self.by_source.get_mut(&source)
        {
            streams.remove(&(stranger.since, index));
            if streams.is_empty() {
                self.by_source.remove(&source);
            }
        }
    }

    /// The one that has been here for longest.
    pub(super) fn oldest(&self) -> Option<usize> {
        self.by_age.first().map(|&(_, index)| index)
    }

    /// The one from `source` that has been here for longest.
    pub(super) fn oldest_from(&self, source: StreamSource) -> Option<usize> {
        let streams = self.by_source.get(&source)?;
        streams.first().map(|&(_, index)| index)
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

    fn stranger(since: u64, until: u64, source: Option<&str>) -> Stranger {
        Stranger {
            since: Instant(since),
            until: Instant(until),
            source: source.map(|ip| StreamSource::of(ip.parse().unwrap())),
        }
    }

    #[test]
    fn the_oldest_makes_room_and_the_one_whose_time_is_over_goes() {
        let mut strangers = Strangers::default();
        let (early, late) = (stranger(1, 100, None), stranger(2, 50, None));
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

    #[test]
    fn a_source_is_an_address_or_a_network_of_one_site() {
        let mut strangers = Strangers::default();
        let sources = [
            "192.0.2.1",
            "::ffff:192.0.2.1",
            "2001:db8::1",
            "2001:db8::2:0:0:1",
        ];
        for (index, source) in sources.into_iter().enumerate() {
            strangers.insert(index, stranger(9 - index as u64, 100, Some(source)));
        }
        let from = |ip: &str| StreamSource::of(ip.parse().unwrap());
        for (ip, count, oldest) in [
            ("192.0.2.1", 2, Some(1)),
            ("192.0.2.2", 0, None),
            ("2001:db8::ffff", 2, Some(3)),
            ("2001:db8:0:1::1", 0, None),
        ] {
            assert_eq!(strangers.len_from(from(ip)), count, "{ip}");
            assert_eq!(strangers.oldest_from(from(ip)), oldest, "{ip}");
        }
        for (index, source) in sources.into_iter().enumerate() {
            strangers.remove(index, stranger(9 - index as u64, 100, Some(source)));
        }
        assert!(strangers.by_source.is_empty());
    }
}
