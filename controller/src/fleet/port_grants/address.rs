//! One public address while a change of its grants is planned for one node: a copy of its grants, changed step by step, and
//! compared with what there was at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use turnfleet_proto::granted_range::has_ended;
use turnfleet_proto::{NodeId, PortRange};

use super::{Changes, PortReport, Sharing, of_address};
use crate::fleet::record::{Cession, PortGrant};

/// Seconds that a grant on a shared address lasts.
const GRANT_SECONDS: u64 = 7 * 86_400;
/// A grant that lasts no longer than this is renewed: a store write per node in half a week.
const RENEW_SECONDS: u64 = GRANT_SECONDS / 2;
/// The most grants that a node gets on one address.
const MAX_PIECES: usize = 8;

/// See the module.
pub(super) struct Address<'a> {
    sharing: &'a Sharing<'a>,
    ip: IpAddr,
    node: &'a NodeId,
    before: BTreeMap<u16, PortGrant>,
    grants: BTreeMap<u16, PortGrant>,
}

impl<'a> Address<'a> {
    pub(super) fn new(sharing: &'a Sharing<'a>, ip: IpAddr, node: &'a NodeId) -> Self {
        let grants: BTreeMap<_, _> = of_address(sharing.grants, ip)
            .map(|grant| (grant.range.first(), grant.clone()))
            .collect();
        Self {
            sharing,
            ip,
            node,
            before: grants.clone(),
            grants,
        }
    }

    /// Adds what has become different.
    pub(super) fn finish(self, changes: &mut Changes) {
        let gone = self
            .before
            .iter()
            .filter(|(first, _)| !self.grants.contains_key(*first));
        changes
            .releases
            .extend(gone.map(|(_, grant)| grant.clone()));
        let written = self
            .grants
            .iter()
            .filter(|(first, grant)| self.before.get(*first) != Some(*grant));
        changes
            .grants
            .extend(written.map(|(_, grant)| grant.clone()));
    }

    /// The node's own ports, quarantined or about to be given up to nobody, are its own again.
    pub(super) fn take_back(&mut self) {
        for grant in self.own_mut() {
            grant.quarantined_until = None;
            if grant.open_range().is_none() && grant.ceded.as_ref().is_some_and(|c| c.to.is_none())
            {
                grant.ceded = None;
            }
        }
    }

    pub(super) fn has_open(&self) -> bool {
        self.open_ports(self.node) > 0
    }

    /// Gives a node without ports some, or has others give some up.
    pub(super) fn claim(&mut self) {
        if self.sharing.plan.is_automatic() {
            let mut got = self.take(self.fair());
            if got == 0 {
                self.reclaim();
                got = self.take(self.fair());
            }
            let fair = self.fair();
            if got < fair / 2 {
                self.ask_others(fair - got);
            }
        } else {
            let share = self.free_share(|_| true).or_else(|| {
                self.reclaim();
                self.free_share(|_| true)
            });
            if let Some(share) = share {
                self.insert(share, self.node.clone());
            }
        }
    }

    /// Exchanges ports that no longer fit the plan: for the lower part of them where that is a share, for others otherwise.
    pub(super) fn refit(&mut self) {
        let plan = self.sharing.plan;
        let fits = |grant: &PortGrant| grant.open_range().is_none_or(|range| plan.fits(range));
        let Some(own) = self.own().find(|grant| !fits(grant)).cloned() else {
            return;
        };
        let wanted = if plan.is_automatic() {
            let free = self.free();
            free.into_iter().max_by_key(|range| range.len())
        } else {
            // Its other grants are in the way as well: each is exchanged by itself.
            self.free_share(|grant| grant.range != own.range)
        };
        let Some(wanted) = wanted else { return };
        if !wanted.overlaps(own.range) {
            self.insert(wanted, self.node.clone());
            self.cede(own.range.first(), own.range.first(), None);
        } else if wanted.first() == own.range.first() && wanted.last() < own.range.last() {
            self.cede(own.range.first(), wanted.last() + 1, None);
        } else if wanted.first() <= own.range.first() && own.range.last() <= wanted.last() {
            self.grants.remove(&own.range.first());
            self.grants.insert(
                wanted.first(),
                PortGrant {
                    range: wanted,
                    ..own
                },
            );
        }
    }

