//! One allocation (RFC 8656 §6): what ties a client's five-tuple to its relayed transport addresses.
//!
//! The entry is flat: what every allocation has stands in it, and only what few need is on the heap.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use crate::addr::{AddressFamily, FiveTuple, Transport};
use crate::channels::Channels;
use crate::command::RelayedId;
use crate::counters::Flow;
use crate::ledger::Holder;
use crate::permissions::Permissions;
use crate::ports::PortRequest;
use crate::shaper::Shapers;
use crate::tenant::TenantId;
use crate::time::Instant;
use crate::usage::{SentPorts, Traffic};
use crate::wire::{ErrorCode, IntegrityKind, LongTermKey, ReservationToken, TransactionId};

/// Every permission lasts this long unless refreshed (RFC 8656 §9).
pub(crate) const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);

/// Every channel binding lasts this long unless refreshed (RFC 8656 §12).
pub(crate) const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);

/// The lifetime of an allocation that asks for none, and the smallest one granted (RFC 8656 §7.2).
pub(crate) const DEFAULT_LIFETIME: Duration = Duration::from_secs(600);

/// A port reserved for a RESERVATION-TOKEN is held this long (RFC 8656 §7.2).
pub(crate) const RESERVATION_LIFETIME: Duration = Duration::from_secs(30);

/// The state behind one five-tuple.
#[derive(Debug)]
pub(crate) struct Allocation {
    /// Unique in this shard: names the allocation in events.
    pub(crate) number: u64,
    pub(crate) client: FiveTuple,
    /// Who made it, and with which key: 441 compares the one, rotation of secrets cannot refuse the other.
    pub(crate) owner: Owner,
    pub(crate) answered: Box<Answered>,
    /// At most one of each family: the IPv4 one first.
    pub(crate) relayed: [Option<Relayed>; 2],
    pub(crate) permissions: Permissions,
    pub(crate) channels: Channels,
    /// Whether its relayed transport addresses are TCP ones (RFC 6062).
    pub(crate) tcp: bool,
    pub(crate) opened_at: Instant,
    pub(crate) to_peers: Flow,
    pub(crate) to_client: Flow,
    /// What of both is in the tally already.
    pub(crate) tallied: Traffic,
    /// Present where its tenant or its user has a rate.
    pub(crate) shapers: Option<Box<Shapers>>,
    /// Ports of peers that the client has sent to since they were looked at last.
    pub(crate) sent_ports: SentPorts,
    /// Present until the relayed sockets are open and the Allocate request is answered.
    pub(crate) pending: Option<Box<Pending>>,
}

/// What the Allocate request asked for, and what its answer says again when it is retransmitted. Read by requests only, never
/// by data.
#[derive(Debug)]
pub(crate) struct Answered {
    /// Of the request, which tells its retransmission from another one.
    pub(crate) transaction_id: TransactionId,
    pub(crate) lifetime: Duration,
    pub(crate) token: Option<ReservationToken>,
    pub(crate) refused_family: Option<(AddressFamily, ErrorCode)>,
}

/// The credential that made an allocation.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) username: Box<str>,
    /// The part of the username that counts against the limit per user.
    pub(crate) user: Option<Range<u16>>,
    pub(crate) tenant: TenantId,
    /// Read by requests only, never by data.
    pub(crate) key: Box<OwnerKey>,
}

/// The key that an allocation keeps.
#[derive(Debug)]
pub(crate) struct OwnerKey {
    pub(crate) key: LongTermKey,
    /// What the key was made from; zero for what is never asked for.
    pub(crate) id: u32,
    /// Whose user the credential makes it wherever it is shown.
    pub(crate) home: TenantId,
    /// Unix seconds at which the credential ends; `u64::MAX` for a static user's.
    pub(crate) expires_at: u64,
}

/// One relayed transport address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Relayed {
    pub(crate) id: RelayedId,
    /// As clients and peers are told.
    pub(crate) address: SocketAddr,
    pub(crate) expires_at: Instant,
}

/// What an answer ends with, which its request chooses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closing {
    /// What it is signed by, where the sender of the request is known.
    pub(crate) integrity: IntegrityKind,
    pub(crate) fingerprint: bool,
}

