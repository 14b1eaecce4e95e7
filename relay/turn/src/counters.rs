//! Plain per-shard counters; the relay's exporter sums them over shards.
//!
//! Every index is a closed enum, so that a label can never be an address or a user.

use std::time::Duration;

use crate::addr::Transport;
use crate::bans::BanKind;
use crate::decision::DropReason;
use crate::event::CloseReason;
use crate::reject::Reject;
use crate::request_method::RequestMethod;

/// Packets and application bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Datagrams or messages.
    pub packets: u64,
    /// Application data in them, without STUN, ChannelData or IP headers.
    pub bytes: u64,
}

impl Flow {
    /// Counts one packet with `bytes` of application data.
    pub(crate) fn count(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }

    /// What was counted after `earlier`, which was a value of the same counter.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            packets: self.packets - earlier.packets,
            bytes: self.bytes - earlier.bytes,
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// A bound that was reached. The variants are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// `Limits::allocations_per_user`.
    AllocationsPerUser,
    /// `Limits::allocations`.
    Allocations,
    /// No free port with the properties asked for.
    Ports,
    /// The driver could not open a relayed socket: no descriptor or memory, or ports taken by others.
    Sockets,
    /// `Limits::permissions_per_allocation`.
    Permissions,
    /// `Limits::channels_per_allocation`.
    Channels,
    /// `Limits::connections_per_allocation`.
    Connections,
    /// `Limits::connections_per_user`.
    ConnectionsPerUser,
    /// `Limits::connections`.
    ConnectionsTotal,
    /// Ports held in reserve for one user on one shard: as many as `Limits::allocations_per_user`.
    Reservations,
    /// The queue of events; the event was dropped.
    Events,
    /// The relay's share of what a tenant may have in the fleet.
    TenantAllocations,
}

impl Limit {
    /// Every limit, in the order of their declaration.
    pub const ALL: [Self; 12] = [
        Self::AllocationsPerUser,
        Self::Allocations,
        Self::Ports,
        Self::Sockets,
        Self::Permissions,
        Self::Channels,
        Self::Connections,
        Self::ConnectionsPerUser,
        Self::ConnectionsTotal,
        Self::Reservations,
        Self::Events,
        Self::TenantAllocations,
    ];

    /// The metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AllocationsPerUser => "allocations_per_user",
            Self::Allocations => "allocations",
            Self::Ports => "ports",
            Self::Sockets => "sockets",
            Self::Permissions => "permissions",
            Self::Channels => "channels",
            Self::Connections => "connections",
            Self::ConnectionsPerUser => "connections_per_user",
            Self::ConnectionsTotal => "connections_total",
            Self::Reservations => "reservations",
            Self::Events => "events",
            Self::TenantAllocations => "tenant_allocations",
        }
    }
}

/// Why a client was sent to another server. The variants are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RedirectReason {
    /// The relay takes no allocations.
    Draining,
    /// The relay has no room, port or socket for another one.
    Capacity,
}

impl RedirectReason {
    /// Every reason, in the order of their declaration.
    pub const ALL: [Self; 2] = [Self::Draining, Self::Capacity];

    /// The metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Capacity => "capacity",
        }
    }
}

/// Classes of durations that have an end.
const CLASSES: usize = 12;

/// How long something took, in classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// How many there were in each class of [`Self::BOUNDS`], then those beyond the last.
    classes: [u64; CLASSES + 1],
    sum_nanos: u64,
}

impl Durations {
    /// The longest duration of each class but the last, which has no end.
    pub const BOUNDS: [Duration; CLASSES] = [
        Duration::from_micros(25),
        Duration::from_micros(50),
        Duration::from_micros(100),
        Duration::from_micros(250),
        Duration::from_micros(500),
        Duration::from_millis(1),
        Duration::from_micros(2500),
        Duration::from_millis(5),
        Duration::from_millis(10),
        Duration::from_millis(50),
        Duration::from_millis(250),
        Duration::from_secs(1),
    ];

    /// How many there were up to each of [`Self::BOUNDS`].
    pub fn up_to(&self) -> impl Iterator<Item = (Duration, u64)> {
        let counts = self.classes.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        Self::BOUNDS.into_iter().zip(counts)
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// How long they took together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_nanos)
    }

