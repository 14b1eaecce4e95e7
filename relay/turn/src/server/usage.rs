//! Moves what the packet path has counted into the shard's [`Tally`], and notes there what requests show.

use std::net::{IpAddr, SocketAddr};

use super::Server;
use super::request::Request;
use crate::addr::{AddressFamily, Transport};
use crate::allocation::{Allocation, Owner};
use crate::reject::Reject;
use crate::table::AllocationId;
use crate::tenant::TenantId;
use crate::usage::{Behaviour, Bytes, Network, Tally, Traffic};

impl Server {
    /// Counts what went over the next `places` of the table since they were looked at last; `true` at the end of the
    /// table, where the next call begins anew. Not for the path of packets.
    #[must_use]
    pub fn sweep_usage(&mut self, places: u32) -> bool {
        let end = self.table.places();
        let from = self.swept.min(end);
        let to = from.saturating_add(places).min(end);
        for index in from..to {
            if let Some(id) = self.table.id_at(index) {
                self.count_usage(id);
            }
        }
        let is_over = to == end;
        self.swept = if is_over { 0 } else { to };
        is_over
    }

    /// What was counted since the last call.
    #[must_use]
    pub fn take_usage(&mut self) -> Tally {
        std::mem::take(&mut self.usage)
    }

    /// What is there to be taken.
    #[must_use]
    pub fn usage(&self) -> &Tally {
        &self.usage
    }

    /// Counts what went over one allocation.
    pub(super) fn count_usage(&mut self, id: AllocationId) {
        for connection in self.connections.of(id).to_vec() {
            if let Some((peer, moved)) = self.connections.take_moved(connection) {
                count_peer(&mut self.usage, peer.ip(), moved);
            }
        }
        if let Some(allocation) = self.table.allocation_mut(id) {
            count_allocation(&mut self.usage, allocation);
        }
    }

    /// An allocation was granted.
    pub(super) fn note_opened(&mut self, id: AllocationId) {
        let Some(allocation) = self.table.allocation(id) else {
            return;
        };
        let owner = &allocation.owner;
        let Some(usage) = counted(&mut self.usage, owner.tenant) else {
            return;
        };
        usage.tenant(owner.tenant).opened += 1;
        if let Some(behaviour) = behaviour_of(usage, owner) {
            let client = allocation.client.client.ip();
            insert_ip(&mut behaviour.addresses, client);
            insert_ip(&mut behaviour.networks, Network::of(client).into());
            behaviour.opened += 1;
        }
    }

    /// An Allocate request of a tenant's user was refused.
    pub(super) fn note_refused(&mut self, tenant: TenantId) {
        if let Some(usage) = counted(&mut self.usage, tenant) {
            usage.tenant(tenant).refused += 1;
        }
    }

    /// An allocation of a tenant's user has ended.
    pub(super) fn note_closed(&mut self, tenant: TenantId) {
        if let Some(usage) = counted(&mut self.usage, tenant) {
            usage.tenant(tenant).closed += 1;
        }
    }

    /// The user of an allocation has asked for these peers, `installed` of which it had no permission for. A port of zero
    /// stands for none.
    pub(super) fn note_peers(&mut self, id: AllocationId, peers: &[SocketAddr], installed: u64) {
        let Some(allocation) = self.table.allocation(id) else {
            return;
        };
        let owner = &allocation.owner;
        let Some(behaviour) = behaviour_of(&mut self.usage, owner) else {
            return;
        };
        behaviour.permissions += installed;
        for peer in peers {
            note_peer(behaviour, *peer);
        }
    }

    /// The policy refused a peer to the user of an allocation.
    pub(super) fn note_denied(&mut self, id: AllocationId) {
        let Some(allocation) = self.table.allocation(id) else {
            return;
        };
        if let Some(behaviour) = behaviour_of(&mut self.usage, &allocation.owner) {
            behaviour.denied += 1;
        }
    }

    /// A user who has as many allocations as one may have was refused another one.
    pub(super) fn note_limited(&mut self, from: IpAddr, owner: &Owner) {
        if let (Some(user), Some(limited)) = (owner.user(), self.usage.limited(from)) {
            let tenant = owner.tenant.0.to_be_bytes();
            limited
                .users
                .insert(&[&tenant[..], user.as_bytes()].concat());
            limited.times += 1;
        }
    }

