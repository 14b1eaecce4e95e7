//! The relay's own relayed sockets by local address: where a payload for another client of the same relay belongs.
//!
//! All shards share one directory. It mirrors what the kernel knows: a socket is entered once it is bound and taken out
//! before it is closed, by the shard that has it. An entry is one word, written when an allocation begins and ends, and
//! read for each payload that goes to an address of this machine. An entry that has just become untrue names a socket
//! that its shard does not know any more, and what is sent there is dropped, as the kernel would drop it.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU8;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use turnfleet_turn::{RelayedId, ShardId};

/// Ports whose entries are made together, on the first use of one of them: 8 KiB.
const BLOCK: usize = 1024;
const BLOCKS: usize = (1 << 16) / BLOCK;

/// Bits of an entry that hold the generation of a socket.
const GENERATION_BITS: u32 = 32;
/// Bits of an entry that hold the place of a socket: 255 addresses with all of their ports have fewer places.
const PLACE_BITS: u32 = 24;

/// Whose a relayed socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The shard that has it.
    pub(crate) shard: ShardId,
    /// Its name there.
    pub(crate) id: RelayedId,
}

impl Owner {
    /// Never zero, which stands for nobody.
    fn to_word(self) -> Option<u64> {
        let place = u64::try_from(self.id.index()).ok()?;
        let shard = u64::from(self.shard.0.checked_add(1)?);
        let fits = place < 1 << PLACE_BITS;
        let word =
            ((shard << PLACE_BITS | place) << GENERATION_BITS) | u64::from(self.id.generation());
        fits.then_some(word)
    }

    fn of_word(word: u64) -> Option<Self> {
        let place = word >> GENERATION_BITS & ((1 << PLACE_BITS) - 1);
        let shard = u8::try_from(word >> (GENERATION_BITS + PLACE_BITS)).ok()?;
        let generation = u32::try_from(word & u64::from(u32::MAX)).ok()?;
        Some(Self {
            shard: ShardId(shard.checked_sub(1)?),
            id: RelayedId::new(u32::try_from(place).ok()?, generation),
        })
    }
}

/// The place of a relayed address in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostIndex(NonZeroU8);

impl HostIndex {
    fn new(index: usize) -> Option<Self> {
        let number = u8::try_from(index + 1).ok()?;
        NonZeroU8::new(number).map(Self)
    }

    fn index(self) -> usize {
        usize::from(self.0.get()) - 1
    }
}

/// See the module.
pub(crate) struct Directory {
    hosts: Vec<Host>,
}

struct Host {
    ip: IpAddr,
    blocks: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

impl Host {
    fn entry(&self, port: u16) -> Option<&AtomicU64> {
        let port = usize::from(port);
        self.blocks[port / BLOCK].get()?.get(port % BLOCK)
    }

    fn make_entry(&self, port: u16) -> &AtomicU64 {
        let port = usize::from(port);
        let empty = || (0..BLOCK).map(|_| AtomicU64::new(0)).collect();
        &self.blocks[port / BLOCK].get_or_init(empty)[port % BLOCK]
    }
}

impl Directory {
    /// A directory for sockets that are bound to one of `ips`; without any of them nothing is ever found.
    pub(crate) fn new(ips: impl IntoIterator<Item = IpAddr>) -> Self {
        let host = |ip| Host {
            ip,
            blocks: (0..BLOCKS).map(|_| OnceLock::new()).collect(),
        };
        Self {
            hosts: ips.into_iter().map(host).collect(),
        }
    }

    /// The place of `ip`, if it is a relayed address of this relay.
    pub(crate) fn host(&self, ip: IpAddr) -> Option<HostIndex> {
        let place = self.hosts.iter().position(|host| host.ip == ip)?;
        HostIndex::new(place)
    }

    /// The address at a place.
    pub(crate) fn ip(&self, host: HostIndex) -> Option<IpAddr> {
        Some(self.hosts.get(host.index())?.ip)
    }

    /// Whose socket is bound to `to`; `None` where it is no socket of this relay.
    pub(crate) fn find(&self, to: SocketAddr) -> Option<Owner> {
        let host = self.hosts.iter().find(|host| host.ip == to.ip())?;
        Owner::of_word(host.entry(to.port())?.load(Ordering::Relaxed))
    }

    /// Enters a socket that is bound.
    pub(crate) fn enter(&self, host: HostIndex, port: u16, owner: Owner) {
        if let (Some(host), Some(word)) = (self.hosts.get(host.index()), owner.to_word()) {
            host.make_entry(port).store(word, Ordering::Relaxed);
        }
    }

    /// Takes out a socket that is about to be closed; that of another owner stays.
    pub(crate) fn remove(&self, host: HostIndex, port: u16, owner: Owner) {
        let host = self.hosts.get(host.index());
        let entry = host.and_then(|host| host.entry(port));
        if let (Some(entry), Some(word)) = (entry, owner.to_word()) {
            let _ = entry.compare_exchange(word, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(shard: u8, place: u32, generation: u32) -> Owner {
        Owner {
            shard: ShardId(shard),
            id: RelayedId::new(place, generation),
        }
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_owner_survives_its_word() {
        let most = (1 << PLACE_BITS) - 1;
        for owner in [owner(0, 0, 0), owner(254, most, u32::MAX), owner(1, 2, 3)] {
            let word = owner.to_word().unwrap();
            assert_ne!(word, 0);
            assert_eq!(Owner::of_word(word), Some(owner));
        }
        assert_eq!(Owner::of_word(0), None);
        assert_eq!(owner(0, most + 1, 0).to_word(), None);
        assert_eq!(owner(255, 0, 0).to_word(), None);
    }

    #[test]
    fn a_socket_is_found_by_address_and_port_until_it_is_taken_out() {
        let directory = Directory::new(["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().unwrap()));
        let v6 = directory.host("2001:db8::1".parse().unwrap()).unwrap();
        assert_eq!(directory.find(addr("[2001:db8::1]:65535")), None);
        directory.enter(v6, 65_535, owner(3, 7, 1));
        assert_eq!(
            directory.find(addr("[2001:db8::1]:65535")),
            Some(owner(3, 7, 1))
        );
        for other in [
            "192.0.2.1:65535",
            "[2001:db8::1]:65534",
            "[2001:db8::2]:65535",
        ] {
            assert_eq!(directory.find(addr(other)), None);
        }
        directory.remove(v6, 65_535, owner(3, 7, 1));
        assert_eq!(directory.find(addr("[2001:db8::1]:65535")), None);
    }

    #[test]
    fn an_entry_of_the_next_owner_outlives_a_late_removal() {
        let directory = Directory::new(["192.0.2.1".parse().unwrap()]);
        let host = directory.host("192.0.2.1".parse().unwrap()).unwrap();
        directory.enter(host, 50_000, owner(0, 1, 0));
        directory.enter(host, 50_000, owner(1, 1, 0));
        directory.remove(host, 50_000, owner(0, 1, 0));
        assert_eq!(
            directory.find(addr("192.0.2.1:50000")),
            Some(owner(1, 1, 0))
        );
    }

    #[test]
    fn a_directory_without_addresses_knows_nobody() {
        let directory = Directory::new([]);
        assert_eq!(directory.host("127.0.0.1".parse().unwrap()), None);
        assert_eq!(directory.find(addr("127.0.0.1:50000")), None);
    }
}
