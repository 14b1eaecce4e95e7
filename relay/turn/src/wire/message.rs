//! The checked view of a STUN message (RFC 8489 §5).

use super::attribute::{Attribute, AttributeType, Attributes};
use super::{HEADER_LEN, MAGIC_COOKIE, TransactionId, padded, read_u16};

/// What kind of message a method's message is (RFC 8489 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Asks for a response.
    Request,
    /// Has no response.
    Indication,
    /// Grants a request.
    SuccessResponse,
    /// Refuses a request.
    ErrorResponse,
}

/// The methods of STUN (RFC 8489 §18.2), of TURN (RFC 8656 §17) and of its TCP allocations (RFC 6062 §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// 0x001.
    Binding,
    /// 0x003.
    Allocate,
    /// 0x004.
    Refresh,
    /// 0x006, indications only.
    Send,
    /// 0x007, indications only.
    Data,
    /// 0x008.
    CreatePermission,
    /// 0x009.
    ChannelBind,
    /// 0x00a (RFC 6062).
    Connect,
    /// 0x00b (RFC 6062).
    ConnectionBind,
    /// 0x00c, indications only (RFC 6062).
    ConnectionAttempt,
}

/// Why a packet is no STUN message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParseError {
    /// Shorter than the header.
    TooShort,
    /// The first two bits are not those of the protocol.
    NotStun,
    /// Another value in the place of the magic cookie.
    BadCookie,
    /// The length field is not a multiple of four, or not the length of the packet.
    BadLength,
    /// An attribute reaches beyond the end of the message.
    BadAttribute,
}

/// A STUN message whose header and attribute boundaries are sound. What the attributes hold is checked where it is read.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub(super) bytes: &'a [u8],
    /// The end of the attributes that count: everything up to the first integrity attribute or FINGERPRINT.
    counted_end: usize,
    /// Where the MESSAGE-INTEGRITY that counts starts.
    pub(super) integrity_at: Option<usize>,
    /// Where the MESSAGE-INTEGRITY-SHA256 that counts starts.
    pub(super) integrity_sha256_at: Option<usize>,
    /// Where the first FINGERPRINT starts.
    pub(super) fingerprint_at: Option<usize>,
}

