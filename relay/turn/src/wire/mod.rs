//! The bytes of STUN and TURN (RFC 8489, RFC 8656): checked views to read them, a writer to make them.

/// The 96 bits that tie a response to its request (RFC 8489 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransactionId(pub [u8; 12]);

/// A channel number (RFC 8656 §12): 0x4000-0x4FFF, or up to 0x7FFF where RFC 5766's numbers are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelNumber(pub u16);

/// The value of RESERVATION-TOKEN (RFC 8656 §18.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReservationToken(pub [u8; 8]);

/// The key of the long-term credential mechanism with MD5 (RFC 8489 §9.2.2).
#[derive(Clone, PartialEq, Eq)]
pub struct LongTermKey(pub [u8; 16]);

impl std::fmt::Debug for LongTermKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LongTermKey(..)")
    }
}
