//! A socket that listens for TCP connections, on either side of the relay: it pauses when descriptors run out.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use socket2::SockRef;
use turnfleet_turn::Instant;

use super::descriptors;

/// How long a listener pauses when descriptors or memory run out: the kernel keeps the connections in its queue.
pub(crate) const PAUSE: Duration = Duration::from_millis(250);
/// Connections in a row that may be gone before they are accepted: what fails more often than that has another cause.
const FAILURES: usize = 16;

/// A listening socket.
pub(crate) struct Entrance {
    socket: TcpListener,
    /// Until when nothing is accepted.
    paused: Option<Instant>,
}

/// What one try to accept brought.
pub(crate) enum Accepted {
    /// A connection and the address of its other end.
    Stream(TcpStream, SocketAddr),
    /// Nothing waits, or the listener pauses.
    Nothing,
    /// Descriptors or memory ran out: the listener pauses for [`PAUSE`] from here on, and says nothing more by itself.
    Exhausted,
}

impl Entrance {
    pub(crate) fn new(socket: TcpListener) -> Self {
        Self {
            socket,
            paused: None,
        }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.socket, token, Interest::READABLE)
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// When the pause ends.
    pub(crate) fn paused_until(&self) -> Option<Instant> {
        self.paused
    }

    /// Ends a pause that is due; `true` where there was one.
    pub(crate) fn resume(&mut self, now: Instant) -> bool {
        self.paused.take_if(|until| *until <= now).is_some()
    }

    /// Accepts one connection.
    pub(crate) fn accept(&mut self, now: Instant) -> Accepted {
        if self.paused.is_some() {
            return Accepted::Nothing;
        }
        for _ in 0..FAILURES {
            match self.socket.accept() {
                Ok((stream, from)) => {
                    // Only makes the connection smoother: it works without.
                    let _ = SockRef::from(&stream).set_tcp_nodelay(true);
                    return Accepted::Stream(stream, from);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Accepted::Nothing;
                }
                Err(error) if descriptors::is_exhaustion(&error) => break,
                // The connection was gone before it was accepted, or the network spoke: the next one may be fine.
                Err(_) => {}
            }
        }
        self.paused = Some(now.after(PAUSE));
        Accepted::Exhausted
    }
}
