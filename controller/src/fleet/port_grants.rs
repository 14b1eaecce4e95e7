//! Which node may use which ports of a public address. Ranges of one address never overlap, and a node keeps its own over
//! restarts.
//!
//! A node that is alone on an address has all of it, without an end. Where several share an address, each has a fair part:
//! one that has more gives up its upper ports when another comes, and they change hands once it has said that it runs and
//! keeps a policy without them, and that none of them is in use. Ports that nobody answers for change hands by an operator's
//! word, after a quarantine, or when their grant has ended and the node is away.
//!
//! Everything here is planned on what one controller knows. Every grant raises the fleet's generation, and no plan is
//! written over a generation that it has not seen: of two claims of one address that were planned at once, one is planned
//! again.

mod address;
#[cfg(test)]
mod model;
mod reported;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use turnfleet_proto::granted_range::MARGIN_SECONDS;
use turnfleet_proto::{NodeId, PortRange, fleet as wire};

use super::record::PortGrant;
use crate::config::PortPlan;
use address::Address;

/// Seconds for which ports are nobody's before they go from one node to another without the first one's word.
const QUARANTINE_SECONDS: u64 = 600;

/// Every grant, by address and first port.
pub(super) type Grants = BTreeMap<(IpAddr, u16), PortGrant>;

/// What has to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) grants: Vec<PortGrant>,
    pub(super) releases: Vec<PortGrant>,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.grants.is_empty() && self.releases.is_empty()
    }
}

/// The ports of one public address, as a node reports them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortUse {
    /// The address that peers see.
    pub public_ip: IpAddr,
    /// Ports in use.
    pub used: u32,
    /// Where the node may open ports.
    pub open: Vec<PortRange>,
    /// Where it has ports in use that it may open no longer.
    pub withdrawn: Vec<PortRange>,
}

/// What a node says of its ports: the evidence by which they change hands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortReport {
    /// The generation that it runs, and that a restart of it would begin with.
    pub kept_generation: u64,
    /// One for each address that it ever had ports of.
    pub uses: Vec<PortUse>,
}

impl PortReport {
    /// The ports of each address, for another controller.
    pub(super) fn wire(&self) -> Vec<wire::PortUse> {
        let range = |range: &PortRange| wire::PortRange {
            first: range.first().into(),
            last: range.last().into(),
        };
        let uses = self.uses.iter().map(|ports| wire::PortUse {
            public_ip: ports.public_ip.to_string(),
            used: ports.used,
            withdrawn: ports.withdrawn.iter().map(range).collect(),
            open: ports.open.iter().map(range).collect(),
        });
        uses.collect()
    }

    fn of(&self, ip: IpAddr) -> Option<&PortUse> {
        self.uses.iter().find(|ports| ports.public_ip == ip)
    }
}

/// The grants at one moment, for whoever plans a change of them.
#[derive(Clone, Copy)]
pub(super) struct Sharing<'a> {
    pub(super) grants: &'a Grants,
    pub(super) plan: PortPlan,
    /// The fleet's generation; what is planned becomes the next one.
    pub(super) generation: u64,
    pub(super) unix: u64,
    /// Whether a node is neither connected nor seen to work.
    pub(super) is_away: &'a dyn Fn(&NodeId) -> bool,
}

