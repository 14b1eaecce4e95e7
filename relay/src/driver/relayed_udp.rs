//! Relayed sockets: one unconnected UDP socket for each relayed transport address, in a table by
//! [`RelayedId::index`].
//!
//! Twenty bytes a socket here; the kernel keeps the rest. They never share their port (no SO_REUSEADDR, no
//! SO_REUSEPORT), so that a port granted to this relay and taken by another program is seen.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use mio::unix::SourceFd;
use mio::{Interest, Registry};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use turnfleet_turn::{IpMeta, OpenError, RelayedId, ShardId};

use super::batch::SendBatch;
use super::directory::{Directory, HostIndex, Owner};
use super::ip_options::Standing;
use super::{descriptors, ip_options};
use crate::shard::token::Source;

struct RelayedSocket {
    fd: OwnedFd,
    id: RelayedId,
    /// The port that it is bound to.
    port: u16,
    /// The address that it is bound to; `None` where the directory does not have it.
    host: Option<HostIndex>,
    standing: Standing,
    turn: Turn,
}

/// Whether a socket stands in the shard's ready list, where it stands once at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Idle,
    Queued,
    /// And the network has said something about what it sent.
    QueuedWithErrors,
}

/// The relayed sockets of one shard. Those that are open stand in the directory of the relay.
pub(crate) struct RelayedSockets {
    table: Vec<Option<RelayedSocket>>,
    directory: Arc<Directory>,
    own: ShardId,
}

impl RelayedSockets {
    /// None yet.
    pub(crate) fn new(directory: Arc<Directory>, own: ShardId) -> Self {
        Self {
            table: Vec::new(),
            directory,
            own,
        }
    }

    /// Opens a socket bound to `local` and returns the address it got.
    pub(crate) fn open(
        &mut self,
        registry: &Registry,
        id: RelayedId,
        local: SocketAddr,
    ) -> Result<SocketAddr, OpenError> {
        let socket = bind(local).map_err(|error| open_error(&error))?;
        self.adopt(registry, id, socket.into())
    }

    /// Takes a socket that another shard opened, and returns its local address.
    pub(crate) fn adopt(
        &mut self,
        registry: &Registry,
        id: RelayedId,
        fd: OwnedFd,
    ) -> Result<SocketAddr, OpenError> {
        let local = SockRef::from(&fd)
            .local_addr()
            .map_err(|error| open_error(&error))?;
        let local = local.as_socket().ok_or(OpenError::AddressUnavailable)?;
        let token = Source::Relayed(id.index()).token();
        registry
            .register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)
            .map_err(|error| open_error(&error))?;
        let index = id.index();
        if index >= self.table.len() {
            self.table.resize_with(index + 1, || None);
        }
        let (host, port) = (self.directory.host(local.ip()), local.port());
        self.table[index] = Some(RelayedSocket {
            fd,
            id,
            port,
            host,
            standing: Standing::default(),
            turn: Turn::Idle,
        });
        if let Some(host) = host {
            let shard = self.own;
            self.directory.enter(host, port, Owner { shard, id });
        }
        Ok(local)
    }

    /// Closes a socket; the kernel takes it out of the event queue.
    pub(crate) fn close(&mut self, id: RelayedId) {
        self.take(id);
    }

    /// Gives up a socket that another shard takes over; what it has received travels with it.
    pub(crate) fn release(&mut self, registry: &Registry, id: RelayedId) -> Option<OwnedFd> {
        let socket = self.take(id)?;
        registry
            .deregister(&mut SourceFd(&socket.fd.as_raw_fd()))
            .ok()?;
        Some(socket.fd)
    }

    /// The socket named `id`, if it is open.
    pub(crate) fn socket(&self, id: RelayedId) -> Option<BorrowedFd<'_>> {
        self.named(id).map(|socket| socket.fd.as_fd())
    }

    /// The address that the socket named `id` is bound to, if the directory has it.
    pub(crate) fn address(&self, id: RelayedId) -> Option<SocketAddr> {
        let socket = self.named(id)?;
        let ip = self.directory.ip(socket.host?)?;
        Some(SocketAddr::new(ip, socket.port))
    }

    /// Whose socket is bound to `to`, of all shards; `None` where it is none of this relay's.
    pub(crate) fn owner(&self, to: SocketAddr) -> Option<Owner> {
        self.directory.find(to)
    }

    /// Notes that the socket at `index` stands in the ready list; `false` where it stood there already or is gone.
    pub(crate) fn set_queued(&mut self, index: usize) -> bool {
        match self.table.get_mut(index) {
            Some(Some(socket)) if socket.turn == Turn::Idle => {
                socket.turn = Turn::Queued;
                true
            }
            Some(Some(_) | None) | None => false,
        }
    }

    /// Notes that the error queue of the socket at `index`, which stands in the ready list, has something.
    pub(crate) fn set_errors(&mut self, index: usize) {
        if let Some(Some(socket)) = self.table.get_mut(index) {
            socket.turn = Turn::QueuedWithErrors;
        }
    }

    /// Notes that the socket at `index` was taken off the ready list, and names it; also whether its error queue has
    /// something.
    pub(crate) fn take_queued(&mut self, index: usize) -> Option<(RelayedId, bool)> {
        let socket = self.table.get_mut(index)?.as_mut()?;
        let turn = std::mem::replace(&mut socket.turn, Turn::Idle);
        Some((socket.id, turn == Turn::QueuedWithErrors))
    }

    /// The socket named `id`, and what it writes into headers.
    fn sender(&mut self, id: RelayedId) -> Option<(BorrowedFd<'_>, &mut Standing)> {
        let socket = self.table.get_mut(id.index())?.as_mut()?;
        (socket.id == id).then_some((socket.fd.as_fd(), &mut socket.standing))
    }

    fn named(&self, id: RelayedId) -> Option<&RelayedSocket> {
        let socket = self.table.get(id.index())?.as_ref();
        socket.filter(|socket| socket.id == id)
    }

    fn take(&mut self, id: RelayedId) -> Option<RelayedSocket> {
        let socket = self
            .table
            .get_mut(id.index())?
            .take_if(|socket| socket.id == id)?;
        if let Some(host) = socket.host {
            let shard = self.own;
            self.directory
                .remove(host, socket.port, Owner { shard, id });
        }
        Some(socket)
    }
}

