//! The packet path: from clients to peers and from peers to clients.
//!
//! Bytes stay where the kernel put them. What a client sent leaves from its slot to the peer; what a peer sent gets its
//! header written into the headroom of its slot and leaves from there; an answer is put into the slot of its request.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;

use turnfleet_turn::wire::ConnectionId;
use turnfleet_turn::wire::{Frame, deframe};
use turnfleet_turn::{
    Context, Decision, FiveTuple, IpMeta, PeerAddr, RelayedId, ShardId, Span, Transport,
};

use super::short_cut::Packet;
use super::token::Source;
use super::worker::Shard;
use crate::driver::batch::ReceiveBatch;
use crate::driver::counters::DriverCounters;
use crate::driver::relayed_udp;
use crate::driver::stream::{Arrived, Streams};
use crate::driver::udp::UdpListeners;

/// What becomes of a stream after one of its messages.
enum After {
    /// The next message is read.
    NextMessage,
    /// The bytes behind the message belong to a peer.
    Splice(ConnectionId),
    /// The message and all behind it are another shard's.
    ToShard(ShardId),
}

impl Shard {
    /// Receives one batch of datagrams from clients and deals with each.
    pub(super) fn serve_listener(&mut self, index: usize) {
        self.listeners.clear_queued(index);
        let Some((server, leaving)) = self.listeners.at_place(index) else {
            return;
        };
        let received = match self.listeners.receive(index, &mut self.from_clients) {
            Ok(received) => received,
            Err(error) => return self.listener_failed(index, &error),
        };
        for slot in 0..received {
            if let Some(client) = self.from_clients.sender(slot) {
                let transport = Transport::Udp;
                let from = FiveTuple {
                    transport,
                    client,
                    server,
                };
                if leaving && !self.server.serves(&from) {
                    self.counters.client_datagrams_unserved += 1;
                    continue;
                }
                self.handle_datagram(index, from, slot);
            }
        }
        self.flush_datagrams();
        let flushed = self.listeners.flush(self.from_clients.bytes());
        self.counters.client_datagrams_refused += flushed.refused;
        self.streams.flush();
        if received == self.from_clients.slots() {
            self.enqueue(Source::Udp(index));
        }
    }

    fn listener_failed(&mut self, index: usize, error: &io::Error) {
        if relayed_udp::is_fatal(error) {
            let address = self.listeners.at_place(index).map(|(address, _)| address);
            tracing::error!(?address, %error, "a listener failed");
        } else if error.kind() != io::ErrorKind::WouldBlock {
            // An error that the network left behind is cleared by reading it; datagrams may stand behind it.
            self.enqueue(Source::Udp(index));
        }
    }

    fn handle_datagram(&mut self, listener: usize, from: FiveTuple, slot: usize) {
        let packet = self.from_clients.datagram(slot);
        let ip = self.from_clients.ip(slot);
        let context = Context::new(&*self.policy.keys);
        let decision =
            self.server
                .handle_client(self.now, from, ip, packet, &context, &mut self.reply);
        let start = ReceiveBatch::start(slot);
        match decision {
            Decision::ToPeer {
                via,
                to,
                payload,
                ip,
            } => {
                let payload = Span {
                    start: start + payload.start,
                    ..payload
                };
                self.relay(&Packet::Datagram, via, (to.0, ip), payload);
            }
            Decision::Reply => {
                self.flush_datagrams();
                self.settle();
                let span = start..start + self.reply.len();
                self.from_clients.bytes_mut()[span.clone()].copy_from_slice(&self.reply);
                let bytes = self.from_clients.bytes();
                let flushed =
                    self.listeners
                        .push(listener, span, (from.client, IpMeta::default()), bytes);
                self.counters.client_datagrams_refused += flushed.refused;
            }
            Decision::Pending => {
                self.flush_datagrams();
                self.settle();
            }
            // Streams only are spliced, or belong to another shard.
            Decision::Splice { .. } | Decision::ToShard { .. } => {}
            Decision::Drop(_) | Decision::ToClient { .. } => {}
        }
    }

    /// Gives a payload to the client of this relay whose relayed transport address `to` is, or queues it for the peer there.
    fn relay(&mut self, packet: &Packet, via: RelayedId, to: (SocketAddr, IpMeta), payload: Span) {
        if self.short_cut(packet, via, to, payload) {
            return;
        }
        let bytes = packet.bytes(&self.from_clients, &self.unread);
        self.counters.peer_datagrams_refused +=
            self.to_peers
                .push(&mut self.relayed, via, payload.range(), to, bytes);
    }

    /// Sends what clients' datagrams brought for peers and for other shards.
    fn flush_datagrams(&mut self) {
        self.flush_crossings();
        let bytes = self.from_clients.bytes();
        self.counters.peer_datagrams_refused += self.to_peers.flush(&mut self.relayed, bytes);
    }

