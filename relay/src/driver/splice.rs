//! Peer data connections (RFC 6062): connecting, waiting to be claimed, and spliced with a client data connection.
//!
//! Nothing is read from a connection that waits: what its peer sends, the kernel holds, and closes the window when it has
//! enough. One that fails meanwhile is closed. A spliced connection reads from one side what the other side takes, and stops when that takes no more; it holds
//! one read of each direction at most, and nothing while both sides keep up. The end of one direction is passed on when
//! everything before it is written; when both have ended, one side fails, or nothing more comes from the one that is left, both
//! are closed.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write as _};
use std::net::Shutdown;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry};
use turnfleet_turn::wire::ConnectionId;
use turnfleet_turn::{ConnectError, Instant};

use super::stream::{BufferPool, Connection, Outgoing, StreamEnd, read_some};
use crate::shard::token::Source;

/// Bytes that one read takes.
const READ_LEN: usize = 64 << 10;
/// Bytes of ciphertext that one read takes; with a record held back they fit into [`READ_LEN`].
const CIPHERTEXT_LEN: usize = 32 << 10;
/// Reads of each direction before others have their turn.
const READS_AT_ONCE: usize = 8;

/// How long a connection lives on without a byte when one of its sides has ended: who closes its side for good does not say
/// so.
pub(crate) const HALF_OPEN: Duration = Duration::from_secs(60);

/// The peer data connections of one shard.
pub(crate) struct PeerConnections {
    table: Vec<Option<Box<PeerConnection>>>,
    free: Vec<usize>,
    by_id: HashMap<ConnectionId, usize>,
    /// Those of which one side has ended, the next to be closed first.
    half_open: BTreeSet<(Instant, ConnectionId)>,
    buffers: Buffers,
}

/// What one connection after the other borrows.
struct Buffers {
    plain: Box<[u8]>,
    ciphertext: Box<[u8]>,
    pool: BufferPool,
}

struct PeerConnection {
    id: ConnectionId,
    socket: TcpStream,
    /// Whether the peer has not accepted yet.
    connecting: bool,
    /// The client data connection, once there is one.
    client: Option<Box<Connection>>,
    /// What the peer did not take yet.
    to_peer: Outgoing,
    client_ended: bool,
    peer_ended: bool,
    /// Whether the end of the client's data is passed on.
    peer_told: bool,
    /// Whether the end of the peer's data is passed on.
    client_told: bool,
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

/// What becomes of a spliced connection after its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It waits for an event.
    Wait,
    /// There may be more at once.
    Again,
    /// It is closed.
    Closed,
}

