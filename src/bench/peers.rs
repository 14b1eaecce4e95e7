//! The peers of a run: a few sockets of this process that talk to relayed addresses.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};

use anyhow::{Context as _, Result};
use turnfleet_relay::datagram::{ReceiveBatch, SendBatch};

use super::payload::Stamp;

/// Sockets that share the flows among them.
const PEERS: usize = 4;
/// Datagrams that one system call sends.
const BATCH: usize = 64;

/// Sockets on one address.
pub(super) struct Peers {
    sockets: Vec<Peer>,
    payload_len: usize,
}

struct Peer {
    socket: UdpSocket,
    address: SocketAddr,
    batch: SendBatch,
    /// One payload after the other, for the datagrams of `batch`.
    bytes: Vec<u8>,
    queued: usize,
}

impl Peers {
    /// Opens the sockets on `ip`.
    pub(super) fn open(ip: IpAddr, payload_len: usize) -> Result<Self> {
        let open = |_| {
            let socket = UdpSocket::bind((ip, 0)).with_context(|| format!("--peer {ip}"))?;
            socket.set_nonblocking(true)?;
            let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20);
            let address = socket.local_addr()?;
            let bytes = vec![0; BATCH * payload_len];
            Ok(Peer { socket, address, batch: SendBatch::new(BATCH), bytes, queued: 0 })
        };
        Ok(Self { sockets: (0..PEERS).map(open).collect::<Result<_>>()?, payload_len })
    }

    /// The descriptors to wait on.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.sockets.iter().map(|peer| peer.socket.as_raw_fd())
    }

    /// The peer of a flow.
    pub(super) fn address_for(&self, flow: usize) -> SocketAddr {
        self.sockets[flow % PEERS].address
    }

    /// Queues a payload from the flow's peer to `to`.
    pub(super) fn send(&mut self, flow: usize, stamp: Stamp, to: SocketAddr) {
        let payload_len = self.payload_len;
        let peer = &mut self.sockets[flow % PEERS];
        if peer.batch.is_full() {
            peer.flush();
        }
        let span = peer.queued * payload_len..(peer.queued + 1) * payload_len;
        stamp.write(&mut peer.bytes[span.clone()]);
        peer.batch.push(span, to);
        peer.queued += 1;
    }

    /// Sends what is queued.
    pub(super) fn flush(&mut self) {
        self.sockets.iter_mut().for_each(Peer::flush);
    }

    /// Hands everything that came to the socket at `index` to `each`, with its sender.
    pub(super) fn receive(
        &self,
        index: usize,
        batch: &mut ReceiveBatch,
        mut each: impl FnMut(Option<SocketAddr>, &[u8]),
    ) {
        let slots = batch.slots();
        while let Ok(received) = batch.receive(self.sockets[index].socket.as_fd(), 0..slots) {
            for slot in 0..received {
                each(batch.sender(slot), batch.datagram(slot));
            }
            if received < slots {
                return;
            }
        }
    }
}

impl Peer {
    fn flush(&mut self) {
        if !self.batch.is_empty() {
            self.batch.flush(self.socket.as_fd(), &self.bytes);
        }
        self.queued = 0;
    }
}
