//! Which relays a user is given: weighted rendezvous hashing, so that a user keeps its relays while the fleet is the same,
//! a node that leaves moves only its own users, and shares follow capacity and headroom.
//!
//! Candidates are sorted by region once for each view; a request hashes and picks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::capacity::{allocation_limit, granted_ports};
use super::health::Health;
use super::list::MAX_URIS;
use super::view::NodeView;

/// Relays of the caller's own region that come before one of the next region.
const OWN_RELAYS: usize = 2;

/// Whose relays are picked: the same key has the same relays while the fleet is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UserKey(u64);

impl UserKey {
    /// The key of `user`, or of its `room` where it wants the relays of all the others there. An empty user stands for the
    /// network that it comes from.
    pub(super) fn new(
        tenant: &str,
        user: &str,
        room: Option<&str>,
        client: Option<IpAddr>,
    ) -> Self {
        /// Tells rooms from users of the same name.
        const ROOM: u64 = 0x726f_6f6d;
        let place = match room.filter(|room| !room.is_empty()) {
            Some(room) => hash(room.as_bytes()) ^ ROOM,
            None if !user.is_empty() => hash(user.as_bytes()),
            None => match client.map(|client| client.to_canonical()) {
                None => hash(b""),
                Some(IpAddr::V4(ip)) => hash(&ip.octets()[..3]),
                Some(IpAddr::V6(ip)) => hash(&ip.octets()[..7]),
            },
        };
        if tenant.is_empty() {
            return Self(place);
        }
        Self(mix(place ^ hash(tenant.as_bytes()).rotate_left(32)))
    }
}

/// The nodes that lists may name, prepared for many picks.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidates {
    /// In the order of names; each has a candidate.
    regions: Vec<Region>,
    /// The one that is meant where a caller names none, or none that there is.
    home: usize,
    /// Tenants that have nodes of their own, in the order of names.
    tenants: Vec<Box<str>>,
}

/// Whose users a node is for, and whose user a caller is: a place among the tenants with nodes of their own, or `None`.
type Whose = Option<usize>;

#[derive(Clone, Debug)]
struct Region {
    name: Box<str>,
    proven: Vec<Candidate>,
    /// Those that panic keeps in the lists.
    suspects: Vec<Candidate>,
    /// The other regions, in the order in which they stand in for this one.
    others: Vec<usize>,
}

#[derive(Clone, Debug)]
struct Candidate {
    node: Arc<NodeView>,
    seed: u64,
    /// The zone's place among those of the region.
    zone: usize,
    /// `None` for everybody.
    tenant: Whose,
}

/// Relays in the order of a list.
#[derive(Debug, Default)]
pub(super) struct Picks<'c> {
    nodes: [Option<&'c NodeView>; MAX_URIS],
    len: usize,
}

impl<'c> Picks<'c> {
    pub(super) fn nodes(&self) -> impl Iterator<Item = &'c NodeView> + Clone + '_ {
        self.nodes[..self.len].iter().copied().flatten()
    }

    pub(super) fn nth(&self, place: usize) -> Option<&'c NodeView> {
        self.nodes.get(place).copied().flatten()
    }

    fn push(&mut self, candidate: &'c Candidate, most: usize) {
        let known = |node: &NodeView| std::ptr::eq(node, &*candidate.node);
        if self.len < most.min(MAX_URIS) && !self.nodes().any(known) {
            self.nodes[self.len] = Some(&candidate.node);
            self.len += 1;
        }
    }
}

impl Candidates {
    /// Those of `nodes` that are listed. `spares` is the order in which regions stand in for each other, and `home` the
    /// region of callers who name none.
    pub(super) fn new(nodes: &[Arc<NodeView>], spares: &[String], home: &str) -> Self {
        let mut by_region: BTreeMap<&str, Vec<&Arc<NodeView>>> = BTreeMap::new();
        for node in nodes.iter().filter(|node| node.listed) {
            by_region
                .entry(&node.identity.region)
                .or_default()
                .push(node);
        }
        let bound = nodes.iter().filter_map(|node| node.tenant.as_deref());
        let tenants: BTreeSet<&str> = bound.collect();
        let tenants: Vec<Box<str>> = tenants.into_iter().map(Into::into).collect();
        let names: Vec<&str> = by_region.keys().copied().collect();
        let regions: Vec<Region> = by_region
            .iter()
            .enumerate()
            .map(|(place, (name, nodes))| {
                Region::new(name, nodes, stand_ins(place, &names, spares), &tenants)
            })
            .collect();
        let home = names.binary_search(&home).unwrap_or(0);
        Self {
            regions,
            home,
            tenants,
        }
    }

