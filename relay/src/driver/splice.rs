//! Two streams that are one: a client's, with or without TLS on it, and the one that goes on from it to a peer or a server.
//!
//! Bytes are read from one side as the other takes them, and no more are read when it takes no more: at most one read of each
//! direction is held, and nothing while both sides keep up. The end of one direction is passed on when everything before it
//! is written. When both have ended, one side fails, or nothing more comes from the one that is left, both are closed.

use std::io::{self, Write as _};
use std::net::Shutdown;
use std::time::Duration;

use mio::net::TcpStream;
use turnfleet_turn::Instant;
use turnfleet_turn::server::Room;

use super::stream::{BufferPool, Connection, Outgoing, StreamEnd, read_some};

/// Bytes that one read takes.
const READ_LEN: usize = 64 << 10;
/// Bytes of ciphertext that one read takes; with a record held back they fit into [`READ_LEN`].
const CIPHERTEXT_LEN: usize = 32 << 10;
/// Reads of each direction before others have their turn.
const READS_AT_ONCE: usize = 8;

/// How long a splice lives on without a byte when one of its sides has ended: who closes its side for good does not say so.
pub(crate) const HALF_OPEN: Duration = Duration::from_secs(60);

/// What one splice after the other borrows.
pub(crate) struct Buffers {
    plain: Box<[u8]>,
    ciphertext: Box<[u8]>,
    pub(crate) pool: BufferPool,
}

impl Buffers {
    pub(crate) fn new() -> Self {
        Self {
            plain: vec![0; READ_LEN].into_boxed_slice(),
            ciphertext: vec![0; CIPHERTEXT_LEN].into_boxed_slice(),
            pool: BufferPool::default(),
        }
    }
}

/// A client's stream, and what is known of the way between it and the far side, whose socket the caller keeps.
pub(crate) struct Splice {
    pub(crate) client: Box<Connection>,
    /// What the far side did not take yet.
    outward: Outgoing,
    client_ended: bool,
    far_ended: bool,
    /// Whether the end of the client's data is passed on.
    far_told: bool,
    /// Whether the end of the far side's data is passed on.
    client_told: bool,
}

/// What one turn of a splice came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Carried {
    /// Bytes written to the far side.
    pub(crate) outward: usize,
    /// Bytes read from the far side.
    pub(crate) inward: usize,
    pub(crate) next: Next,
}

/// What becomes of a splice after its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It waits for an event.
    Wait,
    /// There may be more at once.
    Again,
    /// There may be more, which has to wait until there is room for it.
    Later,
    /// It is over: both sides are to be closed.
    Closed,
}

impl Splice {
    /// Begins with `unread`, which has arrived from the client already.
    pub(crate) fn new(client: Box<Connection>, unread: &[u8], pool: &mut BufferPool) -> Self {
        let mut outward = Outgoing::default();
        if !unread.is_empty() {
            outward.push(unread, unread.len(), pool);
        }
        Self {
            client,
            outward,
            client_ended: false,
            far_ended: false,
            far_told: false,
            client_told: false,
        }
    }

    /// Moves what can be moved between the client and `far`, and reads about as much as there is `room` for.
    pub(crate) fn carry(
        &mut self,
        far: &mut TcpStream,
        buffers: &mut Buffers,
        room: Room,
    ) -> Carried {
        let (mut outward, mut inward) = (0, 0);
        let forth = self.move_outward(far, buffers, room.to_peer, &mut outward);
        let back = self.move_inward(far, buffers, room.to_client, &mut inward);
        let next = match (forth, back) {
            (Err(_), _) | (_, Err(_)) => Next::Closed,
            _ if self.far_told && self.client_told => Next::Closed,
            (Ok(Next::Again), Ok(_)) | (Ok(_), Ok(Next::Again)) => Next::Again,
            (Ok(Next::Later), Ok(_)) | (Ok(_), Ok(Next::Later)) => Next::Later,
            (Ok(_), Ok(_)) => Next::Wait,
        };
        Carried {
            outward,
            inward,
            next,
        }
    }

    /// When the splice is given up after a turn, where that is another time than `deadline`, when it was before.
    pub(crate) fn postpone(
        &self,
        deadline: Option<Instant>,
        carried: Carried,
        now: Instant,
    ) -> Option<Instant> {
        let is_half_open = self.far_told || self.client_told;
        let has_moved = carried.outward + carried.inward > 0;
        (is_half_open && (has_moved || deadline.is_none())).then(|| now.after(HALF_OPEN))
    }

    /// Passes on what the client sends, and says whether there may be more.
    fn move_outward(
        &mut self,
        far: &mut TcpStream,
        buffers: &mut Buffers,
        room: usize,
        moved: &mut usize,
    ) -> Result<Next, StreamEnd> {
        let mut read = 0;
        let Buffers {
            plain,
            ciphertext,
            pool,
        } = buffers;
        for _ in 0..READS_AT_ONCE {
            while !self.outward.is_empty() {
                let written = write_some(far, self.outward.waiting())?;
                if written == 0 {
                    return Ok(Next::Wait);
                }
                *moved += written;
                self.outward.advance(written, pool);
            }
            if self.client_ended {
                if !self.far_told {
                    self.far_told = true;
                    // A far side that is gone already needs no word.
                    let _ = far.shutdown(Shutdown::Write);
                }
                return Ok(Next::Wait);
            }
            if read >= room {
                return Ok(Next::Later);
            }
            match self.client.read(plain, ciphertext) {
                Ok(arrived) => {
                    read += arrived.len;
                    let mut rest = &plain[..arrived.len];
                    while !rest.is_empty() {
                        let written = write_some(far, rest)?;
                        if written == 0 {
                            self.outward.push(rest, rest.len(), pool);
                            break;
                        }
                        *moved += written;
                        rest = &rest[written..];
                    }
                    if !arrived.more {
                        return Ok(Next::Wait);
                    }
                }
                Err(StreamEnd::Closed) => self.client_ended = true,
                Err(StreamEnd::Tls) => return Err(StreamEnd::Tls),
            }
        }
        Ok(Next::Again)
    }

    /// Passes on what the far side sends, and says whether there may be more.
    fn move_inward(
        &mut self,
        far: &mut TcpStream,
        buffers: &mut Buffers,
        room: usize,
        moved: &mut usize,
    ) -> Result<Next, StreamEnd> {
        let Buffers { plain, pool, .. } = buffers;
        for _ in 0..READS_AT_ONCE {
            self.client.flush(pool)?;
            if self.client.has_output() {
                return Ok(Next::Wait);
            }
            if self.far_ended {
                if !self.client_told {
                    self.client_told = self.client.end_output();
                }
                return Ok(Next::Wait);
            }
            let left = room.saturating_sub(*moved);
            if left == 0 {
                return Ok(Next::Later);
            }
            let len = plain.len().min(left);
            match read_some(far, &mut plain[..len]) {
                Ok(0) => return Ok(Next::Wait),
                Ok(count) => {
                    *moved += count;
                    self.client.outgoing.push(&plain[..count], count, pool);
                }
                Err(_) => self.far_ended = true,
            }
        }
        Ok(Next::Again)
    }
}

/// Whether a connection that was begun is accepted; an error where it will not be, and `false` where an event without
/// an answer came.
pub(crate) fn is_connected(socket: &TcpStream) -> io::Result<bool> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    match socket.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
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
