//! What a client tells its driver.

use std::net::SocketAddr;

use crate::addr::{AddressFamily, PeerAddr};
use crate::wire::{ChannelNumber, ConnectionId, ErrorCode, Method, ReservationToken};

/// Something that the driver may have waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The answer to [`super::Client::binding`].
    Bound {
        /// The server-reflexive address.
        mapped: SocketAddr,
    },
    /// An allocation was granted.
    Allocated(Allocated),
    /// The lifetime of the allocation was set anew, by a call or by the client itself.
    Refreshed {
        /// Seconds; zero where the allocation was ended.
        lifetime: u32,
    },
    /// Permissions were installed or refreshed.
    PermissionCreated {
        /// The peers whose IP addresses have them.
        peers: Box<[PeerAddr]>,
    },
    /// A channel was bound or refreshed.
    ChannelBound {
        /// The channel.
        number: ChannelNumber,
        /// The peer.
        peer: PeerAddr,
    },
    /// The server has connected to a peer (RFC 6062 §4.3): the connection is to be claimed on another stream.
    Connected {
        /// The peer.
        peer: PeerAddr,
        /// Names the connection to [`super::Client::bind_connection`].
        connection: ConnectionId,
    },
    /// A peer has connected to the relayed transport address (RFC 6062 §4.4), and may be taken up on another stream.
    ConnectionAttempt {
        /// The peer.
        peer: PeerAddr,
        /// Names the connection to [`super::Client::bind_connection`].
        connection: ConnectionId,
    },
    /// From here on, the client's stream carries the bytes of a peer, and no messages any more.
    ConnectionBound {
        /// The connection.
        connection: ConnectionId,
    },
    /// An Allocate request came to nothing here, and the server names another one (RFC 8489 §10). Whoever drives the client
    /// asks there, by the same transport and with the same credentials, unless it has asked there within the last five
    /// minutes: see [`super::Redirections`].
    Redirected(Redirect),
    /// A request came to nothing. After a failed Refresh the allocation is taken for lost.
    Failed {
        /// What was asked for.
        method: Method,
        /// The peer of a ChannelBind or a Connect, and the first of a CreatePermission.
        peer: Option<PeerAddr>,
        /// Why.
        why: Failure,
    },
}

/// Where an authentic 300 leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The servers to ask: the first one is of the family that the client reached the last one by.
    pub servers: Box<[SocketAddr]>,
    /// What the certificate there is for, where it is another name than here; matters over TLS only.
    pub domain: Option<Box<str>>,
}

/// An allocation as the server described it (RFC 8656 §7.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocated {
    /// The relayed transport address.
    pub relayed: SocketAddr,
    /// The relayed transport address of the other family, where both were asked for and granted.
    pub additional: Option<SocketAddr>,
    /// The server-reflexive address.
    pub mapped: SocketAddr,
    /// Seconds that were granted at first.
    pub lifetime: u32,
    /// Redeems the next-higher port.
    pub reservation_token: Option<ReservationToken>,
    /// The additional family that was refused, and why.
    pub address_error: Option<(AddressFamily, ErrorCode)>,
}

/// Why a request came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server refused it.
    Refused(ErrorCode),
    /// No answer came in 39.5 seconds.
    Timeout,
    /// The only answers were not the server's (RFC 8489 §9.2.5).
    IntegrityViolated,
    /// A challenge offers less than its nonce says, or than an earlier one did: somebody on the path wants weaker credentials
    /// (RFC 8489 §9.2.1).
    BidDown,
    /// The answer lacks what it must have, or has what the client must understand and does not.
    Malformed,
}
