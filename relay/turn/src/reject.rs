//! Why requests are refused: the error codes of STUN and TURN that the server uses.

use crate::wire::ErrorCode;

/// Why a request is refused. The variants are metric labels, and each one is an error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reject {
    /// 300, RFC 8489 §10.
    TryAlternate,
    /// 400, RFC 8489 §14.8.
    BadRequest,
    /// 401, RFC 8489 §9.2.4.
    Unauthenticated,
    /// 403, RFC 8656 §19.
    Forbidden,
    /// 420, RFC 8489 §6.3.1.
    UnknownAttribute,
    /// 437, RFC 8656 §19.
    AllocationMismatch,
    /// 438, RFC 8489 §9.2.4.
    StaleNonce,
    /// 440, RFC 8656 §19.
    AddressFamilyNotSupported,
    /// 441, RFC 8656 §5.
    WrongCredentials,
    /// 442, RFC 8656 §7.2.
    UnsupportedTransport,
    /// 443, RFC 8656 §19.
    PeerAddressFamilyMismatch,
    /// 446, RFC 6062 §5.2.
    ConnectionExists,
    /// 447, RFC 6062 §5.2.
    ConnectionFailed,
    /// 486, RFC 8656 §7.2.
    AllocationQuotaReached,
    /// 508, RFC 8656 §19.
    InsufficientCapacity,
}

impl Reject {
    /// Every error, in the order of their declaration.
    pub const ALL: [Self; 15] = [
        Self::TryAlternate,
        Self::BadRequest,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::UnknownAttribute,
        Self::AllocationMismatch,
        Self::StaleNonce,
        Self::AddressFamilyNotSupported,
        Self::WrongCredentials,
        Self::UnsupportedTransport,
        Self::PeerAddressFamilyMismatch,
        Self::ConnectionExists,
        Self::ConnectionFailed,
        Self::AllocationQuotaReached,
        Self::InsufficientCapacity,
    ];

    /// The number in ERROR-CODE; also the metric label.
    #[must_use]
    pub fn code(self) -> u16 {
        self.error_code().code()
    }

    pub(crate) fn error_code(self) -> ErrorCode {
        match self {
            Self::TryAlternate => ErrorCode::TRY_ALTERNATE,
            Self::BadRequest => ErrorCode::BAD_REQUEST,
            Self::Unauthenticated => ErrorCode::UNAUTHENTICATED,
            Self::Forbidden => ErrorCode::FORBIDDEN,
            Self::UnknownAttribute => ErrorCode::UNKNOWN_ATTRIBUTE,
            Self::AllocationMismatch => ErrorCode::ALLOCATION_MISMATCH,
            Self::StaleNonce => ErrorCode::STALE_NONCE,
            Self::AddressFamilyNotSupported => ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED,
            Self::WrongCredentials => ErrorCode::WRONG_CREDENTIALS,
            Self::UnsupportedTransport => ErrorCode::UNSUPPORTED_TRANSPORT_PROTOCOL,
            Self::PeerAddressFamilyMismatch => ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH,
            Self::ConnectionExists => ErrorCode::CONNECTION_ALREADY_EXISTS,
            Self::ConnectionFailed => ErrorCode::CONNECTION_TIMEOUT_OR_FAILURE,
            Self::AllocationQuotaReached => ErrorCode::ALLOCATION_QUOTA_REACHED,
            Self::InsufficientCapacity => ErrorCode::INSUFFICIENT_CAPACITY,
        }
    }

    /// The reason phrase of the RFCs.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::TryAlternate => "Try Alternate",
            Self::BadRequest => "Bad Request",
            Self::Unauthenticated => "Unauthenticated",
            Self::Forbidden => "Forbidden",
            Self::UnknownAttribute => "Unknown Attribute",
            Self::AllocationMismatch => "Allocation Mismatch",
            Self::StaleNonce => "Stale Nonce",
            Self::AddressFamilyNotSupported => "Address Family not Supported",
            Self::WrongCredentials => "Wrong Credentials",
            Self::UnsupportedTransport => "Unsupported Transport Protocol",
            Self::PeerAddressFamilyMismatch => "Peer Address Family Mismatch",
            Self::ConnectionExists => "Connection Already Exists",
            Self::ConnectionFailed => "Connection Timeout or Failure",
            Self::AllocationQuotaReached => "Allocation Quota Reached",
            Self::InsufficientCapacity => "Insufficient Capacity",
        }
    }
}