    /// Somebody who has proved nothing is refused, whether the answer goes out or not.
    pub(super) fn note_stranger(&mut self, request: &Request<'_>, reject: Reject) {
        let by_udp = request.from.transport == Transport::Udp;
        // Without a challenge that was read, credentials are bad in the name of anybody.
        let failed = reject == Reject::Unauthenticated && self.has_read_challenge(request);
        // One that is banned is told so, and not asked for a credential.
        let challenged = by_udp && !failed && reject != Reject::Forbidden;
        if !failed && !challenged {
            return;
        }
        let lives = request.allocation.is_some();
        if let Some(stranger) = self.usage.stranger(request.from.client.ip()) {
            stranger.failures += u64::from(failed);
            stranger.challenges += u64::from(challenged && !lives);
            stranger.authentic += u64::from(failed && by_udp && !lives);
        }
    }

    /// A Binding request by UDP is beyond the reflection budget: that many are asked for in another's name.
    pub(super) fn note_withheld(&mut self, request: &Request<'_>) {
        if let Some(stranger) = self.usage.stranger(request.from.client.ip()) {
            stranger.challenges += 1;
        }
    }

    /// An authentic request without an allocation has come by UDP: its sender has read a challenge.
    pub(super) fn note_proven(&mut self, request: &Request<'_>) {
        if request.allocation.is_none()
            && let Some(stranger) = self.usage.stranger(request.from.client.ip())
        {
            stranger.authentic += 1;
        }
    }
}

/// Where to count what users of `tenant` do: nowhere for the fleet's own controllers, which try whether the relay works.
fn counted(usage: &mut Tally, tenant: TenantId) -> Option<&mut Tally> {
    (tenant != TenantId::PROBE).then_some(usage)
}

/// How the user of an allocation behaves, where that is counted.
fn behaviour_of<'u>(usage: &'u mut Tally, owner: &Owner) -> Option<&'u mut Behaviour> {
    let usage = counted(usage, owner.tenant)?;
    usage.behaviour(owner.tenant, owner.user().unwrap_or_default())
}

/// Counts what went over `allocation`, connections apart, and how it ended where it has.
pub(super) fn count_allocation(usage: &mut Tally, allocation: &mut Allocation) {
    let moved = allocation.take_traffic();
    let client = allocation.client;
    let owner = &allocation.owner;
    if moved == Traffic::default() {
        return;
    }
    let Some(usage) = counted(usage, owner.tenant) else {
        return;
    };
    let family = AddressFamily::of(client.client.ip());
    usage.leg(owner.tenant, client.transport, family).add(moved);
    let bytes = moved.bytes();
    if let Some(user) = usage.user(owner.tenant, owner.user().unwrap_or_default()) {
        user.bytes.add(bytes);
    }
    if let Some(source) = usage.source(client.client.ip()) {
        source.add(bytes);
    }
    let ports = std::mem::take(&mut allocation.sent_ports);
    if ports.are_many()
        && let Some(behaviour) = behaviour_of(usage, owner)
    {
        ports.each(|group| behaviour.endpoints.insert(&[group]));
    }
    allocation
        .permissions
        .take_moved(|ip, moved| count_peer(usage, ip, moved));
}

/// Counts what a peer sent and was sent.
pub(super) fn count_peer(usage: &mut Tally, ip: IpAddr, moved: Bytes) {
    if moved.sum() > 0
        && let Some(peer) = usage.peer(ip)
    {
        peer.add(moved);
    }
}

fn note_peer(behaviour: &mut Behaviour, peer: SocketAddr) {
    insert_ip(&mut behaviour.peers, peer.ip());
    let port = peer.port().to_be_bytes();
    match peer.ip() {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            behaviour.endpoints.insert(&[a, b, c, d, port[0], port[1]]);
        }
        IpAddr::V6(ip) => {
            let mut thing = [0; 18];
            thing[..16].copy_from_slice(&ip.octets());
            thing[16..].copy_from_slice(&port);
            behaviour.endpoints.insert(&thing);
        }
    }
}

fn insert_ip(spread: &mut crate::usage::Spread, ip: IpAddr) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => spread.insert(&ip.octets()),
        // A host has a /64 to itself.
        IpAddr::V6(ip) => {
            let [network @ .., _, _, _, _, _, _, _, _] = ip.octets();
            spread.insert(&network);
        }
    }
}
