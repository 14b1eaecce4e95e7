//! Error codes (RFC 8489 §14.8, RFC 8656 §19).

use std::fmt;

/// The number in an ERROR-CODE, 300-699.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorCode(u16);

impl ErrorCode {
    /// Another server is to be asked (RFC 8489 §10).
    pub const TRY_ALTERNATE: Self = Self(300);
    /// The request is malformed.
    pub const BAD_REQUEST: Self = Self(400);
    /// The request lacks the right credentials.
    pub const UNAUTHENTICATED: Self = Self(401);
    /// The client may not do this (RFC 8656 §19).
    pub const FORBIDDEN: Self = Self(403);
    /// A comprehension-required attribute is not understood.
    pub const UNKNOWN_ATTRIBUTE: Self = Self(420);
    /// The five-tuple has no allocation, or has one already (RFC 8656 §19).
    pub const ALLOCATION_MISMATCH: Self = Self(437);
    /// The nonce is too old.
    pub const STALE_NONCE: Self = Self(438);
    /// The address family is not supported (RFC 8656 §19).
    pub const ADDRESS_FAMILY_NOT_SUPPORTED: Self = Self(440);
    /// The credentials are not those that made the allocation (RFC 8656 §19).
    pub const WRONG_CREDENTIALS: Self = Self(441);
    /// The transport between server and peers is not supported (RFC 8656 §19).
    pub const UNSUPPORTED_TRANSPORT_PROTOCOL: Self = Self(442);
    /// The peer's address family is not one of the allocation (RFC 8656 §19).
    pub const PEER_ADDRESS_FAMILY_MISMATCH: Self = Self(443);
    /// The allocation has a connection to this peer (RFC 6062 §6.3).
    pub const CONNECTION_ALREADY_EXISTS: Self = Self(446);
    /// The peer could not be connected to (RFC 6062 §6.3).
    pub const CONNECTION_TIMEOUT_OR_FAILURE: Self = Self(447);
    /// The user's allocations are used up (RFC 8656 §19).
    pub const ALLOCATION_QUOTA_REACHED: Self = Self(486);
    /// The server failed.
    pub const SERVER_ERROR: Self = Self(500);
    /// The server cannot grant it at this time (RFC 8656 §19).
    pub const INSUFFICIENT_CAPACITY: Self = Self(508);

    /// The number.
    #[must_use]
    pub fn code(self) -> u16 {
        self.0
    }

    /// The code whose hundreds digit and rest an attribute holds; the bits above the digit are reserved and ignored.
    pub(super) fn from_parts(class: u8, number: u8) -> Option<Self> {
        let class = class & 0x07;
        ((3..=6).contains(&class) && number <= 99)
            .then(|| Self(u16::from(class) * 100 + u16::from(number)))
    }

    /// The hundreds digit and the rest.
    pub(super) fn parts(self) -> [u8; 2] {
        let [_, class] = (self.0 / 100).to_be_bytes();
        let [_, number] = (self.0 % 100).to_be_bytes();
        [class, number]
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ErrorCode({})", self.0)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
