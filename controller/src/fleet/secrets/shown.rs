//! What operators see of the secrets.

use turnfleet_turn::Instant;

use super::{Minted, SecretScope, SecretState};
use crate::fleet::Fleet;

/// One generation of the shared secret, without the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretView {
    /// Its id.
    pub id: u32,
    /// Whose relays accept it.
    pub scope: SecretScope,
    /// What it is good for.
    pub state: SecretState,
    /// Whether credentials are minted with it.
    pub minted: bool,
    /// Unix seconds.
    pub created_at: u64,
    /// Unix seconds at which a relay saw a credential of it last; `None` where none has told this controller of any.
    pub last_used: Option<u64>,
    /// How many of the relays that serve know of it, or of its revocation.
    pub acknowledged: usize,
    /// How many relays of the scope serve.
    pub of: usize,
}

impl Fleet {
    /// Every generation, in the order of ids.
    pub(in crate::fleet) fn secret_views(
        &self,
        now: Instant,
        minted: &Minted<'_>,
    ) -> Vec<SecretView> {
        let secrets = &self.secrets;
        let shown = secrets.by_id.values().map(|generation| {
            let since = secrets.since(generation);
            let acknowledged = self.acknowledgement(now, &generation.scope, since, now);
            SecretView {
                id: generation.id,
                scope: generation.scope.clone(),
                state: generation.state,
                minted: minted.has(generation.id),
                created_at: generation.created_at,
                last_used: secrets.last_used.get(&generation.id).copied(),
                acknowledged: acknowledged.by,
                of: acknowledged.of,
            }
        });
        shown.collect()
    }
}
