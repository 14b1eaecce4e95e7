//! The aggregate: every node's counters by epoch, where the node is, and whom it watches.
//!
//! Two aggregates that were told the same, in whatever order and how often, are the same. Of a node that is forgotten
//! everything stays but whom it watched: what it carried was carried.

use std::collections::BTreeMap;

use turnfleet_proto::{NodeId, fleet as wire};

use super::counters::{Leg, TenantCounters, Totals};

/// Nodes whose use is known, forgotten ones among them.
const MAX_NODES: usize = 20_000;
/// Epochs of one node that have counters. One that begins anew so often has lost its memory so often.
const MAX_EPOCHS: usize = 1024;
/// Tenants of one epoch.
const MAX_TENANTS: usize = 4096;
/// Names of one kind in a report, and the longest name.
const MAX_NAMES: usize = 256;
const MAX_NAME: usize = 520;

/// The name of an epoch.
pub type Epoch = [u8; 16];

/// Names a change, so that followers are told what they do not know.
pub type Stamp = u64;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Aggregate {
    nodes: BTreeMap<NodeId, NodeUsage>,
    /// Bytes of each tenant, over all nodes.
    carried: BTreeMap<u32, u64>,
    stamp: Stamp,
    refused: u64,
}

/// What is known of one node.
#[derive(Clone, Debug, Default)]
pub struct NodeUsage {
    region: String,
    zone: String,
    epochs: BTreeMap<Epoch, EpochCounters>,
    latest: Option<Latest>,
    /// When a session of this controller last told something.
    told: Stamp,
    /// Whether others have told something since then, or the store. Followers of this controller do not hear it from here.
    is_hearsay: bool,
}

/// What a node counted within one epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochCounters {
    /// Milliseconds since 1970, by the node's clock.
    pub begun_millis: u64,
    /// By tenant.
    pub tenants: BTreeMap<u32, TenantCounters>,
}

/// The latest report of a node.
#[derive(Clone, Debug, Default)]
pub struct Latest {
    epoch: Epoch,
    order: (u64, u64),
    /// Live allocations by tenant.
    open: BTreeMap<u32, u64>,
    /// Whom the node watches.
    pub(crate) lists: wire::Usage,
    /// When it was told, by the controller's own clock, in milliseconds.
    pub(crate) at_millis: u64,
}

/// What totals are asked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// One sum.
    Fleet,
    /// Each tenant.
    Tenant,
    /// Each region.
    Region,
    /// Each zone of each region.
    Zone,
    /// Each node.
    Node,
}

/// What totals are asked of; everything where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// This tenant alone.
    pub tenant: Option<u32>,
    /// This region alone.
    pub region: Option<String>,
    /// This node alone.
    pub node: Option<NodeId>,
}

/// What one sum is of. Those that were not asked for are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    /// The tenant.
    pub tenant: Option<u32>,
    /// The region; empty for nodes whose place was never known.
    pub region: Option<String>,
    /// The zone.
    pub zone: Option<String>,
    /// The node.
    pub node: Option<NodeId>,
}

/// One sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// All legs together.
    pub totals: Totals,
    /// Allocations that live.
    pub open: u64,
    /// Each leg by itself.
    pub legs: BTreeMap<Leg, Totals>,
}

impl Aggregate {
    /// Takes what `node` has told: to this controller's own session, or, where `is_own` is false, to another one's. Whether
    /// anything was new.
    pub fn fold(
        &mut self,
        node: &NodeId,
        usage: wire::Usage,
        at_millis: u64,
        is_own: bool,
    ) -> bool {
        let Ok(epoch) = Epoch::try_from(usage.epoch.as_slice()) else {
            self.refused += 1;
            return false;
        };
        if !self.nodes.contains_key(node) && self.nodes.len() >= MAX_NODES {
            self.refused += 1;
            return false;
        }
        let stamp = self.stamp + 1;
        let known = self.nodes.entry(node.clone()).or_default();
        let (changed, refused) = known.fold(epoch, usage, at_millis, &mut self.carried);
        self.refused += refused;
        // Whoever told it may have forgotten it since: what a session repeats is told on.
        if is_own && (changed || known.is_hearsay) {
            (known.told, known.is_hearsay) = (stamp, false);
            self.stamp = stamp;
        } else {
            known.is_hearsay |= changed;
        }
        changed
    }