impl<'a> Message<'a> {
    /// Checks a whole packet: two zero bits, the cookie, a length that is exact, attributes that end where it ends.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        if bytes.len() < HEADER_LEN {
            return Err(ParseError::TooShort);
        }
        if bytes[0] & 0xC0 != 0 {
            return Err(ParseError::NotStun);
        }
        if bytes[4..8] != MAGIC_COOKIE.to_be_bytes() {
            return Err(ParseError::BadCookie);
        }
        let len = usize::from(read_u16(bytes, 2));
        if !len.is_multiple_of(4) || bytes.len() != HEADER_LEN + len {
            return Err(ParseError::BadLength);
        }
        let mut message = Self {
            bytes,
            counted_end: bytes.len(),
            integrity_at: None,
            integrity_sha256_at: None,
            fingerprint_at: None,
        };
        message.walk()?;
        Ok(message)
    }

    /// Checks every attribute's length once and notes where those that close a message are.
    /// Behind MESSAGE-INTEGRITY a MESSAGE-INTEGRITY-SHA256 counts, but not the other way round (RFC 8489 §9).
    fn walk(&mut self) -> Result<(), ParseError> {
        let mut at = HEADER_LEN;
        while at < self.bytes.len() {
            // The length is a multiple of four, so that four bytes are there.
            let kind = AttributeType(read_u16(self.bytes, at));
            let end = at + 4 + padded(usize::from(read_u16(self.bytes, at + 2)));
            if end > self.bytes.len() {
                return Err(ParseError::BadAttribute);
            }
            if kind == AttributeType::MESSAGE_INTEGRITY && !self.has_integrity() {
                self.integrity_at = Some(at);
                self.counted_end = self.counted_end.min(end);
            }
            if kind == AttributeType::MESSAGE_INTEGRITY_SHA256 && self.integrity_sha256_at.is_none()
            {
                self.integrity_sha256_at = Some(at);
                self.counted_end = self.counted_end.min(end);
            }
            if kind == AttributeType::FINGERPRINT && self.fingerprint_at.is_none() {
                self.fingerprint_at = Some(at);
                self.counted_end = self.counted_end.min(at);
            }
            at = end;
        }
        Ok(())
    }

    /// The class.
    #[must_use]
    pub fn class(&self) -> Class {
        match (self.bytes[0] & 0x01, self.bytes[1] & 0x10) {
            (0, 0) => Class::Request,
            (0, _) => Class::Indication,
            (_, 0) => Class::SuccessResponse,
            (_, _) => Class::ErrorResponse,
        }
    }

    /// The method; `None` for one that this crate does not speak.
    #[must_use]
    pub fn method(&self) -> Option<Method> {
        match self.method_code() {
            0x001 => Some(Method::Binding),
            0x003 => Some(Method::Allocate),
            0x004 => Some(Method::Refresh),
            0x006 => Some(Method::Send),
            0x007 => Some(Method::Data),
            0x008 => Some(Method::CreatePermission),
            0x009 => Some(Method::ChannelBind),
            0x00A => Some(Method::Connect),
            0x00B => Some(Method::ConnectionBind),
            0x00C => Some(Method::ConnectionAttempt),
            _ => None,
        }
    }

    /// The method's twelve bits, whatever they are.
    #[must_use]
    pub fn method_code(&self) -> u16 {
        let kind = read_u16(self.bytes, 0);
        (kind & 0x000F) | ((kind >> 1) & 0x0070) | ((kind >> 2) & 0x0F80)
    }

    /// The transaction id.
    #[must_use]
    pub fn transaction_id(&self) -> TransactionId {
        let mut id = [0; 12];
        id.copy_from_slice(&self.bytes[8..HEADER_LEN]);
        TransactionId(id)
    }

    /// The whole message.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The attributes that count, MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256 being the last: whatever follows it is ignored
    /// (RFC 8489 §9), except for what [`Message::verify_integrity`] and [`Message::fingerprint`] judge.
    #[must_use]
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::new(self.bytes, self.counted_end)
    }

    /// Every attribute, also those that do not count.
    #[must_use]
    pub fn all_attributes(&self) -> Attributes<'a> {
        Attributes::new(self.bytes, self.bytes.len())
    }

    /// The first attribute of `kind` that counts; duplicates of it are ignored (RFC 8489 §14).
    #[must_use]
    pub fn first(&self, kind: AttributeType) -> Option<Attribute<'a>> {
        self.attributes().find(|attribute| attribute.kind == kind)
    }

    /// The comprehension-required attributes that count and that this crate does not understand (RFC 8489 §6.3.1), in the
    /// order of the message, with repetitions.
    pub fn unknown_required(&self) -> impl Iterator<Item = u16> + use<'a> {
        self.attributes()
            .map(|attribute| attribute.kind)
            .filter(|kind| kind.is_required() && !kind.is_understood())
            .map(|kind| kind.0)
    }
}

impl Class {
    /// The class bits in their place within the message type.
    pub(super) fn bits(self) -> u16 {
        match self {
            Self::Request => 0x0000,
            Self::Indication => 0x0010,
            Self::SuccessResponse => 0x0100,
            Self::ErrorResponse => 0x0110,
        }
    }
}

impl Method {
    /// The method's code. All of them are below 16, so that it is also its bits within the message type.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Binding => 0x001,
            Self::Allocate => 0x003,
            Self::Refresh => 0x004,
            Self::Send => 0x006,
            Self::Data => 0x007,
            Self::CreatePermission => 0x008,
            Self::ChannelBind => 0x009,
            Self::Connect => 0x00A,
            Self::ConnectionBind => 0x00B,
            Self::ConnectionAttempt => 0x00C,
        }
    }

    /// The name used in metric labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Binding => "binding",
            Self::Allocate => "allocate",
            Self::Refresh => "refresh",
            Self::Send => "send",
            Self::Data => "data",
            Self::CreatePermission => "create_permission",
            Self::ChannelBind => "channel_bind",
            Self::Connect => "connect",
            Self::ConnectionBind => "connection_bind",
            Self::ConnectionAttempt => "connection_attempt",
        }
    }
}
