//! The byte path of TCP relaying (RFC 6062): peers' connections come and go, and become one with clients' streams.
//!
//! A stream that names a connection of another shard goes there before anything about it is decided.

use std::ops::Range;

use turnfleet_turn::server::Room;
use turnfleet_turn::wire::ConnectionId;
use turnfleet_turn::{ConnectError, PeerAddr, RelayedId, ShardId};

use super::token::Source;
use super::worker::Shard;
use crate::driver::entrance::Accepted;
use crate::driver::peer_connections::Turn;
use crate::driver::splice::Next;
use crate::driver::stream::{Arrived, Connection};

/// Connections of peers accepted at one relayed transport address before others have their turn.
const ACCEPTED_AT_ONCE: usize = 16;

impl Shard {
    /// Accepts what waits at a listening relayed socket.
    pub(super) fn accept_peers(&mut self, index: usize) {
        let Some(on) = self.relayed_listeners.take_queued(index) else {
            return;
        };
        for _ in 0..ACCEPTED_AT_ONCE {
            match self.relayed_listeners.accept(index, self.now.instant) {
                Accepted::Nothing => return self.settle(),
                Accepted::Exhausted => {
                    self.counters.accept_pauses += 1;
                    return self.settle();
                }
                Accepted::Stream(socket, peer) => {
                    let id = self
                        .server
                        .handle_peer_accepted(self.now, on, PeerAddr(peer));
                    let Some(id) = id else { continue };
                    let registry = self.poll.registry();
                    let inserted = self.peer_connections.insert(registry, id, socket, false);
                    if inserted.is_err() {
                        self.server.handle_connection_closed(id);
                    }
                }
            }
        }
        self.enqueue(Source::RelayedListener(index));
        self.settle();
    }

    /// Begins a connection to a peer.
    pub(super) fn connect_peer(&mut self, id: ConnectionId, via: RelayedId, peer: PeerAddr) {
        let begun = self.relayed_listeners.connect(via, peer.0);
        let begun = begun.and_then(|socket| {
            let registry = self.poll.registry();
            let inserted = self.peer_connections.insert(registry, id, socket, true);
            inserted.map_err(|_| ConnectError::Exhausted)
        });
        if let Err(error) = begun {
            self.server.handle_peer_connected(self.now, id, Err(error));
        }
    }

    /// Gives one connection a turn.
    pub(super) fn serve_connection(&mut self, index: usize) {
        let spliced = self.peer_connections.spliced(index);
        let room = spliced.map_or(Room::FREE, |id| self.server.room_of(self.now.instant, id));
        match self.peer_connections.turn(index, self.now.instant, room) {
            Turn::Nothing => {}
            Turn::Connected(id, result) => {
                if result.is_err() {
                    self.peer_connections.close(id);
                }
                self.server.handle_peer_connected(self.now, id, result);
            }
            Turn::Moved {
                id,
                to_peer,
                to_client,
                next,
            } => {
                self.server
                    .handle_spliced_data(self.now, id, to_peer, to_client);
                match next {
                    Next::Wait => {}
                    Next::Again => self.enqueue(Source::PeerConnection(index)),
                    Next::Later => self.slowed.push(index, self.now.instant),
                    Next::Closed => self.server.handle_connection_closed(id),
                }
            }
        }
        self.settle();
    }

    /// Makes the stream at `index`, with what has arrived on it already, one with a connection.
    pub(super) fn splice(&mut self, index: usize, id: ConnectionId, unread: Range<usize>) {
        let registry = self.poll.registry();
        let client = self.streams.release(registry, index);
        let place = client.and_then(|client| {
            let unread = &self.unread[unread];
            self.peer_connections.splice(registry, id, client, unread)
        });
        if let Some(place) = place {
            self.enqueue(Source::PeerConnection(place));
        } else {
            self.peer_connections.close(id);
            self.server.handle_connection_closed(id);
        }
    }

    /// Gives the stream at `index`, with what has arrived on it, to the shard that it belongs to.
    pub(super) fn hand_over(&mut self, index: usize, owner: ShardId, unread: Range<usize>) {
        let Some(stream) = self.streams.release(self.poll.registry(), index) else {
            return;
        };
        if !self
            .links
            .hand_over(owner, stream, self.unread[unread].into())
        {
            self.counters.handovers_refused += 1;
        }
    }

    /// Goes on with a stream of another shard, where that left off.
    pub(super) fn adopt(&mut self, stream: Box<Connection>, unread: &[u8]) {
        let client = stream.client;
        let registry = self.poll.registry();
        let place = self
            .streams
            .adopt(registry, stream, self.now.instant, &mut self.counters);
        if let Some(index) = place {
            let len = unread.len();
            self.unread[..len].copy_from_slice(unread);
            self.handle_arrived(index, client, Arrived { len, more: true });
        }
    }
}