    /// Says where a node is.
    pub fn place(&mut self, node: &NodeId, region: &str, zone: &str) {
        if let Some(known) = self.nodes.get_mut(node)
            && (known.region != region || known.zone != zone)
        {
            region.clone_into(&mut known.region);
            zone.clone_into(&mut known.zone);
        }
    }

    /// The sums of what is asked, in order.
    #[must_use]
    pub fn sums(&self, by: By, filter: &Filter) -> BTreeMap<Scope, Sum> {
        let mut sums = BTreeMap::new();
        if by == By::Fleet {
            sums.insert(Scope::default(), Sum::default());
        }
        let nodes = self.nodes.iter().filter(|(id, node)| {
            filter.node.as_ref().is_none_or(|wanted| wanted == *id)
                && (filter.region.as_ref()).is_none_or(|wanted| *wanted == node.region)
        });
        for (id, node) in nodes {
            let tenants = node.epochs.values().flat_map(|epoch| &epoch.tenants);
            for (tenant, counters) in tenants {
                if filter.tenant.is_none_or(|wanted| wanted == *tenant) {
                    let scope = scope(by, *tenant, id, node);
                    sums.entry(scope).or_default().add(counters);
                }
            }
            for (tenant, open) in node.latest.iter().flat_map(|latest| &latest.open) {
                if filter.tenant.is_none_or(|wanted| wanted == *tenant) {
                    let scope = scope(by, *tenant, id, node);
                    sums.entry(scope).or_default().open += open;
                }
            }
        }
        sums
    }

    /// The bytes that each tenant has carried, over all nodes and since counting began.
    #[must_use]
    pub fn carried(&self) -> &BTreeMap<u32, u64> {
        &self.carried
    }

    /// Every node.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeId, &NodeUsage)> {
        self.nodes.iter()
    }

    /// The node of that id.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<&NodeUsage> {
        self.nodes.get(id)
    }

    /// Reports that were not taken: they are damaged, or there is too much of something.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// What sessions of this controller have told after `since`, at most about `max_bytes`, for a follower who goes on from the
    /// stamp that is given beside.
    #[must_use]
    pub fn told_since(&self, since: Stamp, max_bytes: usize) -> (Vec<wire::NodeUsage>, Stamp) {
        let mut news: Vec<_> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.told > since)
            .collect();
        news.sort_unstable_by_key(|(_, node)| node.told);
        let (mut told, mut bytes, mut last) = (Vec::new(), 0, since);
        for (id, node) in news {
            if bytes > max_bytes {
                break;
            }
            for usage in node.wire() {
                bytes += prost::Message::encoded_len(&usage);
                told.push(wire::NodeUsage {
                    node_id: id.to_string(),
                    usage: Some(usage),
                });
            }
            last = node.told;
        }
        (told, last)
    }
}

impl NodeUsage {
    /// Whether anything was new, and how much was refused; adds to `carried` what tenants have more.
    fn fold(
        &mut self,
        epoch: Epoch,
        usage: wire::Usage,
        at_millis: u64,
        carried: &mut BTreeMap<u32, u64>,
    ) -> (bool, u64) {
        let (mut changed, mut refused) = (false, 0);
        let is_new = !self.epochs.contains_key(&epoch);
        if is_new && self.epochs.len() >= MAX_EPOCHS {
            return (false, 1);
        }
        let counters = self.epochs.entry(epoch).or_default();
        counters.begun_millis = counters.begun_millis.max(usage.begun_millis);
        for tenant in &usage.tenants {
            let is_known = counters.tenants.contains_key(&tenant.tenant);
            if !is_known && counters.tenants.len() >= MAX_TENANTS {
                refused += 1;
                continue;
            }
            let known = counters.tenants.entry(tenant.tenant).or_default();
            let before = known.bytes();
            changed |= known.fold(tenant);
            let sum = carried.entry(tenant.tenant).or_default();
            *sum = sum.saturating_add(known.bytes().saturating_sub(before));
        }
        if counters.tenants.is_empty() {
            self.epochs.remove(&epoch);
        }
        changed |= self.take_lists(epoch, usage, at_millis);
        (changed, refused)
    }

