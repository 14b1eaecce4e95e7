//! The TCP and TLS listeners of a shard: each accepts streams of clients.

use std::net::TcpListener as StdListener;

use mio::net::TcpListener;
use socket2::SockRef;
use turnfleet_turn::Instant;

use super::entrance::{Accepted, Entrance};
use crate::listeners::Listener;

/// Bytes that the kernel holds unsent for one stream; more waits in the relay, where it is bounded and data is dropped
/// whole. Enough for a few hundred milliseconds of video.
const UNSENT: u32 = 128 << 10;

/// One TCP or TLS listener of a shard.
pub(crate) struct Acceptor {
    /// `None` once it is closed: streams that it accepted may still ask what it was.
    entrance: Option<Entrance>,
    pub(crate) listener: Listener,
    pub(crate) queued: bool,
}

impl Acceptor {
    /// Accepts on a socket that is registered already.
    pub(crate) fn new(socket: StdListener, listener: Listener) -> Self {
        Self {
            entrance: Some(Entrance::new(TcpListener::from_std(socket))),
            listener,
            queued: false,
        }
    }

    /// Whether it accepts at all.
    pub(crate) fn is_open(&self) -> bool {
        self.entrance.is_some()
    }

    /// Accepts nothing from here on. The kernel forgets the socket's events with the socket.
    pub(crate) fn close(&mut self) {
        self.entrance = None;
    }

    /// When the pause ends.
    pub(crate) fn paused_until(&self) -> Option<Instant> {
        self.entrance.as_ref()?.paused_until()
    }

    /// Ends a pause that is due; `true` where there was one.
    pub(crate) fn resume(&mut self, now: Instant) -> bool {
        let entrance = self.entrance.as_mut();
        entrance.is_some_and(|entrance| entrance.resume(now))
    }

    /// Accepts one connection.
    pub(crate) fn accept(&mut self, now: Instant) -> Accepted {
        let entrance = self.entrance.as_mut();
        let accepted = entrance.map_or(Accepted::Nothing, |entrance| entrance.accept(now));
        if let Accepted::Stream(stream, _) = &accepted {
            // Only makes the stream smoother: it works without.
            let _ = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT);
        }
        accepted
    }
}
