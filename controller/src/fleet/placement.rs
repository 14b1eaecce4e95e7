//! Which relays a user is given: weighted rendezvous hashing, so that a user keeps its relays while the fleet is the same,
//! a node that leaves moves only its own users, and shares follow capacity and headroom.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

use turnfleet_proto::{Scheme, TurnUri, UriTransport};

use super::capacity::allocation_limit;
use super::health::Health;
use super::node::Transport;
use super::view::{FleetView, NodeView};

/// The URIs of a list where the caller does not say how many: browsers warn at five and gather slowly.
const DEFAULT_URIS: usize = 4;
/// The most URIs of one list, whatever is asked for.
pub const MAX_URIS: usize = 8;

/// What a caller asks a list for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// Whose list it is; the same user gets the same relays while the fleet is the same. May be empty.
    pub user: &'a str,
    /// Where the caller comes from; stands for an empty user, by its /24 or /56.
    pub client: Option<IpAddr>,
    /// The region to prefer; the controller's own where it is not named.
    pub region: Option<&'a str>,
    /// The kinds of URIs, in order of preference; empty for the default list.
    pub kinds: &'a [UriKind],
    /// How many URIs, 1 to [`MAX_URIS`]; four where it is not said.
    pub count: Option<usize>,
}

/// A kind of URI in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UriKind {
    /// `stun:`, by UDP.
    Stun,
    /// `turn:` with `transport=udp`.
    Udp,
    /// `turn:` with `transport=tcp`.
    Tcp,
    /// `turns:` with `transport=tcp`.
    Tls,
}

/// The nodes that lists may name, prepared for many picks.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidates(Vec<Candidate>);

#[derive(Clone, Debug)]
struct Candidate {
    node: Arc<NodeView>,
    seed: u64,
    weight: f64,
}

impl Candidates {
    /// Those of `nodes` that are listed.
    pub(super) fn new(nodes: &[Arc<NodeView>]) -> Self {
        let listed = nodes.iter().filter(|node| node.listed);
        Self(
            listed
                .map(|node| Candidate {
                    node: Arc::clone(node),
                    seed: hash(node.id.as_str().as_bytes()),
                    weight: weight(node),
                })
                .collect(),
        )
    }

    /// The best `count` nodes for a user, the best first. Those of `region` come before all others, and among equals one of
    /// a zone that is not yet in the list.
    fn pick(&self, user: u64, region: &str, count: usize) -> Vec<&NodeView> {
        let mut open: Vec<(f64, &Candidate)> = self
            .0
            .iter()
            .map(|candidate| (candidate.score(user), candidate))
            .collect();
        let mut picked: Vec<&NodeView> = Vec::with_capacity(count);
        while picked.len() < count && !open.is_empty() {
            let rank = |(score, candidate): &(f64, &Candidate)| {
                let node = &candidate.node.identity;
                let known = |other: &&NodeView| {
                    (&other.identity.region, &other.identity.zone) == (&node.region, &node.zone)
                };
                (node.region == region, !picked.iter().any(known), *score)
            };
            let better = |a: &(bool, bool, f64), b: &(bool, bool, f64)| {
                (a.0, a.1).cmp(&(b.0, b.1)).then(a.2.total_cmp(&b.2))
            };
            let mut best = 0;
            for place in 1..open.len() {
                if better(&rank(&open[place]), &rank(&open[best])) == Ordering::Greater {
                    best = place;
                }
            }
            picked.push(&open.swap_remove(best).1.node);
        }
        picked
    }
}

impl Candidate {
    /// Weighted rendezvous: -w / ln(u), u being uniform in (0, 1) by user and node.
    fn score(&self, user: u64) -> f64 {
        const STEPS: f64 = (1u64 << 53) as f64;
        let uniform = ((mix(user ^ self.seed) >> 11) as f64 + 0.5) / STEPS;
        -self.weight / uniform.ln()
    }
}

