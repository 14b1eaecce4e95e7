//! The ICMP attribute (RFC 8656 §18.13): what the network said about a datagram that it dropped.

use super::attribute::AttributeError;
use crate::addr::AddressFamily;

/// An ICMP or ICMPv6 message, which of them the family of the XOR-PEER-ADDRESS beside it tells.
///
/// The drawing in §18.13 has seven bits for the type and nine for the code. Type and code are written as the two bytes that
/// they are in the message itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Icmp {
    /// The type.
    pub kind: u8,
    /// The code.
    pub code: u8,
    /// The MTU of the next hop, where the datagram was too big for it; zero otherwise.
    pub data: u32,
}

/// ICMP types (RFC 792).
const DESTINATION_UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
/// ICMPv6 types (RFC 4443).
const V6_DESTINATION_UNREACHABLE: u8 = 1;
const V6_PACKET_TOO_BIG: u8 = 2;
const V6_TIME_EXCEEDED: u8 = 3;
/// A code of [`DESTINATION_UNREACHABLE`] (RFC 1191).
const FRAGMENTATION_NEEDED: u8 = 4;

impl Icmp {
    /// What a router says to a datagram that is longer than `mtu` and may not be fragmented.
    #[must_use]
    pub fn too_big(family: AddressFamily, mtu: u32) -> Self {
        let (kind, code) = match family {
            AddressFamily::V4 => (DESTINATION_UNREACHABLE, FRAGMENTATION_NEEDED),
            AddressFamily::V6 => (V6_PACKET_TOO_BIG, 0),
        };
        Self {
            kind,
            code,
            data: mtu,
        }
    }

    /// The message as a client is told of it: `None` where its type is none of those that clients are told of
    /// (RFC 8656 §11.5), without data where the data is no MTU (§18.13).
    pub(crate) fn for_client(self, family: AddressFamily) -> Option<Self> {
        let (is_told, has_mtu) = match family {
            AddressFamily::V4 => (
                matches!(self.kind, DESTINATION_UNREACHABLE | TIME_EXCEEDED),
                (self.kind, self.code) == (DESTINATION_UNREACHABLE, FRAGMENTATION_NEEDED),
            ),
            AddressFamily::V6 => (
                matches!(
                    self.kind,
                    V6_DESTINATION_UNREACHABLE | V6_PACKET_TOO_BIG | V6_TIME_EXCEEDED
                ),
                self.kind == V6_PACKET_TOO_BIG,
            ),
        };
        let data = if has_mtu { self.data } else { 0 };
        is_told.then_some(Self { data, ..self })
    }

    pub(super) fn value(self) -> [u8; 8] {
        let [a, b, c, d] = self.data.to_be_bytes();
        [0, 0, self.kind, self.code, a, b, c, d]
    }

    /// The first two bytes are ignored (§18.13).
    pub(super) fn read(value: &[u8]) -> Result<Self, AttributeError> {
        let [_, _, kind, code, a, b, c, d] = *value else {
            return Err(AttributeError::Length);
        };
        Ok(Self {
            kind,
            code,
            data: u32::from_be_bytes([a, b, c, d]),
        })
    }
}
