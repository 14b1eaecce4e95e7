//! What a receiver knows by that a request is of its fleet: `Turnfleet-Signature: t=UNIX,v1=HEX`, HMAC-SHA-256 of the time, a
//! dot and the body, under the secret of the webhook.

use std::fmt::Write as _;

use ring::hmac;

/// The header.
pub(super) const HEADER: &str = "turnfleet-signature";

/// What signs for one webhook. Its `Debug` shows nothing of it.
pub(super) struct Signer(hmac::Key);

impl Signer {
    pub(super) fn new(secret: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()))
    }

    /// The header's value for `body` at the Unix second `unix`.
    pub(super) fn sign(&self, unix: u64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{unix}.").as_bytes());
        context.update(body);
        let mut value = format!("t={unix},v1=");
        for byte in context.sign().as_ref() {
            write!(value, "{byte:02x}").expect("a String takes every text");
        }
        value
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_covers_the_time_and_the_body() {
        let signer = Signer::new("0123456789abcdef");
        // printf '1700000000.{"events":[]}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let expected =
            "t=1700000000,v1=1f1c43683e76ee83b09613ab56fa5bdd3ce55f3ee41db00a92e22eea0376899e";
        assert_eq!(signer.sign(1_700_000_000, br#"{"events":[]}"#), expected);
        assert_eq!(format!("{signer:?}"), "Signer(..)");
    }
}
