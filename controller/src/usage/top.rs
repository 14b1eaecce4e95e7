//! Those with the most, over all relays: what each relay watches is put together by name.
//!
//! A relay watches a bounded number, so a sum may miss what a relay saw of somebody before it was watched, or among too
//! many others; it is never too much.

use std::cmp::Reverse;
use std::collections::HashMap;

use turnfleet_proto::fleet as wire;
use turnfleet_turn::usage::Spread;

use super::aggregate::Aggregate;

/// A report speaks for the last minute for so many milliseconds, and for the last hour for so many.
const MINUTE_MILLIS: u64 = 60_000;
const HOUR_MILLIS: u64 = 3_600_000;

/// Who is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Users of tenants.
    Users,
    /// Networks of clients.
    Sources,
    /// Networks of peers.
    Peers,
    /// Networks of those who have proved nothing.
    Strangers,
}

impl Kind {
    /// The name in the API.
    pub const NAMES: &'static [&'static str] = &["users", "sources", "peers", "strangers"];

    /// The kind of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "users" => Some(Self::Users),
            "sources" => Some(Self::Sources),
            "peers" => Some(Self::Peers),
            "strangers" => Some(Self::Strangers),
            _ => None,
        }
    }
}

/// What they are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// The last minute.
    Minute,
    /// The last hour.
    Hour,
}

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Talker {
    /// The tenant of a user; zero for networks.
    pub tenant: u32,
    /// The user, or the network.
    pub name: String,
    /// How many relays watch it.
    pub nodes: u32,
    /// Application data of the last minute, to peers and to clients.
    pub minute: [u64; 2],
    /// The same of the last hour.
    pub hour: [u64; 2],
    /// The same since the relays watch it.
    pub total: [u64; 2],
    /// Of a user: addresses that allocations were made from, IP addresses of peers, and those with ports, each of the last five
    /// to ten minutes.
    pub spreads: [Spread; 3],
    /// Of a user: permissions for peers that there was none for, within the last minute.
    pub permissions: u64,
    /// Of strangers, within the last minute: bad credentials, challenges, and challenges that led to nothing.
    pub strangers: [u64; 3],
}

impl Talker {
    fn weight(&self, by: Span) -> u64 {
        let volume = match by {
            Span::Minute => self.minute,
            Span::Hour => self.hour,
        };
        let strangers = self.strangers[0].saturating_add(self.strangers[2]);
        volume[0]
            .saturating_add(volume[1])
            .saturating_add(strangers)
    }

    fn add(&mut self, volume: &wire::Volume, age: u64) {
        let add = |sum: &mut [u64; 2], values: [u64; 2]| {
            for (sum, value) in sum.iter_mut().zip(values) {
                *sum = sum.saturating_add(value);
            }
        };
        if age < MINUTE_MILLIS {
            add(
                &mut self.minute,
                [volume.minute_to_peers, volume.minute_to_clients],
            );
        }
        add(
            &mut self.hour,
            [volume.hour_to_peers, volume.hour_to_clients],
        );
        add(&mut self.total, [volume.to_peers, volume.to_clients]);
    }
}

/// The first `limit` of `kind`, the largest first.
#[must_use]
pub fn merge(aggregate: &Aggregate, kind: Kind, by: Span, now: u64, limit: usize) -> Vec<Talker> {
    let mut merged: HashMap<(u32, &str), Talker> = HashMap::new();
    for (_, node) in aggregate.nodes() {
        let Some(latest) = node.latest() else {
            continue;
        };
        let age = now.saturating_sub(latest.at_millis);
        if age >= HOUR_MILLIS {
            continue;
        }
        let lists = &latest.lists;
        match kind {
            Kind::Users => users(&mut merged, &lists.users, age),
            Kind::Sources => networks(&mut merged, &lists.sources, age),
            Kind::Peers => networks(&mut merged, &lists.peers, age),
            Kind::Strangers => strangers(&mut merged, &lists.strangers, age),
        }
    }
    let mut all: Vec<_> = merged
        .into_iter()
        .map(|((tenant, name), talker)| Talker {
            tenant,
            name: name.to_owned(),
            ..talker
        })
        .collect();
    all.sort_by(|a, b| {
        let order = |it: &Talker| Reverse((it.weight(by), it.weight(Span::Hour)));
        (order(a), a.tenant, &a.name).cmp(&(order(b), b.tenant, &b.name))
    });
    all.truncate(limit);
    all
}

fn users<'u>(merged: &mut HashMap<(u32, &'u str), Talker>, users: &'u [wire::UserUsage], age: u64) {
    for user in users {
        let talker = merged.entry((user.tenant, &user.user)).or_default();
        talker.nodes += 1;
        talker.add(&user.volume.unwrap_or_default(), age);
        if age < MINUTE_MILLIS {
            talker.permissions = talker.permissions.saturating_add(user.permissions);
            let seen = [&user.addresses, &user.peers, &user.endpoints];
            for (sum, seen) in talker.spreads.iter_mut().zip(seen) {
                if let Some(seen) = Spread::from_bytes(seen) {
                    sum.add(&seen);
                }
            }
        }
    }
}

fn networks<'u>(
    merged: &mut HashMap<(u32, &'u str), Talker>,
    networks: &'u [wire::NetworkUsage],
    age: u64,
) {
    for network in networks {
        let talker = merged.entry((0, &network.network)).or_default();
        talker.nodes += 1;
        talker.add(&network.volume.unwrap_or_default(), age);
    }
}

fn strangers<'u>(
    merged: &mut HashMap<(u32, &'u str), Talker>,
    strangers: &'u [wire::StrangerUsage],
    age: u64,
) {
    for seen in strangers.iter().filter(|_| age < MINUTE_MILLIS) {
        let talker = merged.entry((0, &seen.network)).or_default();
        talker.nodes += 1;
        let values = [seen.failures, seen.challenges, seen.unanswered];
        for (sum, value) in talker.strangers.iter_mut().zip(values) {
            *sum = sum.saturating_add(value);
        }
    }
}
