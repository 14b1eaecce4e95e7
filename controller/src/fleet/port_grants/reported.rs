//! Grants made from what nodes report: for a store that was set back, whose grants are those of its backup.

use std::collections::BTreeSet;
use std::net::IpAddr;

use turnfleet_proto::{NodeId, PortRange};

use super::address::ports;
use super::{Changes, PortReport, Sharing, of_address};
use crate::fleet::record::{Cession, PortGrant};

/// A transaction of any store takes so many records, and a few more.
const MOST_RECORDS: usize = 100;

/// What one node holds.
struct Holding<'a> {
    node: &'a NodeId,
    range: PortRange,
    /// Whether it opens ports there; it has some in use otherwise.
    is_open: bool,
}

impl Sharing<'_> {
    /// What has to change so that each of `reporters` holds the ports that it says it may open or has in use, and nobody else
    /// does; ports that two claim are the first one's. Address by address, as many as one transaction takes: the rest is
    /// planned again.
    pub(in crate::fleet) fn as_reported(&self, reporters: &[(&NodeId, &PortReport)]) -> Changes {
        let uses = reporters.iter().flat_map(|(_, report)| &report.uses);
        let addresses: BTreeSet<IpAddr> = uses.map(|ports| ports.public_ip).collect();
        let size = |changes: &Changes| changes.grants.len() + changes.releases.len();
        let mut all = Changes::default();
        for ip in addresses {
            let changes = self.address_as_reported(ip, reporters);
            if !all.is_empty() && size(&all) + size(&changes) > MOST_RECORDS {
                break;
            }
            all.grants.extend(changes.grants);
            all.releases.extend(changes.releases);
        }
        all
    }

    fn address_as_reported(&self, ip: IpAddr, reporters: &[(&NodeId, &PortReport)]) -> Changes {
        let held = held(ip, reporters);
        let before: Vec<_> = of_address(self.grants, ip).collect();
        let mut after = Vec::new();
        for grant in &before {
            let (own, foreign): (Vec<_>, Vec<_>) =
                held.iter().partition(|it| *it.node == grant.node);
            let mut grant = (*grant).clone();
            if own.iter().any(|it| it.range.overlaps(grant.range)) {
                grant.quarantined_until = None;
            }
            let pieces = without(grant.range, foreign.iter().map(|it| it.range));
            after.extend(pieces.into_iter().map(|piece| cut(&grant, piece)));
        }
        for Holding {
            node,
            range,
            is_open,
        } in held
        {
            let own = after.iter().filter(|grant| grant.node == *node);
            let own: Vec<_> = own.map(|grant| grant.range).collect();
            for piece in without(range, own) {
                let mut grant = PortGrant::held(node.clone(), ip, piece);
                if !is_open {
                    let from = piece.first();
                    grant.ceded = Some(Cession { from, to: None });
                    grant.unconfirmed = Some(self.generation + 1);
                }
                after.push(grant);
            }
        }
        let is_gone = |grant: &&&PortGrant| !after.iter().any(|it| it.key() == grant.key());
        let releases = before.iter().filter(is_gone).copied().cloned().collect();
        after.retain(|grant| !before.contains(&grant));
        Changes {
            grants: after,
            releases,
        }
    }
}

/// What nodes hold of `ip`, each port once.
fn held<'a>(ip: IpAddr, reporters: &[(&'a NodeId, &PortReport)]) -> Vec<Holding<'a>> {
    let mut held: Vec<Holding<'a>> = Vec::new();
    for is_open in [true, false] {
        for (node, report) in reporters {
            let Some(uses) = report.of(ip) else { continue };
            let ranges = if is_open { &uses.open } else { &uses.withdrawn };
            for range in ranges {
                let pieces = without(*range, held.iter().map(|it| it.range));
                held.extend(pieces.into_iter().map(|range| Holding {
                    node,
                    range,
                    is_open,
                }));
            }
        }
    }
    held
}

/// What is left of `range` without `others`.
fn without(range: PortRange, others: impl IntoIterator<Item = PortRange>) -> Vec<PortRange> {
    let mut pieces = vec![range];
    for other in others {
        let split = |piece: PortRange| {
            if !piece.overlaps(other) {
                return [Some(piece), None];
            }
            let below = u32::from(other.first()).checked_sub(1);
            let below = below.and_then(|last| ports(piece.first().into(), last));
            [
                below,
                ports(u32::from(other.last()) + 1, piece.last().into()),
            ]
        };
        pieces = pieces.into_iter().flat_map(split).flatten().collect();
    }
    pieces
}

/// The part of `grant` that is `piece`.
fn cut(grant: &PortGrant, piece: PortRange) -> PortGrant {
    let ceded = grant.ceded.clone().filter(|it| it.from <= piece.last());
    PortGrant {
        range: piece,
        ceded: ceded.map(|it| Cession {
            from: it.from.max(piece.first()),
            ..it
        }),
        ..grant.clone()
    }
}
