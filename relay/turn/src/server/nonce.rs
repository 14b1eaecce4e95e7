//! Nonces without state: the server recognises its own by a keyed MAC, so an unauthenticated request costs no memory and
//! every shard, every restarted relay and every relay behind one balancer accepts what any of them gave out.
//!
//! ```text
//! obMatJos2  gAAA                    22 characters
//! cookie     security feature bits   base64url of: 4 bytes unix seconds, 12 bytes MAC over time, client address and port
//! ```
//! Cookie and feature bits are those of RFC 8489 §9.2; the MAC covers them, so that whoever takes the features out of a nonce
//! has a nonce that is not ours. The transport is not part of it: a client that moves from UDP to
//! TCP behind the same port keeps its nonce.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::wire::NONCE_COOKIE;

/// Bytes of a nonce.
pub const NONCE_LEN: usize = COOKIE.len() + SEALED_CHARS;

/// The nonce cookie, and after it the security feature set in base64: bit 0 of RFC 8489 §18.1, password algorithms.
const COOKIE: &[u8; NONCE_COOKIE.len() + 4] = b"obMatJos2gAAA";
const MAC_LEN: usize = 12;
/// Characters of time and MAC in base64: 16 bytes, the last character holds two bits.
const SEALED_CHARS: usize = 22;
/// Characters that hold the time, and the first four bits of the MAC.
const TIME_CHARS: usize = 6;
/// How far the clocks of two relays may be apart.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The nonce is not one of ours, belongs to another client address, or is too old: answered by 438 (RFC 8489 §9.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleNonce;

/// The keys of the fleet's nonces and how long a nonce is good for.
#[derive(Clone)]
pub struct NonceKeys {
    keys: Vec<Hmac<Sha256>>,
    lifetime: Duration,
}

impl fmt::Debug for NonceKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NonceKeys")
            .field("keys", &self.keys.len())
            .field("lifetime", &self.lifetime)
            .finish()
    }
}

impl NonceKeys {
    /// `keys` are newest first: the first signs, all verify. Without a key every nonce is stale.
    #[must_use]
    pub fn new(keys: &[[u8; 32]], lifetime: Duration) -> Self {
        let keys = keys
            .iter()
            .map(|key| Hmac::new_from_slice(key).expect("HMAC takes a key of any length"))
            .collect();
        Self { keys, lifetime }
    }

    /// A nonce for `client`, good from `now_unix` (seconds since the epoch) on.
    #[must_use]
    pub fn mint(&self, now_unix: u64, client: SocketAddr) -> [u8; NONCE_LEN] {
        let issued = u32::try_from(now_unix).unwrap_or(u32::MAX);
        match self.keys.first() {
            Some(key) => seal(key, issued, client),
            None => [b'A'; NONCE_LEN],
        }
    }

    /// Whether `nonce` was given to `client` by a server with one of these keys, not too long before `now_unix`.
    ///
    /// # Errors
    /// [`StaleNonce`] in every other case, after the same work whatever the MAC holds.
    pub fn verify(
        &self,
        now_unix: u64,
        client: SocketAddr,
        nonce: &[u8],
    ) -> Result<(), StaleNonce> {
        let issued = issued_at(nonce).ok_or(StaleNonce)?;
        let valid_from = u64::from(issued).saturating_sub(CLOCK_SKEW.as_secs());
        let valid_until = u64::from(issued).saturating_add(self.lifetime.as_secs());
        if !(valid_from..=valid_until).contains(&now_unix) {
            return Err(StaleNonce);
        }
        // Whole nonces are compared, so one nonce has one spelling, and no other feature bits fit its MAC.
        let mut genuine = subtle::Choice::from(0);
        for key in &self.keys {
            genuine |= seal(key, issued, client).ct_eq(nonce);
        }
        if bool::from(genuine) {
            Ok(())
        } else {
            Err(StaleNonce)
        }
    }
}

fn seal(key: &Hmac<Sha256>, issued: u32, client: SocketAddr) -> [u8; NONCE_LEN] {
    let time = issued.to_be_bytes();
    let ip = match client.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut mac = key.clone();
    mac.update(COOKIE);
    mac.update(&time);
    mac.update(&ip.octets());
    mac.update(&client.port().to_be_bytes());
    let tag = mac.finalize().into_bytes();

    let mut sealed = [0; 4 + MAC_LEN];
    sealed[..4].copy_from_slice(&time);
    sealed[4..].copy_from_slice(&tag[..MAC_LEN]);

    let mut nonce = [0; NONCE_LEN];
    nonce[..COOKIE.len()].copy_from_slice(COOKIE);
    encode(u128::from_be_bytes(sealed), &mut nonce[COOKIE.len()..]);
    nonce
}

