//! UDP listeners: the sockets on which a shard hears all of its UDP clients, and through which it answers them.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::fd::AsFd;

use super::batch::{Flushed, ReceiveBatch, SendBatch};

/// Datagrams that one system call receives or sends.
pub(crate) const BATCH: usize = 64;

struct UdpListener {
    socket: UdpSocket,
    address: SocketAddr,
    /// Datagrams for clients that wait for the end of the batch.
    outgoing: SendBatch,
    queued: bool,
}

/// The UDP listeners of one shard, few enough to be searched one by one.
pub(crate) struct UdpListeners {
    listeners: Vec<UdpListener>,
}

impl UdpListeners {
    /// Takes over bound, non-blocking sockets that are registered already.
    pub(crate) fn new(sockets: Vec<(UdpSocket, SocketAddr)>) -> Self {
        let listeners = sockets
            .into_iter()
            .map(|(socket, address)| UdpListener {
                socket,
                address,
                outgoing: SendBatch::new(BATCH),
                queued: false,
            })
            .collect();
        Self { listeners }
    }

    /// The address that clients reach the listener at `index` by.
    pub(crate) fn address(&self, index: usize) -> SocketAddr {
        self.listeners[index].address
    }

    /// The place of the listener with `address`.
    pub(crate) fn find(&self, address: SocketAddr) -> Option<usize> {
        self.listeners
            .iter()
            .position(|listener| listener.address == address)
    }

    /// Receives what waits at the listener, one batch at most.
    pub(crate) fn receive(&self, index: usize, batch: &mut ReceiveBatch) -> io::Result<usize> {
        batch.receive(self.listeners[index].socket.as_fd(), 0..batch.slots())
    }

    /// Queues the datagram at `span` of the buffer that the next [`UdpListeners::flush`] is given. With a full queue
    /// it is flushed from `bytes` first.
    pub(crate) fn push(
        &mut self,
        index: usize,
        span: Range<usize>,
        to: SocketAddr,
        bytes: &[u8],
    ) -> Flushed {
        let listener = &mut self.listeners[index];
        let mut flushed = Flushed::default();
        if listener.outgoing.is_full() {
            flushed = listener.outgoing.flush(listener.socket.as_fd(), bytes);
        }
        listener.outgoing.push(span, to);
        flushed
    }

    /// Sends what waits at every listener.
    pub(crate) fn flush(&mut self, bytes: &[u8]) -> Flushed {
        let mut flushed = Flushed::default();
        for listener in &mut self.listeners {
            if !listener.outgoing.is_empty() {
                let part = listener.outgoing.flush(listener.socket.as_fd(), bytes);
                flushed.sent += part.sent;
                flushed.refused += part.refused;
            }
        }
        flushed
    }

    /// Sends one message at once, outside of any batch.
    pub(crate) fn send_now(&self, index: usize, message: &[u8], to: SocketAddr) -> Flushed {
        match self.listeners[index].socket.send_to(message, to) {
            Ok(_) => Flushed {
                sent: 1,
                refused: 0,
            },
            Err(_) => Flushed {
                sent: 0,
                refused: 1,
            },
        }
    }

    /// Notes that the listener stands in the ready list; `false` where it stood there already.
    pub(crate) fn set_queued(&mut self, index: usize) -> bool {
        !std::mem::replace(&mut self.listeners[index].queued, true)
    }

    /// Notes that the listener was taken off the ready list.
    pub(crate) fn clear_queued(&mut self, index: usize) {
        self.listeners[index].queued = false;
    }
}
