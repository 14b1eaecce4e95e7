//! What a controller is told, and what of it is kept.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use turnfleet_proto::fleet;
use turnfleet_proto::fleet::listener::Transport as WireTransport;
use turnfleet_turn::usage::{Network, Spread, TenantTally, Traffic};
use turnfleet_turn::{AddressFamily, Flow, TenantId, Transport};

use super::book::{Book, Volume};
use super::talkers::Talkers;

/// Names of one kind in a report. With the longest usernames the message stays below 64 KiB, which is what controllers take.
const MAX_TOLD: usize = 48;

/// Tenants in one message, and messages in one report. What is left over is in the next report.
const TENANTS_A_MESSAGE: usize = 128;
const MESSAGES: usize = 3;

/// How often every tenant is told, changed or not.
const WHOLE: Duration = Duration::from_secs(60);

/// What one session has told already.
#[derive(Default)]
pub(crate) struct Told {
    tenants: BTreeMap<u32, fleet::TenantUsage>,
    whole_at: Option<Instant>,
    /// The tenant that was told last: the others come first.
    last: Option<u32>,
}

impl Told {
    /// The messages that tell `usage`, without the tenants of which the session has told as much already.
    pub(crate) fn next(&mut self, usage: &fleet::Usage, now: Instant) -> Vec<fleet::Usage> {
        if self.whole_at.is_none_or(|at| now >= at + WHOLE) {
            self.whole_at = Some(now);
            self.tenants.clear();
        }
        let is_news = |it: &&fleet::TenantUsage| self.tenants.get(&it.tenant) != Some(it);
        let mut news: Vec<_> = usage.tenants.iter().filter(is_news).cloned().collect();
        let first = news.partition_point(|tenant| Some(tenant.tenant) <= self.last);
        news.rotate_left(first);
        news.truncate(MESSAGES * TENANTS_A_MESSAGE);
        for tenant in &news {
            self.tenants.insert(tenant.tenant, tenant.clone());
            self.last = Some(tenant.tenant);
        }
        let lists = fleet::Usage {
            tenants: Vec::new(),
            ..usage.clone()
        };
        let tenants = news.chunks(TENANTS_A_MESSAGE).map(|tenants| fleet::Usage {
            epoch: usage.epoch.clone(),
            begun_millis: usage.begun_millis,
            number: usage.number,
            tenants: tenants.to_vec(),
            tenants_only: true,
            ..fleet::Usage::default()
        });
        std::iter::once(lists).chain(tenants).collect()
    }
}

/// All that the book has.
pub(super) fn of(book: &mut Book, millis: u64) -> fleet::Usage {
    let (tenants, before) = (&book.tenants, &book.before);
    let told = |(id, tenant): (&TenantId, &TenantTally)| {
        let before = before.get(id).copied().unwrap_or(0);
        tell_tenant(*id, tenant, before)
    };
    fleet::Usage {
        epoch: book.epoch.clone(),
        begun_millis: book.begun_millis,
        number: book.number,
        tenants: tenants.iter().map(told).collect(),
        users: users(book, millis),
        sources: networks(&mut book.sources, millis),
        peers: networks(&mut book.peers, millis),
        strangers: strangers(book, millis),
        limited: limited(book, millis),
        tenants_only: false,
    }
}

/// `before` is how many allocations earlier processes have opened, all of which have ended.
fn tell_tenant(id: TenantId, tenant: &TenantTally, before: u64) -> fleet::TenantUsage {
    let mut legs = Vec::new();
    for transport in Transport::ALL {
        for family in [AddressFamily::V4, AddressFamily::V6] {
            let traffic = tenant.traffic[transport as usize][family as usize];
            if traffic != Traffic::default() {
                legs.push(fleet::LegUsage {
                    transport: wire_transport(transport).into(),
                    ipv6: family == AddressFamily::V6,
                    packets_to_peers: traffic.to_peers.packets,
                    bytes_to_peers: traffic.to_peers.bytes,
                    packets_to_clients: traffic.to_clients.packets,
                    bytes_to_clients: traffic.to_clients.bytes,
                });
            }
        }
    }
    fleet::TenantUsage {
        tenant: id.0,
        legs,
        opened: tenant.opened,
        refused: tenant.refused,
        open: tenant.opened.saturating_sub(before + tenant.closed),
    }
}

/// What was kept of one tenant. Allocations of an earlier process have ended with it.
pub(super) fn read_tenant(usage: &fleet::TenantUsage) -> (TenantId, TenantTally) {
    let mut tenant = TenantTally {
        opened: usage.opened,
        refused: usage.refused,
        ..TenantTally::default()
    };
    for leg in &usage.legs {
        let transport = match leg.transport() {
            WireTransport::Udp => Transport::Udp,
            WireTransport::Tcp => Transport::Tcp,
            WireTransport::Tls => Transport::Tls,
            WireTransport::Dtls | WireTransport::Unspecified => continue,
        };
        tenant.traffic[transport as usize][usize::from(leg.ipv6)] = Traffic {
            to_peers: Flow {
                packets: leg.packets_to_peers,
                bytes: leg.bytes_to_peers,
            },
            to_clients: Flow {
                packets: leg.packets_to_clients,
                bytes: leg.bytes_to_clients,
            },
        };
    }
    (TenantId(usage.tenant), tenant)
}

fn wire_transport(transport: Transport) -> WireTransport {
    match transport {
        Transport::Udp => WireTransport::Udp,
        Transport::Tcp => WireTransport::Tcp,
        Transport::Tls => WireTransport::Tls,
    }
}

