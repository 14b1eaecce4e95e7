//! Peer data connections (RFC 6062): connecting, waiting to be claimed, and spliced with a client data connection.
//!
//! Nothing is read from a connection that waits: what its peer sends, the kernel holds, and closes the window when it has
//! enough. One that fails meanwhile is closed.

use std::collections::{BTreeSet, HashMap};
use std::io;

use mio::net::TcpStream;
use mio::{Interest, Registry};
use turnfleet_turn::server::Room;
use turnfleet_turn::wire::ConnectionId;
use turnfleet_turn::{ConnectError, Instant};

use super::places::Places;
use super::splice::{Buffers, Next, Splice, is_connected};
use super::stream::Connection;
use crate::shard::token::Source;

/// The peer data connections of one shard.
pub(crate) struct PeerConnections {
    places: Places<PeerConnection>,
    by_id: HashMap<ConnectionId, usize>,
    /// Those of which one side has ended, the next to be closed first.
    half_open: BTreeSet<(Instant, ConnectionId)>,
    buffers: Buffers,
}

struct PeerConnection {
    id: ConnectionId,
    socket: TcpStream,
    /// Whether the peer has not accepted yet.
    connecting: bool,
    /// The client data connection, once there is one, and the way to it.
    splice: Option<Splice>,
    failed: bool,
    /// When the connection is closed; present while one of its sides has ended.
    deadline: Option<Instant>,
    /// Whether the connection stands in the shard's ready list.
    queued: bool,
}

/// What one turn of a connection came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The connection waits, or is gone.
    Nothing,
    /// The peer has accepted, or has not.
    Connected(ConnectionId, Result<(), ConnectError>),
    /// Bytes went by.
    Moved {
        id: ConnectionId,
        to_peer: usize,
        to_client: usize,
        next: Next,
    },
}

impl PeerConnections {
    pub(crate) fn new() -> Self {
        Self {
            places: Places::new(),
            by_id: HashMap::new(),
            half_open: BTreeSet::new(),
            buffers: Buffers::new(),
        }
    }

    /// Takes a connection that a peer has opened, or that is being opened to one.
    pub(crate) fn insert(
        &mut self,
        registry: &Registry,
        id: ConnectionId,
        mut socket: TcpStream,
        connecting: bool,
    ) -> io::Result<()> {
        let index = self.places.next();
        let token = Source::PeerConnection(index).token();
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut socket, token, interest)?;
        self.by_id.insert(id, index);
        self.places.insert(Box::new(PeerConnection {
            id,
            socket,
            connecting,
            splice: None,
            failed: false,
            deadline: None,
            queued: false,
        }));
        Ok(())
    }

    /// Makes `client` and the connection one; `unread` has arrived from the client already. Returns the connection's place,
    /// which has a turn to take; `None` where it is gone.
    pub(crate) fn splice(
        &mut self,
        registry: &Registry,
        id: ConnectionId,
        mut client: Box<Connection>,
        unread: &[u8],
    ) -> Option<usize> {
        let index = *self.by_id.get(&id)?;
        let connection = self.places.at_mut(index)?;
        let token = Source::DataConnection(index).token();
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry
            .register(&mut client.socket, token, interest)
            .ok()?;
        connection.splice = Some(Splice::new(client, unread, &mut self.buffers.pool));
        Some(index)
    }

    /// Closes a connection and the one it is spliced with.
    pub(crate) fn close(&mut self, id: ConnectionId) {
        let Some(index) = self.by_id.remove(&id) else {
            return;
        };
        if let Some(mut connection) = self.places.take(index) {
            if let Some(Splice { client, .. }) = &mut connection.splice {
                client.say_goodbye(&mut self.buffers.pool);
            }
            if let Some(deadline) = connection.deadline {
                self.half_open.remove(&(deadline, id));
            }
        }
    }

    /// When [`PeerConnections::poll_due`] has something to say next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.half_open.first().map(|(deadline, _)| *deadline)
    }

    /// Closes a connection whose time is over, and names it.
    pub(crate) fn poll_due(&mut self, now: Instant) -> Option<ConnectionId> {
        let (deadline, id) = *self.half_open.first()?;
        if deadline > now {
            return None;
        }
        self.close(id);
        Some(id)
    }

    /// The peer's side of the connection at `index` has something to say.
    pub(crate) fn note_peer_event(&mut self, index: usize, failed: bool) {
        if let Some(connection) = self.places.at_mut(index) {
            connection.failed |= failed && !connection.connecting;
        }
    }

    /// The client's side of the connection at `index` has something to say.
    pub(crate) fn note_client_event(
        &mut self,
        index: usize,
        writable: bool,
        hung_up: bool,
        failed: bool,
    ) {
        if let Some(connection) = self.places.at_mut(index)
            && let Some(Splice { client, .. }) = &mut connection.splice
        {
            client.blocked &= !writable;
            client.hung_up |= hung_up;
            connection.failed |= failed;
        }
    }

    /// The connection at `index`, where bytes go by on it.
    pub(crate) fn spliced(&mut self, index: usize) -> Option<ConnectionId> {
        let connection = self.places.at_mut(index)?;
        connection.splice.as_ref().map(|_| connection.id)
    }

    /// Moves what can be moved at `index`, as far as there is `room`.
    pub(crate) fn turn(&mut self, index: usize, now: Instant, room: Room) -> Turn {
        let Some(connection) = self.places.at_mut(index) else {
            return Turn::Nothing;
        };
        connection.queued = false;
        let id = connection.id;
        if connection.connecting {
            return connection.poll_connected();
        }
        let Some(splice) = &mut connection.splice else {
            if !connection.failed {
                return Turn::Nothing;
            }
            // Nobody can claim it any more.
            self.close(id);
            return Turn::Moved {
                id,
                to_peer: 0,
                to_client: 0,
                next: Next::Closed,
            };
        };
        let carried = splice.carry(&mut connection.socket, &mut self.buffers, room);
        let next = if connection.failed {
            Next::Closed
        } else {
            carried.next
        };
        if let Some(deadline) = splice.postpone(connection.deadline, carried, now) {
            if let Some(earlier) = connection.deadline.replace(deadline) {
                self.half_open.remove(&(earlier, id));
            }
            self.half_open.insert((deadline, id));
        }
        if next == Next::Closed {
            self.close(id);
        }
        Turn::Moved {
            id,
            to_peer: carried.outward,
            to_client: carried.inward,
            next,
        }
    }

    /// Notes that the connection stands in the ready list; `false` where it stood there already or is gone.
    pub(crate) fn set_queued(&mut self, index: usize) -> bool {
        self.places
            .at_mut(index)
            .is_some_and(|connection| !std::mem::replace(&mut connection.queued, true))
    }
}

