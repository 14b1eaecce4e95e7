//! The snapshots of all nodes, in sections: the fleet-wide ones are encoded once a generation and shared, and a node that
//! runs an earlier generation is sent the sections that differ.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use turnfleet_proto::{NodeId, fleet as wire};
use wire::section::Number;

use super::Fleet;
use super::node::Running;
use super::record::Epoch;
use super::snapshot::Variant;

/// Earlier fleet-wide parts that are remembered, so that a relay which comes back is sent what changed meanwhile.
const HISTORY: usize = 64;

/// The fleet-wide sections of one generation, by ascending number.
struct Shared {
    epoch: Epoch,
    generation: u64,
    sections: Vec<wire::Section>,
    /// Has taken in every section.
    hash: Sha256,
}

/// The policy snapshot of one node. Cheap to clone.
#[derive(Clone)]
pub struct NodePolicy {
    shared: Arc<Shared>,
    own: wire::Section,
    sha256: [u8; 32],
}

impl NodePolicy {
    fn new(shared: Arc<Shared>, own: wire::Section) -> Self {
        let hash = shared.hash.clone().chain_update(&own.content);
        Self {
            shared,
            own,
            sha256: hash.finalize().into(),
        }
    }

    /// Its generation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.generation
    }

    /// All of it, for a relay of which nothing is known.
    #[must_use]
    pub fn whole(&self) -> wire::Delta {
        self.delta(0, self.sections().cloned().collect())
    }

    /// What a relay that runs `base` needs to run this one.
    #[must_use]
    pub fn since(&self, base: &Self) -> wire::Delta {
        if base.shared.epoch != self.shared.epoch {
            return self.whole();
        }
        let differs = |section: &&wire::Section| !base.sections().any(|known| known == *section);
        let sections = self.sections().filter(differs).cloned().collect();
        self.delta(base.generation(), sections)
    }

    /// As a relay without deltas takes it.
    #[must_use]
    pub fn snapshot(&self) -> wire::Snapshot {
        let mut snapshot = wire::Snapshot {
            epoch: self.shared.epoch.to_vec(),
            generation: self.shared.generation,
            ..wire::Snapshot::default()
        };
        for section in self.sections() {
            snapshot
                .merge(section.content.clone())
                .expect("the sections were encoded here");
        }
        snapshot
    }

    fn delta(&self, base_generation: u64, sections: Vec<wire::Section>) -> wire::Delta {
        wire::Delta {
            epoch: self.shared.epoch.to_vec(),
            base_generation,
            generation: self.shared.generation,
            sections,
            sha256: self.sha256.to_vec(),
        }
    }

    fn sections(&self) -> impl Iterator<Item = &wire::Section> {
        self.shared.sections.iter().chain([&self.own])
    }
}

impl fmt::Debug for NodePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodePolicy")
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}

/// The snapshots of the current generation, and what is remembered of those before.
#[derive(Default)]
pub struct NodePolicies {
    current: Vec<(Variant, Arc<Shared>)>,
    /// The latest last.
    history: VecDeque<Arc<Shared>>,
}

impl NodePolicies {
    /// The snapshot of `node`; `None` where there is no such node.
    #[must_use]
    pub fn of(&mut self, fleet: &Fleet, node: &NodeId) -> Option<NodePolicy> {
        let grants = fleet.own_grants(node)?;
        let shared = self.shared(fleet, fleet.variant(node))?;
        let own = wire::Snapshot {
            port_grants: grants,
            ..wire::Snapshot::default()
        };
        Some(NodePolicy::new(shared, section(Number::PortGrants, &own)))
    }

    /// What a node runs by its own word, where that is known: its ports must be those of `current`.
    #[must_use]
    pub fn running(&self, current: &NodePolicy, running: &Running) -> Option<NodePolicy> {
        let sha256 = running.sha256?;
        let now = self.current.iter().map(|(_, shared)| shared);
        now.chain(&self.history)
            .filter(|shared| shared.generation == running.generation)
            .map(|shared| NodePolicy::new(Arc::clone(shared), current.own.clone()))
            .find(|policy| policy.sha256 == sha256)
    }

    fn shared(&mut self, fleet: &Fleet, variant: Variant) -> Option<Arc<Shared>> {
        let now = (fleet.epoch(), fleet.generation());
        let past = |(_, it): &(Variant, Arc<Shared>)| (it.epoch, it.generation) != now;
        if self.current.first().is_some_and(past) {
            let past = self.current.drain(..).map(|(_, shared)| shared);
            self.history.extend(past);
            let surplus = self.history.len().saturating_sub(HISTORY);
            self.history.drain(..surplus);
        }
        if let Some((_, shared)) = self.current.iter().find(|(known, _)| *known == variant) {
            return Some(Arc::clone(shared));
        }
        let mut sections = split(fleet.fleet_wide(&variant)?);
        let former = self.current.last().map(|(_, shared)| shared);
        if let Some(former) = former.or_else(|| self.history.back()) {
            // What did not change is kept once.
            for (section, known) in sections.iter_mut().zip(&former.sections) {
                if section == known {
                    section.content = known.content.clone();
                }
            }
        }
        let mut hash = Sha256::new();
        for section in &sections {
            hash.update(&section.content);
        }
        let shared = Arc::new(Shared {
            epoch: now.0,
            generation: now.1,
            sections,
            hash,
        });
        self.current.push((variant, Arc::clone(&shared)));
        Some(shared)
    }
}

impl fmt::Debug for NodePolicies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodePolicies")
            .field("history", &self.history.len())
            .finish_non_exhaustive()
    }
}

/// The fleet-wide sections of `snapshot`, by ascending number.
fn split(snapshot: wire::Snapshot) -> Vec<wire::Section> {
    let wire::Snapshot {
        generation: _,
        epoch: _,
        realm,
        secrets,
        revoked_secrets,
        users,
        nonce_keys,
        port_grants: _,
        peer_policy,
        limits,
        tenant,
        tenants: _,
        bans: _,
        own_tenant,
    } = snapshot;
    let mut rules = peer_policy.unwrap_or_default();
    let fleet = wire::PeerPolicy {
        fleet: std::mem::take(&mut rules.fleet),
        ..wire::PeerPolicy::default()
    };
    let none = wire::Snapshot::default;
    let parts = [
        (Number::Realm, wire::Snapshot { realm, ..none() }),
        (
            Number::Secrets,
            wire::Snapshot {
                secrets,
                revoked_secrets,
                ..none()
            },
        ),
        (Number::Users, wire::Snapshot { users, ..none() }),
        (
            Number::NonceKeys,
            wire::Snapshot {
                nonce_keys,
                ..none()
            },
        ),
        (
            Number::PeerPolicy,
            wire::Snapshot {
                peer_policy: Some(rules),
                ..none()
            },
        ),
        (
            Number::FleetPorts,
            wire::Snapshot {
                peer_policy: Some(fleet),
                ..none()
            },
        ),
        (Number::Limits, wire::Snapshot { limits, ..none() }),
        (
            Number::Tenant,
            wire::Snapshot {
                tenant,
                own_tenant,
                ..none()
            },
        ),
    ];
    parts
        .iter()
        .map(|(number, part)| section(*number, part))
        .collect()
}

fn section(number: Number, part: &wire::Snapshot) -> wire::Section {
    wire::Section {
        number: u32::try_from(i32::from(number)).expect("numbers of sections are positive"),
        content: part.encode_to_vec().into(),
    }
}
