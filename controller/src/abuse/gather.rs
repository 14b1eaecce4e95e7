//! Puts together what all relays tell of users and networks.

use std::collections::BTreeMap;

use ipnet::IpNet;
use turnfleet_proto::fleet as wire;
use turnfleet_turn::usage::Spread;

use super::signals::{NetworkSignals, Signals, UserSignals};
use crate::usage::Aggregate;

/// A report speaks of the last minute for so many milliseconds.
const FRESH: u64 = 15_000;

/// What is known at `millis`, by the clock that the reports in `aggregate` are dated with, with `claims` beside.
pub(super) fn gather(aggregate: &Aggregate, millis: u64, claims: BTreeMap<String, u64>) -> Signals {
    let mut signals = Signals {
        claims,
        ..Signals::default()
    };
    let reports = aggregate.nodes().filter_map(|(_, node)| node.latest());
    for report in reports.filter(|it| millis.saturating_sub(it.at_millis) < FRESH) {
        for user in &report.lists.users {
            // Whoever is nobody is many.
            if !user.user.is_empty() {
                let key = (user.tenant, user.user.clone());
                add_user(signals.users.entry(key).or_default(), user);
            }
        }
        for seen in &report.lists.strangers {
            if let Some(network) = network(&mut signals, &seen.network) {
                network.nodes += 1;
                add(&mut network.failures, seen.failures);
                add(&mut network.challenges, seen.challenges);
                add(&mut network.unanswered, seen.unanswered);
            }
        }
        for seen in &report.lists.limited {
            if let Some(network) = network(&mut signals, &seen.network) {
                union(&mut network.limited_users, &seen.users);
                add(&mut network.limited, seen.times);
            }
        }
    }
    signals
}

fn add_user(sum: &mut UserSignals, user: &wire::UserUsage) {
    let volume = user.volume.unwrap_or_default();
    sum.nodes += 1;
    add(&mut sum.bytes_back, volume.minute_to_clients);
    union(&mut sum.addresses, &user.addresses);
    union(&mut sum.networks, &user.networks);
    union(&mut sum.peers, &user.peers);
    union(&mut sum.endpoints, &user.endpoints);
    add(&mut sum.new_peers, user.permissions);
    add(&mut sum.denied, user.denied);
    add(&mut sum.opened, user.opened);
}

fn network<'s>(signals: &'s mut Signals, text: &str) -> Option<&'s mut NetworkSignals> {
    let network: IpNet = text.parse().ok()?;
    Some(signals.networks.entry(network.trunc()).or_default())
}

fn add(sum: &mut u64, value: u64) {
    *sum = sum.saturating_add(value);
}

fn union(sum: &mut Spread, bits: &[u8]) {
    if let Some(seen) = Spread::from_bytes(bits) {
        sum.add(&seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(things: std::ops::Range<u8>) -> Vec<u8> {
        let mut spread = Spread::default();
        for thing in things {
            spread.insert(&[thing]);
        }
        spread.to_bytes().to_vec()
    }

    fn report(addresses: std::ops::Range<u8>) -> wire::Usage {
        let user = |name: &str| wire::UserUsage {
            user: name.to_owned(),
            addresses: spread(addresses.clone()),
            denied: 5,
            ..wire::UserUsage::default()
        };
        wire::Usage {
            epoch: vec![7; 16],
            number: 1,
            users: vec![user("ann"), user("")],
            strangers: vec![wire::StrangerUsage {
                network: "192.0.2.0/24".to_owned(),
                failures: 3,
                ..wire::StrangerUsage::default()
            }],
            limited: vec![wire::LimitedUsage {
                network: "192.0.2.0/24".to_owned(),
                users: spread(0..4),
                times: 9,
            }],
            ..wire::Usage::default()
        }
    }

    #[test]
    fn what_relays_tell_of_one_is_one_and_what_is_old_is_nothing() {
        let mut aggregate = Aggregate::default();
        for (node, addresses) in [("a", 0..12), ("b", 10..20)] {
            aggregate.fold(&node.parse().unwrap(), report(addresses), 1000, true);
        }
        let signals = gather(&aggregate, 2000, BTreeMap::new());
        assert_eq!(signals.users.len(), 1);
        let ann = &signals.users[&(0, "ann".to_owned())];
        assert_eq!((ann.nodes, ann.denied), (2, 10));
        assert!(ann.addresses.estimate().abs_diff(20) <= 2);
        let network: IpNet = "192.0.2.0/24".parse().unwrap();
        let seen = &signals.networks[&network];
        assert_eq!((seen.nodes, seen.failures, seen.limited), (2, 6, 18));
        assert_eq!(seen.limited_users.estimate(), 4);
        let later = gather(&aggregate, 1000 + FRESH, BTreeMap::new());
        assert_eq!(later, Signals::default());
    }
}
