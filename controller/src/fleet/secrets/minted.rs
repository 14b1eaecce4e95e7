//! What credentials are minted with at one moment, and which relays are known to accept it.
//!
//! A relay accepts a secret if it runs the generation that brought it, or a later one. A controller learns that from the
//! relay's word, here or at another controller, or from a probe whose credential the relay took. It mints with the active
//! secret as soon as a relay that serves is known to accept it, and lists name those relays alone. Until then it mints with
//! one before that a relay is known to accept for as long as any credential lasts: a controller that hears of a rotation
//! before it hears of the relays that have followed it gives nobody what they may refuse.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use turnfleet_proto::credentials::SharedSecret;
use turnfleet_turn::Now;

use super::life::LONGEST_CREDENTIAL;
use super::{Place, SecretGeneration, SecretScope, SecretState, Secrets};
use crate::fleet::registry::NodeState;
use crate::fleet::{Fleet, FleetView, NodeView};

/// What credentials are minted with, a generation for each scope that has one of its own.
#[derive(Debug)]
pub(in crate::fleet) struct Minted<'f>(Vec<&'f SecretGeneration>);

/// What a view mints with.
#[derive(Clone, Debug)]
pub(in crate::fleet) struct Minting {
    fleet: SharedSecret,
    /// By region, where one has a secret of its own.
    regions: BTreeMap<Box<str>, SharedSecret>,
    /// By tenant, where its relays have one.
    tenants: BTreeMap<Box<str>, SharedSecret>,
    /// The same of tenants whose secrets every relay has.
    carried: BTreeMap<Box<str>, SharedSecret>,
    /// The active secrets, with the generations that brought them to the relays.
    latest: Vec<(SecretScope, SharedSecret, u64)>,
}

impl Minted<'_> {
    /// The generation that a relay has to run for every credential that is minted for it to be good there.
    pub(super) fn required(&self, place: Place<'_>) -> u64 {
        let here = self.0.iter().filter(|it| it.scope.covers(place));
        here.map(|it| it.since_generation).max().unwrap_or(0)
    }

    /// Whether every credential that is minted for it is known to be good at `node`.
    pub(in crate::fleet) fn suits(&self, node: &NodeState) -> bool {
        node.known_generation() >= self.required(node.place())
    }

    /// Whether credentials are minted with generation `id`.
    pub(super) fn has(&self, id: u32) -> bool {
        self.0.iter().any(|it| it.id == id)
    }

    fn secret(&self, scope: &SecretScope) -> Option<SharedSecret> {
        let found = self.0.iter().find(|it| it.scope == *scope);
        found.map(|it| it.secret.clone())
    }
}

impl Secrets {
    /// The active generations, whoever is known to accept them.
    pub(in crate::fleet) fn latest(&self) -> Minted<'_> {
        let scopes = std::iter::once(&SecretScope::Fleet).chain(self.parts());
        Minted(scopes.filter_map(|it| self.minting(it)).collect())
    }

    /// What else may be minted with, the best first: other pinned ones where none is active, and those that were active before
    /// while what is made with them lasts as long as anything.
    fn stand_ins(&self, scope: &SecretScope, unix: u64) -> Vec<&SecretGeneration> {
        let until = |it: &SecretGeneration| match it.state {
            SecretState::Retiring { accept_until } => Some(accept_until),
            SecretState::Staged
            | SecretState::Active
            | SecretState::Pinned
            | SecretState::Revoked { .. } => None,
        };
        let longest = unix.saturating_add(LONGEST_CREDENTIAL);
        let lasts = |it: &&SecretGeneration| until(it).is_some_and(|until| until >= longest);
        let mut former: Vec<_> = self.of(scope).filter(lasts).collect();
        former.sort_by_key(|it| Reverse((until(it), it.id)));
        let only_pinned =
            *scope == SecretScope::Fleet && self.in_state(scope, SecretState::Active).is_none();
        let pinned = self
            .of(scope)
            .rev()
            .filter(|it| only_pinned && it.state == SecretState::Pinned);
        pinned.chain(former).collect()
    }
}

