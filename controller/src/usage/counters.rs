//! Counters that only rise, and sums of them.

use std::collections::BTreeMap;

use turnfleet_proto::fleet as wire;

/// Application data of both directions, and allocations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// From clients to peers.
    pub packets_to_peers: u64,
    /// Application bytes of those.
    pub bytes_to_peers: u64,
    /// From peers to clients.
    pub packets_to_clients: u64,
    /// Application bytes of those.
    pub bytes_to_clients: u64,
    /// Allocations granted.
    pub opened: u64,
    /// Allocate requests of known users that were refused.
    pub refused: u64,
}

impl Totals {
    /// Adds what `other` has.
    pub fn add(&mut self, other: Self) {
        self.each(other, u64::saturating_add);
    }

    /// What of this is not in `earlier`.
    #[must_use]
    pub fn beyond(mut self, earlier: Self) -> Self {
        self.each(earlier, u64::saturating_sub);
        self
    }

    /// The bytes of both directions.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.bytes_to_peers.saturating_add(self.bytes_to_clients)
    }

    fn each(&mut self, other: Self, of: impl Fn(u64, u64) -> u64) {
        self.packets_to_peers = of(self.packets_to_peers, other.packets_to_peers);
        self.bytes_to_peers = of(self.bytes_to_peers, other.bytes_to_peers);
        self.packets_to_clients = of(self.packets_to_clients, other.packets_to_clients);
        self.bytes_to_clients = of(self.bytes_to_clients, other.bytes_to_clients);
        self.opened = of(self.opened, other.opened);
        self.refused = of(self.refused, other.refused);
    }
}

/// How clients come: the number of the transport on the wire, and whether by IPv6.
pub type Leg = (i32, bool);

/// What one node counted of one tenant within one epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantCounters {
    legs: BTreeMap<Leg, [u64; 4]>,
    opened: u64,
    refused: u64,
}

impl TenantCounters {
    /// Takes what is larger in `usage`; whether anything is.
    pub fn fold(&mut self, usage: &wire::TenantUsage) -> bool {
        let mut rose = rise(&mut self.opened, usage.opened);
        rose |= rise(&mut self.refused, usage.refused);
        for leg in &usage.legs {
            let values = [
                leg.packets_to_peers,
                leg.bytes_to_peers,
                leg.packets_to_clients,
                leg.bytes_to_clients,
            ];
            // Those of a node that invents transports would be without a bound.
            let known = wire::listener::Transport::try_from(leg.transport).is_ok();
            if !known || values == [0; 4] {
                continue;
            }
            let mine = self.legs.entry((leg.transport, leg.ipv6)).or_default();
            for (mine, value) in mine.iter_mut().zip(values) {
                rose |= rise(mine, value);
            }
        }
        rose
    }

    /// As a node tells them.
    #[must_use]
    pub fn wire(&self, tenant: u32) -> wire::TenantUsage {
        let legs = self.legs.iter().map(|((transport, ipv6), values)| {
            let [
                packets_to_peers,
                bytes_to_peers,
                packets_to_clients,
                bytes_to_clients,
            ] = *values;
            wire::LegUsage {
                transport: *transport,
                ipv6: *ipv6,
                packets_to_peers,
                bytes_to_peers,
                packets_to_clients,
                bytes_to_clients,
            }
        });
        wire::TenantUsage {
            tenant,
            legs: legs.collect(),
            opened: self.opened,
            refused: self.refused,
            open: 0,
        }
    }

    /// All legs together.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let allocations = Totals {
            opened: self.opened,
            refused: self.refused,
            ..Totals::default()
        };
        let mut sum = allocations;
        for (_, leg) in self.legs() {
            sum.add(leg);
        }
        sum
    }

    /// The bytes of both directions.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.totals().bytes()
    }

    /// Each leg by itself, without allocations.
    pub fn legs(&self) -> impl Iterator<Item = (Leg, Totals)> {
        self.legs.iter().map(|(leg, values)| {
            let [
                packets_to_peers,
                bytes_to_peers,
                packets_to_clients,
                bytes_to_clients,
            ] = *values;
            let totals = Totals {
                packets_to_peers,
                bytes_to_peers,
                packets_to_clients,
                bytes_to_clients,
                ..Totals::default()
            };
            (*leg, totals)
        })
    }
}

fn rise(mine: &mut u64, value: u64) -> bool {
    let rises = value > *mine;
    if rises {
        *mine = value;
    }
    rises
}
