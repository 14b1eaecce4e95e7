//! Addresses with the role they play, so that a client can never be taken for a peer.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// How a client reaches the server, and what a relayed transport address is for: UDP, or TCP (RFC 6062).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// One datagram is one message.
    Udp,
    /// A byte stream of messages.
    Tcp,
    /// A byte stream inside TLS.
    Tls,
}

impl Transport {
    /// Every transport, in the order of their declaration.
    pub const ALL: [Self; 3] = [Self::Udp, Self::Tcp, Self::Tls];

    /// Whether messages travel in a byte stream, where ChannelData is padded (RFC 8656 §12.5).
    #[must_use]
    pub fn is_stream(self) -> bool {
        match self {
            Self::Udp => false,
            Self::Tcp | Self::Tls => true,
        }
    }

    /// The name used in configuration, logs and metric labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// IPv4 or IPv6, as REQUESTED-ADDRESS-FAMILY names them (RFC 8656 §18.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressFamily {
    /// Family 0x01.
    V4,
    /// Family 0x02.
    V6,
}

impl AddressFamily {
    /// The family of `ip`.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// What tells one client's association with the server from every other (RFC 8656 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FiveTuple {
    /// The transport between client and server.
    pub transport: Transport,
    /// The client's address as the server sees it: its server-reflexive address.
    pub client: SocketAddr,
    /// The server's own address that the client reached (the local one behind 1:1 NAT).
    pub server: SocketAddr,
}

/// A peer's transport address, as the client names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddr(pub SocketAddr);