/// Capacity times headroom, halved for a node that the controller cannot hear.
fn weight(node: &NodeView) -> f64 {
    let ports: u64 = node
        .grants
        .iter()
        .map(|grant| u64::from(grant.range.len()))
        .sum();
    let capacity = allocation_limit(node.capacity().allocations, ports).max(1) as f64;
    let headroom = f64::from(8 - node.saturation.eighths.min(7)) / 8.0;
    let heard = if node.health == Health::Unmanaged {
        0.5
    } else {
        1.0
    };
    capacity * headroom * heard
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

impl Ask<'_> {
    fn user_hash(&self) -> u64 {
        if !self.user.is_empty() {
            return hash(self.user.as_bytes());
        }
        match self.client.map(|client| client.to_canonical()) {
            None => hash(b""),
            Some(IpAddr::V4(ip)) => hash(&ip.octets()[..3]),
            Some(IpAddr::V6(ip)) => hash(&ip.octets()[..7]),
        }
    }
}

impl FleetView {
    /// The URIs for `ask`. Empty where no node can serve, or none serves what is asked for.
    #[must_use]
    pub fn list(&self, ask: &Ask<'_>) -> Vec<TurnUri> {
        let count = ask.count.unwrap_or(DEFAULT_URIS).clamp(1, MAX_URIS);
        let region = ask.region.unwrap_or(&self.region);
        let default = ask.kinds.is_empty();
        let relays = if default && count <= DEFAULT_URIS {
            2
        } else {
            count
        };
        let nodes = self.candidates.pick(ask.user_hash(), region, relays);
        if default {
            default_list(&nodes, count)
        } else {
            asked_list(&nodes, ask.kinds, count)
        }
    }
}

/// `stun:` and `turn:` by UDP of the first relay, `turn:` by UDP of the second, and a way through firewalls that let only TCP
/// pass; then whatever else there is. A list of one has no use for `stun:`.
fn default_list(nodes: &[&NodeView], count: usize) -> Vec<TurnUri> {
    let of = |place: usize, kind| nodes.get(place).and_then(|node| uri(node, kind));
    let mut list = Vec::with_capacity(count);
    let mut add = |uri: Option<TurnUri>| {
        if let Some(uri) = uri
            && list.len() < count
            && !list.contains(&uri)
        {
            list.push(uri);
        }
    };
    if count > 1 {
        add(of(0, UriKind::Stun));
    }
    add(of(0, UriKind::Udp));
    add(of(1, UriKind::Udp));
    add(of(0, UriKind::Tls).or_else(|| of(0, UriKind::Tcp)));
    for kind in [UriKind::Tcp, UriKind::Tls, UriKind::Udp] {
        for node in nodes {
            add(uri(node, kind));
        }
    }
    list
}

/// The kinds in the caller's order, each of two relays before the next kind, then those of further relays.
fn asked_list(nodes: &[&NodeView], kinds: &[UriKind], count: usize) -> Vec<TurnUri> {
    let mut list = Vec::with_capacity(count);
    for pair in nodes.chunks(2) {
        for kind in kinds {
            for uri in pair.iter().filter_map(|node| uri(node, *kind)) {
                if list.len() < count && !list.contains(&uri) {
                    list.push(uri);
                }
            }
        }
    }
    list
}

/// The URI of `node` for `kind`, where it has a listener for it that works.
///
/// `turns:` carries the node's DNS name, which its certificate is made out to. The others carry an address: it needs no
/// resolver, and the name of a certificate that several relays share would lead to another one.
fn uri(node: &NodeView, kind: UriKind) -> Option<TurnUri> {
    let (scheme, listener, transport) = match kind {
        UriKind::Stun => (Scheme::Stun, Transport::Udp, None),
        UriKind::Udp => (Scheme::Turn, Transport::Udp, Some(UriTransport::Udp)),
        UriKind::Tcp => (Scheme::Turn, Transport::Tcp, Some(UriTransport::Tcp)),
        UriKind::Tls => (Scheme::Turns, Transport::Tls, Some(UriTransport::Tcp)),
    };
    let address = node.listeners(listener).next()?.address;
    let name = node
        .identity
        .hostname
        .clone()
        .filter(|_| scheme == Scheme::Turns);
    Some(TurnUri {
        scheme,
        host: name.unwrap_or_else(|| address.ip().to_string()),
        port: Some(address.port()),
        transport,
    })
}