    /// The best `count` nodes for a user of `tenant` with that key, at most [`MAX_URIS`]: two of different zones of the region, one of the next region
    /// where more are wanted or the region has no two, then the rest of the region and of the others, and suspects last.
    pub(super) fn pick(&self, tenant: &str, key: UserKey, region: &str, count: usize) -> Picks<'_> {
        let mut picks = Picks::default();
        let whose = self.whose(tenant);
        let Some(own) = self.region(region) else {
            return picks;
        };
        for candidate in own.best_two(whose, key).into_iter().flatten() {
            picks.push(candidate, count);
        }
        if picks.len == count {
            return picks;
        }
        let others = own.others.iter().map(|place| &self.regions[*place]);
        let spare = others
            .clone()
            .find_map(|region| region.best_two(whose, key)[0]);
        if let Some(candidate) = spare {
            picks.push(candidate, count);
        }
        if picks.len < count {
            let all = || std::iter::once(own).chain(others.clone());
            let ranks = all().map(|region| &region.proven);
            for rank in ranks.chain(all().map(|region| &region.suspects)) {
                for candidate in ranked(rank, whose, key) {
                    picks.push(candidate, count);
                }
            }
        }
        picks
    }

    /// The nodes for everybody that answer for `region`, or for all regions where none is named: those of the first region that
    /// has some, beginning with its own, and suspects only where no region has others.
    pub(super) fn for_everybody(&self, region: Option<&str>) -> Vec<&Arc<NodeView>> {
        let orders: Vec<Vec<&Region>> = match region {
            None => vec![self.regions.iter().collect()],
            Some(region) => {
                let own = self.region(region);
                let others = own.into_iter().flat_map(|own| &own.others);
                let others = others.map(|place| &self.regions[*place]);
                own.into_iter().chain(others).map(|it| vec![it]).collect()
            }
        };
        let ranks: [fn(&Region) -> &[Candidate]; 2] = [|it| &it.proven, |it| &it.suspects];
        for rank in ranks {
            for regions in &orders {
                let candidates = regions.iter().flat_map(|region| rank(region));
                let own = candidates.filter(|candidate| candidate.tenant.is_none());
                let nodes: Vec<_> = own.map(|candidate| &candidate.node).collect();
                if !nodes.is_empty() {
                    return nodes;
                }
            }
        }
        Vec::new()
    }

    /// The score of `node` for such a user, and its place among the candidates of its region, the first being 1.
    pub(super) fn score(
        &self,
        node: &NodeView,
        tenant: &str,
        key: UserKey,
    ) -> Option<(f64, usize)> {
        let own = self
            .regions
            .iter()
            .find(|it| *it.name == *node.identity.region)?;
        let whose = self.whose(tenant);
        let ranked = ranked(&own.proven, whose, key).chain(ranked(&own.suspects, whose, key));
        let (rank, candidate) = ranked
            .enumerate()
            .find(|(_, candidate)| candidate.node.id == node.id)?;
        Some((candidate.score(key), rank + 1))
    }

    /// The name of the region that is meant by `region`.
    pub(super) fn meant<'c>(&'c self, region: &str) -> Option<&'c str> {
        self.region(region).map(|region| &*region.name)
    }

    fn whose(&self, tenant: &str) -> Whose {
        let found = self.tenants.binary_search_by(|own| (**own).cmp(tenant));
        found.ok()
    }

    fn region(&self, name: &str) -> Option<&Region> {
        let place = self
            .regions
            .binary_search_by(|region| (*region.name).cmp(name));
        self.regions.get(place.unwrap_or(self.home))
    }
}

impl Region {
    fn new(name: &str, nodes: &[&Arc<NodeView>], others: Vec<usize>, tenants: &[Box<str>]) -> Self {
        let mut zones: Vec<&str> = Vec::new();
        let mut region = Self {
            name: name.into(),
            proven: Vec::with_capacity(nodes.len()),
            suspects: Vec::new(),
            others,
        };
        for node in nodes {
            let zone = zones.iter().position(|zone| *zone == node.identity.zone);
            let zone = zone.unwrap_or_else(|| {
                zones.push(&node.identity.zone);
                zones.len() - 1
            });
            let candidate = Candidate {
                node: Arc::clone(node),
                seed: hash(node.id.as_str().as_bytes()),
                zone,
                tenant: node
                    .tenant
                    .as_ref()
                    .and_then(|own| tenants.binary_search(own).ok()),
            };
            if node.suspect {
                region.suspects.push(candidate);
            } else {
                region.proven.push(candidate);
            }
        }
        region
    }

