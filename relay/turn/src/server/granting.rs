//! The answer to an Allocate request whose relayed sockets are open, or cannot be opened (RFC 8656 §7.2).

use super::Server;
use super::request::Answer;
use crate::addr::AddressFamily;
use crate::allocation::{Allocation, Closing, Origin, Relayed, seconds};
use crate::command::{Command, RelayedId};
use crate::event::Event;
use crate::reject::Reject;
use crate::request_method::RequestMethod;
use crate::table::{AllocationId, RelayedUse};
use crate::time::{Instant, Now};

impl Server {
    /// Every socket is open: the allocation lives, and its client hears of it.
    pub(super) fn grant(&mut self, now: Now, id: AllocationId) {
        let Some(pending) = self.table.allocation_mut(id).and_then(|a| a.pending.take()) else {
            return;
        };
        for want in &pending.wants {
            self.attach(now.instant, id, want.socket.id);
            if let Some(next) = want.next {
                self.reserve_for(now.instant, id, next.id);
            }
        }
        self.granted(now.instant, id);
        let mut message = Vec::with_capacity(160);
        if let Some(allocation) = self.table.allocation(id) {
            write_success(allocation, pending.closing, &mut message);
            let to = allocation.client;
            self.commands.push_back(Command::Send { to, message });
        }
    }

    /// A reserved socket of this shard is open already: the answer needs no wait.
    pub(super) fn grant_reserved(
        &mut self,
        now: Instant,
        id: AllocationId,
        socket: RelayedId,
        reply: &mut Vec<u8>,
    ) {
        let Some(pending) = self.table.allocation_mut(id).and_then(|a| a.pending.take()) else {
            return;
        };
        self.attach(now, id, socket);
        self.granted(now, id);
        if let Some(allocation) = self.table.allocation(id) {
            write_success(allocation, pending.closing, reply);
        }
    }

    /// Gives an open socket to an allocation, whose lifetime begins.
    fn attach(&mut self, now: Instant, id: AllocationId, socket: RelayedId) {
        let address = self
            .table
            .relayed(socket)
            .and_then(|socket| self.public_address(socket));
        let (Some(address), Some(entry)) = (address, self.table.relayed_mut(socket)) else {
            return;
        };
        entry.used = RelayedUse::Allocated(id);
        if let Some(allocation) = self.table.allocation_mut(id) {
            allocation.relayed[AddressFamily::of(address.ip()) as usize] = Some(Relayed {
                id: socket,
                address,
                expires_at: now.after(allocation.answered.lifetime),
            });
        }
    }

    fn reserve_for(&mut self, now: Instant, id: AllocationId, socket: RelayedId) {
        let Some(allocation) = self.table.allocation(id) else {
            return;
        };
        let user = allocation.owner.user();
        let holder = user.map(|user| (allocation.owner.tenant, user.into()));
        let token = self.reserve(now, socket, holder);
        if let Some(allocation) = self.table.allocation_mut(id) {
            allocation.answered.token = Some(token);
        }
    }

    /// No relayed address is to be had after all: 508, or 300 where another relay may have one.
    pub(super) fn deny(&mut self, id: AllocationId, origin: Origin) {
        let Some(allocation) = self.table.remove(id) else {
            return;
        };
        self.ledger.leave(allocation.owner.holder());
        let Some(pending) = allocation.pending else {
            return;
        };
        let to = allocation.client;
        let elsewhere = match origin {
            Origin::Drawn(_) => self.alternate_for(&to, pending.closing.integrity),
            Origin::Claimed => None,
        };
        let reject = match elsewhere {
            Some(_) => Reject::TryAlternate,
            None => Reject::InsufficientCapacity,
        };
        let answer = Answer {
            method: RequestMethod::Allocate,
            transaction_id: allocation.answered.transaction_id,
            closing: pending.closing,
        };
        let mut message = Vec::with_capacity(96);
        answer.error(
            reject,
            Some(allocation.owner.key()),
            &mut message,
            |writer| {
                if let Some(alternate) = elsewhere {
                    alternate.write(&to, writer);
                }
            },
        );
        self.note_refused(allocation.owner.tenant);
        self.counters.count_reject(RequestMethod::Allocate, reject);
        if reject == Reject::TryAlternate {
            self.count_redirect();
        }
        self.commands.push_back(Command::Send { to, message });
        self.push_event(Event::Refused {
            client: to,
            username: Some(allocation.owner.username),
            code: reject.code(),
        });
    }

    /// Counts and reports an allocation whose sockets are open; until here its beginning was that of its request.
    fn granted(&mut self, now: Instant, id: AllocationId) {
        let Some(allocation) = self.table.allocation_mut(id) else {
            return;
        };
        let took = now.since(allocation.opened_at);
        allocation.opened_at = now;
        self.counters.allocating.add_one(took);
        self.counters.opened += 1;
        self.note_opened(id);
        self.arm(id);
        if let Some(allocation) = self.table.allocation(id) {
            let client = allocation.client;
            if client.transport.is_stream() {
                self.commands.push_back(Command::KeepStream { client });
            }
            let relayed = allocation.relayed.iter().flatten();
            let event = Event::Opened {
                allocation: allocation.number,
                client,
                username: allocation.owner.username.clone(),
                tenant: allocation.owner.tenant,
                relayed_transport: allocation.relayed_transport(),
                relayed: relayed.map(|relayed| relayed.address).collect(),
                took,
            };
            self.push_event(event);
        }
    }
}

/// RFC 8656 §7.2: the success response, from what the allocation remembers. Its retransmission is the same to the byte.
pub(super) fn write_success(allocation: &Allocation, closing: Closing, out: &mut Vec<u8>) {
    let answer = Answer {
        method: RequestMethod::Allocate,
        transaction_id: allocation.answered.transaction_id,
        closing,
    };
    let mut writer = answer.success(out);
    for relayed in allocation.relayed.iter().flatten() {
        writer.xor_relayed_address(relayed.address);
    }
    writer.lifetime(seconds(allocation.answered.lifetime));
    if let Some(token) = allocation.answered.token {
        writer.reservation_token(token);
    }
    if let Some((family, code)) = allocation.answered.refused_family {
        writer.address_error_code(family, code);
    }
    writer.xor_mapped_address(allocation.client.client);
    answer.finish(writer, Some(allocation.owner.key()));
}
