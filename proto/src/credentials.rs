//! The shared secret and the ephemeral credentials made from it: what homeservers, conferencing servers and the
//! controller mint, and what relays verify.
//!
//! A username is `<expiry>` or `<expiry>:<user>`, split at its first colon, with the expiry in Unix seconds; the password
//! is the padded base64 of HMAC-SHA1 over the username. That is the form of the TURN REST API, which Synapse
//! (`<expiry>:@user:server`), Nextcloud Talk and Jitsi (a bare `<expiry>`) use.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A secret that the minting party and the relays share. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct SharedSecret(Vec<u8>);

impl SharedSecret {
    /// The secret itself, as configuration files hold it: its bytes are the HMAC key.
    #[must_use]
    pub fn new(secret: impl Into<Vec<u8>>) -> Self {
        Self(secret.into())
    }

    /// The key of the HMAC.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The password of `username`: padded base64 of HMAC-SHA1, 28 characters.
    #[must_use]
    pub fn password(&self, username: &str) -> String {
        let mut mac = Hmac::<Sha1>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(username.as_bytes());
        STANDARD.encode(mac.finalize().into_bytes())
    }
}

impl std::fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SharedSecret(..)")
    }
}

/// The username of an ephemeral credential, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EphemeralUsername<'a> {
    /// Unix seconds at which the credential ends.
    pub expires_at: u64,
    /// What follows the first colon; `None` where it is missing or empty.
    pub user: Option<&'a str>,
}

impl<'a> EphemeralUsername<'a> {
    /// Takes `username` apart; `None` where it does not begin with 1 to 11 digits that end it or precede a colon, or where
    /// more than 500 bytes follow.
    #[must_use]
    pub fn parse(username: &'a str) -> Option<Self> {
        let (expiry, user) = match username.split_once(':') {
            Some((expiry, user)) => (expiry, Some(user).filter(|user| !user.is_empty())),
            None => (username, None),
        };
        let digits = (1..=11).contains(&expiry.len()) && expiry.bytes().all(|b| b.is_ascii_digit());
        if !digits || user.is_some_and(|user| user.len() > 500) {
            return None;
        }
        Some(Self {
            expires_at: expiry.parse().ok()?,
            user,
        })
    }
}

/// A username and its password, ready to be handed to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EphemeralCredential {
    /// `<expiry>` or `<expiry>:<user>`.
    pub username: String,
    /// Padded base64 of HMAC-SHA1 over the username.
    pub password: String,
    /// Unix seconds at which the credential ends.
    pub expires_at: u64,
}

/// Makes a credential that ends at `expires_at` (Unix seconds). An empty `user` gives a bare timestamp.
#[must_use]
pub fn mint(secret: &SharedSecret, user: &str, expires_at: u64) -> EphemeralCredential {
    let username = if user.is_empty() {
        expires_at.to_string()
    } else {
        format!("{expires_at}:{user}")
    };
    let password = secret.password(&username);
    EphemeralCredential {
        username,
        password,
        expires_at,
    }
}

/// Checks a username and password against `secret` at `now` (Unix seconds).
///
/// # Errors
/// When the username has not the form of an ephemeral one, the password does not fit, or the credential has ended.
pub fn verify(
    secret: &SharedSecret,
    username: &str,
    password: &str,
    now: u64,
) -> Result<(), CredentialError> {
    let parsed = EphemeralUsername::parse(username).ok_or(CredentialError::Username)?;
    let expected = secret.password(username);
    if !bool::from(expected.as_bytes().ct_eq(password.as_bytes())) {
        return Err(CredentialError::Password);
    }
    if now > parsed.expires_at {
        return Err(CredentialError::Expired {
            seconds: now - parsed.expires_at,
        });
    }
    Ok(())
}

/// Why a credential is no good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Not `<expiry>` or `<expiry>:<user>`.
    #[error("the username is not of the form <expiry in Unix seconds> or <expiry>:<user>")]
    Username,
    /// Not made with this secret.
    #[error("the password was not made from this username with this secret")]
    Password,
    /// Past its end.
    #[error("the credential ended {seconds} seconds ago")]
    Expired {
        /// Seconds since its end.
        seconds: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synapse_and_jitsi_usernames_are_taken_apart_at_the_first_colon() {
        let parse = EphemeralUsername::parse;
        let synapse = parse("1700000000:@alice:example.org").unwrap();
        assert_eq!(
            (synapse.expires_at, synapse.user),
            (1_700_000_000, Some("@alice:example.org"))
        );
        assert_eq!(parse("1700000000").map(|name| name.user), Some(None));
        assert_eq!(parse("1700000000:").map(|name| name.user), Some(None));
    }

    #[test]
    fn other_usernames_are_not_ephemeral() {
        let long = format!("1:{}", "x".repeat(501));
        for name in [
            "",
            "alice",
            "alice:1700000000",
            "-1:a",
            "+1:a",
            " 1:a",
            "123456789012",
            &long,
        ] {
            assert_eq!(EphemeralUsername::parse(name), None, "{name:?}");
        }
    }

    /// The password that `openssl dgst -sha1 -hmac north -binary | base64` prints for this username.
    #[test]
    fn the_password_is_padded_base64_of_hmac_sha1() {
        let secret = SharedSecret::new("north");
        let credential = mint(&secret, "@alice:example.org", 1_700_000_000);
        assert_eq!(credential.username, "1700000000:@alice:example.org");
        assert_eq!(credential.password, "b7c/MWmorxmLryRFjaJYkUW5nOo=");
    }

    #[test]
    fn verification_tells_the_password_from_the_expiry() {
        let secret = SharedSecret::new("north");
        let EphemeralCredential {
            username, password, ..
        } = mint(&secret, "a", 1000);
        assert_eq!(verify(&secret, &username, &password, 1000), Ok(()));
        assert_eq!(
            verify(&secret, &username, &password, 1061),
            Err(CredentialError::Expired { seconds: 61 })
        );
        let other = SharedSecret::new("south");
        assert_eq!(
            verify(&other, &username, &password, 0),
            Err(CredentialError::Password)
        );
        assert_eq!(
            verify(&secret, "a:1000", &password, 0),
            Err(CredentialError::Username)
        );
    }
}