    /// The best of the proven nodes, and the best of another zone; of the same one where there is no other.
    fn best_two(&self, whose: Whose, key: UserKey) -> [Option<&Candidate>; OWN_RELAYS] {
        let (mut best, mut second, mut elsewhere) = (None, None, None);
        let beats = |score: f64, than: Option<(f64, &Candidate)>| {
            than.is_none_or(|(other, _)| score > other)
        };
        for candidate in self.proven.iter().filter(|it| it.is_for(whose)) {
            let score = candidate.score(key);
            let entry = Some((score, candidate));
            let zone_of_best = best.map(|(_, it): (f64, &Candidate)| it.zone);
            if beats(score, best) {
                if zone_of_best != Some(candidate.zone) {
                    elsewhere = best;
                }
                second = best;
                best = entry;
            } else {
                if beats(score, second) {
                    second = entry;
                }
                if zone_of_best != Some(candidate.zone) && beats(score, elsewhere) {
                    elsewhere = entry;
                }
            }
        }
        [best, elsewhere.or(second)].map(|place| place.map(|(_, candidate)| candidate))
    }
}

impl Candidate {
    fn is_for(&self, whose: Whose) -> bool {
        self.tenant.is_none() || self.tenant == whose
    }

    /// Weighted rendezvous: -w / ln(u), u being uniform in (0, 1) by key and node.
    fn score(&self, key: UserKey) -> f64 {
        const STEPS: f64 = (1u64 << 53) as f64;
        let uniform = ((mix(key.0 ^ self.seed) >> 11) as f64 + 0.5) / STEPS;
        -self.node.weight / uniform.ln()
    }
}

/// The others of `names` in the order in which they stand in for the one at `own`: as `spares` goes on behind it, then round
/// the names.
fn stand_ins(own: usize, names: &[&str], spares: &[String]) -> Vec<usize> {
    let behind = spares.iter().position(|name| name == names[own]);
    let (before, after) = spares.split_at(behind.map_or(0, |place| place + 1));
    let wished = after.iter().chain(before);
    let mut order: Vec<usize> = Vec::with_capacity(names.len());
    let round = (own + 1..names.len()).chain(0..own);
    for place in wished
        .filter_map(|name| names.binary_search(&name.as_str()).ok())
        .chain(round)
    {
        if place != own && !order.contains(&place) {
            order.push(place);
        }
    }
    order
}

/// `candidates` that are for such a user, the best for `key` first.
fn ranked(
    candidates: &[Candidate],
    whose: Whose,
    key: UserKey,
) -> impl Iterator<Item = &Candidate> {
    let mut scored: Vec<_> = candidates
        .iter()
        .filter(|candidate| candidate.is_for(whose))
        .map(|candidate| (candidate.score(key), candidate))
        .collect();
    scored.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    scored.into_iter().map(|(_, candidate)| candidate)
}

/// Capacity times headroom times what the node is trusted with after a fault, halved for one that the controller cannot hear.
pub(super) fn weight(node: &NodeView) -> f64 {
    let ports = granted_ports(&node.grants);
    let capacity = allocation_limit(node.capacity().allocations, ports).max(1) as f64;
    let headroom = f64::from(8 - node.saturation.eighths.min(7)) / 8.0;
    let heard = if node.health == Health::Unmanaged {
        0.5
    } else {
        1.0
    };
    capacity * headroom * heard * f64::from(node.ramp) / 100.0
}

/// FNV-1a with a finishing mix: the same on every controller and in every version.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(fnv)
}

/// The finishing step of SplitMix64.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_stand_in_for_each_other_in_the_configured_order_and_then_by_name() {
        let names = ["east", "north", "south", "west"];
        let order = |own: &str, spares: &[&str]| -> Vec<&str> {
            let own = names.iter().position(|name| *name == own).unwrap();
            let spares: Vec<String> = spares.iter().map(|name| (*name).to_owned()).collect();
            let places = stand_ins(own, &names, &spares);
            places.into_iter().map(|place| names[place]).collect()
        };
        assert_eq!(order("north", &[]), ["south", "west", "east"]);
        let spares = ["south", "north", "east", "moon"];
        assert_eq!(order("north", &spares), ["east", "south", "west"]);
        assert_eq!(order("west", &spares), ["south", "north", "east"]);
    }
}
