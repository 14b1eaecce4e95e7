//! The fleet as a value: what the store holds, what relays and probes say, folded into who lives, who owns which ports, and
//! who is in lists.
//!
//! It has no clock, no I/O and no randomness: time and random bytes come in with the calls. [`Fleet::apply`] and
//! [`Fleet::tick`] fold what happened; `plan_*` say what has to be written to the store for a wish to come true, and change
//! nothing themselves: what was written comes back as [`Event::Stored`]. [`Fleet::view`] and [`Fleet::snapshot`] are what the
//! rest of the controller and the relays see.

mod admission;
mod alternates;
pub mod audit;
pub mod bans;
mod capacity;
mod certificate;
mod course;
mod damping;
mod explain;
mod health;
pub mod issuance;
mod list;
mod listing;
mod liveness;
mod membership;
pub(crate) mod node;
mod node_policy;
mod nonce_keys;
mod panic;
mod placement;
mod plan;
mod port_grants;
mod ports;
pub mod quota;
mod rates;
mod reason;
pub mod record;
mod refused;
mod registry;
mod restored;
mod rollout;
mod saturation;
mod secrets;
mod sightings;
mod skew;
mod snapshot;
mod start;
pub mod tenants;
pub mod tokens;
mod trend;
mod uris;
mod vantage;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use turnfleet_proto::NodeId;
use turnfleet_turn::{Instant, Now};

use crate::config::{PortPlan, ProbeMode};
use listing::LAG;
use record::{
    ApiToken, ControllerRecord, Desired, Epoch, JoinToken, Lineage, NodeRecord, Policy, Record,
    RecordKey, Rollout, Setting, StaticUser, TokenHash,
};
use registry::NodeState;

pub use admission::{Admission, Certified, NoRelayName};
pub use alternates::AlternatePool;
pub use capacity::{FleetCapacity, Gauge, Totals, rated};
pub use certificate::{CertificateState, Validity};
pub use course::{Pace, Use};
pub use explain::{Explanation, Gate};
pub use health::{Ended, Health, ProbeFailure, ProbeOutcome};
pub use list::{Ask, MAX_URIS, UriList};
pub use node::{
    Capacity, Counters, Identity, Incarnation, Listener, Load, Registration, RegistrationError,
    Running, Transport, Vitals,
};
pub use node_policy::{NodePolicies, NodePolicy};
pub use plan::Plan;
pub use port_grants::{PortReport, PortUse};
pub use ports::RegionPorts;
pub use rates::Rates;
pub use reason::Reason;
pub use restored::Restored;
pub use saturation::Saturation;
pub(crate) use secrets::secret_text;
pub use secrets::{Pin, Revocation, SecretError, SecretView, WEAK_SECRET_BYTES};
pub use sightings::{ControllerId, Sighting};
pub use skew::{CLOCK_LIMIT, CLOCK_WARNING};
pub use start::{Fresh, Wishes};
pub use trend::Peaks;
pub use uris::{Names, UriKind};
pub use vantage::Vantage;
pub use view::{ControllerView, FleetView, NodeView, Probing};

/// What the fleet does not learn from its store.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The region of this controller.
    pub region: String,
    /// How the ports of a public address are shared out.
    pub ports: PortPlan,
    /// What a probe decides.
    pub probe: ProbeMode,
    /// How lists are made.
    pub lists: ListSettings,
    /// How old an active secret grows before another one follows it; `None` where operators see to that.
    pub rotate_secrets_every: Option<Duration>,
}

