//! What proves to a controller that another one is of the same fleet: a token derived from the key that seals the store.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::store::Sealer;

/// What the token is derived for.
const PURPOSE: &[u8] = b"turnfleet controller peer v1";

/// Derived from the store's key, base64url. `Debug` shows nothing of it.
#[derive(Clone)]
pub(crate) struct PeerToken(Zeroizing<String>);

impl PeerToken {
    /// The token of the fleet whose store is sealed by `sealer`.
    pub(crate) fn of(sealer: &Sealer) -> Self {
        Self(Zeroizing::new(
            URL_SAFE_NO_PAD.encode(sealer.derive(PURPOSE)),
        ))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `shown` is this token. Takes the same time whatever is shown.
    pub(crate) fn is(&self, shown: &str) -> bool {
        self.0.as_bytes().ct_eq(shown.as_bytes()).into()
    }
}

impl std::fmt::Debug for PeerToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PeerToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_gives_one_token() {
        let dir = tempfile::tempdir().unwrap();
        let token = |file| PeerToken::of(&Sealer::open(&dir.path().join(file), true).unwrap());
        let other = token("other.key");
        let again = token("store.key");
        let token = token("store.key");
        assert!(token.is(again.as_str()));
        assert!(!token.is(other.as_str()));
        assert!(!token.is(""));
        assert_eq!(format!("{token:?}"), "PeerToken(..)");
    }
}