    /// The node no longer has the address: it gives its ports back.
    pub(super) fn give_up(&mut self) {
        let held = |grant: &&PortGrant| grant.open_range().is_some();
        let own: Vec<_> = self
            .own()
            .filter(held)
            .map(|grant| grant.range.first())
            .collect();
        for first in own {
            self.cede(first, first, None);
        }
    }

    /// What the node gave up and uses no longer goes to whom it was given up for. Down from the top, block by block.
    pub(super) fn hand_over(&mut self, report: &PortReport) {
        let kept = report.kept_generation;
        let uses = report.of(self.ip);
        let nothing: &[PortRange] = &[];
        let open = uses.map_or(nothing, |uses| &uses.open);
        let withdrawn = uses.map_or(nothing, |uses| &uses.withdrawn);
        let own: Vec<_> = self.own().cloned().collect();
        for mut grant in own {
            // A generation of the future is one of another store.
            let is_kept = |generation| (generation..=self.sharing.generation).contains(&kept);
            if grant.quarantined_until.is_some() || !grant.unconfirmed.is_none_or(is_kept) {
                continue;
            }
            grant.unconfirmed = None;
            let range = grant.range;
            self.grants.remove(&range.first());
            let Some(ceded) = grant.ceded.clone() else {
                self.grants.insert(range.first(), grant);
                continue;
            };
            let from = u32::from(ceded.from);
            let used = open
                .iter()
                .chain(withdrawn)
                .filter(|used| used.overlaps(range));
            let used = used.map(|used| used.last().min(range.last()));
            let used = used.filter(|port| *port >= ceded.from).max();
            let freed_from = used.map_or(from, |port| self.sharing.plan.block_end(port).max(from));
            let first = range.first().into();
            if let Some(rest) = ports(first, (freed_from - 1).min(range.last().into())) {
                grant.range = rest;
                grant.ceded = Some(ceded.clone()).filter(|_| freed_from > from);
                self.grants.insert(rest.first(), grant);
            }
            if let (Some(freed), Some(to)) = (ports(freed_from, range.last().into()), ceded.to) {
                self.insert(freed, to);
            }
        }
    }

    /// Gives the node more where it has less than a fair part, or little is left of what it has.
    pub(super) fn grow(&mut self, used: u32) {
        let is_ceding = self.own().any(|grant| grant.ceded.is_some());
        if !self.sharing.plan.is_automatic() || is_ceding {
            return;
        }
        let (own, fair) = (self.open_ports(self.node), self.fair());
        let is_short = u64::from(used) * 4 > u64::from(own) * 3;
        let wanted = if own < fair {
            fair - own
        } else if is_short {
            own / 2
        } else {
            return;
        };
        let got = self.take(wanted);
        if is_short && own + got < fair {
            self.ask_others(fair - own - got);
        }
    }

    /// Renews the node's grants, and lets the grants of the address end where several nodes share it.
    pub(super) fn settle(&mut self) {
        let (unix, next) = (self.sharing.unix, self.sharing.generation + 1);
        let is_shared = self.is_shared();
        let (node, before) = (self.node, &self.before);
        for grant in self.grants.values_mut() {
            if grant.quarantined_until.is_some() {
                continue;
            }
            let is_own = grant.node == *node;
            match grant.not_after {
                None if is_shared => {
                    grant.not_after = Some(unix.saturating_add(GRANT_SECONDS));
                    // What the node did not have before it learns of together with the end.
                    let had =
                        |old: &PortGrant| old.node == grant.node && old.range.overlaps(grant.range);
                    if before.values().any(had) {
                        grant.unconfirmed = Some(next);
                    }
                }
                Some(_) if is_own && !is_shared => {
                    grant.not_after = None;
                    grant.unconfirmed = None;
                }
                Some(end) if is_own && end < unix.saturating_add(RENEW_SECONDS) => {
                    grant.not_after = Some(unix.saturating_add(GRANT_SECONDS));
                }
                Some(_) | None => {}
            }
        }
    }