    pub(crate) fn add_one(&mut self, took: Duration) {
        let class = Self::BOUNDS.partition_point(|bound| *bound < took);
        self.classes[class] += 1;
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanos = self.sum_nanos.saturating_add(nanos);
    }

    fn add(&mut self, other: &Self) {
        add_each(&mut self.classes, &other.classes);
        self.sum_nanos = self.sum_nanos.saturating_add(other.sum_nanos);
    }
}

/// What one shard has counted since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    requests: [u64; RequestMethod::ALL.len()],
    rejects: [[u64; Reject::ALL.len()]; RequestMethod::ALL.len()],
    drops: [u64; DropReason::ALL.len()],
    limits: [u64; Limit::ALL.len()],
    closed: [u64; CloseReason::ALL.len()],
    redirects: [u64; RedirectReason::ALL.len()],
    bans: [u64; BanKind::ALL.len()],
    to_peers: [Flow; Transport::ALL.len()],
    to_clients: [Flow; Transport::ALL.len()],
    /// Allocations granted.
    pub opened: u64,
    /// Allocations that ended without a byte relayed either way.
    pub unused: u64,
    /// From an authentic Allocate request to its success.
    pub allocating: Durations,
    /// ICMP messages that clients were told of (RFC 8656 §11.5).
    pub icmp_indications: u64,
    /// Permissions that exist; a gauge.
    pub permissions: u64,
    /// Channel bindings that exist; a gauge.
    pub channels: u64,
    /// Peer data connections that exist or are being opened; a gauge.
    pub connections: u64,
    /// Ports held for a RESERVATION-TOKEN; a gauge.
    pub reservations: u64,
}

impl Counters {
    /// Requests of `method`, retransmissions included.
    #[must_use]
    pub fn requests(&self, method: RequestMethod) -> u64 {
        self.requests[method as usize]
    }

    /// Requests of `method` that were refused with `reject`, whether or not the answer was within the reflection budget.
    #[must_use]
    pub fn rejects(&self, method: RequestMethod, reject: Reject) -> u64 {
        self.rejects[method as usize][reject as usize]
    }

    /// Packets dropped for `reason`.
    #[must_use]
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// How often `limit` was reached.
    #[must_use]
    pub fn limits(&self, limit: Limit) -> u64 {
        self.limits[limit as usize]
    }

    /// Allocations that ended for `reason`.
    #[must_use]
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize]
    }

    /// Clients that were sent to another server for `reason`.
    #[must_use]
    pub fn redirects(&self, reason: RedirectReason) -> u64 {
        self.redirects[reason as usize]
    }

    /// Requests that were refused because of a ban of `kind`.
    #[must_use]
    pub fn bans(&self, kind: BanKind) -> u64 {
        self.bans[kind as usize]
    }

    /// Allocations that exist.
    #[must_use]
    pub fn allocations(&self) -> u64 {
        self.opened - self.closed.iter().sum::<u64>()
    }

    /// Data of clients on `transport` to their peers.
    #[must_use]
    pub fn to_peers(&self, transport: Transport) -> Flow {
        self.to_peers[transport as usize]
    }

    /// Data of peers to clients on `transport`.
    #[must_use]
    pub fn to_clients(&self, transport: Transport) -> Flow {
        self.to_clients[transport as usize]
    }

    /// Adds what another shard has counted.
    pub fn add(&mut self, other: &Self) {
        add_each(&mut self.requests, &other.requests);
        for (mine, theirs) in self.rejects.iter_mut().zip(&other.rejects) {
            add_each(mine, theirs);
        }
        add_each(&mut self.drops, &other.drops);
        add_each(&mut self.limits, &other.limits);
        add_each(&mut self.closed, &other.closed);
        add_each(&mut self.redirects, &other.redirects);
        add_each(&mut self.bans, &other.bans);
        for (mine, theirs) in self.to_peers.iter_mut().zip(other.to_peers) {
            mine.add(theirs);
        }
        for (mine, theirs) in self.to_clients.iter_mut().zip(other.to_clients) {
            mine.add(theirs);
        }
        self.opened += other.opened;
        self.unused += other.unused;
        self.allocating.add(&other.allocating);
        self.icmp_indications += other.icmp_indications;
        self.permissions += other.permissions;
        self.channels += other.channels;
        self.connections += other.connections;
        self.reservations += other.reservations;
    }

    pub(crate) fn count_request(&mut self, method: RequestMethod) {
        self.requests[method as usize] += 1;
    }

    pub(crate) fn count_reject(&mut self, method: RequestMethod, reject: Reject) {
        self.rejects[method as usize][reject as usize] += 1;
    }

    pub(crate) fn count_drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    pub(crate) fn count_limit(&mut self, limit: Limit) {
        self.limits[limit as usize] += 1;
    }

    pub(crate) fn count_closed(&mut self, reason: CloseReason) {
        self.closed[reason as usize] += 1;
    }

    pub(crate) fn count_redirect(&mut self, reason: RedirectReason) {
        self.redirects[reason as usize] += 1;
    }

    pub(crate) fn count_ban(&mut self, kind: BanKind) {
        self.bans[kind as usize] += 1;
    }

    pub(crate) fn count_to_peer(&mut self, transport: Transport, bytes: usize) {
        self.to_peers[transport as usize].count(bytes);
    }

    pub(crate) fn count_to_client(&mut self, transport: Transport, bytes: usize) {
        self.to_clients[transport as usize].count(bytes);
    }
}

