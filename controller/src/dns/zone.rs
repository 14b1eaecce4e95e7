//! The zone as the fleet is at one moment: every name with its records, written for the wire once, so that an answer is put
//! together by copying.
//!
//! It owns no sockets and knows no clock. A *domain* is the zone itself, for all relays, or a region in it; each has its records
//! at its own name and at `turn` in it: the addresses of its relays, NAPTR, and SRV below.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use hickory_proto::rr::rdata::{HINFO, NAPTR, NS, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use hickory_proto::serialize::binary::{BinEncodable as _, BinEncoder, NameEncoding};

use super::deck::{Body, Card, Deck, Target};
use super::relay::{Relay, SERVICES, address};
use crate::config::DnsConfig;
use crate::fleet::{FleetView, NodeView, Transport};

/// What stands before the name of a domain where clients expect a host.
const HOST: &str = "turn";
/// Where the name of a server begins in the body of an NS record: behind type, class, TTL and length.
const NS_TARGET_AT: usize = 10;
/// SOA, for secondary servers that the zone has none of, RFC 1912 §2.2.
const REFRESH: i32 = 1200;
const RETRY: i32 = 180;
const EXPIRE: i32 = 1_209_600;

/// The records of one name, by type.
#[derive(Clone, Debug, Default)]
pub(super) struct Records(Vec<(RecordType, Arc<Deck>)>);

impl Records {
    pub(super) fn of(&self, kind: RecordType) -> Option<&Deck> {
        let mut all = self.0.iter();
        all.find(|(own, _)| *own == kind).map(|(_, deck)| &**deck)
    }

    /// Adds records of a type that the name has none of yet.
    fn add(&mut self, kind: RecordType, deck: Option<Arc<Deck>>) {
        if let Some(deck) = deck.filter(|_| self.of(kind).is_none()) {
            self.0.push((kind, deck));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add_bodies(&mut self, kind: RecordType, bodies: impl IntoIterator<Item = Body>) {
        let cards = bodies.into_iter().map(|body| (1.0, Card::from(body)));
        self.add(kind, Deck::new(cards).map(Arc::new));
    }

    fn add_all(&mut self, others: &Self) {
        for (kind, deck) in &others.0 {
            self.add(*kind, Some(Arc::clone(deck)));
        }
    }
}

/// Every name of the zone with its records.
#[derive(Debug)]
pub struct Zone {
    /// The name of the zone, as all names here: on the wire, in lower case.
    apex: Box<[u8]>,
    names: HashMap<Box<[u8]>, Records>,
    soa: Body,
    no_any: Body,
    /// There are relays, and none is listed: the controller may have just started.
    unknown: bool,
}

impl Zone {
    /// The zone that `config` is about, as `view` has the fleet. `serial` rises from one to the next.
    #[must_use]
    pub fn new(config: &DnsConfig, view: &FleetView, serial: u32) -> Self {
        let mut making = Making {
            config,
            names: BTreeMap::new(),
        };
        let soa = making.apex(serial);
        let nodes = view.nodes.iter().map(|node| &**node);
        let relays = making.relays(nodes.clone());
        let unknown = relays.is_empty() && nodes.clone().any(|node| node.tenant.is_none());
        let all = view.for_everybody(None);
        making.domain(&config.zone, &chosen(&relays, &all));
        let mut regions: BTreeSet<&str> = nodes
            .filter(|node| node.tenant.is_none())
            .map(|node| &*node.identity.region)
            .collect();
        regions.insert(&view.region);
        for region in regions {
            if let Some(domain) = under(region, &config.zone) {
                let own = view.for_everybody(Some(region));
                making.domain(&domain, &chosen(&relays, &own));
            }
        }
        let hinfo = HINFO::new("RFC8482".to_owned(), String::new());
        Self {
            apex: wire(&config.zone),
            names: making.names.into_iter().collect(),
            soa,
            no_any: body(&RData::HINFO(hinfo), config.ttl).expect("HINFO has no names"),
            unknown,
        }
    }

    /// Whether `name` is in the zone.
    pub(super) fn holds(&self, name: &[u8]) -> bool {
        let mut rest = name;
        while rest.len() > self.apex.len() {
            let label = rest.first().map_or(0, |len| usize::from(*len) + 1);
            rest = rest.get(label..).unwrap_or_default();
        }
        *rest == *self.apex
    }

    /// The records of `name`; `None` where there is no such name.
    pub(super) fn records(&self, name: &[u8]) -> Option<&Records> {
        self.names.get(name)
    }

    pub(super) fn apex(&self) -> &[u8] {
        &self.apex
    }

    pub(super) fn soa(&self) -> &Body {
        &self.soa
    }

    /// Whether nobody shall remember that something is missing.
    pub(super) fn is_unknown(&self) -> bool {
        self.unknown
    }

    /// What is said to those who ask for everything.
    pub(super) fn no_any(&self) -> &Body {
        &self.no_any
    }
}

/// Those of `nodes`, in their order.
fn chosen<'r, 'v>(
    relays: &'r BTreeMap<&'v str, Relay<'v>>,
    nodes: &[&Arc<NodeView>],
) -> Vec<&'r Relay<'v>> {
    let ids = nodes.iter().map(|node| node.id.as_str());
    ids.filter_map(|id| relays.get(id)).collect()
}

struct Making<'c> {
    config: &'c DnsConfig,
    names: BTreeMap<Box<[u8]>, Records>,
}

impl Making<'_> {
    /// The records of `name`, which is in the zone. Those above it exist with it, RFC 8020.
    fn at(&mut self, name: &Name) -> &mut Records {
        let mut above = name.base_name();
        while self.config.zone.zone_of(&above) {
            self.names.entry(wire(&above)).or_default();
            above = above.base_name();
        }
        self.names.entry(wire(name)).or_default()
    }

