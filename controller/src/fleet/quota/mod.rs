//! Quotas over the whole fleet: what tenants and users may have, shared out to the relays that enforce it.
//!
//! Relays say what they hold and what is wanted of them ([`Demand`]); the leader answers with shares; every controller keeps
//! both, and tells the relays that have their sessions with it. At every moment the sum of what relays hold by their own word,
//! or were told, is at most the limit: a share is given to one relay when another has confirmed that it holds less. Nothing of
//! it is in the store: another leader begins with what the relays hold.

mod balance;
mod demand;
mod leading;
mod states;
mod targets;
#[cfg(test)]
mod tests;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use turnfleet_proto::{NodeId, fleet as wire};
use turnfleet_turn::Instant;

pub use demand::Demand;
use demand::Use;
pub use states::QuotaState;

use super::tenants::Quotas as Limits;

/// How long the first word of a relay in another leader's term is waited for before any share grows.
const PATIENCE: Duration = Duration::from_secs(5);
/// From one time that shares of a tenant or user shrink for others to the next.
const CALM: Duration = Duration::from_millis(500);
/// Users with shares of their own, in the fleet.
const MAX_USERS: usize = 1_000;

/// Allocations, and bits a second of both directions.
pub type Amounts = [u64; 3];

/// Whose quota it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// The id of the tenant; zero for the default one.
    pub tenant: u32,
    /// One of its users; `None` for all of them together.
    pub user: Option<Box<str>>,
}

impl Limits {
    fn of_all(&self) -> Amounts {
        [self.allocations, self.bits_per_second, self.bits_per_second]
    }

    fn of_user(&self) -> Amounts {
        let rate = self.user_bits_per_second;
        [self.allocations_per_user, rate, rate]
    }
}

/// What the quotas are computed from.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Tenants with limits.
    pub limits: BTreeMap<u32, Limits>,
    /// Whose bytes of the day are used up.
    pub exhausted: Arc<BTreeSet<Subject>>,
    /// Whom a rule of abuse throttles: relays hold them as if their bytes of the day were used up.
    pub throttled: Arc<BTreeSet<Subject>>,
    /// The relays that are not gone, and whether any controller has their session.
    pub nodes: BTreeMap<NodeId, bool>,
}

/// What every controller knows of shares, and what a leader does about them.
#[derive(Clone, Debug, Default)]
pub struct Quotas {
    nodes: BTreeMap<NodeId, Node>,
    /// Of the shares in force.
    term: u64,
    /// Present while this controller leads.
    leading: Option<Leading>,
    /// Users with shares of their own.
    users: BTreeSet<Subject>,
    /// Something has happened since shares were last computed.
    is_stale: bool,
}

#[derive(Clone, Debug, Default)]
struct Leading {
    since: Instant,
    /// Of the last shares that were told.
    number: u64,
    /// Whether shares may grow.
    is_settled: bool,
    /// When shares of somebody last shrank for others.
    shrunk: BTreeMap<Subject, Instant>,
    wanted_hash: u64,
}

#[derive(Clone, Debug, Default)]
struct Node {
    incarnation: Vec<u8>,
    demand: Demand,
    told: Option<Told>,
    is_connected: bool,
}

/// What a relay was told, and may not have heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Told {
    term: u64,
    number: u64,
    shares: BTreeMap<Subject, Share>,
}

/// What a relay may have of one quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    amounts: [Option<u64>; 3],
    exhausted: bool,
}

impl Node {
    /// What the relay may have at this moment: by its own word, or because it was told.
    fn counted(&self, subject: &Subject) -> Amounts {
        let held = self.demand.uses.get(subject).map_or([0; 3], |it| it.held);
        let told = self.told.as_ref().and_then(|told| told.shares.get(subject));
        let told = told.map_or([None; 3], |share| share.amounts);
        std::array::from_fn(|kind| held[kind].max(told[kind].unwrap_or(0)))
    }