    /// The latest report stands for what a node does now.
    fn take_lists(&mut self, epoch: Epoch, mut usage: wire::Usage, at_millis: u64) -> bool {
        // What is kept in the store has no number.
        if usage.number == 0 {
            return false;
        }
        let order = (usage.begun_millis, usage.number);
        let latest = self.latest.get_or_insert_default();
        if order < latest.order {
            return false;
        }
        if latest.epoch != epoch {
            latest.open.clear();
        }
        let is_news = order > latest.order || !usage.tenants_only;
        (latest.epoch, latest.order) = (epoch, order);
        for tenant in &usage.tenants {
            if latest.open.len() < MAX_TENANTS || latest.open.contains_key(&tenant.tenant) {
                latest.open.insert(tenant.tenant, tenant.open);
            }
        }
        if !usage.tenants_only {
            usage.tenants.clear();
            usage.users.retain(|user| user.user.len() <= MAX_NAME);
            usage.users.truncate(MAX_NAMES);
            usage.sources.truncate(MAX_NAMES);
            usage.peers.truncate(MAX_NAMES);
            usage.strangers.truncate(MAX_NAMES);
            usage.limited.truncate(MAX_NAMES);
            latest.lists = usage;
            latest.at_millis = at_millis;
        }
        is_news
    }

    /// Where the node was last.
    #[must_use]
    pub fn place(&self) -> (&str, &str) {
        (&self.region, &self.zone)
    }

    /// What it counted, by epoch.
    #[must_use]
    pub fn epochs(&self) -> &BTreeMap<Epoch, EpochCounters> {
        &self.epochs
    }

    pub(crate) fn latest(&self) -> Option<&Latest> {
        self.latest.as_ref()
    }

    /// As the node itself would tell it, each epoch by itself.
    fn wire(&self) -> Vec<wire::Usage> {
        let mut all: Vec<_> = self
            .epochs
            .iter()
            .map(|(epoch, counters)| wire::Usage {
                epoch: epoch.to_vec(),
                begun_millis: counters.begun_millis,
                tenants: (counters.tenants.iter())
                    .map(|(id, tenant)| tenant.wire(*id))
                    .collect(),
                tenants_only: true,
                ..wire::Usage::default()
            })
            .collect();
        if let Some(latest) = &self.latest {
            let mut usage = latest.lists.clone();
            usage.epoch = latest.epoch.to_vec();
            (usage.begun_millis, usage.number) = latest.order;
            usage.tenants = (latest.open.iter())
                .map(|(tenant, open)| wire::TenantUsage {
                    tenant: *tenant,
                    open: *open,
                    ..wire::TenantUsage::default()
                })
                .collect();
            usage.tenants_only = false;
            all.push(usage);
        }
        all
    }
}

impl Sum {
    fn add(&mut self, counters: &TenantCounters) {
        self.totals.add(counters.totals());
        for (leg, totals) in counters.legs() {
            self.legs.entry(leg).or_default().add(totals);
        }
    }
}

fn scope(by: By, tenant: u32, id: &NodeId, node: &NodeUsage) -> Scope {
    let nothing = Scope::default();
    let region = Some(node.region.clone());
    match by {
        By::Fleet => nothing,
        By::Tenant => Scope {
            tenant: Some(tenant),
            ..nothing
        },
        By::Region => Scope { region, ..nothing },
        By::Zone => Scope {
            region,
            zone: Some(node.zone.clone()),
            ..nothing
        },
        By::Node => Scope {
            region,
            zone: Some(node.zone.clone()),
            node: Some(id.clone()),
            ..nothing
        },
    }
}