impl Sharing<'_> {
    /// What has to change so that `node` has ports of each of `public_ips`, and gives up those of every other address.
    /// `may_move` says that it has no allocations, so that ports which no longer fit the plan can be exchanged. Where ports
    /// are to be given up by others first, that alone is what has to change.
    pub(super) fn register(&self, node: &NodeId, public_ips: &[IpAddr], may_move: bool) -> Changes {
        let mut changes = Changes::default();
        for ip in public_ips {
            let mut address = Address::new(self, *ip, node);
            address.take_back();
            if !address.has_open() {
                address.claim();
            } else if may_move {
                address.refit();
            }
            address.settle();
            address.finish(&mut changes);
        }
        for ip in self.addresses_of(node) {
            if !public_ips.contains(&ip) {
                let mut address = Address::new(self, ip, node);
                address.give_up();
                address.finish(&mut changes);
            }
        }
        changes
    }

    /// What has to change for a connected node by what it reports: ports that it gave up go to others, its grants are
    /// renewed, and it gets more where it is short of them.
    pub(super) fn look_after(
        &self,
        node: &NodeId,
        public_ips: &[IpAddr],
        report: &PortReport,
    ) -> Changes {
        let mut changes = Changes::default();
        for ip in self.addresses_of(node) {
            let mut address = Address::new(self, ip, node);
            address.hand_over(report);
            if public_ips.contains(&ip) {
                address.grow(report.of(ip).map_or(0, |ports| ports.used));
                address.settle();
            }
            address.finish(&mut changes);
        }
        changes
    }

    /// What has to change when an operator says that `node` is gone for good.
    pub(super) fn forget(&self, node: &NodeId) -> Changes {
        let mut grants = Vec::new();
        for grant in self.grants.values() {
            if grant.node == *node {
                grants.extend(self.quarantined(grant));
            } else if let Some(ceded) = &grant.ceded
                && ceded.to.as_ref() == Some(node)
            {
                let mut grant = grant.clone();
                grant.ceded = grant
                    .ceded
                    .map(|ceded| super::record::Cession { to: None, ..ceded });
                grants.push(grant);
            }
        }
        Changes {
            grants,
            releases: Vec::new(),
        }
    }

    /// What has to change when an operator says that nobody uses these ports: one that holds them loses them to a
    /// quarantine, and a quarantine ends. `None` where they are not the ports of one grant.
    pub(super) fn release(&self, ip: IpAddr, range: PortRange) -> Option<Changes> {
        let grant = self.grants.get(&(ip, range.first()))?;
        if grant.range != range {
            return None;
        }
        let mut changes = Changes::default();
        if grant.quarantined_until.is_some() {
            changes.releases.push(grant.clone());
        } else {
            changes.grants.push(PortGrant {
                ceded: None,
                quarantined_until: Some(self.unix.saturating_add(QUARANTINE_SECONDS)),
                ..grant.clone()
            });
        }
        Some(changes)
    }

    /// The quarantines that are over.
    pub(super) fn ended_quarantines(&self) -> Changes {
        let is_over = |grant: &&PortGrant| {
            grant
                .quarantined_until
                .is_some_and(|until| until <= self.unix)
        };
        Changes {
            grants: Vec::new(),
            releases: self.grants.values().filter(is_over).cloned().collect(),
        }
    }

    /// Whether `node` can open ports of `ip`.
    pub(super) fn has_ports(&self, node: &NodeId, ip: IpAddr) -> bool {
        of_address(self.grants, ip).any(|grant| grant.node == *node && grant.open_range().is_some())
    }

    /// The ports of `ip` that others are about to give up to `node`.
    pub(super) fn owed(&self, node: &NodeId, ip: IpAddr) -> u32 {
        let owed = |grant: &PortGrant| match &grant.ceded {
            Some(ceded) if ceded.to.as_ref() == Some(node) => {
                u32::from(grant.range.last()) - u32::from(ceded.from) + 1
            }
            Some(_) | None => 0,
        };
        of_address(self.grants, ip).map(owed).sum()
    }

    /// How many other nodes hold ports of `ip`.
    pub(super) fn holders(&self, node: &NodeId, ip: IpAddr) -> usize {
        let others = of_address(self.grants, ip).map(|grant| &grant.node);
        others
            .filter(|other| *other != node)
            .collect::<BTreeSet<_>>()
            .len()
    }

    fn addresses_of(&self, node: &NodeId) -> BTreeSet<IpAddr> {
        let own = self.grants.values().filter(|grant| grant.node == *node);
        own.map(|grant| grant.public_ip).collect()
    }

    /// A node that is cut off goes on until its grant ends, so nobody else begins before; a grant without an end is over by
    /// the operator's word.
    fn quarantined(&self, grant: &PortGrant) -> Option<PortGrant> {
        if grant.quarantined_until.is_some() {
            return None;
        }
        let end = grant
            .not_after
            .map_or(0, |end| end.saturating_add(MARGIN_SECONDS));
        let until = self.unix.saturating_add(QUARANTINE_SECONDS).max(end);
        Some(PortGrant {
            ceded: None,
            quarantined_until: Some(until),
            ..grant.clone()
        })
    }
}

fn of_address(grants: &Grants, ip: IpAddr) -> impl Iterator<Item = &PortGrant> {
    grants
        .range((ip, 0)..=(ip, u16::MAX))
        .map(|(_, grant)| grant)
}
