//! What happened to allocations: the source of the relay's log lines, one for each event.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::addr::{FiveTuple, Transport};
use crate::peer_filter::PeerDenied;
use crate::tenant::TenantId;

/// One line of an allocation's story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An allocation was granted.
    Opened {
        /// Unique in this shard while the process lives.
        allocation: u64,
        /// The client.
        client: FiveTuple,
        /// The USERNAME.
        username: Box<str>,
        /// Whose user it is.
        tenant: TenantId,
        /// UDP, or TCP (RFC 6062).
        relayed_transport: Transport,
        /// The relayed transport addresses as the client was told them, one or two.
        relayed: Vec<SocketAddr>,
        /// From its request to its success.
        took: Duration,
    },
    /// An allocation ended.
    Closed {
        /// The number that `Opened` gave.
        allocation: u64,
        /// The client.
        client: FiveTuple,
        /// The USERNAME.
        username: Box<str>,
        /// Whose user it is.
        tenant: TenantId,
        /// Why.
        reason: CloseReason,
        /// How long it lived.
        duration: Duration,
        /// Application bytes from the client to its peers.
        bytes_to_peers: u64,
        /// Application bytes from peers to the client.
        bytes_to_client: u64,
    },
    /// An allocation will be ended, because the relay is being emptied.
    Evicting {
        /// The number that `Opened` gave.
        allocation: u64,
        /// The client.
        client: FiveTuple,
        /// The USERNAME.
        username: Box<str>,
        /// Whose user it is.
        tenant: TenantId,
        /// When, in Unix seconds.
        deadline: u64,
    },
    /// An Allocate request was refused after authentication, or for want of it (401 to a request with credentials).
    Refused {
        /// The client.
        client: FiveTuple,
        /// The USERNAME, where the request has one.
        username: Option<Box<str>>,
        /// The STUN error code.
        code: u16,
    },
    /// A peer data connection is open (RFC 6062).
    PeerConnected {
        /// The number that `Opened` gave.
        allocation: u64,
        /// The client.
        client: FiveTuple,
        /// The USERNAME.
        username: Box<str>,
        /// Whose user it is.
        tenant: TenantId,
        /// The peer.
        peer: SocketAddr,
        /// Who has opened it.
        opened_by: ConnectionOrigin,
    },
    /// A permission, a channel or a connection was refused because of its peer (403).
    PeerDenied {
        /// The number that `Opened` gave.
        allocation: u64,
        /// The client.
        client: FiveTuple,
        /// The USERNAME.
        username: Box<str>,
        /// Whose user it is.
        tenant: TenantId,
        /// The peer's address.
        peer: IpAddr,
        /// What refuses it, and what would let it through.
        rule: PeerDenied,
    },
}

impl Event {
    /// The number of the allocation, where there is one.
    #[must_use]
    pub fn allocation(&self) -> Option<u64> {
        match self {
            Self::Opened { allocation, .. }
            | Self::Closed { allocation, .. }
            | Self::Evicting { allocation, .. }
            | Self::PeerConnected { allocation, .. }
            | Self::PeerDenied { allocation, .. } => Some(*allocation),
            Self::Refused { .. } => None,
        }
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> &FiveTuple {
        match self {
            Self::Opened { client, .. }
            | Self::Closed { client, .. }
            | Self::Evicting { client, .. }
            | Self::Refused { client, .. }
            | Self::PeerConnected { client, .. }
            | Self::PeerDenied { client, .. } => client,
        }
    }

    /// Whose user it is, where that is known.
    #[must_use]
    pub fn tenant(&self) -> Option<TenantId> {
        match self {
            Self::Opened { tenant, .. }
            | Self::Closed { tenant, .. }
            | Self::Evicting { tenant, .. }
            | Self::PeerConnected { tenant, .. }
            | Self::PeerDenied { tenant, .. } => Some(*tenant),
            Self::Refused { .. } => None,
        }
    }

    /// The USERNAME, where the request had one.
    #[must_use]
    pub fn username(&self) -> Option<&str> {
        match self {
            Self::Opened { username, .. }
            | Self::Closed { username, .. }
            | Self::Evicting { username, .. }
            | Self::PeerConnected { username, .. }
            | Self::PeerDenied { username, .. } => Some(username),
            Self::Refused { username, .. } => username.as_deref(),
        }
    }
}

/// Which side has opened a peer data connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionOrigin {
    /// The client, with a Connect request (RFC 6062 §5.2).
    Client,
    /// The peer, at the relayed transport address (RFC 6062 §5.3).
    Peer,
}

impl ConnectionOrigin {
    /// The name in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Peer => "peer",
        }
    }
}

/// Why an allocation ended. The variants are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client sent a Refresh with lifetime zero.
    Refreshed,
    /// Its lifetime ran out.
    Expired,
    /// The client's stream was closed.
    ClientGone,
    /// A relayed socket failed.
    SocketFailed,
    /// The relay stops, or its drain deadline passed.
    Shutdown,
    /// The secret that its credential was made with was revoked.
    Revoked,
    /// Its user, its tenant or its client's network was banned, or its tenant suspended.
    Banned,
}

impl CloseReason {
    /// Every reason, in the order of their declaration.
    pub const ALL: [Self; 7] = [
        Self::Refreshed,
        Self::Expired,
        Self::ClientGone,
        Self::SocketFailed,
        Self::Shutdown,
        Self::Revoked,
        Self::Banned,
    ];

    /// The metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Refreshed => "refreshed",
            Self::Expired => "expired",
            Self::ClientGone => "client_gone",
            Self::SocketFailed => "socket_failed",
            Self::Shutdown => "shutdown",
            Self::Revoked => "revoked",
            Self::Banned => "banned",
        }
    }
}
