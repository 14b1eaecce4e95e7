//! What has to be written to the store for a wish to come true.
//!
//! A plan compares the revision of everything that it rests on, so of two controllers, or two racing requests, one wins and
//! the other plans again. Whatever relays see raises the generation in the same transaction.

use std::collections::BTreeSet;

use turnfleet_proto::NodeId;
use turnfleet_turn::Now;

use super::Fleet;
use super::admission::{Admission, Certified};
use super::audit::AuditEntry;
use super::node::Registration;
use super::record::{Desired, Membership, NodeRecord, Record, RecordKey, TokenHash, token_hash};
use super::registry::NodeState;
use super::secrets::Place;
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
    /// Who asked for it, written with it.
    pub audit: Option<AuditEntry>,
    /// Whether it may be written only by the controller that leads.
    pub as_leader: bool,
}

impl Plan {
    /// The generation that the plan begins, where relays see what is written.
    #[must_use]
    pub fn generation(&self) -> Option<u64> {
        self.puts.iter().find_map(|put| {
            if let Record::Generation(generation) = put {
                Some(*generation)
            } else {
                None
            }
        })
    }

    /// Whether relays see what is written.
    #[must_use]
    pub fn raises_generation(&self) -> bool {
        self.generation().is_some()
    }

    /// Whether the store becomes another epoch.
    #[must_use]
    pub fn begins_epoch(&self) -> bool {
        self.puts.iter().any(|put| matches!(put, Record::Epoch(_)))
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty()
    }

    /// As much of it as one transaction of so many operations takes; the rest has to be planned again.
    #[must_use]
    pub fn part(mut self, operations: usize) -> Self {
        if self.puts.len() + self.deletes.len() <= operations {
            return self;
        }
        let is_generation = |record: &Record| record.key() == RecordKey::Generation;
        let (generation, mut puts): (Vec<_>, Vec<_>) =
            self.puts.into_iter().partition(is_generation);
        let room = operations.saturating_sub(generation.len());
        puts.truncate(room);
        self.deletes.truncate(room - puts.len());
        puts.extend(generation);
        self.puts = puts;
        let mut written: BTreeSet<_> = self.puts.iter().map(Record::key).collect();
        written.extend(self.deletes.iter().cloned());
        self.compares.retain(|(key, _)| written.contains(key));
        self
    }
}

impl Fleet {
    /// Makes `node` known by the credential whose hash is given.
    ///
    /// # Errors
    /// When what it shows does not admit it, or the fleet is full. A join token does not admit a node whose session is live, nor
    /// one that is a member by a certificate.
    pub fn plan_enrolment(
        &self,
        shown: &Admission,
        node: &NodeId,
        credential: TokenHash,
        unix: u64,
    ) -> Result<Plan, FleetError> {
        let known = self.nodes.get(node);
        let membership = match shown {
            Admission::JoinToken(text) => {
                let token = self.join_token(text, unix)?;
                if known.is_some_and(|node| node.liveness.is_connected()) {
                    return Err(FleetError::Live(node.clone()));
                }
                if self.is_certified(node) {
                    return Err(FleetError::CertificateNeeded(node.clone()));
                }
                Membership {
                    region: token.region.clone(),
                    tenant: token.tenant.clone(),
                    since: unix,
                    ..Membership::default()
                }
            }
            Admission::Certificate(certified) => {
                certified.require(node)?;
                Membership {
                    since: unix,
                    ..Membership::default()
                }
                .certified(certified)
            }
        };
        if known.is_none() && self.nodes.len() >= MAX_NODES {
            return Err(FleetError::TooManyNodes { limit: MAX_NODES });
        }
        let identity = known.and_then(|node| node.identity().cloned());
        let record = NodeRecord {
            id: node.clone(),
            credential,
            identity,
            membership,
        };
        let rebound = self.is_rebound(known, &record);
        Ok(self.plan_seen(vec![Record::Node(record)], Vec::new(), rebound))
    }

    /// Whether `record` binds the node to another tenant, so that it is sent other secrets, or told of another one.
    pub(super) fn is_rebound(&self, known: Option<&NodeState>, record: &NodeRecord) -> bool {
        let tenant = record.membership.tenant.as_deref();
        known.is_some_and(|node| {
            let before = node.place();
            let number = |name: Option<&str>| name.and_then(|it| self.tenants.id(it));
            self.secrets.differ(before, Place { tenant, ..before })
                || number(before.tenant) != number(tenant)
        })
    }

