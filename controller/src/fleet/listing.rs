//! Who is in lists, and who is kept in them although this controller hears nothing of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use turnfleet_proto::NodeId;
use turnfleet_turn::{Instant, Now};

use super::Fleet;
use super::health::{Health, ProbeFailure, ProbeOutcome};
use super::liveness::Word;
use super::node::Transport;
use super::panic::Footing;
use super::placement::Candidates;
use super::registry::NodeState;
use super::secrets::Minted;
use super::view::{ControllerView, FleetView};
use crate::config::ProbeMode;

/// How long a node may run an older generation before lists leave it out.
pub(super) const LAG: Duration = Duration::from_secs(5);

/// Whose users have a relay of some kind.
#[derive(Debug, Default)]
struct Served<'f> {
    /// There is one that is nobody's own.
    everybody: bool,
    /// The tenants with one of their own.
    tenants: BTreeSet<&'f str>,
}

impl Served<'_> {
    /// Whether all have one that `node` is for.
    fn has(&self, node: &NodeState) -> bool {
        let own = |tenant| self.tenants.contains(tenant);
        self.everybody || node.tenant().is_some_and(own)
    }
}

impl Fleet {
    /// What is known, for everyone who only reads. Nodes that serve but fall short of what lists want (they run an older
    /// generation, are nearly full, fail again and again, or have a wrong clock) are listed where no other is left for the
    /// same users, those that credentials are good at before all others: a list is never empty while a node serves.
    #[must_use]
    pub fn view(&self, now: Now) -> FleetView {
        let minted = self.minted(now);
        let latest = self.secrets.latest();
        let wanted = |node: &NodeState| self.is_wanted(node, &minted, now.instant);
        let strict = self.served(wanted);
        let spared = self.served(|node| node.has_long_certificate(now.unix));
        let knowing = |node: &NodeState| node.serves() && minted.suits(node);
        let known = self.served(knowing);
        let nodes = self.nodes.iter().map(|(id, node)| {
            let up_to_date = self.is_up_to_date(node, &minted);
            let wanted = match (strict.has(node), known.has(node)) {
                (true, _) => wanted(node),
                (false, true) => knowing(node),
                (false, false) => node.serves() && node.is_met(),
            };
            let mut view = node.view(id, now.instant);
            view.up_to_date = up_to_date;
            view.secret_unproven = !latest.suits(node);
            view.suspect &= minted.suits(node);
            view.listed = wanted || view.suspect;
            view.certificate = node.certificate_state(now.unix, spared.has(node));
            Arc::new(view)
        });
        let nodes: Vec<_> = nodes.collect();
        let realm = self.base_policy().map_or("", |policy| &policy.realm);
        let lists = &self.settings.lists;
        FleetView {
            quarantined: self
                .grants
                .values()
                .filter(|grant| grant.quarantined_until.is_some())
                .cloned()
                .collect(),
            generation: self.generation,
            restored: self.restored.clone(),
            refused: self.refused(),
            rollout: self.rollout.clone().map(Arc::new),
            realm: realm.into(),
            region: self.settings.region.as_str().into(),
            names: lists.names,
            minting: self.minting(&minted),
            probe_key: self.nonce_keys.probe_key(),
            secrets: self.secret_views(now.instant, &minted).into(),
            api_tokens: Arc::clone(&self.api_tokens),
            join_tokens: Arc::clone(&self.join_tokens),
            tenants: Arc::clone(&self.tenants),
            bans: Arc::clone(&self.bans),
            issuance: Arc::clone(&self.issuance),
            quotas: Arc::default(),
            candidates: Candidates::new(&nodes, &lists.regions, &self.settings.region),
            panics: self.panics.regions().map(str::to_owned).collect(),
            trends: Arc::clone(&self.trends),
            course: Arc::clone(&self.course),
            controllers: self.controllers().map(ControllerView::from).collect(),
            nodes,
            store_stale: false,
            leads: false,
            leader: self.leader.clone(),
        }
    }

    /// Whose users have a relay that does what is asked.
    fn served(&self, does: impl Fn(&NodeState) -> bool) -> Served<'_> {
        let mut served = Served::default();
        for node in self.nodes.values().filter(|node| does(node)) {
            match node.tenant() {
                None => served.everybody = true,
                Some(tenant) => _ = served.tenants.insert(tenant),
            }
        }
        served
    }

    pub(super) fn is_wanted(&self, node: &NodeState, minted: &Minted<'_>, now: Instant) -> bool {
        node.serves()
            && !node.is_full()
            && !node.is_damped(now)
            && !node.has_wrong_clock()
            && self.is_up_to_date(node, minted)
    }

    /// A node that is not connected runs what it had; that it accepts what credentials are minted with is enough. One whose
    /// session has just opened has the same time as all have after a change: it is about to be told what changed while it had
    /// none. Only its own word shows that it is late: one that is not heard falls silent, which says nothing of what it runs.
    pub(super) fn is_up_to_date(&self, node: &NodeState, minted: &Minted<'_>) -> bool {
        let behind = node.applied_generation < self.generation;
        let asked = self.generation_since.max(node.told_since);
        let refused = node.refusal.is_some();
        let is_late = |heard: Instant| {
            behind && (heard.since(asked) >= LAG || refused || node.applied_generation == 0)
        };
        minted.suits(node) && !node.liveness.heard().is_some_and(is_late)
    }

    /// Folds what a probe found.
    pub(super) fn probed(&mut self, now: Now, id: &NodeId, mut outcome: ProbeOutcome) {
        let reach = self.reach.entry(outcome.vantage).or_default();
        for transport in &outcome.reached {
            reach.add(*transport);
        }
        let reach = *reach;
        let believes = self.settings.probe == ProbeMode::On;
        let can_tell = |transport: &Transport| believes || reach.has(*transport);
        outcome.broken.retain(can_tell);
        let word = match outcome.result {
            Ok(_) => Word::Good,
            Err(ProbeFailure::NoAnswer | ProbeFailure::Connection)
                if !outcome.missed.is_empty() && !outcome.missed.iter().any(can_tell) =>
            {
                Word::Blind
            }
            Err(failure) => Word::Bad {
                silent: failure == ProbeFailure::NoAnswer,
            },
        };
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        let before = node.liveness.health();
        node.probed(now.instant, outcome, word);
        if node.liveness.health() != before {
            self.look_for_panic(now.instant);
        }
    }

    /// Looks whether so many nodes of a region fell silent that it is the observer who is suspect.
    pub(super) fn look_for_panic(&mut self, now: Instant) {
        let footing = |node: &NodeState| match node.liveness.health() {
            Health::Healthy | Health::Unmanaged => Some(Footing::Serves),
            Health::Starting | Health::Unhealthy | Health::Gone => {
                node.liveness.suspected_since(now).map(Footing::Suspected)
            }
        };
        let members = self.nodes.values().filter(|node| !node.drains());
        self.panics.look(
            now,
            members.filter_map(|node| Some((node.region(), footing(node)?))),
        );
        for node in self.nodes.values_mut() {
            let since = node.liveness.suspected_since(now);
            node.suspect = since.is_some_and(|since| self.panics.is_suspect(node.region(), since));
        }
    }
}
