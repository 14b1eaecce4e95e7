//! How journals name users without telling who they are: by a hash under a key that the fleet's controllers have.
//!
//! The same user has the same hash at every relay. Who has the key can test whether a hash is a user's; who has only the
//! hashes, on a stolen disk say, can neither read nor test anything.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::credentials::EphemeralUsername;

/// The bytes of a key.
const KEY_LEN: usize = 32;

/// What users are hashed with. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct UserKey([u8; KEY_LEN]);

/// The first half of HMAC-SHA-256 over a user. Shown in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UserHash(pub [u8; 16]);

impl UserKey {
    /// The key itself.
    #[must_use]
    pub fn new(key: [u8; KEY_LEN]) -> Self {
        Self(key)
    }

    /// What came over the wire; `None` for what is no key.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The key, for those who may have it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The hash of the user whose credential has the USERNAME `username`: of what follows the time in an ephemeral one, so
    /// that all credentials of a user have one hash; of all of it where that is nothing, or the user is a static one.
    #[must_use]
    pub fn hash(&self, username: &str) -> UserHash {
        let user = EphemeralUsername::parse(username).and_then(|parsed| parsed.user);
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(user.unwrap_or(username).as_bytes());
        let tag: [u8; 32] = mac.finalize().into_bytes().into();
        let (half, _) = tag
            .split_first_chunk()
            .expect("a SHA-256 has more than sixteen bytes");
        UserHash(*half)
    }
}

impl fmt::Debug for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserKey(..)")
    }
}

impl UserHash {
    /// Takes what came over the wire; `None` for what is no hash.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for UserHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_credentials_of_a_user_have_one_hash_and_nobody_has_it_without_the_key() {
        let key = UserKey::new([7; KEY_LEN]);
        let hash = key.hash("1700000000:@ann:example.org");
        assert_eq!(hash, key.hash("1800000000:@ann:example.org"));
        assert_eq!(hash, key.hash("@ann:example.org"));
        assert_ne!(hash, key.hash("1700000000:@bob:example.org"));
        assert_ne!(hash, UserKey::new([8; KEY_LEN]).hash("@ann:example.org"));
        assert_eq!(UserHash::from_bytes(hash.as_bytes()), Some(hash));
        assert_eq!(UserHash([0xa5; 16]).to_string(), "a5".repeat(16));
        assert_eq!(format!("{key:?}"), "UserKey(..)");
    }

    #[test]
    fn a_bare_time_is_the_user_that_it_is() {
        let key = UserKey::new([7; KEY_LEN]);
        assert_ne!(key.hash("1700000000"), key.hash("1700000001"));
    }
}
