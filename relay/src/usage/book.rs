//! The sums of one relay, and whom it watches.

use std::collections::BTreeMap;

use turnfleet_proto::fleet;
use turnfleet_turn::TenantId;
use turnfleet_turn::usage::{
    Behaviour, Bytes, Limited, Network, Spread, Strangers, Tally, TenantTally, User,
};

use super::report;
use super::talkers::Talkers;
use super::window::Window;

/// The last minute, in steps of five seconds.
type Minute<V> = Window<V, 12, 5_000>;
/// The last hour, in steps of a minute.
type Hour<V> = Window<V, 60, 60_000>;

/// How a user spreads is told for the current span of so many milliseconds and the one before.
const SPREAD_SPAN: u64 = 300_000;

/// Application bytes that one peer, refusal or allocation weighs as much as, so that users who scan stay among those that are
/// watched.
const BYTES_OF_A_DEED: u64 = 100_000;

/// Application data of one name.
#[derive(Clone, Debug, Default)]
pub(super) struct Volume {
    total: Bytes,
    minute: Minute<Bytes>,
    hour: Hour<Bytes>,
}

impl Volume {
    fn add(&mut self, millis: u64, bytes: Bytes) {
        self.total.add(bytes);
        self.minute.add(millis, bytes);
        self.hour.add(millis, bytes);
    }

    /// As a controller is told.
    pub(super) fn told(&mut self, millis: u64) -> fleet::Volume {
        let (minute, hour) = (self.minute.sum(millis), self.hour.sum(millis));
        fleet::Volume {
            to_peers: self.total.to_peers,
            to_clients: self.total.to_clients,
            minute_to_peers: minute.to_peers,
            minute_to_clients: minute.to_clients,
            hour_to_peers: hour.to_peers,
            hour_to_clients: hour.to_clients,
        }
    }
}

/// What is known of one user.
#[derive(Clone, Debug, Default)]
pub(super) struct Watched {
    pub(super) volume: Volume,
    /// Addresses, their networks, peers, and endpoints.
    pub(super) spreads: Spreads<4>,
    pub(super) permissions: Minute<u64>,
    pub(super) denied: Minute<u64>,
    pub(super) opened: Minute<u64>,
}

impl Watched {
    fn add(&mut self, now: u64, behaviour: &Behaviour) {
        let seen = [
            &behaviour.addresses,
            &behaviour.networks,
            &behaviour.peers,
            &behaviour.endpoints,
        ];
        self.spreads.add(now, seen);
        self.permissions.add(now, behaviour.permissions);
        self.denied.add(now, behaviour.denied);
        self.opened.add(now, behaviour.opened);
    }
}

/// What is known of the users of one network who were at their limits.
#[derive(Clone, Debug, Default)]
pub(super) struct AtLimits {
    pub(super) users: Spreads<1>,
    pub(super) times: Minute<u64>,
}

/// What was seen lately of `N` kinds of things.
#[derive(Clone, Debug)]
pub(super) struct Spreads<const N: usize> {
    span: u64,
    current: [Spread; N],
    before: [Spread; N],
}

impl<const N: usize> Default for Spreads<N> {
    fn default() -> Self {
        Self {
            span: 0,
            current: [Spread::default(); N],
            before: [Spread::default(); N],
        }
    }
}

impl<const N: usize> Spreads<N> {
    fn add(&mut self, millis: u64, seen: [&Spread; N]) {
        self.advance(millis);
        for (mine, seen) in self.current.iter_mut().zip(seen) {
            mine.add(seen);
        }
    }

    /// Those of the last five to ten minutes.
    pub(super) fn latest(&mut self, millis: u64) -> [Spread; N] {
        self.advance(millis);
        let mut sum = self.current;
        for (sum, before) in sum.iter_mut().zip(&self.before) {
            sum.add(before);
        }
        sum
    }

    fn advance(&mut self, millis: u64) {
        let span = millis / SPREAD_SPAN;
        if span <= self.span {
            return;
        }
        let current = std::mem::replace(&mut self.current, [Spread::default(); N]);
        self.before = match span - self.span {
            1 => current,
            _ => [Spread::default(); N],
        };
        self.span = span;
    }
}