    /// Whether it holds what it was told last.
    fn has_confirmed(&self) -> bool {
        let told = self.told.as_ref();
        told.is_none_or(|told| (told.term, told.number) <= self.demand.holds())
    }

    fn used(&self, subject: &Subject) -> Option<&Use> {
        self.demand.uses.get(subject)
    }
}

impl Quotas {
    /// A relay has spoken, to this controller or to another one.
    pub fn demanded(&mut self, node: &NodeId, incarnation: &[u8], demand: Demand) {
        let known = self.nodes.entry(node.clone()).or_default();
        if known.incarnation != incarnation {
            // What the process before was told, this one is told as its session begins.
            known.incarnation = incarnation.to_vec();
        } else if demand.holds() < known.demand.holds() {
            // It came round by a controller that had the session before.
            return;
        }
        if known.demand != demand {
            known.demand = demand;
            self.is_stale = true;
        }
    }

    /// Another controller, which leads, has shared out what there is; says whether that is later than what is known.
    pub fn followed(&mut self, term: u64, shares: &[wire::NodeShares]) -> bool {
        if term < self.term || self.leading.is_some() || term == 0 {
            return false;
        }
        self.term = term;
        for told in shares {
            let Ok(id) = told.node_id.parse::<NodeId>() else {
                continue;
            };
            if let Some(shares) = &told.shares {
                let node = self.nodes.entry(id).or_default();
                let told = Told::read(shares);
                let earlier = node.told.as_ref();
                // What a former leader told nobody ever heard where its term is a later one.
                let is_later =
                    |it: &Told| it.term > term || (it.term, it.number) < (told.term, told.number);
                if earlier.is_none_or(is_later) {
                    node.told = Some(told);
                }
            }
        }
        true
    }

    /// What a relay may have, for its session; `None` where nobody has said so.
    #[must_use]
    pub fn shares(&self, node: &NodeId) -> Option<wire::Shares> {
        let told = self.nodes.get(node)?.told.as_ref()?;
        Some(told.wire())
    }

    /// What this controller tells the others; `own` are the relays that have their sessions with it.
    pub fn word<'a>(&self, own: impl Iterator<Item = &'a NodeId>) -> wire::QuotaWord {
        let demands = own.filter_map(|id| {
            let node = self.nodes.get(id)?;
            Some(wire::NodeDemand {
                node_id: id.to_string(),
                incarnation: node.incarnation.clone(),
                demand: Some(node.demand.wire()),
            })
        });
        let demands = demands.collect();
        let Some(_) = &self.leading else {
            return wire::QuotaWord {
                demands,
                ..wire::QuotaWord::default()
            };
        };
        let shares = self.nodes.iter().filter_map(|(id, node)| {
            let told = node.told.as_ref()?;
            Some(wire::NodeShares {
                node_id: id.to_string(),
                shares: Some(told.wire()),
            })
        });
        wire::QuotaWord {
            demands,
            term: self.term,
            shares: shares.collect(),
        }
    }
}

impl Told {
    fn read(shares: &wire::Shares) -> Self {
        let read = |share: &wire::Share| {
            let subject = demand::subject(share.tenant, &share.user);
            let amounts = [share.allocations, share.to_peers, share.to_clients];
            let exhausted = share.exhausted;
            (subject, Share { amounts, exhausted })
        };
        Self {
            term: shares.term,
            number: shares.number,
            shares: shares.shares.iter().map(read).collect(),
        }
    }

    fn wire(&self) -> wire::Shares {
        let share = |(subject, share): (&Subject, &Share)| {
            let [allocations, to_peers, to_clients] = share.amounts;
            wire::Share {
                tenant: subject.tenant,
                user: subject.user.as_deref().unwrap_or_default().to_owned(),
                allocations,
                to_peers,
                to_clients,
                exhausted: share.exhausted,
            }
        };
        wire::Shares {
            term: self.term,
            number: self.number,
            shares: self.shares.iter().map(share).collect(),
        }
    }
}
