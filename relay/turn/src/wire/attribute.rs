//! Attributes as type, length and value (RFC 8489 §14), before their meaning.

use super::{HEADER_LEN, padded, read_u16};

/// The type of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttributeType(pub u16);

impl AttributeType {
    /// RFC 8489 §14.1.
    pub const MAPPED_ADDRESS: Self = Self(0x0001);
    /// RFC 8489 §14.3.
    pub const USERNAME: Self = Self(0x0006);
    /// RFC 8489 §14.5.
    pub const MESSAGE_INTEGRITY: Self = Self(0x0008);
    /// RFC 8489 §14.8.
    pub const ERROR_CODE: Self = Self(0x0009);
    /// RFC 8489 §14.13.
    pub const UNKNOWN_ATTRIBUTES: Self = Self(0x000A);
    /// RFC 8656 §18.1.
    pub const CHANNEL_NUMBER: Self = Self(0x000C);
    /// RFC 8656 §18.2.
    pub const LIFETIME: Self = Self(0x000D);
    /// RFC 8656 §18.3.
    pub const XOR_PEER_ADDRESS: Self = Self(0x0012);
    /// RFC 8656 §18.4.
    pub const DATA: Self = Self(0x0013);
    /// RFC 8489 §14.9.
    pub const REALM: Self = Self(0x0014);
    /// RFC 8489 §14.10.
    pub const NONCE: Self = Self(0x0015);
    /// RFC 8656 §18.5.
    pub const XOR_RELAYED_ADDRESS: Self = Self(0x0016);
    /// RFC 8656 §18.6.
    pub const REQUESTED_ADDRESS_FAMILY: Self = Self(0x0017);
    /// RFC 8656 §18.7.
    pub const EVEN_PORT: Self = Self(0x0018);
    /// RFC 8656 §18.8.
    pub const REQUESTED_TRANSPORT: Self = Self(0x0019);
    /// RFC 8656 §18.9.
    pub const DONT_FRAGMENT: Self = Self(0x001A);
    /// RFC 8489 §14.6.
    pub const MESSAGE_INTEGRITY_SHA256: Self = Self(0x001C);
    /// RFC 8489 §14.12.
    pub const PASSWORD_ALGORITHM: Self = Self(0x001D);
    /// RFC 8489 §14.4.
    pub const USERHASH: Self = Self(0x001E);
    /// RFC 8489 §14.2.
    pub const XOR_MAPPED_ADDRESS: Self = Self(0x0020);
    /// RFC 8656 §18.10.
    pub const RESERVATION_TOKEN: Self = Self(0x0022);
    /// RFC 6062 §6.2.1.
    pub const CONNECTION_ID: Self = Self(0x002A);
    /// RFC 8656 §18.11.
    pub const ADDITIONAL_ADDRESS_FAMILY: Self = Self(0x8000);
    /// The number that coturn and its clients send for ADDITIONAL-ADDRESS-FAMILY; IANA has given it to nothing else.
    pub const COTURN_ADDITIONAL_ADDRESS_FAMILY: Self = Self(0x8032);
    /// RFC 8489 §14.11.
    pub const PASSWORD_ALGORITHMS: Self = Self(0x8002);
    /// RFC 8656 §18.12.
    pub const ADDRESS_ERROR_CODE: Self = Self(0x8001);
    /// RFC 8489 §14.16.
    pub const ALTERNATE_DOMAIN: Self = Self(0x8003);
    /// RFC 8489 §14.14.
    pub const SOFTWARE: Self = Self(0x8022);
    /// RFC 8489 §14.15.
    pub const ALTERNATE_SERVER: Self = Self(0x8023);
    /// RFC 8489 §14.7.
    pub const FINGERPRINT: Self = Self(0x8028);

    /// Whether a message with an attribute of this type can only be processed by who understands it (RFC 8489 §14).
    #[must_use]
    pub fn is_required(self) -> bool {
        self.0 < 0x8000
    }

    /// Whether this crate understands the type, of those that require it. DONT-FRAGMENT is not among them: a relay that
    /// cannot set the bit on every relayed datagram refuses the request (RFC 8656 §7.2). Neither is USERHASH, which a client
    /// sends only to a server whose nonce offers it (RFC 8489 §9.2.5).
    pub(super) fn is_understood(self) -> bool {
        matches!(
            self,
            Self::MAPPED_ADDRESS
                | Self::USERNAME
                | Self::MESSAGE_INTEGRITY
                | Self::ERROR_CODE
                | Self::UNKNOWN_ATTRIBUTES
                | Self::CHANNEL_NUMBER
                | Self::LIFETIME
                | Self::XOR_PEER_ADDRESS
                | Self::DATA
                | Self::MESSAGE_INTEGRITY_SHA256
                | Self::PASSWORD_ALGORITHM
                | Self::REALM
                | Self::NONCE
                | Self::XOR_RELAYED_ADDRESS
                | Self::REQUESTED_ADDRESS_FAMILY
                | Self::EVEN_PORT
                | Self::REQUESTED_TRANSPORT
                | Self::XOR_MAPPED_ADDRESS
                | Self::RESERVATION_TOKEN
                | Self::CONNECTION_ID
        )
    }
}

/// Why an attribute that is there has no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttributeError {
    /// The value is shorter or longer than its kind may be.
    Length,
    /// An address family other than IPv4 and IPv6.
    Family,
    /// Text that is not UTF-8, or a number outside of its range.
    Value,
}

/// One attribute of a checked message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// The type.
    pub kind: AttributeType,
    /// The value without its padding.
    pub value: &'a [u8],
    /// Where the value starts in the message.
    pub offset: usize,
}

/// The attributes of a checked message, in their order.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Attributes<'a> {
    /// Walks up to `end`, which must be the end of an attribute of a message whose attributes are checked.
    pub(super) fn new(bytes: &'a [u8], end: usize) -> Self {
        Self {
            bytes,
            at: HEADER_LEN,
            end,
        }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        if self.at >= self.end {
            return None;
        }
        let offset = self.at + 4;
        let len = usize::from(read_u16(self.bytes, self.at + 2));
        let attribute = Attribute {
            kind: AttributeType(read_u16(self.bytes, self.at)),
            value: &self.bytes[offset..offset + len],
            offset,
        };
        self.at = offset + padded(len);
        Some(attribute)
    }
}