/// How lists are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListSettings {
    /// Which URIs carry names where the caller does not say.
    pub names: Names,
    /// The order in which regions stand in for each other; those that are not here come behind, by name.
    pub regions: Vec<String>,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The store holds `record` at `key`, or nothing any more, since `revision`.
    Stored {
        /// Where.
        key: RecordKey,
        /// What.
        record: Option<Box<Record>>,
        /// Since when.
        revision: u64,
    },
    /// The store holds, since `revision`, what cannot be the value of `key`: damaged, sealed for another place, or put back.
    Refused {
        /// Where.
        key: RecordKey,
        /// Since when.
        revision: u64,
    },
    /// A control session opened. Its number is higher than that of every one before.
    SessionOpened {
        /// Which session.
        number: u64,
        /// Whose.
        registration: Box<Registration>,
    },
    /// The node reported.
    Heartbeat {
        /// Which node, by which session.
        session: (NodeId, u64),
        /// The generation that it runs.
        applied_generation: u64,
        /// What it does, where it says so.
        load: Option<Load>,
        /// Whether it drains, by its own word.
        draining: bool,
        /// What else it says of itself.
        vitals: Vitals,
    },
    /// The node reported on its ports.
    PortsReported {
        /// Which node, by which session.
        session: (NodeId, u64),
        /// What it says.
        report: PortReport,
    },
    /// The node spoke of a snapshot: it runs `running`, and refused the one of `generation` if `refusal` says why.
    PolicyStatus {
        /// Which node, by which session.
        session: (NodeId, u64),
        /// The generation that it speaks of.
        generation: u64,
        /// The generation that it runs.
        running: u64,
        /// Why it refused a snapshot.
        refusal: Option<Box<str>>,
    },
    /// A node has seen credentials of these generations of the shared secret, at these Unix seconds.
    SecretsUsed {
        /// Which, and when last.
        uses: Vec<(u32, u64)>,
    },
    /// A control session ended.
    SessionEnded {
        /// Which node, by which session.
        session: (NodeId, u64),
        /// How.
        ended: Ended,
    },
    /// Another controller told what it sees.
    Sighted {
        /// Which one.
        controller: ControllerId,
        /// All that it sees.
        sightings: Vec<Sighting>,
    },
    /// A probe of `node` ended.
    Probed {
        /// The node.
        node: NodeId,
        /// What it found.
        outcome: ProbeOutcome,
    },
}

/// The fleet.
#[derive(Clone, Debug)]
pub struct Fleet {
    settings: Settings,
    /// The revision that wrote each record.
    revisions: BTreeMap<RecordKey, u64>,
    /// Which store it comes from.
    lineage: Lineage,
    leader: Option<NodeId>,
    controllers: BTreeMap<NodeId, ControllerRecord>,
    generation: u64,
    generation_since: Instant,
    restored: Option<Restored>,
    /// Where the store holds what cannot be.
    refused: BTreeSet<RecordKey>,
    policy: Option<Policy>,
    rollout: Option<Rollout>,
    rollout_since: Instant,
    grants: port_grants::Grants,
    secrets: secrets::Secrets,
    nonce_keys: nonce_keys::NonceKeys,
    users: BTreeMap<TokenHash, StaticUser>,
    tenants: Arc<tenants::Tenants>,
    bans: Arc<bans::Bans>,
    api_tokens: Arc<HashMap<TokenHash, ApiToken>>,
    join_tokens: Arc<BTreeMap<TokenHash, JoinToken>>,
    kept: BTreeMap<Setting, String>,
    issuance: Arc<issuance::Issuance>,
    desired: BTreeMap<NodeId, Desired>,
    nodes: BTreeMap<NodeId, NodeState>,
    /// What each place has ever reached, of any node.
    reach: BTreeMap<Vantage, vantage::Reach>,
    panics: panic::Panics,
    trends: Arc<trend::Trends>,
    course: Arc<course::Course>,
    by_credential: HashMap<TokenHash, NodeId>,
}

