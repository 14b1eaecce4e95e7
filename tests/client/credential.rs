//! Ephemeral credentials as other software makes them, by other means than the code that the relays check them with.

use std::time::UNIX_EPOCH;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// A username with its password.
#[derive(Clone, Debug)]
pub(crate) struct Credential {
    pub(crate) username: String,
    pub(crate) password: String,
}

impl Credential {
    /// Signs `username` as Synapse and Jitsi do: padded base64 of its HMAC-SHA1 under the shared secret.
    pub(crate) fn sign(secret: &str, username: &str) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
        Self {
            username: username.to_owned(),
            password: STANDARD.encode(hmac::sign(&key, username.as_bytes())),
        }
    }

    /// What Synapse hands to `user` (`@name:server`), good for ten minutes.
    pub(crate) fn synapse(secret: &str, user: &str) -> Self {
        Self::sign(secret, &format!("{}:{user}", unix_now() + 600))
    }
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> u64 {
    UNIX_EPOCH.elapsed().unwrap().as_secs()
}

#[test]
fn a_password_is_the_one_that_python_makes_for_synapse() {
    let credential = Credential::sign("north", "1700000000:@alice:example.org");
    assert_eq!(credential.password, "b7c/MWmorxmLryRFjaJYkUW5nOo=");
}
