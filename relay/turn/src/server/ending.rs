//! How allocations end, whole or one family of them, and how their sockets and ports go back.

use std::net::SocketAddr;

use super::Server;
use crate::addr::AddressFamily;
use crate::allocation::{Allocation, Opening};
use crate::command::{Command, RelayedId};
use crate::event::{CloseReason, Event};
use crate::table::{AllocationId, RelayedSocket, RelayedUse};
use crate::time::Instant;

impl Server {
    /// Ends an allocation with all that belongs to it. One that was never granted leaves no trace in the log.
    pub(super) fn end(&mut self, now: Instant, id: AllocationId, reason: CloseReason) {
        self.count_usage(id);
        self.close_connections(id, None);
        let Some(mut allocation) = self.table.remove(id) else {
            return;
        };
        self.expiry.disarm(id.index());
        self.counters.permissions -= allocation.permissions.len() as u64;
        self.counters.channels -= allocation.channels.len() as u64;
        self.ledger.leave(allocation.owner.holder());
        for relayed in allocation.relayed.iter().flatten() {
            self.close_socket(now, relayed.id);
        }
        match allocation.pending.take() {
            Some(pending) => {
                for socket in pending.wants.iter().flat_map(|want| want.sockets()) {
                    self.abandon(now, socket);
                }
            }
            None => {
                let client = allocation.client;
                if client.transport.is_stream() {
                    self.commands.push_back(Command::ReleaseStream { client });
                }
                self.counters.count_closed(reason);
                let packets = allocation.to_peers.packets + allocation.to_client.packets;
                let bytes = allocation.to_peers.bytes + allocation.to_client.bytes;
                self.counters.unused += u64::from(packets + bytes == 0);
                self.note_closed(allocation.owner.tenant);
                self.push_event(closed(allocation, now, reason));
            }
        }
    }

    /// RFC 8656 §8.1: ends one relayed address with its permissions and channels, and leaves the other family alone.
    pub(super) fn end_family(&mut self, now: Instant, id: AllocationId, family: AddressFamily) {
        self.count_usage(id);
        self.close_connections(id, Some(family));
        let Some(allocation) = self.table.allocation_mut(id) else {
            return;
        };
        let (permissions, channels) = allocation.clear_family(family);
        let relayed = allocation.relayed[family as usize].take();
        self.counters.permissions -= permissions as u64;
        self.counters.channels -= channels as u64;
        if let Some(relayed) = relayed {
            self.close_socket(now, relayed.id);
        }
        self.arm(id);
    }

    /// The allocation's timer: ends what has run out of time, and waits for the next.
    pub(super) fn expire(&mut self, now: Instant, id: AllocationId) {
        let Some(allocation) = self.table.allocation_mut(id) else {
            return;
        };
        if allocation.pending.is_some() {
            return;
        }
        if !allocation.is_live(now) {
            self.end(now, id, CloseReason::Expired);
            return;
        }
        self.count_usage(id);
        let Some(allocation) = self.table.allocation_mut(id) else {
            return;
        };
        self.counters.permissions -= allocation.permissions.sweep(now) as u64;
        self.counters.channels -= allocation.channels.sweep(now) as u64;
        for family in [AddressFamily::V4, AddressFamily::V6] {
            let relayed = self
                .table
                .allocation(id)
                .and_then(|a| a.relayed[family as usize]);
            if relayed.is_some_and(|relayed| relayed.expires_at <= now) {
                self.end_family(now, id, family);
            }
        }
        self.arm(id);
    }

    /// A socket failed for good: what it belongs to ends, and nothing else.
    pub(super) fn relayed_failed(&mut self, now: Instant, socket: RelayedId) {
        match self.table.relayed(socket).map(|socket| socket.used) {
            Some(RelayedUse::Allocated(id) | RelayedUse::Opening(id)) => {
                self.end(now, id, CloseReason::SocketFailed);
            }
            Some(RelayedUse::Held(_)) => self.close_reserved(now, socket),
            Some(RelayedUse::Abandoned) | None => {}
        }
    }

    /// Gives up a socket that a pending allocation waited for: an open one is closed, the other when it is here.
    pub(super) fn abandon(&mut self, now: Instant, socket: Opening) {
        if socket.open {
            self.close_socket(now, socket.id);
        } else if let Some(socket) = self.table.relayed_mut(socket.id) {
            socket.used = RelayedUse::Abandoned;
        }
    }

    /// Closes an open socket and gives its port back.
    pub(super) fn close_socket(&mut self, now: Instant, id: RelayedId) {
        if let Some(socket) = self.table.remove_relayed(id) {
            self.commands.push_back(Command::CloseRelayed { id });
            self.release_port(now, &socket);
        }
    }

    /// Gives a port back that no socket has; a claimed socket that never came had none.
    pub(super) fn release_port(&self, now: Instant, socket: &RelayedSocket) {
        if let Some(address) = self.public_address(socket) {
            self.ledger.release(address, now);
        }
    }

    /// A relayed transport address as clients and peers are told.
    pub(super) fn public_address(&self, socket: &RelayedSocket) -> Option<SocketAddr> {
        let host = self.config.relayed_hosts.get(usize::from(socket.host))?;
        (socket.port != 0).then(|| SocketAddr::new(host.public, socket.port))
    }
}

fn closed(allocation: Allocation, now: Instant, reason: CloseReason) -> Event {
    Event::Closed {
        allocation: allocation.number,
        client: allocation.client,
        username: allocation.owner.username,
        tenant: allocation.owner.tenant,
        reason,
        duration: now.since(allocation.opened_at),
        bytes_to_peers: allocation.to_peers.bytes,
        bytes_to_client: allocation.to_client.bytes,
    }
}
