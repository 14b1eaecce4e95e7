//! The username under which controllers try relays, and how a relay tells it from one that only looks like it.
//!
//! It is `<expiry>:turnfleet-probe:<proof>`. The proof is a MAC over what stands before it, by a key that is made of a nonce
//! key: controllers and relays have those, and whoever has a shared secret, as applications do, has not.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::credentials::EphemeralUsername;

/// What the user begins with.
const NAME: &str = "turnfleet-probe";
/// What a nonce key signs for this purpose alone: no nonce is made of these bytes.
const LABEL: &[u8] = b"turnfleet v1: the key of the probe's username";
/// Of the MAC, as many bytes as nobody guesses.
const PROOF_BYTES: usize = 16;

/// What proves that a username is the probe's. Its `Debug` shows nothing of it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ProbeKey([u8; 32]);

impl ProbeKey {
    /// The key that goes with a nonce key.
    #[must_use]
    pub fn of_nonce_key(nonce_key: &[u8]) -> Self {
        Self(mac(nonce_key, &[LABEL]))
    }

    /// The user for a credential that ends at `expires_at` (Unix seconds).
    #[must_use]
    pub fn user(&self, expires_at: u64) -> String {
        format!("{NAME}:{}", self.proof(expires_at))
    }

    /// Whether `username` was made with this key, for its own end. How long it takes tells nothing of the right proof.
    #[must_use]
    pub fn has_made(&self, username: EphemeralUsername<'_>) -> bool {
        let rest = username.user.and_then(|user| user.strip_prefix(NAME));
        let Some(proof) = rest.and_then(|rest| rest.strip_prefix(':')) else {
            return false;
        };
        let expected = self.proof(username.expires_at);
        expected.as_bytes().ct_eq(proof.as_bytes()).into()
    }

    fn proof(&self, expires_at: u64) -> String {
        let tag = mac(&self.0, &[&expires_at.to_be_bytes(), NAME.as_bytes()]);
        URL_SAFE_NO_PAD.encode(&tag[..PROOF_BYTES])
    }
}

impl std::fmt::Debug for ProbeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProbeKey(..)")
    }
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_made(key: &ProbeKey, username: &str) -> bool {
        key.has_made(EphemeralUsername::parse(username).unwrap())
    }

    #[test]
    fn a_username_is_good_for_its_key_and_its_end_alone() {
        let key = ProbeKey::of_nonce_key(&[7; 32]);
        let user = key.user(1500);
        assert!(has_made(&key, &format!("1500:{user}")));
        assert!(!has_made(&key, &format!("1501:{user}")));
        let other = ProbeKey::of_nonce_key(&[8; 32]);
        assert!(!has_made(&other, &format!("1500:{user}")));
        assert_eq!(format!("{key:?}"), "ProbeKey(..)");
    }

    #[test]
    fn what_only_looks_like_it_is_not_it() {
        let key = ProbeKey::of_nonce_key(&[7; 32]);
        let user = key.user(1500);
        let proof = user.strip_prefix("turnfleet-probe:").unwrap();
        assert_eq!(proof.len(), 22);
        for other in [
            "1500",
            "1500:turnfleet-probe",
            "1500:turnfleet-probe:",
            &format!("1500:turnfleet-probe{proof}"),
            &format!("1500:turnfleet-probe:{}", &proof[1..]),
            &format!("1500:turnfleet-probe:{proof}="),
            &format!("1500:acme/turnfleet-probe:{proof}"),
            &format!("1500:{proof}"),
        ] {
            assert!(!has_made(&key, other), "{other}");
        }
    }
}
