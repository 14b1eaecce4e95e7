//! Bandwidth: which allocations are shaped, and how much of a stream may be read.

use super::Server;
use crate::shaper::Direction;
use crate::time::Instant;
use crate::wire::ConnectionId;

/// Places looked at in one call.
const PLACES_AT_ONCE: u32 = 1024;

/// How far a shard is with giving its allocations their shapers.
#[derive(Debug, Default)]
pub(super) struct Renewal {
    /// What the ledger had when the last one began.
    version: u64,
    /// The next place; `None` where nothing is left to do.
    next: Option<u32>,
}

/// Bytes that may be read from the two sides of a spliced connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// From the client.
    pub to_peer: usize,
    /// From the peer.
    pub to_client: usize,
}

impl Room {
    /// No bound.
    pub const FREE: Self = Self {
        to_peer: usize::MAX,
        to_client: usize::MAX,
    };
}

impl Server {
    /// Gives a bounded number of allocations the shapers that their tenants and users have by the ledger; `true` while there
    /// are others. To be called when quotas have changed, until it says `false`.
    pub fn renew_shapers(&mut self) -> bool {
        let version = self.ledger.shapers_version();
        if self.renewal.version != version {
            self.renewal = Renewal {
                version,
                next: Some(0),
            };
        }
        let Some(first) = self.renewal.next else {
            return false;
        };
        let places = self.table.places();
        let end = first.saturating_add(PLACES_AT_ONCE).min(places);
        for place in first..end {
            let Some(id) = self.table.id_at(place) else {
                continue;
            };
            if let Some(allocation) = self.table.allocation_mut(id) {
                let owner = &allocation.owner;
                allocation.shapers = self.ledger.shapers(owner.tenant, owner.user());
            }
        }
        self.renewal.next = (end < places).then_some(end);
        self.renewal.next.is_some()
    }

    /// How much may be read of a spliced connection. What is read in spite of it is charged all the same.
    #[must_use]
    pub fn room_of(&self, now: Instant, connection: ConnectionId) -> Room {
        let connection = self.connections.find(connection);
        let allocation = connection.and_then(|found| self.table.allocation(found.allocation));
        let shapers = allocation.and_then(|allocation| allocation.shapers.as_ref());
        shapers.map_or(Room::FREE, |shapers| Room {
            to_peer: shapers.room(Direction::ToPeers, now),
            to_client: shapers.room(Direction::ToClient, now),
        })
    }
}
