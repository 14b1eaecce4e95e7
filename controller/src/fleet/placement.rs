//! Which relays a user is given: weighted rendezvous hashing, so that a user keeps its relays while the fleet is the same,
//! a node that leaves moves only its own users, and shares follow capacity and headroom.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

use turnfleet_proto::credentials::SharedSecret;
use turnfleet_proto::{Scheme, TurnUri, UriTransport};

use super::capacity::{allocation_limit, granted_ports};
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
    /// Where the caller comes from; stands for an empty user, by its /24 or /56. Relays with both families show it the
    /// one that it came by first.
    pub client: Option<IpAddr>,
    /// The region to prefer; the controller's own where it is not named.
    pub region: Option<&'a str>,
    /// The kinds of URIs, in order of preference; empty for the default list.
    pub kinds: &'a [UriKind],
    /// Leaves `stun:` out of the default list.
    pub turn_only: bool,
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
    let ports = granted_ports(&node.grants);
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
        self.offer(ask).0
    }

    /// As [`Self::list`], with the secret that a credential for these relays is minted with.
    #[must_use]
    pub fn offer(&self, ask: &Ask<'_>) -> (Vec<TurnUri>, &SharedSecret) {
        let count = ask.count.unwrap_or(DEFAULT_URIS).clamp(1, MAX_URIS);
        let region = ask.region.unwrap_or(&self.region);
        let default = ask.kinds.is_empty();
        let relays = if default && count <= DEFAULT_URIS {
            2
        } else {
            count
        };
        let nodes = self.candidates.pick(ask.user_hash(), region, relays);
        let mut list = List::new(ask, count);
        if default {
            list.fill_by_default(&nodes, ask.turn_only);
        } else {
            list.fill(&nodes, ask.kinds);
        }
        (list.uris, self.minting_secret_for(nodes))
    }
}

/// A list in the making: no URI twice, and no more than were asked for.
struct List {
    uris: Vec<TurnUri>,
    count: usize,
    families: [Family; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl List {
    fn new(ask: &Ask<'_>, count: usize) -> Self {
        let by_v6 = ask.client.is_some_and(|ip| ip.to_canonical().is_ipv6());
        Self {
            uris: Vec::with_capacity(count),
            count,
            families: if by_v6 {
                [Family::V6, Family::V4]
            } else {
                [Family::V4, Family::V6]
            },
        }
    }

    /// `stun:` and `turn:` by UDP of the first relay, `turn:` by UDP of the second, and a way through firewalls that let only
    /// TCP pass; then whatever else there is. A list of one has no use for `stun:`.
    fn fill_by_default(&mut self, nodes: &[&NodeView], turn_only: bool) {
        let of = |list: &Self, place: usize, kind| {
            let node = nodes.get(place)?;
            list.preferred(node, kind)
        };
        if self.count > 1 && !turn_only {
            self.add(of(self, 0, UriKind::Stun));
        }
        self.add(of(self, 0, UriKind::Udp));
        self.add(of(self, 1, UriKind::Udp));
        self.add(of(self, 0, UriKind::Tls).or_else(|| of(self, 0, UriKind::Tcp)));
        for family in self.families {
            for kind in [UriKind::Tcp, UriKind::Tls, UriKind::Udp] {
                for node in nodes {
                    self.add(uri(node, kind, family));
                }
            }
        }
    }

    /// The kinds in the caller's order, each of two relays before the next kind, then those of further relays; at last what
    /// the same relays have by the other family.
    fn fill(&mut self, nodes: &[&NodeView], kinds: &[UriKind]) {
        let places = || {
            let pairs = nodes.chunks(2);
            pairs.flat_map(|pair| {
                kinds
                    .iter()
                    .flat_map(move |kind| pair.iter().map(move |node| (node, *kind)))
            })
        };
        for (node, kind) in places() {
            self.add(self.preferred(node, kind));
        }
        for (node, kind) in places() {
            self.add(uri(node, kind, self.families[1]));
        }
    }

    fn preferred(&self, node: &NodeView, kind: UriKind) -> Option<TurnUri> {
        let [first, second] = self.families;
        uri(node, kind, first).or_else(|| uri(node, kind, second))
    }

    fn add(&mut self, uri: Option<TurnUri>) {
        if let Some(uri) = uri
            && self.uris.len() < self.count
            && !self.uris.contains(&uri)
        {
            self.uris.push(uri);
        }
    }
}

/// The URI of `node` for `kind`, where it has a listener for it that works.
///
/// `turns:` carries the node's DNS name, which its certificate is made out to. The others carry an address: it needs no
/// resolver, and the name of a certificate that several relays share would lead to another one.
fn uri(node: &NodeView, kind: UriKind, family: Family) -> Option<TurnUri> {
    let (scheme, listener, transport) = match kind {
        UriKind::Stun => (Scheme::Stun, Transport::Udp, None),
        UriKind::Udp => (Scheme::Turn, Transport::Udp, Some(UriTransport::Udp)),
        UriKind::Tcp => (Scheme::Turn, Transport::Tcp, Some(UriTransport::Tcp)),
        UriKind::Tls => (Scheme::Turns, Transport::Tls, Some(UriTransport::Tcp)),
    };
    let mut addresses = node.listeners(listener).map(|listener| listener.address);
    let address = addresses.find(|address| address.is_ipv4() == (family == Family::V4))?;
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