    fn own(&self) -> impl Iterator<Item = &PortGrant> {
        self.grants
            .values()
            .filter(|grant| grant.node == *self.node)
    }

    fn own_mut(&mut self) -> impl Iterator<Item = &mut PortGrant> {
        let node = self.node;
        self.grants
            .values_mut()
            .filter(move |grant| grant.node == *node)
    }

    fn is_shared(&self) -> bool {
        let owes = |grant: &PortGrant| grant.ceded.as_ref().is_some_and(|ceded| ceded.to.is_some());
        let foreign = |grant: &PortGrant| grant.node != *self.node || owes(grant);
        self.grants.values().any(foreign)
    }

    fn open_ports(&self, node: &NodeId) -> u32 {
        let of_node = self.grants.values().filter(|grant| grant.node == *node);
        of_node
            .filter_map(PortGrant::open_range)
            .map(PortRange::len)
            .sum()
    }

    /// The other nodes that have ports here, or are to get some.
    fn others(&self) -> BTreeSet<NodeId> {
        let mut others = BTreeSet::new();
        for grant in self.grants.values() {
            if grant.open_range().is_some() {
                others.insert(grant.node.clone());
            }
            others.extend(grant.ceded.iter().filter_map(|ceded| ceded.to.clone()));
        }
        others.remove(self.node);
        others
    }

    /// The node's fair part: everything where it is alone.
    fn fair(&self) -> u32 {
        let nodes = u32::try_from(self.others().len())
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        (self.sharing.plan.range.len() / nodes).max(1)
    }

    /// The ports that no grant holds.
    fn free(&self) -> Vec<PortRange> {
        let range = self.sharing.plan.range;
        let mut free = Vec::new();
        let mut first = u32::from(range.first());
        for grant in self.grants.values() {
            let below = u32::from(grant.range.first()).saturating_sub(1);
            free.extend(ports(first, below.min(range.last().into())));
            first = first.max(u32::from(grant.range.last()) + 1);
        }
        free.extend(ports(first, range.last().into()));
        free
    }

    /// The lowest free share where all are of one size; grants that `blocks` leaves out are not in the way.
    fn free_share(&self, blocks: impl Fn(&PortGrant) -> bool) -> Option<PortRange> {
        let plan = self.sharing.plan;
        let share = plan.share();
        let mut first = plan.first();
        for grant in self.grants.values().filter(|grant| blocks(grant)) {
            if first + share <= u32::from(grant.range.first()) {
                break;
            }
            first = first.max(plan.align(u32::from(grant.range.last()) + 1));
        }
        let last = first + share - 1;
        if last > u32::from(plan.range.last()) {
            return None;
        }
        ports(first, last)
    }

    /// Gives the node up to `wanted` free ports in whole blocks, at least one block, the longest runs first; says how many.
    fn take(&mut self, wanted: u32) -> u32 {
        let mut got = 0;
        while got < wanted && self.own().count() < MAX_PIECES {
            let free = self.free();
            let Some(free) = free
                .into_iter()
                .max_by_key(|free| (free.len(), u16::MAX - free.first()))
            else {
                break;
            };
            let plan = self.sharing.plan;
            let mut last = free.last();
            let mut end = plan.block_end(free.first());
            while end <= free.last().into() {
                let following = u16::try_from(end).map_or(end, |port| plan.block_end(port));
                if following - u32::from(free.first()) > wanted - got {
                    last = u16::try_from(end - 1).unwrap_or(u16::MAX);
                    break;
                }
                end = following;
            }
            let Ok(piece) = PortRange::new(free.first(), last) else {
                break;
            };
            got += piece.len();
            self.insert(piece, self.node.clone());
        }
        got
    }

