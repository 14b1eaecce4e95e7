//! What operators see of the secrets, and what credentials are minted with: the secrets' part of the view.

use std::collections::BTreeMap;

use turnfleet_proto::credentials::SharedSecret;
use turnfleet_turn::Instant;

use super::{SecretScope, SecretState};
use crate::fleet::{Fleet, FleetView, NodeView};

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

/// What credentials are minted with.
#[derive(Clone, Debug)]
pub(in crate::fleet) struct Minting {
    fleet: SharedSecret,
    /// By region, where one has a secret of its own.
    regions: BTreeMap<Box<str>, SharedSecret>,
}

impl Fleet {
    /// The secret that credentials for any relay are minted with; `None` before the first start is through.
    #[must_use]
    pub fn minting_secret(&self) -> Option<&SharedSecret> {
        let minting = self.secrets.minting(&SecretScope::Fleet);
        minting.map(|generation| &generation.secret)
    }

    pub(in crate::fleet) fn minting(&self) -> Minting {
        let secret = |scope: &SecretScope| self.secrets.minting(scope).map(|it| it.secret.clone());
        let region = |scope: &SecretScope| match scope {
            SecretScope::Region(name) => Some((name.clone(), secret(scope)?)),
            SecretScope::Fleet | SecretScope::Tenant(_) => None,
        };
        Minting {
            fleet: secret(&SecretScope::Fleet).unwrap_or_else(|| SharedSecret::new(Vec::new())),
            regions: self
                .secrets
                .regions()
                .into_iter()
                .filter_map(region)
                .collect(),
        }
    }

    /// Every generation, in the order of ids.
    pub(in crate::fleet) fn secret_views(&self, now: Instant) -> Vec<SecretView> {
        let secrets = &self.secrets;
        let shown = secrets.by_id.values().map(|generation| {
            let since = generation.since_generation;
            let acknowledged = self.acknowledgement(now, &generation.scope, since, now);
            SecretView {
                id: generation.id,
                scope: generation.scope.clone(),
                state: generation.state,
                minted: secrets
                    .minting(&generation.scope)
                    .is_some_and(|it| it.id == generation.id),
                created_at: generation.created_at,
                last_used: secrets.last_used.get(&generation.id).copied(),
                acknowledged: acknowledged.by,
                of: acknowledged.of,
            }
        });
        shown.collect()
    }
}

impl FleetView {
    /// The secret that credentials for any relay are minted with.
    #[must_use]
    pub fn minting_secret(&self) -> &SharedSecret {
        &self.minting.fleet
    }

    /// The secret that credentials for exactly these relays are minted with: that of their region where all are of one that
    /// has its own, and else the fleet's, which every relay accepts.
    pub fn minting_secret_for<'n>(
        &self,
        nodes: impl IntoIterator<Item = &'n NodeView>,
    ) -> &SharedSecret {
        let mut regions = nodes.into_iter().map(|node| node.identity.region.as_str());
        let own = regions
            .next()
            .filter(|region| regions.all(|other| other == *region))
            .and_then(|region| self.minting.regions.get(region));
        own.unwrap_or(&self.minting.fleet)
    }
}
