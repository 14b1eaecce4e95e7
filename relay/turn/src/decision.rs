//! What the driver shall do with the packet that it just handed in: one small value per packet, without allocation.

use std::ops::Range;

use crate::addr::{FiveTuple, PeerAddr};
use crate::command::{RelayedId, ShardId};
use crate::ip::IpMeta;
use crate::wire::{ChannelNumber, ConnectionId, TransactionId};

/// A part of the buffer that the driver handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Index of the first byte.
    pub start: usize,
    /// Number of bytes.
    pub len: usize,
}

impl Span {
    /// The span as a range of indexes.
    #[must_use]
    pub fn range(self) -> Range<usize> {
        self.start..self.start + self.len
    }
}

/// The fate of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing is sent; the reason is already counted.
    Drop(DropReason),
    /// The reply buffer holds the answer to the sender. Commands are drained before it is sent.
    Reply,
    /// The answer follows as a [`crate::Command::Send`] once the driver has reported on the relayed sockets.
    Pending,
    /// The reply buffer holds the answer to the sender. Behind it the sender's stream carries no messages any more, but the
    /// bytes of a peer data connection (RFC 6062 §5.4).
    Splice {
        /// The peer data connection.
        connection: ConnectionId,
    },
    /// The message, and the stream that it came on, belong to another shard: both go there as they are.
    ToShard {
        /// The owner of what the message names.
        owner: ShardId,
    },
    /// The payload goes from a relayed socket to a peer.
    ToPeer {
        /// The relayed socket to send from.
        via: RelayedId,
        /// Where to: for the relay's own external addresses behind 1:1 NAT this is already the local form.
        to: PeerAddr,
        /// The application data inside the packet handed in.
        payload: Span,
        /// What its IP header says (RFC 8656 §13 to §15).
        ip: IpMeta,
    },
    /// The datagram goes to a client, behind `header`.
    ToClient {
        /// Which client, and from which of the server's addresses.
        to: FiveTuple,
        /// What stands before the payload on the wire.
        header: ClientHeader,
        /// What its IP header says, where the client is reached by UDP (RFC 8656 §13, §14).
        ip: IpMeta,
    },
}

/// The framing of peer data on its way to the client. It is written into the headroom of the receive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientHeader {
    /// A ChannelData message (RFC 8656 §12.4).
    ChannelData {
        /// The bound channel.
        number: ChannelNumber,
        /// Whether the message is padded to four bytes: on streams only (RFC 8656 §12.5).
        padded: bool,
    },
    /// A Data indication (RFC 8656 §11.4).
    DataIndication {
        /// Drawn by the core for each indication.
        transaction_id: TransactionId,
        /// The XOR-PEER-ADDRESS.
        peer: PeerAddr,
    },
}

/// Why a packet was dropped without an answer. The variants are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// Neither a STUN message nor ChannelData, or malformed beyond an answer.
    Malformed,
    /// A STUN message whose FINGERPRINT does not match.
    BadFingerprint,
    /// A response or an unknown method or class that has no answer.
    Unexpected,
    /// Comprehension-required attributes that are not understood, in an indication.
    UnknownAttributes,
    /// ChannelData or a Send indication without an allocation.
    NoAllocation,
    /// ChannelData on a channel that is not bound, or expired.
    NoChannel,
    /// No live permission for the peer's IP address; that of a connection included, which is closed.
    NoPermission,
    /// The peer filter refuses the peer's address or port.
    PeerDenied,
    /// The peer's address family has no relayed address in the allocation.
    FamilyMismatch,
    /// The source has used up its budget of unauthenticated answers.
    ReflectionBudget,
    /// A Binding indication: it has kept the client's NAT binding alive, and asks for nothing (RFC 8489 §6.3.2).
    Keepalive,
    /// An Allocate request again whose answer waits for the relayed socket.
    Retransmission,
    /// Data for a relayed socket that belongs to no allocation (a held reservation).
    NotAllocated,
    /// The payload does not fit into a message.
    TooLong,
    /// The allocation has as many peer data connections as it may have.
    TooManyConnections,
    /// Data whose TTL or hop limit is used up.
    TtlExpired,
    /// An ICMP message of a type that clients are not told of.
    IcmpType,
    /// An ICMP message beyond those that a client is told of in a time.
    IcmpRate,
    /// Data beyond what its tenant or user may send or receive.
    OverBandwidth,
}

impl DropReason {
    /// Every reason, in the order of their declaration.
    pub const ALL: [Self; 19] = [
        Self::Malformed,
        Self::BadFingerprint,
        Self::Unexpected,
        Self::UnknownAttributes,
        Self::NoAllocation,
        Self::NoChannel,
        Self::NoPermission,
        Self::PeerDenied,
        Self::FamilyMismatch,
        Self::ReflectionBudget,
        Self::Keepalive,
        Self::Retransmission,
        Self::NotAllocated,
        Self::TooLong,
        Self::TooManyConnections,
        Self::TtlExpired,
        Self::IcmpType,
        Self::IcmpRate,
        Self::OverBandwidth,
    ];

    /// The metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::BadFingerprint => "bad_fingerprint",
            Self::Unexpected => "unexpected",
            Self::UnknownAttributes => "unknown_attributes",
            Self::NoAllocation => "no_allocation",
            Self::NoChannel => "no_channel",
            Self::NoPermission => "no_permission",
            Self::PeerDenied => "peer_denied",
            Self::FamilyMismatch => "family_mismatch",
            Self::ReflectionBudget => "reflection_budget",
            Self::Keepalive => "keepalive",
            Self::Retransmission => "retransmission",
            Self::NotAllocated => "not_allocated",
            Self::TooLong => "too_long",
            Self::TooManyConnections => "too_many_connections",
            Self::TtlExpired => "ttl_expired",
            Self::IcmpType => "icmp_type",
            Self::IcmpRate => "icmp_rate",
            Self::OverBandwidth => "over_bandwidth",
        }
    }
}