    /// Frees what others have lost: their quarantine is over, or their grant has ended and they are away.
    fn reclaim(&mut self) {
        let (unix, is_away) = (self.sharing.unix, self.sharing.is_away);
        let node = self.node;
        self.grants.retain(|_, grant| {
            let is_lost = match (grant.quarantined_until, grant.not_after) {
                (Some(until), _) => until <= unix,
                (None, Some(end)) => {
                    grant.unconfirmed.is_none() && has_ended(end, unix) && is_away(&grant.node)
                }
                (None, None) => false,
            };
            grant.node == *node || !is_lost
        });
    }

    /// Has those that hold more than a fair part give up to `needed` ports, those first that can answer.
    fn ask_others(&mut self, needed: u32) {
        let mut needed = needed.saturating_sub(self.sharing.owed(self.node, self.ip));
        let fair = self.fair();
        let mut others: Vec<_> = self.others().into_iter().collect();
        others.sort_by_key(|other| {
            let away = (self.sharing.is_away)(other);
            (away, u32::MAX - self.open_ports(other))
        });
        for other in others {
            let surplus = self.open_ports(&other).saturating_sub(fair);
            let largest = self
                .grants
                .values()
                .filter(|grant| grant.node == other && grant.ceded.is_none())
                .filter_map(PortGrant::open_range)
                .max_by_key(|range| range.len());
            let Some(range) = largest else { continue };
            let given = surplus.min(needed).min(range.len() - 1);
            if given == 0 {
                continue;
            }
            let kept = u32::from(range.last()) - given;
            let from =
                u16::try_from(kept).map_or(u32::MAX, |port| self.sharing.plan.block_end(port));
            if let Ok(from) = u16::try_from(from)
                && from <= range.last()
            {
                self.cede(range.first(), from, Some(self.node.clone()));
                needed = needed.saturating_sub(u32::from(range.last() - from) + 1);
            }
        }
    }

    /// The grant that begins at `first` gives back what lies from `from` on.
    fn cede(&mut self, first: u16, from: u16, to: Option<NodeId>) {
        let next = self.sharing.generation + 1;
        if let Some(grant) = self.grants.get_mut(&first) {
            let to = to.or_else(|| grant.ceded.take()?.to);
            grant.ceded = Some(Cession { from, to });
            grant.unconfirmed = Some(next);
        }
    }

    /// Grants free ports, as a part of neighbouring grants of the same node where the size of grants is free.
    fn insert(&mut self, range: PortRange, node: NodeId) {
        let mut grant = PortGrant::held(node, self.ip, range);
        let mut had: Option<PortGrant> = None;
        while self.sharing.plan.is_automatic()
            && let Some(other) = self.neighbour(&grant)
        {
            self.grants.remove(&other.range.first());
            let first = grant.range.first().min(other.range.first());
            let last = grant.range.last().max(other.range.last());
            let Some(whole) = ports(first.into(), last.into()) else {
                break;
            };
            let (not_after, unconfirmed) = match &had {
                None => (other.not_after, other.unconfirmed),
                Some(had) => (
                    had.not_after
                        .zip(other.not_after)
                        .map(|(one, two)| one.max(two)),
                    had.unconfirmed.max(other.unconfirmed),
                ),
            };
            grant = PortGrant {
                range: whole,
                not_after,
                unconfirmed,
                ..other
            };
            had = Some(grant.clone());
        }
        self.grants.insert(grant.range.first(), grant);
    }

    /// A grant of the same node right below or above `grant`, of which nothing is given up.
    fn neighbour(&self, grant: &PortGrant) -> Option<PortGrant> {
        let touches =
            |one: PortRange, two: PortRange| one.last().checked_add(1) == Some(two.first());
        let joins = |other: &&PortGrant| {
            let is_plain = other.ceded.is_none() && other.quarantined_until.is_none();
            let (mine, theirs) = (grant.range, other.range);
            is_plain && other.node == grant.node && (touches(mine, theirs) || touches(theirs, mine))
        };
        self.grants.values().find(joins).cloned()
    }
}

/// The ports from `first` to `last`; `None` for none.
pub(super) fn ports(first: u32, last: u32) -> Option<PortRange> {
    PortRange::new(u16::try_from(first).ok()?, u16::try_from(last).ok()?).ok()
}
