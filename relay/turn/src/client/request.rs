//! The requests of a client, as values and as bytes.

use super::Challenge;
use crate::addr::{AddressFamily, PeerAddr};
use crate::wire::{
    AttributeType, ChannelNumber, Class, ConnectionId, MessageWriter, Method, ReservationToken,
    TransactionId,
};

/// The protocol numbers of the transports that can be asked for.
const UDP: u8 = 17;
const TCP: u8 = 6;

/// What an Allocate request asks for; nothing in particular by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllocateOptions {
    /// A TCP relayed transport address (RFC 6062) in place of a UDP one; over TCP and TLS only.
    pub tcp: bool,
    /// REQUESTED-ADDRESS-FAMILY.
    pub family: Option<AddressFamily>,
    /// ADDITIONAL-ADDRESS-FAMILY.
    pub additional_family: Option<AddressFamily>,
    /// EVEN-PORT, and whether to reserve the next-higher port.
    pub even_port: Option<bool>,
    /// DONT-FRAGMENT: whether to insist on a server that can send datagrams with DF.
    pub dont_fragment: bool,
    /// RESERVATION-TOKEN.
    pub reservation_token: Option<ReservationToken>,
    /// LIFETIME in seconds.
    pub lifetime: Option<u32>,
}

#[derive(Clone, Debug)]
pub(super) enum Request {
    Binding,
    Allocate(AllocateOptions),
    Refresh {
        lifetime: u32,
    },
    CreatePermission {
        peers: Box<[PeerAddr]>,
    },
    ChannelBind {
        number: ChannelNumber,
        peer: PeerAddr,
    },
    Connect {
        peer: PeerAddr,
    },
    ConnectionBind {
        connection: ConnectionId,
    },
}

impl Request {
    pub(super) fn method(&self) -> Method {
        match self {
            Self::Binding => Method::Binding,
            Self::Allocate(_) => Method::Allocate,
            Self::Refresh { .. } => Method::Refresh,
            Self::CreatePermission { .. } => Method::CreatePermission,
            Self::ChannelBind { .. } => Method::ChannelBind,
            Self::Connect { .. } => Method::Connect,
            Self::ConnectionBind { .. } => Method::ConnectionBind,
        }
    }

    /// The peer that an event about this request names.
    pub(super) fn peer(&self) -> Option<PeerAddr> {
        match self {
            Self::Binding
            | Self::Allocate(_)
            | Self::Refresh { .. }
            | Self::ConnectionBind { .. } => None,
            Self::CreatePermission { peers } => peers.first().copied(),
            Self::ChannelBind { peer, .. } | Self::Connect { peer } => Some(*peer),
        }
    }

    /// Whether the server wants to know who asks: for all but Binding (RFC 8656 §5).
    pub(super) fn is_authenticated(&self) -> bool {
        !matches!(self, Self::Binding)
    }

    /// The whole message, signed where there is a challenge to answer.
    pub(super) fn write(
        &self,
        id: TransactionId,
        challenge: Option<&Challenge>,
        username: &str,
    ) -> Box<[u8]> {
        let mut message = Vec::with_capacity(192);
        let mut writer = MessageWriter::new(&mut message, Class::Request, self.method(), id);
        self.write_attributes(&mut writer);
        match challenge {
            Some(challenge) => {
                writer
                    .username(username)
                    .realm(&challenge.realm)
                    .nonce(&challenge.nonce);
                let signature = &challenge.signature;
                if let Some(algorithms) = &challenge.algorithms {
                    writer
                        .attribute(AttributeType::PASSWORD_ALGORITHMS, algorithms)
                        .password_algorithm(signature.key.algorithm());
                }
                writer.finish_signed_by(signature.kind, &signature.key);
            }
            None => writer.finish(),
        }
        message.into_boxed_slice()
    }

    fn write_attributes(&self, writer: &mut MessageWriter<'_>) {
        match self {
            Self::Binding => {}
            Self::Allocate(options) => {
                writer.requested_transport(if options.tcp { TCP } else { UDP });
                if let Some(family) = options.family {
                    writer.requested_address_family(family);
                }
                if let Some(family) = options.additional_family {
                    writer.additional_address_family(family);
                }
                if let Some(reserve) = options.even_port {
                    writer.even_port(reserve);
                }
                if options.dont_fragment {
                    writer.dont_fragment();
                }
                if let Some(token) = options.reservation_token {
                    writer.reservation_token(token);
                }
                if let Some(lifetime) = options.lifetime {
                    writer.lifetime(lifetime);
                }
            }
            Self::Refresh { lifetime } => {
                writer.lifetime(*lifetime);
            }
            Self::CreatePermission { peers } => {
                for peer in peers {
                    writer.xor_peer_address(*peer);
                }
            }
            Self::ChannelBind { number, peer } => {
                writer.channel_number(*number).xor_peer_address(*peer);
            }
            Self::Connect { peer } => {
                writer.xor_peer_address(*peer);
            }
            Self::ConnectionBind { connection } => {
                writer.connection_id(*connection);
            }
        }
    }
}
