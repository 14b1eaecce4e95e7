//! What has to be written to the store for a wish to come true.
//!
//! A plan compares the revision of everything that it rests on, so of two controllers, or two racing requests, one wins and
//! the other plans again. Whatever relays see raises the generation in the same transaction.

use turnfleet_proto::NodeId;

use super::node::Registration;
use super::ports::records;
use super::record::{Desired, NodeRecord, Record, RecordKey, TokenHash, token_hash};
use super::{Fleet, secrets};
use crate::error::FleetError;

/// The most nodes of a fleet.
const MAX_NODES: usize = 10_000;

/// A transaction in the fleet's own terms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Records with the revision that must have written them; zero means that there must be none.
    pub compares: Vec<(RecordKey, u64)>,
    /// Records to write.
    pub puts: Vec<Record>,
    /// Records to delete.
    pub deletes: Vec<RecordKey>,
}

impl Plan {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty()
    }
}

impl Fleet {
    /// Makes `node` known by the credential whose hash is given.
    ///
    /// # Errors
    /// When the join token is unknown, a session of the node is live, or the fleet is full.
    pub fn plan_enrolment(
        &self,
        join_token: &str,
        node: &NodeId,
        credential: TokenHash,
    ) -> Result<Plan, FleetError> {
        if !self.join_tokens.contains_key(&token_hash(join_token)) {
            return Err(FleetError::JoinToken);
        }
        let known = self.nodes.get(node);
        if known.is_some_and(|node| node.liveness.is_connected()) {
            return Err(FleetError::Live(node.clone()));
        }
        if known.is_none() && self.nodes.len() >= MAX_NODES {
            return Err(FleetError::TooManyNodes { limit: MAX_NODES });
        }
        let identity = known.and_then(|node| node.identity().cloned());
        let record = NodeRecord {
            id: node.clone(),
            credential,
            identity,
        };
        Ok(self.plan(vec![Record::Node(record)], Vec::new()))
    }

    /// The node that `credential` belongs to, which the Hello must name.
    ///
    /// # Errors
    /// When it is nobody's or another node's.
    pub fn authenticate(&self, credential: &str, claimed: &NodeId) -> Result<(), FleetError> {
        let owner = self
            .by_credential
            .get(&token_hash(credential))
            .ok_or(FleetError::Credential)?;
        if owner == claimed {
            return Ok(());
        }
        Err(FleetError::NotYours {
            owner: owner.clone(),
            claimed: claimed.clone(),
        })
    }

    /// Keeps what a node says of itself, and gives it its ports. A later run of its process takes them over at once. Where
    /// others have to give up ports first, the plan is that they shall; [`Fleet::require_ports`] says so afterwards.
    ///
    /// # Errors
    /// When an address has no ports left.
    pub fn plan_registration(
        &self,
        registration: &Registration,
        unix: u64,
    ) -> Result<Plan, FleetError> {
        let id = &registration.id;
        let unknown = || FleetError::UnknownNode(id.clone());
        let node = self.nodes.get(id).ok_or_else(unknown)?;
        let record = node.record.as_ref().ok_or_else(unknown)?;
        let same_process = node.incarnation == Some(registration.incarnation);
        let may_move = !same_process && registration.allocations == 0;
        let (changes, is_complete) = self.registered_ports(registration, may_move, unix)?;
        let (mut puts, deletes) = records(changes);
        if is_complete && record.identity.as_ref() != Some(&registration.identity) {
            let identity = Some(registration.identity.clone());
            puts.push(Record::Node(NodeRecord {
                identity,
                ..record.clone()
            }));
        }
        Ok(self.plan(puts, deletes))
    }

    /// Keeps what the operator wants of a node.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn plan_desired(&self, node: &NodeId, desired: Desired) -> Result<Plan, FleetError> {
        let known = self
            .nodes
            .get(node)
            .ok_or_else(|| FleetError::UnknownNode(node.clone()))?;
        if known.desired == desired {
            return Ok(Plan::default());
        }
        Ok(if desired == Desired::default() {
            self.plan(Vec::new(), vec![RecordKey::Desired(node.clone())])
        } else {
            self.plan(vec![Record::Desired(node.clone(), desired)], Vec::new())
        })
    }

    /// Forgets a node, with what the operator wanted of it. Its ports are others' after a quarantine. It may enrol again, and
    /// has them back at once.
    ///
    /// # Errors
    /// When there is no such node, or its session is live.
    pub fn plan_forget(&self, node: &NodeId, unix: u64) -> Result<Plan, FleetError> {
        let known = self
            .nodes
            .get(node)
            .ok_or_else(|| FleetError::UnknownNode(node.clone()))?;
        if known.liveness.is_connected() {
            return Err(FleetError::Live(node.clone()));
        }
        let mut deletes = vec![RecordKey::Node(node.clone())];
        if self.desired.contains_key(node) {
            deletes.push(RecordKey::Desired(node.clone()));
        }
        let (puts, released) = self.forgotten_ports(node, unix);
        deletes.extend(released);
        Ok(self.plan(puts, deletes))
    }

    /// Ends what is over and replaces what is old. `random` is called where a nonce key is made.
    #[must_use]
    pub fn plan_upkeep(&self, unix: u64, random: impl FnOnce() -> [u8; 32]) -> Plan {
        let changes = secrets::upkeep(&self.secrets, &self.nonce_keys, unix, random);
        let (mut puts, mut deletes) = self.ended_quarantines(unix);
        puts.extend(changes.puts);
        deletes.extend(changes.deletes);
        self.plan(puts, deletes)
    }

    /// Adds the compares, and the next generation where relays see the change.
    pub(super) fn plan(&self, puts: Vec<Record>, deletes: Vec<RecordKey>) -> Plan {
        let mut keys: Vec<_> = puts
            .iter()
            .map(Record::key)
            .chain(deletes.iter().cloned())
            .collect();
        let seen = keys.iter().any(relays_see);
        // A grant that is released and granted anew at the same port is written, and not deleted.
        let mut plan = Plan {
            compares: Vec::new(),
            puts,
            deletes,
        };
        let written: Vec<_> = plan.puts.iter().map(Record::key).collect();
        plan.deletes.retain(|key| !written.contains(key));
        if seen {
            plan.puts.push(Record::Generation(self.generation + 1));
            keys.push(RecordKey::Generation);
        }
        keys.sort();
        keys.dedup();
        plan.compares = keys
            .into_iter()
            .map(|key| {
                let revision = self.revisions.get(&key).copied().unwrap_or(0);
                (key, revision)
            })
            .collect();
        plan
    }
}

/// Whether a record is part of what relays are sent.
fn relays_see(key: &RecordKey) -> bool {
    match key {
        RecordKey::Policy
        | RecordKey::Grant(..)
        | RecordKey::Secret(_)
        | RecordKey::NonceKey(_)
        | RecordKey::User(_) => true,
        RecordKey::Epoch
        | RecordKey::Generation
        | RecordKey::Node(_)
        | RecordKey::Desired(_)
        | RecordKey::ApiToken(_)
        | RecordKey::JoinToken(_)
        | RecordKey::Setting(_) => false,
    }
}
