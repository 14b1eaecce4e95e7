//! Application data: ChannelData and Send from clients, datagrams from peers (RFC 8656 §11, §12).
//!
//! The packet path: no memory from the heap, one look-up by hash for what a client sends and none for what a peer sends,
//! but where an allocation has many permissions or channels. Whatever may not pass is dropped without an answer, and
//! counted.

use std::net::SocketAddr;

use super::Server;
use crate::addr::{AddressFamily, FiveTuple, PeerAddr};
use crate::command::RelayedId;
use crate::decision::{ClientHeader, Decision, DropReason, Span};
use crate::ip::{IpMeta, Leg};
use crate::shaper::Direction;
use crate::table::AllocationId;
use crate::time::{Instant, Now};
use crate::wire::{AttributeType, ChannelData, Message, TransactionId};

/// The most that a UDP datagram over IPv4 carries.
const MAX_DATAGRAM: usize = 65_507;

/// What stands around a peer's data at most: a Data indication with an IPv6 peer, and padding.
const MAX_FRAMING: usize = ClientHeader::MAX_LEN + ClientHeader::MAX_PADDING;

/// Application data of a client, inside the packet that it came in.
#[derive(Clone, Copy)]
struct ClientData {
    payload: Span,
    ip: IpMeta,
    /// Whether DONT-FRAGMENT stands beside it.
    dont_fragment: bool,
}

impl Server {
    /// RFC 8656 §12.6. Receipt refreshes neither the binding nor the permission.
    pub(super) fn handle_channel_data(
        &mut self,
        now: Instant,
        from: FiveTuple,
        ip: IpMeta,
        packet: &[u8],
    ) -> Decision {
        let Ok(message) = ChannelData::parse(packet) else {
            return Decision::Drop(DropReason::Malformed);
        };
        let Some(id) = self.table.find(&from) else {
            return Decision::Drop(DropReason::NoAllocation);
        };
        let Some(allocation) = self.table.allocation(id) else {
            return Decision::Drop(DropReason::NoAllocation);
        };
        let Some(peer) = allocation.channels.peer(message.number, now) else {
            return Decision::Drop(DropReason::NoChannel);
        };
        let data = ClientData {
            payload: message.payload,
            ip,
            dont_fragment: false,
        };
        self.relay_to_peer(now, id, peer, data)
    }

    /// RFC 8656 §11.2.
    pub(super) fn handle_send(
        &mut self,
        now: Now,
        from: FiveTuple,
        ip: IpMeta,
        message: &Message<'_>,
    ) -> Decision {
        let Now { instant, unix } = now;
        // RFC 8489 §6.3.2: unknown comprehension-required attributes end the processing.
        if self.unknown_in(message).next().is_some() {
            return Decision::Drop(DropReason::UnknownAttributes);
        }
        // §5: without an allocation the indication is ignored.
        let id = self.table.find(&from);
        let found = id.and_then(|id| Some((id, self.table.allocation(id)?)));
        let Some((id, allocation)) = found.filter(|(_, allocation)| allocation.is_live(instant))
        else {
            return Decision::Drop(DropReason::NoAllocation);
        };
        // RFC 6062 §3: a control connection carries no application data.
        if allocation.tcp {
            return Decision::Drop(DropReason::NoAllocation);
        }
        // Both attributes are there; of several peers the first counts.
        let (Some(Ok(PeerAddr(peer))), Some(payload)) =
            (message.xor_peer_address(), message.data())
        else {
            return Decision::Drop(DropReason::Malformed);
        };
        if allocation
            .relayed(AddressFamily::of(peer.ip()), instant)
            .is_none()
        {
            return Decision::Drop(DropReason::FamilyMismatch);
        }
        // The peer's address and port are allowed.
        let tenant = allocation.owner.tenant;
        if self.policy.check_peer(tenant, peer, unix).is_err() {
            return Decision::Drop(DropReason::PeerDenied);
        }
        let data = ClientData {
            payload,
            ip,
            dont_fragment: message.has(AttributeType::DONT_FRAGMENT),
        };
        self.relay_to_peer(instant, id, peer, data)
    }

