//! The peer of a run: a socket of this process that talks to every relayed address.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};

use anyhow::{Context as _, Result};
use turnfleet_relay::datagram::{ReceiveBatch, SendBatch, Standing};
use turnfleet_turn::IpMeta;

use super::payload::Stamp;

/// Datagrams that one system call sends.
const BATCH: usize = 64;

/// Where the peer is: an address of this machine, with a port or without.
pub(super) fn parse_place(text: &str) -> Result<SocketAddr, String> {
    let with_port = text.parse::<SocketAddr>().ok();
    with_port
        .or_else(|| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 0)))
        .ok_or_else(|| "expected IP or IP:PORT".to_owned())
}

/// One socket, with datagrams that wait for the next flush.
pub(super) struct Peer {
    socket: UdpSocket,
    address: SocketAddr,
    payload_len: usize,
    batch: SendBatch,
    standing: Standing,
    /// One payload after the other, for the datagrams of `batch`.
    bytes: Vec<u8>,
    queued: usize,
}

impl Peer {
    /// Opens the socket at `place`.
    pub(super) fn open(place: SocketAddr, payload_len: usize) -> Result<Self> {
        let socket = UdpSocket::bind(place).with_context(|| format!("--peer {place}"))?;
        socket.set_nonblocking(true)?;
        // Every payload to a peer comes here; the kernel gives what it allows.
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20);
        let address = socket.local_addr()?;
        let bytes = vec![0; BATCH * payload_len];
        let batch = SendBatch::new(BATCH);
        Ok(Self {
            socket,
            address,
            payload_len,
            batch,
            standing: Standing::default(),
            bytes,
            queued: 0,
        })
    }

    /// The descriptor to wait on.
    pub(super) fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Where clients send to.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Queues a payload to `to`.
    pub(super) fn send(&mut self, stamp: Stamp, to: SocketAddr) {
        if self.batch.is_full_for(IpMeta::default()) {
            self.flush();
        }
        let start = self.queued * self.payload_len;
        let span = start..start + self.payload_len;
        stamp.write(&mut self.bytes[span.clone()]);
        self.batch.push(span, to, IpMeta::default());
        self.queued += 1;
    }

    /// Sends what is queued.
    pub(super) fn flush(&mut self) {
        if !self.batch.is_empty() {
            let socket = self.socket.as_fd();
            self.batch.flush(socket, &mut self.standing, &self.bytes);
        }
        self.queued = 0;
    }

    /// Hands everything that has come to `each`, with its sender.
    pub(super) fn receive(
        &self,
        batch: &mut ReceiveBatch,
        mut each: impl FnMut(Option<SocketAddr>, &[u8]),
    ) {
        let slots = batch.slots();
        while let Ok(received) = batch.receive(self.socket.as_fd(), 0..slots) {
            for slot in 0..received {
                each(batch.sender(slot), batch.datagram(slot));
            }
            if received < slots {
                return;
            }
        }
    }
}
