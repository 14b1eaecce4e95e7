//! What the zone says of one relay: where it is, and the SRV records that lead to it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::rr::rdata::SRV;
use hickory_proto::rr::{Name, RData};

use super::deck::{Body, Card, Target};
use super::zone::{body, under};
use crate::fleet::{NodeView, Transport};

/// The label between a node's name and the zone's.
const RELAYS: &str = "relay";
/// Where the target begins in the body of an SRV record: behind type, class, TTL, length, priority, weight and port.
const SRV_TARGET_AT: usize = 16;
/// The weight of the heaviest relay in SRV records.
const MAX_WEIGHT: f64 = 1000.0;
/// The least weight that a deck is dealt with.
const MIN_WEIGHT: f64 = 1e-6;

/// A service that clients look for by SRV records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Service {
    /// What stands before the name of a domain.
    pub(super) labels: &'static str,
    pub(super) transport: Transport,
    /// Its name in NAPTR records, RFC 5928 §5, which STUN has none of.
    pub(super) tag: Option<&'static str>,
}

/// RFC 5928 §3 and RFC 8489 §8.
pub(super) const SERVICES: [Service; 6] = [
    Service {
        labels: "_turn._udp",
        transport: Transport::Udp,
        tag: Some("RELAY:turn.udp"),
    },
    Service {
        labels: "_turn._tcp",
        transport: Transport::Tcp,
        tag: Some("RELAY:turn.tcp"),
    },
    Service {
        labels: "_turns._tcp",
        transport: Transport::Tls,
        tag: Some("RELAY:turn.tls"),
    },
    Service {
        labels: "_stun._udp",
        transport: Transport::Udp,
        tag: None,
    },
    Service {
        labels: "_stun._tcp",
        transport: Transport::Tcp,
        tag: None,
    },
    Service {
        labels: "_stuns._tcp",
        transport: Transport::Tls,
        tag: None,
    },
];

/// One relay's records.
pub(super) struct Relay<'v> {
    view: &'v NodeView,
    /// Its name in the zone, where its id can be part of one.
    pub(super) name: Option<Name>,
    /// What is in its address records.
    pub(super) addresses: Vec<(IpAddr, Body)>,
    /// Its share of users.
    weight: f64,
    services: [Vec<Card>; SERVICES.len()],
}

impl<'v> Relay<'v> {
    /// `heaviest` is the weight of the heaviest relay.
    pub(super) fn new(view: &'v NodeView, heaviest: f64, zone: &Name, ttl: u32) -> Self {
        let name = under(&format!("{}.{RELAYS}", view.id), zone);
        let listeners = Transport::ALL.into_iter().flat_map(|it| view.listeners(it));
        let ips: BTreeSet<IpAddr> = listeners.map(|it| it.address.ip()).collect();
        let addresses: Vec<(IpAddr, Body)> = ips
            .into_iter()
            .filter_map(|ip| Some((ip, body(&address(ip), ttl)?)))
            .collect();
        let weight = view.weight.max(MIN_WEIGHT);
        let bodies: Arc<[Body]> = addresses.iter().map(|(_, body)| Arc::clone(body)).collect();
        let share = weight / heaviest.max(weight) * MAX_WEIGHT;
        let services = SERVICES.map(|service| {
            let Some(name) = &name else {
                return Vec::new();
            };
            let listeners = view.listeners(service.transport);
            let ports: BTreeSet<u16> = listeners.map(|it| it.address.port()).collect();
            let each = whole(share / ports.len().max(1) as f64);
            let card = |port| {
                let srv = SRV::new(0, each, port, name.clone());
                Some(Card {
                    body: body(&RData::SRV(srv), ttl)?,
                    target: Some(Target {
                        name_at: SRV_TARGET_AT,
                        addresses: Arc::clone(&bodies),
                    }),
                })
            };
            ports.into_iter().filter_map(card).collect()
        });
        Self {
            view,
            name,
            addresses,
            weight,
            services,
        }
    }

    /// The address records of the family at which it serves `transport`, its weight shared among them.
    pub(super) fn reached_by(&self, transport: Transport, v4: bool) -> Vec<(f64, Card)> {
        let listeners = self.view.listeners(transport);
        let ips: BTreeSet<IpAddr> = listeners.map(|it| it.address.ip()).collect();
        let reached = |ip: &IpAddr| ips.contains(ip) && ip.is_ipv4() == v4;
        let cards = self.addresses.iter().filter(|(ip, _)| reached(ip));
        let cards: Vec<Card> = cards.map(|(_, body)| Arc::clone(body).into()).collect();
        let each = self.weight / cards.len().max(1) as f64;
        cards.into_iter().map(|card| (each, card)).collect()
    }

    /// The SRV records of the service at that place. Each is drawn as often as any other, because whoever has it goes by the
    /// weight in it.
    pub(super) fn serving(&self, service: usize) -> impl Iterator<Item = (f64, Card)> {
        self.services[service]
            .iter()
            .map(|card| (1.0, card.clone()))
    }
}

/// The data of an address record.
pub(super) fn address(ip: IpAddr) -> RData {
    match ip.to_canonical() {
        IpAddr::V4(ip) => RData::A(ip.into()),
        IpAddr::V6(ip) => RData::AAAA(ip.into()),
    }
}

/// The nearest whole number, one at least: zero would mean that hardly anybody shall come.
#[expect(
    clippy::cast_possible_truncation,
    reason = "weights are between zero and a thousand, and such a conversion saturates"
)]
fn whole(weight: f64) -> u16 {
    (weight.round() as u16).max(1)
}
