//! What of the use is in the store, outside of what controllers mirror in memory: nodes' counters as far as they are in the
//! history, and the history.
//!
//! A node's counters and the span that tells what they rose by are written in one transaction. So whoever leads next goes on
//! from there: what was counted meanwhile is told once, by the next span.

use std::collections::BTreeMap;

use prost::Message as _;
use turnfleet_proto::{NodeId, fleet, store as wire};

use super::aggregate::{Aggregate, Epoch, NodeUsage};
use super::counters::{TenantCounters, Totals};
use super::history::{Resolution, Span};
use crate::store::{Entry, Put};

/// Every key of the use begins with it.
pub const PREFIX: &str = "/tf/usage/v1/";
pub(super) const NODES: &str = "/tf/usage/v1/nodes/";
const MINUTES: &str = "/tf/usage/v1/minutes/";
const HOURS: &str = "/tf/usage/v1/hours/";

/// Tenants of one record, so that it fits into a value of the store.
const BLOCK: u32 = 128;

/// Where the spans of a resolution are.
#[must_use]
pub fn prefix(resolution: Resolution) -> &'static str {
    match resolution {
        Resolution::Minute => MINUTES,
        Resolution::Hour => HOURS,
    }
}

/// The key of the span with that number, counted from 1970.
#[must_use]
pub fn span_key(resolution: Resolution, number: u64) -> String {
    format!("{}{number:012}", prefix(resolution))
}

/// The entry of a span.
#[must_use]
pub fn write_span(resolution: Resolution, number: u64, span: &Span) -> Put {
    let row = |tenant, region: &str, totals: &Totals| wire::UsageRow {
        tenant,
        region: region.to_owned(),
        packets_to_peers: totals.packets_to_peers,
        bytes_to_peers: totals.bytes_to_peers,
        packets_to_clients: totals.packets_to_clients,
        bytes_to_clients: totals.bytes_to_clients,
        opened: totals.opened,
        refused: totals.refused,
    };
    let tenants = span.tenants.iter();
    let regions = span.regions.iter();
    let record = wire::UsageSpanRecord {
        from: span.from,
        to: span.to,
        tenants: tenants.map(|(id, it)| row(*id, "", it)).collect(),
        regions: regions.map(|(name, it)| row(0, name, it)).collect(),
    };
    Put {
        key: span_key(resolution, number),
        value: record.encode_to_vec(),
        lease: None,
    }
}

/// A span; `None` for what cannot be read.
#[must_use]
pub fn read_span(entry: &Entry) -> Option<Span> {
    let record = wire::UsageSpanRecord::decode(entry.value.as_slice()).ok()?;
    let totals = |row: &wire::UsageRow| Totals {
        packets_to_peers: row.packets_to_peers,
        bytes_to_peers: row.bytes_to_peers,
        packets_to_clients: row.packets_to_clients,
        bytes_to_clients: row.bytes_to_clients,
        opened: row.opened,
        refused: row.refused,
    };
    let tenants = record.tenants.iter();
    let regions = record.regions.iter();
    Some(Span {
        from: record.from,
        to: record.to,
        tenants: tenants.map(|row| (row.tenant, totals(row))).collect(),
        regions: regions
            .map(|row| (row.region.clone(), totals(row)))
            .collect(),
    })
}

/// One record of one node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    node: NodeId,
    epoch: Epoch,
    block: u32,
}

impl Key {
    fn text(&self) -> String {
        let epoch = u128::from_be_bytes(self.epoch);
        format!("{NODES}{}/{epoch:032x}/{:08}", self.node, self.block)
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(NODES)?.split('/');
        let (node, epoch, block) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self {
            node: node.parse().ok()?,
            epoch: u128::from_str_radix(epoch, 16).ok()?.to_be_bytes(),
            block: block.parse().ok()?,
        })
    }
}

/// What one record holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Block {
    region: String,
    zone: String,
    begun_millis: u64,
    tenants: BTreeMap<u32, TenantCounters>,
}

impl Block {
    fn write(&self, key: &Key) -> Put {
        let tenants = self.tenants.iter();
        let usage = fleet::Usage {
            begun_millis: self.begun_millis,
            tenants: tenants.map(|(id, tenant)| tenant.wire(*id)).collect(),
            ..fleet::Usage::default()
        };
        let record = wire::UsageRecord {
            region: self.region.clone(),
            zone: self.zone.clone(),
            usage: usage.encode_to_vec(),
        };
        Put {
            key: key.text(),
            value: record.encode_to_vec(),
            lease: None,
        }
    }