impl PeerConnection {
    /// Whether the peer has accepted; an event without an answer is none.
    fn poll_connected(&mut self) -> Turn {
        let result = match is_connected(&self.socket) {
            Ok(false) => return Turn::Nothing,
            Ok(true) => Ok(()),
            Err(_) => Err(ConnectError::Failed),
        };
        self.connecting = false;
        Turn::Connected(self.id, result)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream as StdStream};

    use mio::Poll;
    use std::time::Duration;
    use turnfleet_turn::{FiveTuple, Transport};

    use super::*;
    use crate::driver::splice::HALF_OPEN;

    /// Both ends of a connection, the relay's first.
    fn pair() -> (TcpStream, StdStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        (TcpStream::from_std(near), far)
    }

    fn client(socket: TcpStream) -> Box<Connection> {
        let client = FiveTuple {
            transport: Transport::Tcp,
            client: socket.peer_addr().unwrap(),
            server: socket.local_addr().unwrap(),
        };
        Box::new(Connection::opened(socket, client))
    }

    #[test]
    fn a_connection_without_a_byte_for_a_minute_after_one_side_ended_is_closed() {
        let poll = Poll::new().unwrap();
        let mut connections = PeerConnections::new();
        let id = ConnectionId(7);
        let (near_peer, _peer) = pair();
        let (near_client, far_client) = pair();
        let registry = poll.registry();
        connections.insert(registry, id, near_peer, false).unwrap();
        let index = connections
            .splice(registry, id, client(near_client), b"")
            .unwrap();
        let start = Instant(1);
        connections.turn(index, start, Room::FREE);
        assert_eq!(connections.poll_timeout(), None);

        drop(far_client);
        let begun = std::time::Instant::now();
        while connections.poll_timeout().is_none() {
            connections.turn(index, start, Room::FREE);
            assert!(begun.elapsed() < Duration::from_secs(10), "no end is seen");
        }
        assert_eq!(connections.poll_timeout(), Some(start.after(HALF_OPEN)));
        let before = Instant(start.after(HALF_OPEN).0 - 1);
        assert_eq!(connections.poll_due(before), None);
        assert_eq!(connections.poll_due(start.after(HALF_OPEN)), Some(id));
        assert_eq!(connections.poll_timeout(), None);
        let later = connections.turn(index, start, Room::FREE);
        assert_eq!(later, Turn::Nothing);
    }
}