    /// SOA, NS, and the addresses of name servers in the zone; returns SOA.
    fn apex(&mut self, serial: u32) -> Body {
        let config = self.config;
        let servers = &config.name_servers;
        let first = servers.first().map_or(&config.zone, |server| &server.name);
        let contact = config.contact.clone();
        let (mname, ttl) = (first.clone(), config.ttl);
        let soa = SOA::new(mname, contact, serial, REFRESH, RETRY, EXPIRE, ttl);
        let soa = body(&RData::SOA(soa), ttl).expect("two names of 128 characters fit");
        let mut cards = Vec::with_capacity(servers.len());
        for server in servers {
            let name = server.name.clone();
            let bodies = server
                .addresses
                .iter()
                .filter_map(|ip| body(&address(*ip), ttl));
            let addresses: Arc<[Body]> = bodies.collect();
            if config.zone.zone_of(&name) {
                let records = self.at(&name);
                add_addresses(records, addresses.iter().cloned());
            }
            let Some(body) = body(&RData::NS(NS(name)), ttl) else {
                continue;
            };
            let target = Some(Target {
                name_at: NS_TARGET_AT,
                addresses,
            });
            cards.push((1.0, Card { body, target }));
        }
        let records = self.at(&config.zone);
        records.add_bodies(RecordType::SOA, [Arc::clone(&soa)]);
        records.add(RecordType::NS, Deck::new(cards).map(Arc::new));
        soa
    }