/// Those with the most data lately, and those that spread or do the most.
fn users(book: &mut Book, millis: u64) -> Vec<fleet::UserUsage> {
    let mut users: Vec<_> = book
        .users
        .iter_mut()
        .map(|(user, watched)| {
            let [addresses, networks, peers, endpoints] = watched.spreads.latest(millis);
            let spread = [addresses, peers, endpoints].map(|spread| u64::from(spread.estimate()));
            let usage = fleet::UserUsage {
                tenant: user.tenant.0,
                user: user.name.to_string(),
                volume: Some(watched.volume.told(millis)),
                addresses: bits(addresses),
                networks: bits(networks),
                peers: bits(peers),
                endpoints: bits(endpoints),
                permissions: watched.permissions.sum(millis),
                denied: watched.denied.sum(millis),
                opened: watched.opened.sum(millis),
            };
            let deeds = [usage.permissions, usage.denied, usage.opened];
            let most = spread.into_iter().chain(deeds).max();
            (most.unwrap_or(0), usage)
        })
        .collect();
    users.sort_by_cached_key(|(spread, usage)| Reverse((*spread, lately(usage.volume.as_ref()))));
    let rest = users.split_off(users.len().min(MAX_TOLD / 2));
    let mut told: Vec<_> = users.into_iter().map(|(_, usage)| usage).collect();
    let mut rest: Vec<_> = rest.into_iter().map(|(_, usage)| usage).collect();
    rest.sort_by_key(|usage| Reverse(lately(usage.volume.as_ref())));
    told.extend(rest.into_iter().take(MAX_TOLD / 2));
    told.retain(|usage| {
        let is_seen = !usage.addresses.is_empty() || !usage.peers.is_empty();
        lately(usage.volume.as_ref()) > 0 || is_seen || usage.denied > 0
    });
    told.sort_by_key(|usage| Reverse(lately(usage.volume.as_ref())));
    told
}

fn networks(talkers: &mut Talkers<Network, Volume>, millis: u64) -> Vec<fleet::NetworkUsage> {
    let told = talkers
        .iter_mut()
        .map(|(network, volume)| fleet::NetworkUsage {
            network: network.to_string(),
            volume: Some(volume.told(millis)),
        });
    let mut told: Vec<_> = told
        .filter(|usage| lately(usage.volume.as_ref()) > 0)
        .collect();
    told.sort_by_key(|usage| Reverse(lately(usage.volume.as_ref())));
    told.truncate(MAX_TOLD);
    told
}

fn strangers(book: &mut Book, millis: u64) -> Vec<fleet::StrangerUsage> {
    let told = book.strangers.iter_mut().map(|(network, suspects)| {
        let challenges = suspects.challenges.sum(millis);
        fleet::StrangerUsage {
            network: network.to_string(),
            failures: suspects.failures.sum(millis),
            challenges,
            unanswered: challenges.saturating_sub(suspects.authentic.sum(millis)),
        }
    });
    let weight = |usage: &fleet::StrangerUsage| usage.failures + usage.unanswered;
    let mut told: Vec<_> = told.filter(|usage| weight(usage) > 0).collect();
    told.sort_by_key(|usage| Reverse(weight(usage)));
    told.truncate(MAX_TOLD);
    told
}

fn limited(book: &mut Book, millis: u64) -> Vec<fleet::LimitedUsage> {
    let told = book.limited.iter_mut().map(|(network, limited)| {
        let [users] = limited.users.latest(millis);
        let usage = fleet::LimitedUsage {
            network: network.to_string(),
            users: bits(users),
            times: limited.times.sum(millis),
        };
        (users.estimate(), usage)
    });
    let mut told: Vec<_> = told.filter(|(users, _)| *users > 0).collect();
    told.sort_by_key(|(users, usage)| Reverse((*users, usage.times)));
    told.truncate(MAX_TOLD);
    told.into_iter().map(|(_, usage)| usage).collect()
}

/// The bytes of the last hour.
fn lately(volume: Option<&fleet::Volume>) -> u64 {
    volume.map_or(0, |volume| {
        volume.hour_to_peers.saturating_add(volume.hour_to_clients)
    })
}

/// Empty where nothing was seen.
fn bits(spread: Spread) -> Vec<u8> {
    match spread.estimate() {
        0 => Vec::new(),
        _ => spread.to_bytes().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(tenants: std::ops::Range<u32>, opened: u64) -> fleet::Usage {
        let tenant = |tenant| fleet::TenantUsage {
            tenant,
            opened,
            ..fleet::TenantUsage::default()
        };
        fleet::Usage {
            tenants: tenants.map(tenant).collect(),
            ..fleet::Usage::default()
        }
    }

    fn tenants(messages: &[fleet::Usage]) -> Vec<u32> {
        assert!(
            messages
                .iter()
                .all(|it| it.tenants.len() <= TENANTS_A_MESSAGE)
        );
        let all = messages.iter().flat_map(|message| &message.tenants);
        all.map(|tenant| tenant.tenant).collect()
    }

    #[test]
    fn a_session_tells_what_has_changed_and_once_a_minute_all() {
        let (mut told, start) = (Told::default(), Instant::now());
        assert_eq!(tenants(&told.next(&usage(0..3, 1), start)), [0, 1, 2]);
        let mut later = usage(0..3, 1);
        later.tenants[1].opened = 2;
        assert_eq!(tenants(&told.next(&later, start)), [1]);
        assert!(tenants(&told.next(&later, start)).is_empty());
        assert_eq!(tenants(&told.next(&later, start + WHOLE)).len(), 3);
    }

    #[test]
    fn more_tenants_than_a_report_holds_take_turns() {
        let (mut told, now) = (Told::default(), Instant::now());
        let mut seen = std::collections::BTreeSet::new();
        for round in 0..3 {
            seen.extend(tenants(&told.next(&usage(0..1000, round), now)));
        }
        assert_eq!(seen.len(), 1000);
    }
}
