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
}

impl UdpListener {
    fn flush(&mut self, bytes: &[u8]) -> Flushed {
        let socket = self.socket.as_fd();
        self.outgoing.flush(socket, &mut self.standing, bytes)
    }
}

/// The UDP listeners of one shard, few enough to be searched one by one.
pub(crate) struct UdpListeners {
    listeners: Vec<UdpListener>,
    /// For a message that is sent at once, whatever waits.
    single: SendBatch,
}

impl UdpListeners {
    /// Takes over bound, non-blocking sockets that are registered already.
    pub(crate) fn new(sockets: Vec<(UdpSocket, SocketAddr)>) -> Self {
        let listeners = sockets
            .into_iter()
            .map(|(socket, address)| {
                let system_ttl = ip_options::system_ttl(socket.as_fd(), address.is_ipv6());
                UdpListener {
                    socket,
                    address,
                    outgoing: SendBatch::new(BATCH),
                    standing: Standing::default(),
                    system_ttl,
                    queued: false,
                }
            })
            .collect();
        Self {
            listeners,
            single: SendBatch::new(1),
        }
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

    /// Queues the datagram at `span` of the buffer that the next [`UdpListeners::flush`] is given, with the header that it is
    /// to have. With a full queue it is flushed from `bytes` first.
    pub(crate) fn push(
        &mut self,
        index: usize,
        span: Range<usize>,
        (to, ip): (SocketAddr, IpMeta),
        bytes: &[u8],
    ) -> Flushed {
        let listener = &mut self.listeners[index];
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
        for listener in &mut self.listeners {
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
        let listener = &mut self.listeners[index];
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
        !std::mem::replace(&mut self.listeners[index].queued, true)
    }

    /// Notes that the listener was taken off the ready list.
    pub(crate) fn clear_queued(&mut self, index: usize) {
        self.listeners[index].queued = false;
    }
}