    /// The listed relays that are for everybody, each with its own name in the zone.
    fn relays<'v>(
        &mut self,
        nodes: impl Iterator<Item = &'v NodeView>,
    ) -> BTreeMap<&'v str, Relay<'v>> {
        let listed = nodes.filter(|node| node.listed && node.tenant.is_none());
        let listed: Vec<_> = listed.collect();
        let heaviest = listed.iter().map(|node| node.weight).fold(0.0, f64::max);
        let mut relays = BTreeMap::new();
        for node in listed {
            let relay = Relay::new(node, heaviest, &self.config.zone, self.config.ttl);
            if let Some(name) = &relay.name {
                let bodies = relay.addresses.iter().map(|(_, body)| Arc::clone(body));
                add_addresses(self.at(name), bodies);
            }
            relays.insert(node.id.as_str(), relay);
        }
        relays
    }

    /// The records of the domain `name`, whose relays these are.
    fn domain(&mut self, name: &Name, relays: &[&Relay<'_>]) {
        let mut own = Records::default();
        for (kind, v4) in [(RecordType::A, true), (RecordType::AAAA, false)] {
            // An address has no transport: those of UDP, which clients try first, stand before all others.
            let ways = [Transport::Udp, Transport::Tcp, Transport::Tls];
            let deck = ways.into_iter().find_map(|transport| {
                Deck::new(relays.iter().flat_map(|it| it.reached_by(transport, v4)))
            });
            own.add(kind, deck.map(Arc::new));
        }
        let hosts: Vec<Name> = under(HOST, name)
            .into_iter()
            .chain([name.clone()])
            .collect();
        let mut naptr = Vec::new();
        for (place, service) in SERVICES.iter().enumerate() {
            let deck = Deck::new(relays.iter().flat_map(|relay| relay.serving(place)));
            let deck = deck.map(Arc::new);
            for host in &hosts {
                if let Some(name) = under(service.labels, host) {
                    self.at(&name).add(RecordType::SRV, deck.clone());
                }
            }
            let replacement = deck.and_then(|_| under(service.labels, name));
            if let Some((tag, replacement)) = service.tag.zip(replacement) {
                let preference = u16::try_from(10 * (place + 1)).unwrap_or(u16::MAX);
                let (flags, tag) = (b"S".as_slice().into(), tag.as_bytes().into());
                let record = NAPTR::new(10, preference, flags, tag, Box::default(), replacement);
                naptr.extend(body(&RData::NAPTR(record), self.config.ttl));
            }
        }
        own.add_bodies(RecordType::NAPTR, naptr);
        for host in hosts {
            self.at(&host).add_all(&own);
        }
    }
}

/// Adds the address records among `bodies`, by their types.
fn add_addresses(records: &mut Records, bodies: impl Iterator<Item = Body> + Clone) {
    for kind in [RecordType::A, RecordType::AAAA] {
        let own = u16::from(kind).to_be_bytes();
        let of_kind = bodies.clone().filter(|body| body.starts_with(&own));
        records.add_bodies(kind, of_kind);
    }
}

/// `labels`, with dots between them, in the domain `name`; `None` where that is no name.
pub(super) fn under(labels: &str, name: &Name) -> Option<Name> {
    let labels = labels.split('.').map(str::as_bytes);
    Name::from_labels(labels).ok()?.append_domain(name).ok()
}

/// `name` as it stands in a message, in lower case.
fn wire(name: &Name) -> Box<[u8]> {
    let mut bytes = Vec::new();
    for label in name {
        bytes.extend(u8::try_from(label.len()));
        bytes.extend_from_slice(label);
    }
    bytes.push(0);
    bytes.make_ascii_lowercase();
    bytes.into()
}

/// A record from its type to the end of its data. Names in it are written out, because they would point to places in
/// another message.
pub(super) fn body(data: &RData, ttl: u32) -> Option<Body> {
    let mut bytes = Vec::new();
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_name_encoding(NameEncoding::Uncompressed);
    data.emit(&mut encoder).ok()?;
    let length = u16::try_from(bytes.len()).ok()?;
    let mut body = Vec::with_capacity(10 + bytes.len());
    body.extend_from_slice(&u16::from(data.record_type()).to_be_bytes());
    body.extend_from_slice(&u16::from(DNSClass::IN).to_be_bytes());
    body.extend_from_slice(&ttl.to_be_bytes());
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(&bytes);
    Some(body.into())
}