fn add_each(mine: &mut [u64], theirs: &[u64]) {
    for (mine, theirs) in mine.iter_mut().zip(theirs) {
        *mine += theirs;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_two_shards_add_up() {
        let mut a = Counters::default();
        a.count_request(RequestMethod::Allocate);
        a.count_reject(RequestMethod::Refresh, Reject::AllocationMismatch);
        a.count_to_peer(Transport::Tcp, 10);
        a.opened = 2;
        a.count_closed(CloseReason::Expired);
        let mut sum = a.clone();
        sum.add(&a);
        assert_eq!(sum.requests(RequestMethod::Allocate), 2);
        assert_eq!(
            sum.rejects(RequestMethod::Refresh, Reject::AllocationMismatch),
            2
        );
        assert_eq!(
            sum.to_peers(Transport::Tcp),
            Flow {
                packets: 2,
                bytes: 20
            }
        );
        assert_eq!(sum.allocations(), 2);
    }

    #[test]
    fn a_duration_counts_in_its_class_and_in_all_above() {
        let mut durations = Durations::default();
        for micros in [0, 25, 26, 2_000_000] {
            durations.add_one(Duration::from_micros(micros));
        }
        let mut sum = durations;
        sum.add(&durations);
        let counts: Vec<u64> = sum.up_to().map(|(_, count)| count).collect();
        assert_eq!(counts[..2], [4, 6]);
        assert_eq!(counts.last(), Some(&6));
        assert_eq!(sum.count(), 8);
        assert_eq!(sum.sum(), Duration::from_micros(4_000_102));
    }

    #[test]
    fn the_index_of_a_label_is_its_place_in_all() {
        assert!(
            Limit::ALL
                .iter()
                .enumerate()
                .all(|(i, limit)| *limit as usize == i)
        );
        assert!(
            RedirectReason::ALL
                .iter()
                .enumerate()
                .all(|(i, reason)| *reason as usize == i)
        );
        assert!(
            BanKind::ALL
                .iter()
                .enumerate()
                .all(|(i, kind)| *kind as usize == i)
        );
        assert!(
            DropReason::ALL
                .iter()
                .enumerate()
                .all(|(i, reason)| *reason as usize == i)
        );
        assert!(
            CloseReason::ALL
                .iter()
                .enumerate()
                .all(|(i, reason)| *reason as usize == i)
        );
        assert!(
            Transport::ALL
                .iter()
                .enumerate()
                .all(|(i, transport)| *transport as usize == i)
        );
        assert!(
            Reject::ALL
                .iter()
                .enumerate()
                .all(|(i, reject)| *reject as usize == i)
        );
        assert!(
            RequestMethod::ALL
                .iter()
                .enumerate()
                .all(|(i, method)| *method as usize == i)
        );
    }
}
