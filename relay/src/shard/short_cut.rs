//! Data between two clients of one relay, without a trip through the kernel.
//!
//! A payload for a relayed transport address of this relay would leave by one relayed socket and arrive at another a
//! moment later. Here it arrives at once: the core is told what the kernel would have told, a datagram on the one socket
//! from the address of the other, and decides as ever. So permissions, filter, expiry and counters are the same, and what
//! the directory does not know goes by the kernel.
//!
//! On one shard the header for the second client is written over that of the first, in front of the payload; between
//! shards the payload is copied once, into a lane.

use std::net::SocketAddr;
use std::ops::Range;

use turnfleet_turn::{ClientHeader, Decision, FiveTuple, IpMeta, PeerAddr, RelayedId, Span};

use super::crossings::Crossing;
use super::relaying::deliver;
use super::worker::Shard;
use crate::driver::batch::ReceiveBatch;

/// Where the packet stands that a payload came in. What is in front of the payload has been read, and may be written over.
#[derive(Clone, Debug)]
pub(super) enum Packet {
    /// In a slot of the datagrams from clients, behind its headroom.
    Datagram,
    /// Among the messages of a stream, of which this one is at that range, padding included.
    Message(Range<usize>),
}

impl Packet {
    /// The bytes that it stands in, of the `datagrams` and `messages` of its shard.
    pub(super) fn bytes<'a>(&self, datagrams: &'a ReceiveBatch, messages: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Datagram => datagrams.bytes(),
            Self::Message(_) => messages,
        }
    }
}

impl Shard {
    /// Passes a payload, with the header that it would leave with, on to the client whose relayed transport address `to` is;
    /// `false` where that is none of this relay's, and the payload is to be sent.
    pub(super) fn short_cut(
        &mut self,
        packet: &Packet,
        via: RelayedId,
        (to, ip): (SocketAddr, IpMeta),
        payload: Span,
    ) -> bool {
        let Some(owner) = self.relayed.owner(to) else {
            return false;
        };
        let Some(from) = self.relayed.address(via) else {
            return false;
        };
        if self.crossings.is_own(owner) {
            self.counters.count_short_cut(payload.len);
            self.pass_on(packet, owner.id, (from, ip), payload);
        } else {
            let bytes = packet.bytes(&self.from_clients, &self.unread);
            let payload = &bytes[payload.range()];
            self.counters.crossings_dropped += self.crossings.push(owner, (from, ip), payload);
        }
        true
    }

    /// Gives a payload to the client that has the relayed socket `on`, in place where the header fits in front of it.
    fn pass_on(
        &mut self,
        packet: &Packet,
        on: RelayedId,
        from: (SocketAddr, IpMeta),
        payload: Span,
    ) {
        let Some((to, header)) = self.decide(on, from, payload.len) else {
            return;
        };
        let (listeners, streams) = (&mut self.listeners, &mut self.streams);
        let counters = &mut self.counters;
        match packet {
            Packet::Datagram => {
                if let Some(message) = header.write(self.from_clients.bytes_mut(), payload) {
                    let bytes = self.from_clients.bytes();
                    deliver(listeners, streams, counters, to, message, bytes);
                }
            }
            Packet::Message(range) => {
                let inner = Span {
                    start: payload.start - range.start,
                    ..payload
                };
                match header.write(&mut self.unread[range.clone()], inner) {
                    Some(mut message) => {
                        message.start += range.start;
                        deliver(listeners, streams, counters, to, message, &self.unread);
                    }
                    None => self.pass_on_copy(to, header, payload),
                }
            }
        }
    }

    /// A message of a stream may have too little in front of its payload, and the message before it may still wait.
    fn pass_on_copy(&mut self, to: (FiveTuple, IpMeta), header: ClientHeader, payload: Span) {
        self.flush_messages();
        let copy = &mut self.copy;
        copy.clear();
        copy.resize(ClientHeader::MAX_LEN, 0);
        copy.extend_from_slice(&self.unread[payload.range()]);
        copy.extend_from_slice(&[0; ClientHeader::MAX_PADDING]);
        let payload = Span {
            start: ClientHeader::MAX_LEN,
            ..payload
        };
        let (listeners, streams) = (&mut self.listeners, &mut self.streams);
        let counters = &mut self.counters;
        if let Some(message) = header.write(copy, payload) {
            deliver(listeners, streams, counters, to, message, copy);
            counters.client_datagrams_refused += listeners.flush(copy).refused;
        }
    }

    /// What the core says to a payload of `len` bytes that arrives at the relayed socket `on` from that at `from`, with the
    /// header that it left that one with.
    fn decide(
        &mut self,
        on: RelayedId,
        (from, ip): (SocketAddr, IpMeta),
        len: usize,
    ) -> Option<((FiveTuple, IpMeta), ClientHeader)> {
        let from = PeerAddr(from);
        match self.server.handle_peer(self.now, on, from, ip, len) {
            Decision::ToClient { to, header, ip } => Some(((to, ip), header)),
            Decision::Drop(_)
            | Decision::Reply
            | Decision::Pending
            | Decision::Splice { .. }
            | Decision::ToShard { .. }
            | Decision::ToPeer { .. } => None,
        }
    }

    /// Gives the clients of this shard what those of others have sent them.
    pub(super) fn serve_crossings(&mut self) {
        for sender in 0..self.crossings.shards() {
            let Some(mut bundle) = self.crossings.receive(sender) else {
                continue;
            };
            for &Crossing { on, from, payload } in &bundle.crossings {
                self.counters.count_crossing(payload.len);
                let Some((to, header)) = self.decide(on, from, payload.len) else {
                    continue;
                };
                if let Some(message) = header.write(&mut bundle.bytes, payload) {
                    let (listeners, streams) = (&mut self.listeners, &mut self.streams);
                    let counters = &mut self.counters;
                    deliver(listeners, streams, counters, to, message, &bundle.bytes);
                }
            }
            let flushed = self.listeners.flush(&bundle.bytes);
            self.counters.client_datagrams_refused += flushed.refused;
            self.streams.flush();
            self.crossings.recycle(bundle);
        }
    }

    /// Brings what this shard's clients have sent those of others on its way.
    pub(super) fn flush_crossings(&mut self) {
        self.counters.crossings_dropped += self.crossings.flush();
    }
}
