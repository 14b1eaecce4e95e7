//! Listening relayed sockets: one for each TCP relayed transport address (RFC 6062), in a table by [`RelayedId::index`],
//! and connections that leave from the same address.
//!
//! The port is bound without sharing, so that another program that holds it is seen; only once the socket listens, outgoing
//! connections of the same address may join it there. A socket that finds no descriptor for a connection pauses, and goes on
//! by a timer: what waits in the kernel makes no event a second time.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};

use mio::Registry;
use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};
use turnfleet_turn::{ConnectError, Instant, OpenError, RelayedId};

use super::descriptors;
use super::entrance::{Accepted, Entrance};
use super::relayed_udp::open_error;
use crate::shard::token::Source;

/// Connections that the kernel accepts ahead of the relay, for one relayed transport address.
const BACKLOG: i32 = 16;

struct RelayedListener {
    entrance: Entrance,
    id: RelayedId,
    local: SocketAddr,
    /// Whether the socket stands in the shard's ready list: once at most.
    queued: bool,
}

/// The listening relayed sockets of one shard.
#[derive(Default)]
pub(crate) struct RelayedListeners {
    table: Vec<Option<RelayedListener>>,
    /// When pauses end, and whose they are; the places may have other owners by then.
    pauses: VecDeque<(Instant, usize)>,
}

impl RelayedListeners {
    /// Opens a socket that listens at `local` and returns the address it got.
    pub(crate) fn open(
        &mut self,
        registry: &Registry,
        id: RelayedId,
        local: SocketAddr,
    ) -> Result<SocketAddr, OpenError> {
        let socket = listen(local).map_err(|error| open_error(&error))?;
        let mut entrance = Entrance::new(socket);
        let local = entrance.local_addr().map_err(|error| open_error(&error))?;
        let index = id.index();
        let token = Source::RelayedListener(index).token();
        entrance
            .register(registry, token)
            .map_err(|error| open_error(&error))?;
        if index >= self.table.len() {
            self.table.resize_with(index + 1, || None);
        }
        self.table[index] = Some(RelayedListener {
            entrance,
            id,
            local,
            queued: false,
        });
        Ok(local)
    }

    /// Closes a socket; the connections that it has accepted stay.
    pub(crate) fn close(&mut self, id: RelayedId) {
        if let Some(place) = self.table.get_mut(id.index()) {
            place.take_if(|listener| listener.id == id);
        }
    }

    /// Begins a connection to `peer` from the address of `via`.
    pub(crate) fn connect(
        &self,
        via: RelayedId,
        peer: SocketAddr,
    ) -> Result<TcpStream, ConnectError> {
        let listener = self.table.get(via.index()).and_then(Option::as_ref);
        let listener = listener.filter(|listener| listener.id == via);
        let local = listener.ok_or(ConnectError::Failed)?.local;
        connect(local, peer).map_err(|error| {
            if descriptors::is_exhaustion(&error) {
                ConnectError::Exhausted
            } else {
                ConnectError::Failed
            }
        })
    }

    /// Accepts one connection at `index`.
    pub(crate) fn accept(&mut self, index: usize, now: Instant) -> Accepted {
        let Some(Some(listener)) = self.table.get_mut(index) else {
            return Accepted::Nothing;
        };
        let accepted = listener.entrance.accept(now);
        if let Accepted::Exhausted = accepted {
            let until = listener.entrance.paused_until();
            self.pauses.extend(until.map(|until| (until, index)));
        }
        accepted
    }

    /// When [`RelayedListeners::poll_due`] has something to say next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.pauses.front().map(|(until, _)| *until)
    }

    /// Ends a pause that is due, and says at which place something may wait.
    pub(crate) fn poll_due(&mut self, now: Instant) -> Option<usize> {
        while let Some(&(until, index)) = self.pauses.front()
            && until <= now
        {
            self.pauses.pop_front();
            if let Some(Some(listener)) = self.table.get_mut(index)
                && listener.entrance.resume(now)
            {
                return Some(index);
            }
        }
        None
    }

    /// Notes that the socket at `index` stands in the ready list; `false` where it stood there already or is gone.
    pub(crate) fn set_queued(&mut self, index: usize) -> bool {
        match self.table.get_mut(index) {
            Some(Some(listener)) => !std::mem::replace(&mut listener.queued, true),
            Some(None) | None => false,
        }
    }

    /// Notes that the socket at `index` was taken off the ready list, and names it.
    pub(crate) fn take_queued(&mut self, index: usize) -> Option<RelayedId> {
        let listener = self.table.get_mut(index)?.as_mut()?;
        listener.queued = false;
        Some(listener.id)
    }
}

fn socket(local: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(local), kind, Some(Protocol::TCP))?;
    if local.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // The port's last allocation may have left connections that the kernel has not forgotten yet.
    socket.set_reuse_address(true)?;
    Ok(socket)
}

fn listen(local: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(local)?;
    socket.bind(&local.into())?;
    socket.listen(BACKLOG)?;
    socket.set_reuse_port(true)?;
    Ok(TcpListener::from_std(StdListener::from(socket)))
}

fn connect(local: SocketAddr, peer: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(local)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&local.into())?;
    match socket.connect(&peer.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(StdStream::from(socket)))
}