impl Fleet {
    /// What credentials are minted with.
    pub(in crate::fleet) fn minted(&self, now: Now) -> Minted<'_> {
        let scopes = std::iter::once(&SecretScope::Fleet).chain(self.secrets.parts());
        Minted(scopes.filter_map(|it| self.minted_for(now, it)).collect())
    }

    fn minted_for(&self, now: Now, scope: &SecretScope) -> Option<&SecretGeneration> {
        let latest = self.secrets.minting(scope)?;
        let stand_ins = self.secrets.stand_ins(scope, now.unix);
        if self.secrets.is_carried(scope) {
            // Its users go to every relay, and each accepts the fleet's secret where one does not know theirs yet.
            let serving = self.nodes.values().filter(|node| node.serves());
            let known = serving.map(NodeState::known_generation).min()?;
            let mut best_first = std::iter::once(latest).chain(stand_ins);
            return best_first.find(|it| known >= self.secrets.since(it));
        }
        let serving = self.nodes_of(scope).filter(|node| node.serves());
        let Some(known) = serving.map(NodeState::known_generation).max() else {
            return Some(latest);
        };
        let is_known = |it: &&SecretGeneration| known >= it.since_generation;
        // Of relays that nothing is known of, most accept what has been there for longest.
        let oldest = stand_ins.last().copied().unwrap_or(latest);
        let mut best_first = std::iter::once(latest).chain(stand_ins);
        best_first.find(is_known).or(Some(oldest))
    }

    /// What a view mints with.
    pub(in crate::fleet) fn minting(&self, minted: &Minted<'_>) -> Minting {
        let (mut regions, mut tenants) = (BTreeMap::new(), BTreeMap::new());
        let mut carried = BTreeMap::new();
        for generation in &minted.0 {
            let part = match &generation.scope {
                SecretScope::Fleet => continue,
                SecretScope::Region(name) => regions.entry(name.clone()),
                SecretScope::Tenant(name) if self.secrets.is_carried(&generation.scope) => {
                    carried.entry(name.clone())
                }
                SecretScope::Tenant(name) => tenants.entry(name.clone()),
            };
            part.or_insert_with(|| generation.secret.clone());
        }
        let latest = self.secrets.latest().0.into_iter();
        Minting {
            fleet: minted
                .secret(&SecretScope::Fleet)
                .unwrap_or_else(|| SharedSecret::new(Vec::new())),
            regions,
            tenants,
            carried,
            latest: latest
                .map(|it| (it.scope.clone(), it.secret.clone(), it.since_generation))
                .collect(),
        }
    }

    /// Folds a change of the secrets. Relays of which nobody says that they accept what is active then are probed at once.
    pub(in crate::fleet) fn change_secrets(&mut self, change: impl FnOnce(&mut Secrets)) {
        let ids = |fleet: &Self| -> Vec<u32> {
            let latest = fleet.secrets.latest();
            latest.0.iter().map(|it| it.id).collect()
        };
        let before = ids(self);
        change(&mut self.secrets);
        if ids(self) == before {
            return;
        }
        let latest = self.secrets.latest();
        let unknown = self.nodes.iter().filter(|(_, node)| !latest.suits(node));
        let unknown: Vec<_> = unknown.map(|(id, _)| id.clone()).collect();
        for id in unknown {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.liveness.ask_probe();
            }
        }
    }
}

impl FleetView {
    /// The secret that credentials for any relay are minted with.
    #[must_use]
    pub fn minting_secret(&self) -> &SharedSecret {
        &self.minting.fleet
    }

    /// The secret that credentials of the users of `tenant` for exactly these relays are minted with: the tenant's own, where
    /// every relay has it; that of the relays' tenant or of their region where all are of one that has its own; and else the
    /// fleet's, which every relay accepts.
    pub fn minting_secret_for<'n>(
        &self,
        tenant: &str,
        nodes: impl IntoIterator<Item = &'n NodeView>,
    ) -> &SharedSecret {
        if let Some(own) = self.minting.carried.get(tenant) {
            return own;
        }
        let mut places = nodes.into_iter().map(NodeView::place);
        let Some(Place { region, mut tenant }) = places.next() else {
            return &self.minting.fleet;
        };
        let mut region = Some(region);
        for place in places {
            region = region.filter(|it| *it == place.region);
            tenant = tenant.filter(|it| place.tenant == Some(it));
        }
        let of_tenant = tenant.and_then(|it| self.minting.tenants.get(it));
        let own = of_tenant.or_else(|| self.minting.regions.get(region?));
        own.unwrap_or(&self.minting.fleet)
    }

    /// What a probe of `node` is made with: the latest active secret that it has to accept, and the fleet generation that the
    /// node then runs at least.
    #[must_use]
    pub fn trial_secret(&self, node: &NodeView) -> (&SharedSecret, u64) {
        let covers = |scope: &SecretScope| scope.covers(node.place());
        let latest = self.minting.latest.iter();
        let latest = latest.filter(|(scope, ..)| covers(scope));
        match latest.max_by_key(|(.., generation)| *generation) {
            Some((_, secret, generation)) => (secret, *generation),
            None => (&self.minting.fleet, 0),
        }
    }
}