/// What is known of the strangers of one network.
#[derive(Clone, Debug, Default)]
pub(super) struct Suspects {
    pub(super) failures: Minute<u64>,
    pub(super) challenges: Minute<u64>,
    pub(super) authentic: Minute<u64>,
}

/// See the module.
pub(super) struct Book {
    pub(super) epoch: Vec<u8>,
    pub(super) begun_millis: u64,
    pub(super) number: u64,
    /// Since the epoch began.
    pub(super) tenants: BTreeMap<TenantId, TenantTally>,
    /// What of `opened` and `closed` is of earlier processes.
    pub(super) before: BTreeMap<TenantId, u64>,
    pub(super) users: Talkers<User, Watched>,
    pub(super) sources: Talkers<Network, Volume>,
    pub(super) peers: Talkers<Network, Volume>,
    pub(super) strangers: Talkers<Network, Suspects>,
    pub(super) limited: Talkers<Network, AtLimits>,
    unnamed: u64,
    /// The time of the latest report: tallies are about a second old, and so is the time that they count for.
    millis: u64,
    has_changed: bool,
}

impl Book {
    /// Goes on with what was kept.
    pub(super) fn from_kept(usage: &fleet::Usage, millis: u64) -> Self {
        let tenants: BTreeMap<_, _> = usage.tenants.iter().map(report::read_tenant).collect();
        let opened = |(id, tenant): (&TenantId, &TenantTally)| (*id, tenant.opened);
        Self {
            epoch: usage.epoch.clone(),
            begun_millis: usage.begun_millis,
            number: usage.number,
            before: tenants.iter().map(opened).collect(),
            tenants,
            users: Talkers::new(millis),
            sources: Talkers::new(millis),
            peers: Talkers::new(millis),
            strangers: Talkers::new(millis),
            limited: Talkers::new(millis),
            unnamed: 0,
            millis,
            has_changed: false,
        }
    }

    pub(super) fn unnamed(&self) -> u64 {
        self.unnamed
    }

    /// Adds what a shard has counted.
    pub(super) fn absorb(&mut self, tally: Tally) {
        let now = self.millis;
        self.has_changed = true;
        self.unnamed += tally.unnamed;
        for (id, tenant) in &tally.tenants {
            self.tenants.entry(*id).or_default().add(tenant);
        }
        for (user, seen) in tally.users {
            let deeds = seen.behaviour.as_deref().map_or(0, deeds);
            let weight = seen.bytes.sum() + deeds * BYTES_OF_A_DEED;
            let watched = self.users.add(now, user, weight);
            watched.volume.add(now, seen.bytes);
            if let Some(behaviour) = seen.behaviour {
                watched.add(now, &behaviour);
            }
        }
        for (network, bytes) in tally.sources {
            self.sources.add(now, network, bytes.sum()).add(now, bytes);
        }
        for (network, bytes) in tally.peers {
            self.peers.add(now, network, bytes.sum()).add(now, bytes);
        }
        for (network, seen) in tally.strangers {
            self.absorb_strangers(network, seen);
        }
        for (network, Limited { users, times }) in tally.limited {
            let limited = self.limited.add(now, network, times);
            limited.users.add(now, [&users]);
            limited.times.add(now, times);
        }
    }

    /// A network whose challenges are answered is of no interest: only suspects are watched.
    fn absorb_strangers(&mut self, network: Network, seen: Strangers) {
        let now = self.millis;
        let unanswered = seen.challenges.saturating_sub(seen.authentic);
        let weight = seen.failures + unanswered;
        let suspects = match weight {
            0 => self.strangers.find(&network),
            weight => Some(self.strangers.add(now, network, weight)),
        };
        if let Some(suspects) = suspects {
            suspects.failures.add(now, seen.failures);
            suspects.challenges.add(now, seen.challenges);
            suspects.authentic.add(now, seen.authentic);
        }
    }

    /// All of it as of `millis`, and whether anything was counted since the last call.
    pub(super) fn report(&mut self, millis: u64) -> (fleet::Usage, bool) {
        self.millis = self.millis.max(millis);
        let has_changed = std::mem::take(&mut self.has_changed);
        self.number += 1;
        (report::of(self, self.millis), has_changed)
    }
}

/// How much a user did beside sending.
fn deeds(behaviour: &Behaviour) -> u64 {
    behaviour.permissions + behaviour.denied + behaviour.opened
}