/// An Allocate request that waits for its relayed sockets.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) closing: Closing,
    /// How many more ports are tried where somebody else has the one that was drawn.
    pub(crate) attempts: u8,
    /// One for each relayed address that may still be had: one or two.
    pub(crate) wants: Vec<Want>,
}

impl Pending {
    /// How often a port is drawn again for one allocation where somebody else on the machine holds it.
    pub(crate) const ATTEMPTS: u8 = 16;
}

/// A relayed address that a pending allocation waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    pub(crate) family: AddressFamily,
    pub(crate) origin: Origin,
    pub(crate) socket: Opening,
    /// The next higher port, which is to be reserved.
    pub(crate) next: Option<Opening>,
}

/// Where a relayed socket comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A port was drawn for it.
    Drawn(PortRequest),
    /// Another shard held it in reserve; its family is known once it is here.
    Claimed,
}

/// A socket that the driver was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    pub(crate) id: RelayedId,
    pub(crate) open: bool,
}

impl Want {
    pub(crate) fn sockets(&self) -> impl Iterator<Item = Opening> {
        std::iter::once(self.socket).chain(self.next)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.sockets().all(|socket| socket.open)
    }
}

impl Owner {
    pub(crate) fn key(&self) -> &LongTermKey {
        &self.key.key
    }

    /// Who it counts for.
    pub(crate) fn holder(&self) -> Holder<'_> {
        Holder {
            tenant: self.tenant,
            user: self.user(),
        }
    }

    /// The user that counts against limits.
    pub(crate) fn user(&self) -> Option<&str> {
        let range = self.user.as_ref()?;
        self.username
            .get(usize::from(range.start)..usize::from(range.end))
    }
}

impl Allocation {
    /// The transport of its relayed transport addresses.
    pub(crate) fn relayed_transport(&self) -> Transport {
        if self.tcp {
            Transport::Tcp
        } else {
            Transport::Udp
        }
    }

    /// Whether clients and peers may use it.
    pub(crate) fn is_live(&self, now: Instant) -> bool {
        self.pending.is_none() && self.live(now).next().is_some()
    }

    /// The relayed addresses that have not expired.
    pub(crate) fn live(&self, now: Instant) -> impl Iterator<Item = &Relayed> {
        let live = move |relayed: &&Relayed| relayed.expires_at > now;
        self.relayed.iter().flatten().filter(live)
    }

    /// The relayed address from which peers of `family` are reached.
    pub(crate) fn relayed(&self, family: AddressFamily, now: Instant) -> Option<&Relayed> {
        self.relayed[family as usize]
            .as_ref()
            .filter(|relayed| relayed.expires_at > now)
    }

    /// What went over it since the last call.
    pub(crate) fn take_traffic(&mut self) -> Traffic {
        let now = Traffic {
            to_peers: self.to_peers,
            to_clients: self.to_client,
        };
        let before = std::mem::replace(&mut self.tallied, now);
        Traffic {
            to_peers: now.to_peers.since(before.to_peers),
            to_clients: now.to_clients.since(before.to_clients),
        }
    }

    /// When something of this allocation ends next.
    pub(crate) fn next_expiry(&self) -> Instant {
        let relayed = self
            .relayed
            .iter()
            .flatten()
            .map(|relayed| relayed.expires_at);
        relayed
            .fold(Instant(u64::MAX), Instant::min)
            .min(self.permissions.earliest())
            .min(self.channels.earliest())
    }

    /// Ends the permissions and channels of one family (RFC 8656 §8.1). Returns how many of each there were.
    pub(crate) fn clear_family(&mut self, family: AddressFamily) -> (usize, usize) {
        let other = |ip: IpAddr| AddressFamily::of(ip) != family;
        let permissions = self.permissions.retain(other);
        let channels = self.channels.retain(|channel| other(channel.peer.ip()));
        (permissions, channels)
    }
}

/// `duration` in whole seconds, rounded up, as LIFETIME has it.
pub(crate) fn seconds(duration: Duration) -> u32 {
    let whole = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    u32::try_from(whole).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocation_is_small() {
        assert!(
            size_of::<Allocation>() <= 600,
            "{}",
            size_of::<Allocation>()
        );
    }

    #[test]
    fn lifetimes_are_rounded_up() {
        assert_eq!(seconds(Duration::from_millis(599_001)), 600);
        assert_eq!(seconds(Duration::from_secs(600)), 600);
    }
}
