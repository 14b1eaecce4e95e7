//! Streams that are for an HTTPS server behind the relay: carried there byte by byte, in both directions.
//!
//! A direction holds at most one buffer of bytes that its reader has not taken yet, and reads no more while it holds
//! some: the slower end sets the pace. The end of one direction is passed on; the other goes on until its own end.

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry};
use socket2::{SockRef, TcpKeepalive};
use turnfleet_turn::Instant;

use crate::driver::counters::DriverCounters;
use crate::shard::token::Source;

/// How long the HTTPS server may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// When the kernel begins to ask an end that is silent whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Bytes that a direction takes in one turn, and that it may hold.
const BUFFER_LEN: usize = 32 << 10;

/// The streams of one shard that are passed on.
pub(crate) struct Forwards {
    places: Vec<Option<Box<Forward>>>,
    free: Vec<usize>,
    /// Those whose server has not answered, the one to be given up next first.
    connecting: BTreeSet<(Instant, usize)>,
    limit: usize,
    buffer: Box<[u8]>,
}

/// One client's stream and the one that goes on from it.
struct Forward {
    client: TcpStream,
    server: TcpStream,
    to_server: Direction,
    to_client: Direction,
    /// When the server is given up; `None` once it has accepted.
    deadline: Option<Instant>,
    /// Whether it stands in the shard's ready list.
    queued: bool,
}

/// One direction of a stream that is passed on.
#[derive(Default)]
struct Direction {
    /// Read and not written yet.
    held: Vec<u8>,
    /// Whether the writer has ended it.
    ended: bool,
}

impl Forwards {
    /// At most `limit` streams are passed on at a time.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            connecting: BTreeSet::new(),
            limit,
            buffer: vec![0; BUFFER_LEN].into_boxed_slice(),
        }
    }

    /// Passes `client` on to the server at `backend`; closes it where that cannot be.
    pub(super) fn open(
        &mut self,
        client: TcpStream,
        backend: SocketAddr,
        registry: &Registry,
        now: Instant,
        counters: &mut DriverCounters,
    ) {
        if self.places.len() - self.free.len() >= self.limit {
            counters.https_refused += 1;
            return;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        match Forward::open(client, backend, registry, index, now) {
            Ok(forward) => {
                self.connecting
                    .extend(forward.deadline.map(|deadline| (deadline, index)));
                self.places[index] = Some(Box::new(forward));
                counters.https_forwarded += 1;
            }
            Err(_) => {
                self.free.push(index);
                counters.https_unreachable += 1;
            }
        }
    }

    /// Carries what one turn allows; `true` where more may wait.
    pub(crate) fn serve(&mut self, index: usize, counters: &mut DriverCounters) -> bool {
        let Some(Some(forward)) = self.places.get_mut(index) else {
            return false;
        };
        forward.queued = false;
        if let Some(deadline) = forward.deadline {
            match forward.is_connected() {
                Ok(false) => return false,
                Ok(true) => {
                    forward.deadline = None;
                    self.connecting.remove(&(deadline, index));
                }
                Err(_) => {
                    counters.https_unreachable += 1;
                    self.close(index);
                    return false;
                }
            }
        }
        match forward.carry(&mut self.buffer) {
            Ok(more) if !forward.is_over() => more,
            Ok(_) | Err(_) => {
                self.close(index);
                false
            }
        }
    }

    /// When [`Forwards::handle_timeout`] is next due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.connecting.first().map(|&(deadline, _)| deadline)
    }

    /// Gives up on servers that do not answer.
    pub(super) fn handle_timeout(&mut self, now: Instant, counters: &mut DriverCounters) {
        while let Some(&(deadline, index)) = self.connecting.first()
            && deadline <= now
        {
            counters.https_unreachable += 1;
            self.close(index);
        }
    }

    /// Notes that it stands in the ready list; `false` where it stood there already or is gone.
    pub(crate) fn set_queued(&mut self, index: usize) -> bool {
        let place = self.places.get_mut(index).and_then(Option::as_mut);
        place.is_some_and(|forward| !std::mem::replace(&mut forward.queued, true))
    }

    fn close(&mut self, index: usize) {
        let Some(forward) = self.places.get_mut(index).and_then(Option::take) else {
            return;
        };
        if let Some(deadline) = forward.deadline {
            self.connecting.remove(&(deadline, index));
        }
        self.free.push(index);
    }
}

impl Forward {
    fn open(
        mut client: TcpStream,
        backend: SocketAddr,
        registry: &Registry,
        index: usize,
        now: Instant,
    ) -> io::Result<Self> {
        let mut server = TcpStream::connect(backend)?;
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
        for socket in [&client, &server] {
            let socket = SockRef::from(socket);
            socket.set_tcp_keepalive(&keepalive)?;
            socket.set_tcp_nodelay(true)?;
        }
        // Both ends have one token: either gives the pair its turn.
        let token = Source::Forward(index).token();
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut server, token, interest)?;
        registry.reregister(&mut client, token, interest)?;
        Ok(Self {
            client,
            server,
            to_server: Direction::default(),
            to_client: Direction::default(),
            deadline: Some(now.after(CONNECT_LIMIT)),
            queued: false,
        })
    }

    /// Whether the server has accepted; an error where it will not.
    fn is_connected(&self) -> io::Result<bool> {
        if let Some(error) = self.server.take_error()? {
            return Err(error);
        }
        match self.server.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn carry(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let (client, server) = (&mut self.client, &mut self.server);
        let up = self.to_server.carry(client, server, buffer)?;
        let down = self.to_client.carry(server, client, buffer)?;
        Ok(up || down)
    }

    fn is_over(&self) -> bool {
        let is_over = |direction: &Direction| direction.ended && direction.held.is_empty();
        is_over(&self.to_server) && is_over(&self.to_client)
    }
}

impl Direction {
    /// Moves bytes once; `true` where more may wait, `false` where an event will tell.
    fn carry(
        &mut self,
        from: &mut TcpStream,
        to: &mut TcpStream,
        buffer: &mut [u8],
    ) -> io::Result<bool> {
        let written = write_some(to, &self.held)?;
        self.held.drain(..written);
        if self.ended || !self.held.is_empty() {
            return Ok(false);
        }
        // An idle stream holds no memory.
        self.held = Vec::new();
        match read_some(from, buffer)? {
            None => Ok(false),
            Some(0) => {
                self.ended = true;
                to.shutdown(Shutdown::Write)?;
                Ok(false)
            }
            Some(count) => {
                let written = write_some(to, &buffer[..count])?;
                self.held.extend_from_slice(&buffer[written..count]);
                Ok(self.held.is_empty())
            }
        }
    }
}

/// Reads once; `None` where nothing waits, zero bytes at the end.
fn read_some(socket: &mut TcpStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        return match socket.read(buffer) {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
    }
}

/// Writes as much as the kernel takes.
fn write_some(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match socket.write(&bytes[written..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