impl Fleet {
    /// A fleet that nothing is known of.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            revisions: BTreeMap::new(),
            lineage: Lineage::default(),
            leader: None,
            controllers: BTreeMap::new(),
            generation: 0,
            generation_since: Instant::default(),
            restored: None,
            refused: BTreeSet::new(),
            policy: None,
            rollout: None,
            rollout_since: Instant::default(),
            grants: BTreeMap::new(),
            secrets: secrets::Secrets::default(),
            nonce_keys: nonce_keys::NonceKeys::default(),
            users: BTreeMap::new(),
            tenants: Arc::default(),
            bans: Arc::default(),
            api_tokens: Arc::default(),
            join_tokens: Arc::default(),
            kept: BTreeMap::new(),
            issuance: Arc::default(),
            desired: BTreeMap::new(),
            nodes: BTreeMap::new(),
            reach: BTreeMap::new(),
            panics: panic::Panics::default(),
            trends: Arc::default(),
            course: Arc::default(),
            by_credential: HashMap::new(),
        }
    }

    /// Which store the fleet comes from: 16 random bytes, made when the store was begun, or restored on the operator's word as
    /// another one. A snapshot carries it, so that a relay tells a store that went back in time (the same epoch, a lower
    /// generation: nothing may be pushed, and an operator is called) from one that is to be followed (another epoch).
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.lineage.epoch
    }

    /// The controller that leads; `None` for none, or where there is only one.
    #[must_use]
    pub fn leader(&self) -> Option<&NodeId> {
        self.leader.as_ref()
    }

    /// The controllers that live, in the order of names.
    pub fn controllers(&self) -> impl Iterator<Item = &ControllerRecord> {
        self.controllers.values()
    }

    /// The revision that wrote the record at `key`; `None` where there is none.
    #[must_use]
    pub fn revision(&self, key: &RecordKey) -> Option<u64> {
        self.revisions.get(key).copied()
    }

    /// The generation of the policy snapshot.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// A text that the controller keeps.
    #[must_use]
    pub fn kept(&self, setting: Setting) -> Option<&str> {
        self.kept.get(&setting).map(String::as_str)
    }

    /// Whether `session` is the one that its node speaks by.
    #[must_use]
    pub fn is_current(&self, (node, number): &(NodeId, u64)) -> bool {
        self.nodes
            .get(node)
            .is_some_and(|node| node.session == Some(*number))
    }

    /// The key of every record, for a comparison with what the store holds.
    pub fn keys(&self) -> impl Iterator<Item = &RecordKey> {
        self.revisions.keys()
    }

    /// Folds what happened.
    pub fn apply(&mut self, now: Now, event: Event) {
        match event {
            Event::Stored {
                key,
                record: Some(record),
                revision,
            } => {
                self.believe(key, revision);
                self.stored(now, *record);
            }
            Event::Stored {
                key, record: None, ..
            } => {
                self.believe_gone(&key);
                self.deleted(&key);
            }
            Event::Refused { key, revision } => self.refuse(key, revision),
            Event::SessionOpened {
                number,
                registration,
            } => {
                let (came_with, backup) = self.reported(&registration.running);
                if let Some(node) = self.nodes.get_mut(&registration.id) {
                    node.opened(now, number, *registration);
                    node.came_with = came_with;
                    node.is_of_epoch = came_with == node.applied_generation;
                    node.knows_more_than = backup;
                }
            }
            Event::Heartbeat {
                session,
                applied_generation,
                load,
                draining,
                vitals,
            } => {
                if let Some(node) = self.current(&session) {
                    node.heartbeat(now, applied_generation, load, draining);
                    node.take_vitals(vitals);
                }
            }
            Event::PortsReported { session, report } => self.ports_reported(&session, report),
            Event::PolicyStatus {
                session,
                generation,
                running,
                refusal,
            } => {
                if let Some(node) = self.current(&session) {
                    node.spoke(generation, running, refusal);
                }
            }
            Event::SecretsUsed { uses } => {
                for (id, unix) in uses {
                    self.secrets.used(id, unix.min(now.unix));
                }
            }
            Event::SessionEnded { session, ended } => {
                if let Some(node) = self.current(&session) {
                    node.ended(now, ended);
                }
            }
            Event::Sighted {
                controller,
                sightings,
            } => self.sighted(now, &controller, sightings),
            Event::Probed { node, outcome } => {
                self.probed(now, &node, outcome);
            }
        }
    }

    /// Lets time pass; says whether that changed anybody's health.
    pub fn tick(&mut self, now: Now) -> bool {
        let mut changed = false;
        for node in self.nodes.values_mut() {
            changed |= node.liveness.tick(now.instant);
        }
        if changed || !self.panics.is_empty() {
            self.look_for_panic(now.instant);
        }
        if self.trends.is_due(now.instant) {
            let capacity = self.view(now).capacity();
            Arc::make_mut(&mut self.trends).sample(now.instant, &capacity);
        }
        if self.course.is_due(now.instant) {
            let capacity = self.view(now).capacity();
            Arc::make_mut(&mut self.course).note(now, &capacity);
        }
        changed | self.look_for_restore(now.instant)
    }

    /// Whether the node of that id lives.
    #[must_use]
    pub fn health(&self, node: &NodeId) -> Option<Health> {
        self.nodes.get(node).map(|node| node.liveness.health())
    }

    /// Whether clients may be sent to the node of that id.
    #[must_use]
    pub fn serves(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(NodeState::serves)
    }

    fn current(&mut self, (node, number): &(NodeId, u64)) -> Option<&mut NodeState> {
        self.nodes
            .get_mut(node)
            .filter(|node| node.session == Some(*number))
    }

    fn stored(&mut self, now: Now, record: Record) {
        match record {
            Record::Epoch(lineage) => self.enter(lineage),
            Record::Leader(id) => self.leader = Some(id),
            Record::Controller(record) => {
                self.controllers.insert(record.id.clone(), record);
            }
            Record::Generation(generation) => {
                self.generation = generation;
                self.generation_since = now.instant;
            }
            Record::Policy(policy) => self.policy = Some(policy),
            Record::Rollout(rollout) => {
                self.rollout = Some(rollout);
                self.rollout_since = now.instant;
            }
            Record::Node(record) => self.store_node(record),
            Record::Desired(node, desired) => self.desire(node, Some(desired)),
            Record::Grant(grant) => {
                let owner = grant.node.clone();
                let key = (grant.public_ip, grant.range.first());
                let before = self.grants.insert(key, grant);
                if let Some(before) = before.filter(|before| before.node != owner) {
                    self.share_grants(&before.node);
                }
                self.share_grants(&owner);
            }
            Record::Secret(secret) => {
                self.change_secrets(|secrets| secrets.insert(now.instant, secret));
            }
            Record::NonceKey(key) => self.nonce_keys.insert(now.instant, key),
            Record::User(user) => drop(self.users.insert(user.name_hash(), user)),
            Record::ApiToken(hash, token) => {
                Arc::make_mut(&mut self.api_tokens).insert(hash, token);
            }
            Record::JoinToken(hash, token) => {
                Arc::make_mut(&mut self.join_tokens).insert(hash, token);
            }
            Record::Setting(setting, value) => self.keep(setting, Some(value)),
            Record::LastTenant(last) => Arc::make_mut(&mut self.tenants).given(last),
            Record::Tenant(tenant) => self.store_tenant(tenant),
            Record::Ban(ban) => Arc::make_mut(&mut self.bans).insert(ban),
        }
    }

    fn deleted(&mut self, key: &RecordKey) {
        match key {
            // They are written and never deleted; a store without them starts anew.
            RecordKey::Epoch
            | RecordKey::Generation
            | RecordKey::Policy
            | RecordKey::Rollout
            | RecordKey::LastTenant => {}
            RecordKey::Leader => self.leader = None,
            RecordKey::Controller(id) => drop(self.controllers.remove(id)),
            RecordKey::Node(id) => {
                self.nodes.remove(id);
                self.by_credential.retain(|_, owner| owner != id);
            }
            RecordKey::Desired(node) => self.desire(node.clone(), None),
            RecordKey::Grant(ip, first) => {
                if let Some(grant) = self.grants.remove(&(*ip, *first)) {
                    self.share_grants(&grant.node);
                }
            }
            RecordKey::Secret(_, id) => self.change_secrets(|secrets| secrets.remove(*id)),
            RecordKey::NonceKey(id) => self.nonce_keys.remove(*id),
            RecordKey::User(hash) => drop(self.users.remove(hash)),
            RecordKey::ApiToken(hash) => drop(Arc::make_mut(&mut self.api_tokens).remove(hash)),
            RecordKey::JoinToken(hash) => {
                Arc::make_mut(&mut self.join_tokens).remove(hash);
            }
            RecordKey::Setting(setting) => self.keep(*setting, None),
            RecordKey::Tenant(id) => self.forget_tenant(*id),
            RecordKey::Ban(hash) => Arc::make_mut(&mut self.bans).remove(hash),
        }
    }

    fn store_node(&mut self, record: NodeRecord) {
        let id = record.id.clone();
        let known = self.nodes.get(&id).and_then(|node| node.record.as_ref());
        for hash in known.into_iter().flat_map(NodeRecord::credentials) {
            self.by_credential.remove(&hash);
        }
        for hash in record.credentials() {
            self.by_credential.insert(hash, id.clone());
        }
        let probing = self.settings.probe != ProbeMode::Off;
        let node = self
            .nodes
            .entry(id.clone())
            .or_insert_with(|| NodeState::new(probing));
        node.store(record);
        node.desired = self.desired.get(&id).copied().unwrap_or_default();
        self.share_grants(&id);
    }

    fn desire(&mut self, id: NodeId, desired: Option<Desired>) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.desired = desired.unwrap_or_default();
        }
        match desired {
            Some(desired) => drop(self.desired.insert(id, desired)),
            None => drop(self.desired.remove(&id)),
        }
    }

    fn share_grants(&mut self, owner: &NodeId) {
        if let Some(node) = self.nodes.get_mut(owner) {
            let holds = |grant: &&record::PortGrant| {
                grant.node == *owner && grant.quarantined_until.is_none()
            };
            let of_node = self.grants.values().filter(holds);
            node.grants = of_node.cloned().collect();
        }
    }
}
