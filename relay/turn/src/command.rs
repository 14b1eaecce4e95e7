//! What the core asks of its driver beyond the fate of one packet.

use std::net::SocketAddr;

use crate::addr::{FiveTuple, PeerAddr};
use crate::wire::{ConnectionId, ReservationToken};

/// The index of a shard within its relay, below 256.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ShardId(pub u8);

/// A relayed socket of one shard. Drivers keep their sockets in a table indexed by [`RelayedId::index`]; the generation
/// tells a socket from its predecessor in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RelayedId {
    index: u32,
    generation: u32,
}

impl RelayedId {
    /// The name with these parts, for whoever keeps names in another form.
    #[must_use]
    pub fn new(index: u32, generation: u32) -> Self {
        Self { index, generation }
    }

    pub(crate) fn slot(self) -> u32 {
        self.index
    }

    /// Dense and reused: the place in the driver's table.
    #[must_use]
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// How often the place was used before.
    #[must_use]
    pub fn generation(self) -> u32 {
        self.generation
    }
}

/// A request of the core to its driver. Carried out in order, before any reply of the batch is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Open a UDP socket bound to `local`, without port sharing; answered by `handle_relayed_opened`.
    OpenRelayed {
        /// The name of the socket from here on.
        id: RelayedId,
        /// The local address and the port to bind.
        local: SocketAddr,
    },
    /// Open a TCP socket that listens at `local`, which only outgoing connections of the same relayed address share;
    /// answered by `handle_relayed_opened`.
    ListenRelayed {
        /// The name of the socket from here on.
        id: RelayedId,
        /// The local address and the port to bind.
        local: SocketAddr,
    },
    /// Connect to a peer from the address of a listening relayed socket; answered by `handle_peer_connected`.
    ConnectPeer {
        /// The name of the connection from here on.
        connection: ConnectionId,
        /// The relayed socket whose local address the connection has.
        via: RelayedId,
        /// Where to: for the relay's own external addresses behind 1:1 NAT this is already the local form.
        peer: PeerAddr,
    },
    /// Close a peer data connection, and the client data connection that it is spliced with. Not answered.
    CloseConnection {
        /// The peer data connection.
        connection: ConnectionId,
    },
    /// Ask another shard for the socket that it holds in reserve; answered by `handle_relayed_opened`.
    ClaimReserved {
        /// The name of the socket in the asking shard.
        id: RelayedId,
        /// The shard that holds the reservation: `Server::release_reserved` there gives it up.
        owner: ShardId,
        /// The token that the client presented.
        token: ReservationToken,
    },
    /// Close a relayed socket.
    CloseRelayed {
        /// The socket; its `id` may be reused by a later command.
        id: RelayedId,
    },
    /// Send a message to a client.
    Send {
        /// The client.
        to: FiveTuple,
        /// A whole STUN message.
        message: Vec<u8>,
    },
}

/// Why a peer could not be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// The peer or the network said no.
    Failed,
    /// No file descriptor, memory or buffer is left.
    Exhausted,
}

/// Why a relayed socket could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The port is in use by somebody else: the core tries another one.
    PortTaken,
    /// No file descriptor, memory or buffer is left.
    Exhausted,
    /// The local address is not this machine's.
    AddressUnavailable,
    /// The other shard holds no such reservation.
    NoReservation,
}
