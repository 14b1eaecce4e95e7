//! What the attributes mean: `None` where a message has none of the kind, an error where it has one without meaning.

use std::net::SocketAddr;

use super::attribute::{Attribute, AttributeError, AttributeType};
use super::message::Message;
use super::{
    ChannelNumber, ConnectionId, ErrorCode, PasswordAlgorithm, PasswordAlgorithms,
    ReservationToken, address, read_u16,
};
use crate::addr::{AddressFamily, PeerAddr};
use crate::decision::Span;

/// What an accessor returns: absent, malformed or meaningful.
type Value<T> = Option<Result<T, AttributeError>>;

/// What a receiver must be able to read of USERNAME, REALM and NONCE, although a sender keeps below 509 bytes: those of
/// RFC 5389 may be this long (RFC 8489 §14.3, §14.9, §14.10).
const MAX_TEXT_LEN: usize = 763;

/// RFC 8489 §14.16.
const MAX_DOMAIN_LEN: usize = 255;

impl<'a> Message<'a> {
    /// USERNAME (RFC 8489 §14.3), at most 763 bytes.
    #[must_use]
    pub fn username(&self) -> Value<&'a str> {
        self.read(AttributeType::USERNAME, text)
    }

    /// REALM (RFC 8489 §14.9), at most 763 bytes.
    #[must_use]
    pub fn realm(&self) -> Value<&'a str> {
        self.read(AttributeType::REALM, text)
    }

    /// NONCE (RFC 8489 §14.10), at most 763 bytes.
    #[must_use]
    pub fn nonce(&self) -> Value<&'a [u8]> {
        self.read(AttributeType::NONCE, |value| {
            (value.len() <= MAX_TEXT_LEN)
                .then_some(value)
                .ok_or(AttributeError::Length)
        })
    }

    /// PASSWORD-ALGORITHM (RFC 8489 §14.12); an error for one that this crate does not know.
    #[must_use]
    pub fn password_algorithm(&self) -> Value<PasswordAlgorithm> {
        self.read(AttributeType::PASSWORD_ALGORITHM, PasswordAlgorithm::read)
    }

    /// PASSWORD-ALGORITHMS (RFC 8489 §14.11).
    #[must_use]
    pub fn password_algorithms(&self) -> Option<PasswordAlgorithms<'a>> {
        self.first(AttributeType::PASSWORD_ALGORITHMS)
            .map(|attribute| PasswordAlgorithms::new(attribute.value))
    }

    /// ERROR-CODE (RFC 8489 §14.8) without its reason.
    #[must_use]
    pub fn error_code(&self) -> Value<ErrorCode> {
        self.read(AttributeType::ERROR_CODE, |value| match value {
            [_, _, class, number, ..] => {
                ErrorCode::from_parts(*class, *number).ok_or(AttributeError::Value)
            }
            _ => Err(AttributeError::Length),
        })
    }

    /// LIFETIME (RFC 8656 §18.2) in seconds.
    #[must_use]
    pub fn lifetime(&self) -> Value<u32> {
        self.read(AttributeType::LIFETIME, |value| {
            exact(value).map(u32::from_be_bytes)
        })
    }

    /// XOR-MAPPED-ADDRESS (RFC 8489 §14.2).
    #[must_use]
    pub fn xor_mapped_address(&self) -> Value<SocketAddr> {
        let id = self.transaction_id();
        self.read(AttributeType::XOR_MAPPED_ADDRESS, |value| {
            address::read_xor(value, id)
        })
    }

    /// The first XOR-RELAYED-ADDRESS (RFC 8656 §18.5).
    #[must_use]
    pub fn xor_relayed_address(&self) -> Value<SocketAddr> {
        self.xor_relayed_addresses().next()
    }

    /// Every XOR-RELAYED-ADDRESS: a dual allocation has two (RFC 8656 §7.3).
    pub fn xor_relayed_addresses(
        &self,
    ) -> impl Iterator<Item = Result<SocketAddr, AttributeError>> + use<'a> {
        let id = self.transaction_id();
        self.each(AttributeType::XOR_RELAYED_ADDRESS)
            .map(move |attribute| address::read_xor(attribute.value, id))
    }

    /// The first XOR-PEER-ADDRESS (RFC 8656 §18.3).
    #[must_use]
    pub fn xor_peer_address(&self) -> Value<PeerAddr> {
        self.xor_peer_addresses().next()
    }

    /// Every XOR-PEER-ADDRESS: CreatePermission may have many (RFC 8656 §10.1).
    pub fn xor_peer_addresses(
        &self,
    ) -> impl Iterator<Item = Result<PeerAddr, AttributeError>> + use<'a> {
        let id = self.transaction_id();
        self.each(AttributeType::XOR_PEER_ADDRESS)
            .map(move |attribute| address::read_xor(attribute.value, id).map(PeerAddr))
    }

    /// Where the value of DATA (RFC 8656 §18.4) is in the message; it may be empty.
    #[must_use]
    pub fn data(&self) -> Option<Span> {
        self.first(AttributeType::DATA).map(|attribute| Span {
            start: attribute.offset,
            len: attribute.value.len(),
        })
    }

    /// CHANNEL-NUMBER (RFC 8656 §18.1), whatever the number is.
    #[must_use]
    pub fn channel_number(&self) -> Value<ChannelNumber> {
        self.read(AttributeType::CHANNEL_NUMBER, |value| {
            exact(value).map(|[high, low, _, _]| ChannelNumber(u16::from_be_bytes([high, low])))
        })
    }

    /// The protocol number of REQUESTED-TRANSPORT (RFC 8656 §18.8).
    #[must_use]
    pub fn requested_transport(&self) -> Value<u8> {
        self.read(AttributeType::REQUESTED_TRANSPORT, |value| {
            exact(value).map(|[protocol, _, _, _]| protocol)
        })
    }

    /// REQUESTED-ADDRESS-FAMILY (RFC 8656 §18.6).
    #[must_use]
    pub fn requested_address_family(&self) -> Value<AddressFamily> {
        self.read(AttributeType::REQUESTED_ADDRESS_FAMILY, family)
    }

    /// ADDITIONAL-ADDRESS-FAMILY (RFC 8656 §18.11).
    #[must_use]
    pub fn additional_address_family(&self) -> Value<AddressFamily> {
        self.read(AttributeType::ADDITIONAL_ADDRESS_FAMILY, family)
            .or_else(|| self.read(AttributeType::COTURN_ADDITIONAL_ADDRESS_FAMILY, family))
    }

    /// The R bit of EVEN-PORT (RFC 8656 §18.7): whether the next-higher port is to be reserved.
    #[must_use]
    pub fn even_port(&self) -> Value<bool> {
        self.read(AttributeType::EVEN_PORT, |value| {
            exact(value).map(|[flags]| flags & 0x80 != 0)
        })
    }

    /// RESERVATION-TOKEN (RFC 8656 §18.10).
    #[must_use]
    pub fn reservation_token(&self) -> Value<ReservationToken> {
        self.read(AttributeType::RESERVATION_TOKEN, |value| {
            exact(value).map(ReservationToken)
        })
    }

    /// CONNECTION-ID (RFC 6062 §6.2.1).
    #[must_use]
    pub fn connection_id(&self) -> Value<ConnectionId> {
        self.read(AttributeType::CONNECTION_ID, |value| {
            exact(value).map(|bytes| ConnectionId(u32::from_be_bytes(bytes)))
        })
    }

    /// ADDRESS-ERROR-CODE (RFC 8656 §18.12): the family that was refused, and why.
    #[must_use]
    pub fn address_error_code(&self) -> Value<(AddressFamily, ErrorCode)> {
        self.read(AttributeType::ADDRESS_ERROR_CODE, |value| match value {
            [code_family, _, class, number, ..] => {
                let code = ErrorCode::from_parts(*class, *number).ok_or(AttributeError::Value)?;
                Ok((address::family(*code_family)?, code))
            }
            _ => Err(AttributeError::Length),
        })
    }

    /// Every ALTERNATE-SERVER (RFC 8489 §14.15): one, or one of each family (§10).
    pub fn alternate_servers(
        &self,
    ) -> impl Iterator<Item = Result<SocketAddr, AttributeError>> + use<'a> {
        self.each(AttributeType::ALTERNATE_SERVER)
            .map(|attribute| address::read_plain(attribute.value))
    }

    /// ALTERNATE-DOMAIN (RFC 8489 §14.16): a DNS name of 255 ASCII characters at most.
    #[must_use]
    pub fn alternate_domain(&self) -> Value<&'a str> {
        self.read(AttributeType::ALTERNATE_DOMAIN, |value| {
            if value.is_empty() || value.len() > MAX_DOMAIN_LEN {
                return Err(AttributeError::Length);
            }
            let of_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-.".contains(byte);
            let name = std::str::from_utf8(value).map_err(|_| AttributeError::Value)?;
            let is_name = value.iter().all(of_name);
            is_name.then_some(name).ok_or(AttributeError::Value)
        })
    }

    /// The types that UNKNOWN-ATTRIBUTES lists (RFC 8489 §14.13); nothing where the attribute is absent.
    pub fn unknown_attributes(&self) -> impl Iterator<Item = u16> + use<'a> {
        self.first(AttributeType::UNKNOWN_ATTRIBUTES)
            .map_or(&[][..], |attribute| attribute.value)
            .chunks_exact(2)
            .map(|pair| read_u16(pair, 0))
    }

    /// Whether an attribute that counts has this type.
    #[must_use]
    pub fn has(&self, kind: AttributeType) -> bool {
        self.first(kind).is_some()
    }

    fn read<T>(
        &self,
        kind: AttributeType,
        meaning: impl FnOnce(&'a [u8]) -> Result<T, AttributeError>,
    ) -> Value<T> {
        self.first(kind).map(|attribute| meaning(attribute.value))
    }

    fn each(&self, kind: AttributeType) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        self.attributes()
            .filter(move |attribute| attribute.kind == kind)
    }
}

fn text(value: &[u8]) -> Result<&str, AttributeError> {
    if value.len() > MAX_TEXT_LEN {
        return Err(AttributeError::Length);
    }
    std::str::from_utf8(value).map_err(|_| AttributeError::Value)
}

fn exact<const N: usize>(value: &[u8]) -> Result<[u8; N], AttributeError> {
    value.try_into().map_err(|_| AttributeError::Length)
}

fn family(value: &[u8]) -> Result<AddressFamily, AttributeError> {
    let [code, _, _, _] = exact(value)?;
    address::family(code)
}