    /// Receives at most `share` datagrams from a relayed socket; they wait for the next flush.
    pub(super) fn serve_relayed(&mut self, index: usize, share: usize) {
        let Some((id, has_errors)) = self.relayed.take_queued(index) else {
            return;
        };
        if has_errors {
            self.serve_errors(id);
        }
        if self.gathered + share > self.from_peers.slots() {
            self.flush_to_clients();
        }
        let Some(socket) = self.relayed.socket(id) else {
            return;
        };
        let slots = self.gathered..self.gathered + share;
        match self.from_peers.receive(socket, slots) {
            Ok(received) => {
                for slot in self.gathered..self.gathered + received {
                    self.handle_peer_datagram(id, slot);
                }
                self.gathered += received;
                self.brought += received;
                if received == share {
                    self.enqueue(Source::Relayed(index));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if relayed_udp::is_fatal(&error) => {
                self.counters.relayed_sockets_failed += 1;
                self.server.handle_relayed_failed(self.now, id);
            }
            Err(_) => self.enqueue(Source::Relayed(index)),
        }
    }

    fn handle_peer_datagram(&mut self, on: RelayedId, slot: usize) {
        let Some(peer) = self.from_peers.sender(slot) else {
            return;
        };
        let len = self.from_peers.len(slot);
        let ip = self.from_peers.ip(slot);
        let decision = self
            .server
            .handle_peer(self.now, on, PeerAddr(peer), ip, len);
        let Decision::ToClient { to, header, ip } = decision else {
            return;
        };
        let start = ReceiveBatch::start(slot);
        let payload = Span { start, len };
        let Some(message) = header.write(self.from_peers.bytes_mut(), payload) else {
            return;
        };
        let (listeners, streams) = (&mut self.listeners, &mut self.streams);
        let (counters, bytes) = (&mut self.counters, self.from_peers.bytes());
        deliver(listeners, streams, counters, (to, ip), message, bytes);
    }

    /// Sends what peers' datagrams brought for clients, and makes their slots free.
    pub(super) fn flush_to_clients(&mut self) {
        let flushed = self.listeners.flush(self.from_peers.bytes());
        self.counters.client_datagrams_refused += flushed.refused;
        self.streams.flush();
        self.gathered = 0;
    }

    /// Reads once from a client's stream and deals with each whole message.
    pub(super) fn serve_stream(&mut self, index: usize) {
        let Some(client) = self.streams.client(index) else {
            return;
        };
        let arrived = self
            .streams
            .read(index, &mut self.unread, &mut self.counters);
        let Some(arrived) = arrived else {
            return self.settle();
        };
        self.handle_arrived(index, client, arrived);
    }

    /// Deals with each whole message of what has arrived on a stream.
    pub(super) fn handle_arrived(&mut self, index: usize, client: FiveTuple, arrived: Arrived) {
        let mut read = 0;
        // A message may close its own stream: what stands behind it is then nobody's.
        while self.streams.client(index) == Some(client) {
            let limit = self.streams.message_limit(index);
            match deframe(&self.unread[read..arrived.len], limit) {
                Frame::Message { len, total } => {
                    let message = read;
                    read += total;
                    match self.handle_message(index, client, message..read, len) {
                        After::NextMessage => {}
                        After::Splice(id) => self.splice(index, id, read..arrived.len),
                        After::ToShard(owner) => self.hand_over(index, owner, message..arrived.len),
                    }
                }
                Frame::NeedMore(_) => {
                    self.streams.keep(index, &self.unread[read..arrived.len]);
                    if arrived.more {
                        self.enqueue(Source::Stream(index));
                    }
                    break;
                }
                Frame::Garbage => {
                    self.counters.streams_malformed += 1;
                    self.streams.close(index);
                    break;
                }
            }
        }
        self.flush_messages();
        self.settle();
    }

    /// Deals with the message of `len` bytes that stands, with its padding, at `range`.
    fn handle_message(
        &mut self,
        index: usize,
        from: FiveTuple,
        range: Range<usize>,
        len: usize,
    ) -> After {
        let start = range.start;
        let packet = &self.unread[start..start + len];
        let ip = IpMeta::default();
        let context = Context {
            keys: &*self.policy.keys,
            server_name: self.streams.server_name(index),
        };
        let decision =
            self.server
                .handle_client(self.now, from, ip, packet, &context, &mut self.reply);
        match decision {
            Decision::ToPeer {
                via,
                to,
                payload,
                ip,
            } => {
                let payload = Span {
                    start: start + payload.start,
                    ..payload
                };
                self.relay(&Packet::Message(range), via, (to.0, ip), payload);
            }
            Decision::Reply => {
                self.flush_messages();
                self.settle();
                self.streams
                    .push_message(index, &self.reply, &mut self.counters);
            }
            Decision::Pending => {
                self.flush_messages();
                self.settle();
            }
            Decision::Splice { connection } => {
                self.flush_messages();
                self.settle();
                self.streams
                    .push_message(index, &self.reply, &mut self.counters);
                return After::Splice(connection);
            }
            Decision::ToShard { owner } => {
                self.flush_messages();
                return After::ToShard(owner);
            }
            Decision::Drop(_) | Decision::ToClient { .. } => {}
        }
        After::NextMessage
    }

    /// Sends what a stream's messages brought for peers, for other shards and for clients of this one.
    pub(super) fn flush_messages(&mut self) {
        self.flush_crossings();
        self.counters.peer_datagrams_refused +=
            self.to_peers.flush(&mut self.relayed, &self.unread);
        self.counters.client_datagrams_refused += self.listeners.flush(&self.unread).refused;
    }
}

/// Queues the framed data at `message` of `bytes` for a client, to leave with that header. A datagram leaves with the next
/// flush of the listeners, which is given the same bytes.
pub(super) fn deliver(
    listeners: &mut UdpListeners,
    streams: &mut Streams,
    counters: &mut DriverCounters,
    (to, ip): (FiveTuple, IpMeta),
    message: Span,
    bytes: &[u8],
) {
    match to.transport {
        Transport::Udp => {
            if let Some(listener) = listeners.find(to.server) {
                let flushed = listeners.push(listener, message.range(), (to.client, ip), bytes);
                counters.client_datagrams_refused += flushed.refused;
            }
        }
        Transport::Tcp | Transport::Tls => {
            streams.push_data(to, &bytes[message.range()], counters);
        }
    }
}