    fn read(value: &[u8]) -> Option<Self> {
        let record = wire::UsageRecord::decode(value).ok()?;
        let usage = fleet::Usage::decode(record.usage.as_slice()).ok()?;
        let mut tenants: BTreeMap<u32, TenantCounters> = BTreeMap::new();
        for tenant in &usage.tenants {
            tenants.entry(tenant.tenant).or_default().fold(tenant);
        }
        Some(Self {
            region: record.region,
            zone: record.zone,
            begun_millis: usage.begun_millis,
            tenants,
        })
    }
}

/// What the store holds of nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    blocks: BTreeMap<Key, Block>,
}

/// A record that is to be written, and what the history has to tell then.
#[derive(Clone, Debug)]
pub struct Change {
    key: Key,
    block: Block,
    /// By tenant.
    rises: Vec<(u32, Totals)>,
}

impl Change {
    /// The entry.
    #[must_use]
    pub fn put(&self) -> Put {
        self.block.write(&self.key)
    }

    /// Adds to `span` what the counters rose by.
    pub fn tell(&self, span: &mut Span) {
        for (tenant, totals) in &self.rises {
            span.add(*tenant, &self.block.region, *totals);
        }
    }
}

impl Written {
    /// What `entries` hold; what cannot be read is passed over.
    #[must_use]
    pub fn read(entries: &[Entry]) -> Self {
        let read = |entry: &Entry| Some((Key::read(&entry.key)?, Block::read(&entry.value)?));
        Self {
            blocks: entries.iter().filter_map(read).collect(),
        }
    }

    /// Tells `aggregate` what is known.
    pub fn fold_into(&self, aggregate: &mut Aggregate) {
        for (key, block) in &self.blocks {
            let usage = fleet::Usage {
                epoch: key.epoch.to_vec(),
                begun_millis: block.begun_millis,
                tenants: (block.tenants.iter())
                    .map(|(id, tenant)| tenant.wire(*id))
                    .collect(),
                tenants_only: true,
                ..fleet::Usage::default()
            };
            aggregate.fold(&key.node, usage, 0, false);
            let known = aggregate.node(&key.node).map(NodeUsage::place);
            if known.is_some_and(|place| place == ("", "")) {
                aggregate.place(&key.node, &block.region, &block.zone);
            }
        }
    }

    /// What has to be written for the store to hold what `aggregate` has.
    #[must_use]
    pub fn changes(&self, aggregate: &Aggregate) -> Vec<Change> {
        let mut changes = Vec::new();
        for (id, node) in aggregate.nodes() {
            for (epoch, counters) in node.epochs() {
                let mut tenants = counters.tenants.iter().peekable();
                while let Some(block) = tenants.peek().map(|(id, _)| **id / BLOCK) {
                    let mut of_block = BTreeMap::new();
                    while let Some((id, tenant)) = tenants.next_if(|(id, _)| **id / BLOCK == block)
                    {
                        of_block.insert(*id, tenant.clone());
                    }
                    let (region, zone) = node.place();
                    let key = Key {
                        node: id.clone(),
                        epoch: *epoch,
                        block,
                    };
                    let block = Block {
                        region: region.to_owned(),
                        zone: zone.to_owned(),
                        begun_millis: counters.begun_millis,
                        tenants: of_block,
                    };
                    changes.extend(self.change(key, block));
                }
            }
        }
        changes
    }

    /// The changes are written.
    pub fn wrote(&mut self, changes: &[Change]) {
        for change in changes {
            self.blocks.insert(change.key.clone(), change.block.clone());
        }
    }

    fn change(&self, key: Key, block: Block) -> Option<Change> {
        let before = self.blocks.get(&key);
        if before == Some(&block) {
            return None;
        }
        let nothing = Block::default();
        let before = &before.unwrap_or(&nothing).tenants;
        let rises = block.tenants.iter().map(|(id, tenant)| {
            let before = before.get(id).map(TenantCounters::totals);
            (*id, tenant.totals().beyond(before.unwrap_or_default()))
        });
        let rises = rises.filter(|(_, rise)| *rise != Totals::default());
        Some(Change {
            rises: rises.collect(),
            key,
            block,
        })
    }
}