impl PeerConnections {
    pub(crate) fn new() -> Self {
        Self {
            table: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::new(),
            half_open: BTreeSet::new(),
            buffers: Buffers {
                plain: vec![0; READ_LEN].into_boxed_slice(),
                ciphertext: vec![0; CIPHERTEXT_LEN].into_boxed_slice(),
                pool: BufferPool::default(),
            },
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
        let index = self.free.pop().unwrap_or_else(|| {
            self.table.push(None);
            self.table.len() - 1
        });
        let token = Source::PeerConnection(index).token();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = registry.register(&mut socket, token, interest) {
            self.free.push(index);
            return Err(error);
        }
        self.by_id.insert(id, index);
        self.table[index] = Some(Box::new(PeerConnection {
            id,
            socket,
            connecting,
            client: None,
            to_peer: Outgoing::default(),
            client_ended: false,
            peer_ended: false,
            peer_told: false,
            client_told: false,
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
        let connection = self.table.get_mut(index)?.as_mut()?;
        let token = Source::DataConnection(index).token();
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry
            .register(&mut client.socket, token, interest)
            .ok()?;
        let pool = &mut self.buffers.pool;
        if !unread.is_empty() {
            connection.to_peer.push(unread, unread.len(), pool);
        }
        connection.client = Some(client);
        Some(index)
    }

    /// Closes a connection and the one it is spliced with.
    pub(crate) fn close(&mut self, id: ConnectionId) {
        let Some(index) = self.by_id.remove(&id) else {
            return;
        };
        if let Some(mut connection) = self.table.get_mut(index).and_then(Option::take) {
            if let Some(client) = &mut connection.client {
                client.say_goodbye(&mut self.buffers.pool);
            }
            if let Some(deadline) = connection.deadline {
                self.half_open.remove(&(deadline, id));
            }
            self.free.push(index);
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
        if let Some(connection) = self.connection(index) {
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
        if let Some(connection) = self.connection(index)
            && let Some(client) = &mut connection.client
        {
            client.blocked &= !writable;
            client.hung_up |= hung_up;
            connection.failed |= failed;
        }
    }

    /// Moves what can be moved at `index`.
    pub(crate) fn turn(&mut self, index: usize, now: Instant) -> Turn {
        let Some(Some(connection)) = self.table.get_mut(index) else {
            return Turn::Nothing;
        };
        connection.queued = false;
        let id = connection.id;
        if connection.connecting {
            return connection.poll_connected();
        }
        let Some(mut client) = connection.client.take() else {
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
        let (mut to_peer, mut to_client) = (0, 0);
        let forth = connection.move_to_peer(&mut client, &mut self.buffers, &mut to_peer);
        let back = connection.move_to_client(&mut client, &mut self.buffers, &mut to_client);
        let over = connection.failed || (connection.peer_told && connection.client_told);
        connection.client = Some(client);
        let half_open = connection.peer_told || connection.client_told;
        if half_open && (to_peer + to_client > 0 || connection.deadline.is_none()) {
            let deadline = now.after(HALF_OPEN);
            if let Some(earlier) = connection.deadline.replace(deadline) {
                self.half_open.remove(&(earlier, id));
            }
            self.half_open.insert((deadline, id));
        }
        let next = match (forth, back) {
            (Err(_), _) | (_, Err(_)) => Next::Closed,
            _ if over => Next::Closed,
            (Ok(false), Ok(false)) => Next::Wait,
            (Ok(_), Ok(_)) => Next::Again,
        };
        if next == Next::Closed {
            self.close(id);
        }
        Turn::Moved {
            id,
            to_peer,
            to_client,
            next,
        }
    }

    /// Notes that the connection stands in the ready list; `false` where it stood there already or is gone.
    pub(crate) fn set_queued(&mut self, index: usize) -> bool {
        self.connection(index)
            .is_some_and(|connection| !std::mem::replace(&mut connection.queued, true))
    }

    fn connection(&mut self, index: usize) -> Option<&mut PeerConnection> {
        self.table.get_mut(index)?.as_deref_mut()
    }
}

impl PeerConnection {
    /// Whether the peer has accepted; an event without an answer is none.
    fn poll_connected(&mut self) -> Turn {
        let result = match (self.socket.take_error(), self.socket.peer_addr()) {
            (Ok(None), Ok(_)) => Ok(()),
            (Ok(None), Err(error)) if error.kind() == io::ErrorKind::NotConnected => {
                return Turn::Nothing;
            }
            _ => Err(ConnectError::Failed),
        };
        self.connecting = false;
        Turn::Connected(self.id, result)
    }

    /// Passes on what the client sends; `true` where there may be more at once.
    fn move_to_peer(
        &mut self,
        client: &mut Connection,
        buffers: &mut Buffers,
        moved: &mut usize,
    ) -> Result<bool, StreamEnd> {
        let Buffers {
            plain,
            ciphertext,
            pool,
        } = buffers;
        for _ in 0..READS_AT_ONCE {
            while !self.to_peer.is_empty() {
                let written = write_some(&mut self.socket, self.to_peer.waiting())?;
                if written == 0 {
                    return Ok(false);
                }
                *moved += written;
                self.to_peer.advance(written, pool);
            }
            if self.client_ended {
                if !self.peer_told {
                    self.peer_told = true;
                    // A peer that is gone already needs no word.
                    let _ = self.socket.shutdown(Shutdown::Write);
                }
                return Ok(false);
            }
            match client.read(plain, ciphertext) {
                Ok(arrived) => {
                    let mut rest = &plain[..arrived.len];
                    while !rest.is_empty() {
                        let written = write_some(&mut self.socket, rest)?;
                        if written == 0 {
                            self.to_peer.push(rest, rest.len(), pool);
                            break;
                        }
                        *moved += written;
                        rest = &rest[written..];
                    }
                    if !arrived.more {
                        return Ok(false);
                    }
                }
                Err(StreamEnd::Closed) => self.client_ended = true,
                Err(StreamEnd::Tls) => return Err(StreamEnd::Tls),
            }
        }
        Ok(true)
    }

    /// Passes on what the peer sends; `true` where there may be more at once.
    fn move_to_client(
        &mut self,
        client: &mut Connection,
        buffers: &mut Buffers,
        moved: &mut usize,
    ) -> Result<bool, StreamEnd> {
        let Buffers { plain, pool, .. } = buffers;
        for _ in 0..READS_AT_ONCE {
            client.flush(pool)?;
            if client.has_output() {
                return Ok(false);
            }
            if self.peer_ended {
                if !self.client_told {
                    self.client_told = client.end_output();
                }
                return Ok(false);
            }
            match read_some(&mut self.socket, plain) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    *moved += count;
                    client.outgoing.push(&plain[..count], count, pool);
                }
                Err(_) => self.peer_ended = true,
            }
        }
        Ok(true)
    }
}

/// Writes once; zero where the kernel takes nothing for the time being.
fn write_some(socket: &mut TcpStream, bytes: &[u8]) -> Result<usize, StreamEnd> {
    loop {
        return match socket.write(bytes) {
            Ok(count) => Ok(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => Err(StreamEnd::Closed),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream as StdStream};

    use mio::Poll;
    use turnfleet_turn::{FiveTuple, Transport};

    use super::*;

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
        connections.turn(index, start);
        assert_eq!(connections.poll_timeout(), None);

        drop(far_client);
        let begun = std::time::Instant::now();
        while connections.poll_timeout().is_none() {
            connections.turn(index, start);
            assert!(begun.elapsed() < Duration::from_secs(10), "no end is seen");
        }
        assert_eq!(connections.poll_timeout(), Some(start.after(HALF_OPEN)));
        let before = Instant(start.after(HALF_OPEN).0 - 1);
        assert_eq!(connections.poll_due(before), None);
        assert_eq!(connections.poll_due(start.after(HALF_OPEN)), Some(id));
        assert_eq!(connections.poll_timeout(), None);
        let later = connections.turn(index, start);
        assert_eq!(later, Turn::Nothing);
    }
}
