//! TCP listeners: accepts streams, and stops for a while when descriptors run out.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use socket2::SockRef;
use turnfleet_turn::Instant;

use super::descriptors;
use crate::listeners::Listener;

/// How long a listener pauses when descriptors or memory run out: the kernel keeps the connections in its queue.
const PAUSE: Duration = Duration::from_millis(250);
/// Bytes that the kernel holds unsent for one stream; more waits in the relay, where it is bounded and data is dropped
/// whole. Enough for a few hundred milliseconds of video.
const UNSENT: u32 = 128 << 10;

/// One TCP or TLS listener of a shard.
pub(crate) struct Acceptor {
    socket: TcpListener,
    pub(crate) listener: Listener,
    /// Until when nothing is accepted.
    paused: Option<Instant>,
    pub(crate) queued: bool,
}

/// What one try to accept brought.
pub(crate) enum Accepted {
    /// A connection and the client's address.
    Stream(TcpStream, SocketAddr),
    /// Nothing waits.
    Nothing,
    /// Descriptors or memory ran out; the listener pauses.
    Exhausted,
}

impl Acceptor {
    pub(crate) fn new(socket: StdListener, listener: Listener) -> Self {
        Self {
            socket: TcpListener::from_std(socket),
            listener,
            paused: None,
            queued: false,
        }
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
        while self.paused.is_none() {
            match self.socket.accept() {
                Ok((stream, client)) => {
                    let socket = SockRef::from(&stream);
                    // Both only make a stream smoother: it works without.
                    let _ = socket.set_tcp_nodelay(true);
                    let _ = socket.set_tcp_notsent_lowat(UNSENT);
                    return Accepted::Stream(stream, client);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if descriptors::is_exhaustion(&error) => {
                    self.paused = Some(now.after(PAUSE));
                    return Accepted::Exhausted;
                }
                // The connection was gone before it was accepted, or the network spoke: the next one may be fine.
                Err(_) => {}
            }
        }
        Accepted::Nothing
    }
}