    /// §21.1.4: a client has a permission for whoever it sends data to. A Send indication says so (§11.2), and a channel
    /// binding, which lasts longer, does not stand in for it. The permission is not refreshed.
    fn relay_to_peer(
        &mut self,
        now: Instant,
        id: AllocationId,
        peer: SocketAddr,
        data: ClientData,
    ) -> Decision {
        let payload = data.payload;
        if payload.len > MAX_DATAGRAM {
            return Decision::Drop(DropReason::TooLong);
        }
        let Some(allocation) = self.table.allocation_mut(id) else {
            return Decision::Drop(DropReason::NoAllocation);
        };
        let family = AddressFamily::of(peer.ip());
        let Some(relayed) = allocation.relayed(family, now) else {
            return Decision::Drop(DropReason::NoAllocation);
        };
        let via = relayed.id;
        let Some(moved) = allocation.permissions.live(peer.ip(), now) else {
            return Decision::Drop(DropReason::NoPermission);
        };
        let (from, to) = (client_leg(&allocation.client), Leg::Datagrams(family));
        let Some(ip) = data.ip.relayed(from, to, data.dont_fragment) else {
            return Decision::Drop(DropReason::TtlExpired);
        };
        if let Some(shapers) = &allocation.shapers
            && !shapers.admit(Direction::ToPeers, now, payload.len)
        {
            return Decision::Drop(DropReason::OverBandwidth);
        }
        moved.to_peers += payload.len as u64;
        allocation.sent_ports.note(peer.port());
        allocation.to_peers.count(payload.len);
        let transport = allocation.client.transport;
        self.counters.count_to_peer(transport, payload.len);
        Decision::ToPeer {
            via,
            to: PeerAddr(self.local_form(peer)),
            payload,
            ip,
        }
    }

    /// RFC 8656 §11.3.
    pub(super) fn relay_to_client(
        &mut self,
        now: Now,
        on: RelayedId,
        from: PeerAddr,
        ip: IpMeta,
        len: usize,
    ) -> Decision {
        let Now { instant: now, unix } = now;
        let peer = self.public_form(from.0);
        let Some(allocation) = self.table.live_on(on, now) else {
            return Decision::Drop(DropReason::NotAllocated);
        };
        // §9: the permission is the peer's IP address, whatever its port.
        let Some(moved) = allocation.permissions.live(peer.ip(), now) else {
            return Decision::Drop(DropReason::NoPermission);
        };
        if len + MAX_FRAMING > MAX_DATAGRAM {
            return Decision::Drop(DropReason::TooLong);
        }
        let to = allocation.client;
        let header = match allocation.channels.number(peer, now) {
            // §12.7: the binding has passed the filter with this port.
            Some(number) => ClientHeader::ChannelData {
                number,
                padded: to.transport.is_stream(),
            },
            None if self
                .policy
                .check_peer(allocation.owner.tenant, peer, unix)
                .is_err() =>
            {
                return Decision::Drop(DropReason::PeerDenied);
            }
            None => ClientHeader::DataIndication {
                transaction_id: TransactionId(self.random.bytes()),
                peer: PeerAddr(peer),
            },
        };
        let family = AddressFamily::of(peer.ip());
        let Some(ip) = ip.relayed(Leg::Datagrams(family), client_leg(&to), false) else {
            return Decision::Drop(DropReason::TtlExpired);
        };
        if let Some(shapers) = &allocation.shapers
            && !shapers.admit(Direction::ToClient, now, len)
        {
            return Decision::Drop(DropReason::OverBandwidth);
        }
        moved.to_clients += len as u64;
        allocation.to_client.count(len);
        self.counters.count_to_client(to.transport, len);
        Decision::ToClient { to, header, ip }
    }

    /// Where a peer is reached: an own external address behind 1:1 NAT by the local one, because the NAT may not send a
    /// packet back to where it came from.
    pub(super) fn local_form(&self, peer: SocketAddr) -> SocketAddr {
        match self.mapped.iter().find(|host| host.public == peer.ip()) {
            Some(host) => SocketAddr::new(host.local, peer.port()),
            None => peer,
        }
    }

    /// As which peer a datagram counts: one from an own relayed address by the external one, which is what clients know.
    pub(super) fn public_form(&self, from: SocketAddr) -> SocketAddr {
        // Without flow label and scope, which are no part of a transport address.
        let from = SocketAddr::new(from.ip(), from.port());
        match self.mapped.iter().find(|host| host.local == from.ip()) {
            Some(host) => {
                let public = SocketAddr::new(host.public, from.port());
                let granted = self.policy.peer_filter.check(public).is_ok();
                if granted { public } else { from }
            }
            None => from,
        }
    }
}

fn client_leg(client: &FiveTuple) -> Leg {
    Leg::of_client(client.transport, AddressFamily::of(client.client.ip()))
}