    /// The node that `credential` belongs to, which the Hello must name, and so must the certificate of the connection.
    ///
    /// # Errors
    /// When one of them is nobody's or another node's, or a certificate is missing.
    pub fn authenticate(
        &self,
        credential: &str,
        certified: Option<&Certified>,
        claimed: &NodeId,
    ) -> Result<(), FleetError> {
        match certified {
            Some(certified) => certified.require(claimed)?,
            None if self.is_certified(claimed) => {
                return Err(FleetError::CertificateNeeded(claimed.clone()));
            }
            None => {}
        }
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
        let (mut puts, deletes) = self.records(changes);
        // What it runs is of another region, whatever its generation.
        let moved = record.identity.as_ref().is_some_and(|known| {
            let place = |region| Place {
                region,
                tenant: node.tenant(),
            };
            self.secrets
                .differ(place(&known.region), place(&registration.identity.region))
        });
        let moved = is_complete && moved;
        if is_complete && record.identity.as_ref() != Some(&registration.identity) {
            let identity = Some(registration.identity.clone());
            puts.push(Record::Node(NodeRecord {
                identity,
                ..record.clone()
            }));
        }
        Ok(self.plan_seen(puts, deletes, moved))
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

    /// Ends the run of the node's process that is known.
    ///
    /// # Errors
    /// When there is no such node, or no session of it is open.
    pub fn plan_kill(&self, node: &NodeId) -> Result<Plan, FleetError> {
        let known = self
            .nodes
            .get(node)
            .ok_or_else(|| FleetError::UnknownNode(node.clone()))?;
        let running = known.incarnation.filter(|_| known.liveness.is_connected());
        let kill = running.ok_or_else(|| FleetError::NoSession(node.clone()))?;
        let desired = Desired {
            kill: Some(kill),
            ..known.desired
        };
        self.plan_desired(node, desired)
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

    /// Ends what is over, replaces what is old, and takes into use what every relay knows of: the leader's work. Keys and secrets are made of `random`,
    /// which nobody may learn.
    #[must_use]
    pub fn plan_upkeep(&self, now: Now, random: [u8; 32]) -> Plan {
        let secrets = self.secret_upkeep(now, random);
        let nonce_keys = self.nonce_key_upkeep(now, self.generation + 1, random);
        let (mut puts, mut deletes) = self.ended_quarantines(now.unix);
        deletes.extend(self.ended_bans(now.unix));
        puts.extend(secrets.puts);
        deletes.extend(secrets.deletes);
        puts.extend(nonce_keys.puts);
        let written: Vec<_> = puts.iter().map(Record::key).collect();
        let amends = self.amends().filter(|put| !written.contains(&put.key()));
        puts.extend(amends);
        deletes.extend(nonce_keys.deletes);
        Plan {
            as_leader: true,
            ..self.plan(puts, deletes)
        }
    }

    /// Whether [`Self::plan_upkeep`] has something to write. Cheap enough to be asked with every tick.
    #[must_use]
    pub fn is_upkeep_due(&self, now: Now) -> bool {
        let nothing = [0; 32];
        let (_, ended) = self.ended_quarantines(now.unix);
        !ended.is_empty()
            || self.ended_bans(now.unix).next().is_some()
            || self.amends().next().is_some()
            || !self.secret_upkeep(now, nothing).is_empty()
            || !self
                .nonce_key_upkeep(now, self.generation + 1, nothing)
                .is_empty()
    }

    /// Adds the compares, and the next generation where relays see the change.
    pub(super) fn plan(&self, puts: Vec<Record>, deletes: Vec<RecordKey>) -> Plan {
        self.plan_seen(puts, deletes, false)
    }

    /// As [`Self::plan`]; relays see the change, too, where `seen` says so.
    pub(super) fn plan_seen(&self, puts: Vec<Record>, deletes: Vec<RecordKey>, seen: bool) -> Plan {
        let mut keys: Vec<_> = puts
            .iter()
            .map(Record::key)
            .chain(deletes.iter().cloned())
            .collect();
        let seen = seen || keys.iter().any(relays_see);
        // A grant that is released and granted anew at the same port is written, and not deleted.
        let mut plan = Plan {
            compares: Vec::new(),
            puts,
            deletes,
            audit: None,
            as_leader: false,
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
        RecordKey::Epoch
        | RecordKey::Policy
        | RecordKey::Rollout
        | RecordKey::Grant(..)
        | RecordKey::Secret(..)
        | RecordKey::NonceKey(_)
        | RecordKey::User(_)
        | RecordKey::Tenant(_)
        | RecordKey::Ban(_) => true,
        RecordKey::Leader
        | RecordKey::Controller(_)
        | RecordKey::Generation
        | RecordKey::Node(_)
        | RecordKey::Desired(_)
        | RecordKey::ApiToken(_)
        | RecordKey::JoinToken(_)
        | RecordKey::Setting(_)
        | RecordKey::LastTenant => false,
    }
}
