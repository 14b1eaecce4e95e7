//! UDP listeners: the sockets on which a shard hears all of its UDP clients, and through which it answers them.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::fd::AsFd;

use turnfleet_turn::IpMeta;

use super::batch::{Flushed, ReceiveBatch, SendBatch};
use super::ip_options::{self, Standing};

/// Datagrams that one system call receives or sends.
pub(crate) const BATCH: usize = 64;

struct UdpListener {
    socket: UdpSocket,
    address: SocketAddr,
    /// Datagrams for clients that wait for the end of the batch.
    outgoing: SendBatch,
    standing: Standing,
    /// Of datagrams for which nobody says another one, whatever the socket stands at.
    system_ttl: Option<u8>,
    queued: bool,
    /// Taken out of the configuration: it serves the allocations that came by it, and nobody else.
    leaving: bool,
}

impl UdpListener {
    fn new(socket: UdpSocket, address: SocketAddr) -> Self {
        let system_ttl = ip_options::system_ttl(socket.as_fd(), address.is_ipv6());
        Self {
            socket,
            address,
            outgoing: SendBatch::new(BATCH),
            standing: Standing::default(),
            system_ttl,
            queued: false,
            leaving: false,
        }
    }

    fn flush(&mut self, bytes: &[u8]) -> Flushed {
        let socket = self.socket.as_fd();
        self.outgoing.flush(socket, &mut self.standing, bytes)
    }
}

/// The UDP listeners of one shard, few enough to be searched one by one.
pub(crate) struct UdpListeners {
    /// By places, which events name: that of a closed one stays empty.
    listeners: Vec<Option<UdpListener>>,
    /// For a message that is sent at once, whatever waits.
    single: SendBatch,
}

impl UdpListeners {
    /// Takes over bound, non-blocking sockets that are registered already.
    pub(crate) fn new(sockets: Vec<(UdpSocket, SocketAddr)>) -> Self {
        let opened = sockets.into_iter();
        let listeners = opened
            .map(|(socket, address)| Some(UdpListener::new(socket, address)))
            .collect();
        Self {
            listeners,
            single: SendBatch::new(1),
        }
    }

    /// The place of the listener that is opened next.
    pub(crate) fn next(&self) -> usize {
        self.listeners.len()
    }

    /// Takes over one more bound, non-blocking socket, registered for [`UdpListeners::next`].
    pub(crate) fn open(&mut self, socket: UdpSocket, address: SocketAddr) {
        self.listeners.push(Some(UdpListener::new(socket, address)));
    }

    /// Sets whether the listener at `address` serves those alone who came by it before.
    pub(crate) fn set_leaving(&mut self, address: SocketAddr, leaving: bool) {
        let listener = self.find(address).and_then(|index| self.at(index));
        if let Some(listener) = listener {
            listener.leaving = leaving;
        }
    }

    /// Closes the listener at `address`.
    pub(crate) fn close(&mut self, address: SocketAddr) {
        if let Some(index) = self.find(address) {
            self.listeners[index] = None;
        }
    }

    /// The address that clients reach the listener at `index` by, and whether it serves those alone who came by it before;
    /// `None` where it is closed.
    pub(crate) fn at_place(&self, index: usize) -> Option<(SocketAddr, bool)> {
        let listener = self.listeners.get(index)?.as_ref()?;
        Some((listener.address, listener.leaving))
    }

    /// The place of the listener with `address`.
    pub(crate) fn find(&self, address: SocketAddr) -> Option<usize> {
        self.listeners
            .iter()
            .position(|it| it.as_ref().is_some_and(|it| it.address == address))
    }

    fn at(&mut self, index: usize) -> Option<&mut UdpListener> {
        self.listeners.get_mut(index)?.as_mut()
    }

    /// Receives what waits at the listener, one batch at most.
    pub(crate) fn receive(&self, index: usize, batch: &mut ReceiveBatch) -> io::Result<usize> {
        match self.listeners.get(index).and_then(Option::as_ref) {
            Some(listener) => batch.receive(listener.socket.as_fd(), 0..batch.slots()),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Queues the datagram at `span` of the buffer that the next [`UdpListeners::flush`] is given, with the header that it is
    /// to have. With a full queue it is flushed from `bytes` first.
    pub(crate) fn push(
        &mut self,
        index: usize,
        span: Range<usize>,
        (to, ip): (SocketAddr, IpMeta),
        bytes: &[u8],
    ) -> Flushed {
        let Some(listener) = self.at(index) else {
            return Flushed::default();
        };
        let ttl = ip.ttl.or(listener.system_ttl);
        let ip = IpMeta { ttl, ..ip };
        let mut flushed = Flushed::default();
        if listener.outgoing.is_full_for(ip) {
            flushed = listener.flush(bytes);
        }
        listener.outgoing.push(span, to, ip);
        flushed
    }

    /// Sends what waits at every listener.
    pub(crate) fn flush(&mut self, bytes: &[u8]) -> Flushed {
        let mut flushed = Flushed::default();
        for listener in self.listeners.iter_mut().flatten() {
            if !listener.outgoing.is_empty() {
                let part = listener.flush(bytes);
                flushed.sent += part.sent;
                flushed.refused += part.refused;
            }
        }
        flushed
    }

    /// Sends one message of the relay at once, outside of any batch.
    pub(crate) fn send_now(&mut self, index: usize, message: &[u8], to: SocketAddr) -> Flushed {
        let Some(listener) = self.listeners.get_mut(index).and_then(Option::as_mut) else {
            return Flushed::default();
        };
        let ip = IpMeta {
            ttl: listener.system_ttl,
            ..IpMeta::default()
        };
        self.single.push(0..message.len(), to, ip);
        let socket = listener.socket.as_fd();
        self.single.flush(socket, &mut listener.standing, message)
    }

    /// Notes that the listener stands in the ready list; `false` where it stood there already.
    pub(crate) fn set_queued(&mut self, index: usize) -> bool {
        let listener = self.at(index);
        listener.is_some_and(|listener| !std::mem::replace(&mut listener.queued, true))
    }

    /// Notes that the listener was taken off the ready list.
    pub(crate) fn clear_queued(&mut self, index: usize) {
        if let Some(listener) = self.at(index) {
            listener.queued = false;
        }
    }
}