/// Datagrams on their way from one relayed socket to peers: consecutive ones share a system call.
pub(crate) struct PeerQueue {
    via: Option<RelayedId>,
    batch: SendBatch,
}

impl PeerQueue {
    /// An empty queue for `capacity` datagrams.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            via: None,
            batch: SendBatch::new(capacity),
        }
    }

    /// Queues the datagram at `span` of `bytes` to go where and as the pair says, after sending what waits for another
    /// socket. Returns how many datagrams were refused on that occasion. All pushes up to a flush name parts of the same
    /// buffer.
    pub(crate) fn push(
        &mut self,
        sockets: &mut RelayedSockets,
        via: RelayedId,
        span: Range<usize>,
        (to, ip): (SocketAddr, IpMeta),
        bytes: &[u8],
    ) -> u64 {
        let mut refused = 0;
        if self.via != Some(via) || self.batch.is_full_for(ip) {
            refused = self.flush(sockets, bytes);
            self.via = Some(via);
        }
        self.batch.push(span, to, ip);
        refused
    }

    /// Sends what waits and returns how many datagrams were refused.
    pub(crate) fn flush(&mut self, sockets: &mut RelayedSockets, bytes: &[u8]) -> u64 {
        if self.batch.is_empty() {
            return 0;
        }
        let sender = self.via.take().and_then(|via| sockets.sender(via));
        match sender {
            Some((socket, standing)) => self.batch.flush(socket, standing, bytes).refused,
            None => self.batch.discard(),
        }
    }
}

fn bind(local: SocketAddr) -> io::Result<Socket> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(local), kind, Some(Protocol::UDP))?;
    if local.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    ip_options::prepare(socket.as_fd(), local.is_ipv6());
    // A system that refuses it tells nothing about what was sent.
    let _ = ip_options::keep_errors(socket.as_fd(), local.is_ipv6());
    socket.bind(&local.into())?;
    Ok(socket)
}

pub(crate) fn open_error(error: &io::Error) -> OpenError {
    if error.kind() == io::ErrorKind::AddrInUse {
        OpenError::PortTaken
    } else if descriptors::is_exhaustion(error) {
        OpenError::Exhausted
    } else {
        OpenError::AddressUnavailable
    }
}

/// Whether a receive error means that the socket itself is of no use any more. Everything the network says in passing
/// (ICMP errors, a downed interface, want of memory) does not.
pub(crate) fn is_fatal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EBADF | libc::ENOTSOCK | libc::EINVAL | libc::EFAULT)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relayed_socket_takes_twenty_bytes() {
        assert_eq!(size_of::<Option<RelayedSocket>>(), 20);
    }
}
