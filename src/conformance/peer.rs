//! A peer: a UDP socket that the server relays to and from.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::Duration;

use turnfleet_relay::datagram::{self, ReceiveBatch};
use turnfleet_turn::{IpMeta, PeerAddr};

use super::statement::{Shortfall, failed};

/// How long a datagram may take to arrive.
const PATIENCE: Duration = Duration::from_secs(2);

/// A socket of this process on an address that the server can reach.
pub(super) struct Peer {
    socket: UdpSocket,
    /// Where it is.
    pub(super) address: SocketAddr,
}

impl Peer {
    /// A peer on `ip` and a port that is free.
    pub(super) fn open(ip: IpAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind((ip, 0))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        datagram::prepare(socket.as_fd(), ip.is_ipv6());
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// The address as the TURN core has it.
    pub(super) fn as_peer(&self) -> PeerAddr {
        PeerAddr(self.address)
    }

    /// Sends `data` to a relayed address.
    pub(super) fn send(&self, relayed: SocketAddr, data: &[u8]) -> Result<(), Shortfall> {
        self.socket.send_to(data, relayed)?;
        Ok(())
    }

    /// The next datagram and where it came from.
    pub(super) fn hear(&self) -> Result<(SocketAddr, Vec<u8>), Shortfall> {
        let mut buffer = vec![0; 65_536];
        match self.socket.recv_from(&mut buffer) {
            Ok((len, from)) => {
                buffer.truncate(len);
                Ok((from, buffer))
            }
            Err(_) => Err(failed("a datagram at the peer", "none")),
        }
    }

    /// What the header of the next datagram says.
    pub(super) fn hear_header(&self) -> Result<IpMeta, Shortfall> {
        let mut batch = ReceiveBatch::new(1);
        let waited = self.socket.peek(&mut [0]);
        match waited.and_then(|_| batch.receive(self.socket.as_fd(), 0..1)) {
            Ok(_) => Ok(batch.ip(0)),
            Err(_) => Err(failed("a datagram at the peer", "none")),
        }
    }

    /// The peer with its port closed: whatever comes there is refused by this machine.
    pub(super) fn leave(self) -> Result<Self, Shortfall> {
        // Some other port holds its place as a socket.
        let socket = UdpSocket::bind((self.address.ip(), 0))?;
        let address = self.address;
        Ok(Self { socket, address })
    }

    /// Whether `data` is the next datagram that comes.
    pub(super) fn hears(&self, data: &[u8]) -> Result<(), Shortfall> {
        let (_, heard) = self.hear()?;
        if heard == data {
            return Ok(());
        }
        Err(failed(text_of(data), text_of(&heard)))
    }

    /// What has come by now; `None` where nothing has.
    pub(super) fn unheard(&self) -> io::Result<Option<Vec<u8>>> {
        self.socket.set_nonblocking(true)?;
        let mut buffer = vec![0; 65_536];
        match self.socket.recv(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                Ok(Some(buffer))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Data as a person reads it.
pub(super) fn text_of(data: &[u8]) -> String {
    const SHOWN: usize = 40;
    let shown = data[..data.len().min(SHOWN)].escape_ascii();
    format!("{} bytes \"{shown}\"", data.len())
}