/// Writes `bits` from the highest down, six to a character; the last character is filled up with zeros.
fn encode(bits: u128, out: &mut [u8]) {
    for (index, char) in out.iter_mut().enumerate() {
        let from_top = 6 * index;
        let sextet = (bits << from_top) >> (u128::BITS - 6);
        *char = ALPHABET[usize::try_from(sextet).expect("six bits fit")];
    }
}

/// The time that a nonce claims to be from; `None` where it does not even look like one of ours.
fn issued_at(nonce: &[u8]) -> Option<u32> {
    if nonce.len() != NONCE_LEN {
        return None;
    }
    let sealed = nonce.strip_prefix(COOKIE)?;
    let mut bits: u64 = 0;
    for char in &sealed[..TIME_CHARS] {
        let sextet = ALPHABET.iter().position(|letter| letter == char)?;
        bits = bits << 6 | u64::try_from(sextet).ok()?;
    }
    u32::try_from(bits >> 4).ok()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::{NONCE_LEN, NonceKeys, StaleNonce};
    use crate::wire::announces_password_algorithms;

    const NOW: u64 = 1_800_000_000;

    fn keys(bytes: &[u8]) -> NonceKeys {
        let keys: Vec<[u8; 32]> = bytes.iter().map(|&byte| [byte; 32]).collect();
        NonceKeys::new(&keys, Duration::from_secs(3600))
    }

    fn client() -> SocketAddr {
        "192.0.2.1:5000".parse().unwrap()
    }

    #[test]
    fn a_nonce_is_the_cookie_and_printable_text_of_a_fixed_length() {
        let nonce = keys(&[1]).mint(NOW, client());
        assert_eq!(NONCE_LEN, 35);
        assert!(nonce.starts_with(b"obMatJos2gAAA"));
        assert!(announces_password_algorithms(&nonce));
        assert!(
            nonce
                .iter()
                .all(|&byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        );
    }

    #[test]
    fn a_nonce_is_good_for_its_lifetime_and_the_skew_of_clocks() {
        let keys = keys(&[1]);
        let nonce = keys.mint(NOW, client());
        for (now, expected) in [
            (NOW, Ok(())),
            (NOW + 3600, Ok(())),
            (NOW + 3601, Err(StaleNonce)),
            (NOW - 60, Ok(())),
            (NOW - 61, Err(StaleNonce)),
        ] {
            assert_eq!(keys.verify(now, client(), &nonce), expected, "{now}");
        }
    }

    #[test]
    fn a_nonce_belongs_to_one_address_and_port() {
        let keys = keys(&[1]);
        let nonce = keys.mint(NOW, client());
        for other in ["192.0.2.1:5001", "192.0.2.2:5000", "[2001:db8::1]:5000"] {
            let other: SocketAddr = other.parse().unwrap();
            assert_eq!(keys.verify(NOW, other, &nonce), Err(StaleNonce), "{other}");
            assert_ne!(keys.mint(NOW, other), nonce);
        }
    }

    #[test]
    fn every_key_verifies_and_the_first_one_signs() {
        let old = keys(&[1]).mint(NOW, client());
        let rotated = keys(&[2, 1]);
        assert_eq!(rotated.verify(NOW, client(), &old), Ok(()));
        let fresh = rotated.mint(NOW, client());
        assert_eq!(keys(&[2]).verify(NOW, client(), &fresh), Ok(()));
        assert_eq!(keys(&[1]).verify(NOW, client(), &fresh), Err(StaleNonce));
        assert_eq!(keys(&[3]).verify(NOW, client(), &old), Err(StaleNonce));
    }

    #[test]
    fn without_a_key_every_nonce_is_stale() {
        let none = keys(&[]);
        let nonce = none.mint(NOW, client());
        assert_eq!(none.verify(NOW, client(), &nonce), Err(StaleNonce));
    }

    #[test]
    fn a_nonce_with_any_byte_changed_cut_or_added_is_stale() {
        let keys = keys(&[1]);
        let nonce = keys.mint(NOW, client());
        for index in 0..NONCE_LEN {
            for byte in 0..=u8::MAX {
                let mut altered = nonce;
                altered[index] = byte;
                let expected = if altered == nonce {
                    Ok(())
                } else {
                    Err(StaleNonce)
                };
                assert_eq!(
                    keys.verify(NOW, client(), &altered),
                    expected,
                    "{index} {byte}"
                );
            }
            assert_eq!(keys.verify(NOW, client(), &nonce[..index]), Err(StaleNonce));
        }
        let longer = [&nonce[..], b"A"].concat();
        assert_eq!(keys.verify(NOW, client(), &longer), Err(StaleNonce));
    }
}
