//! A model of relays that hold what they are told, with words under way, relays cut off and leaders that change: the sum of
//! what is held never passes the limit.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use turnfleet_proto::{NodeId, fleet as wire};
use turnfleet_turn::Instant;

use super::{Demand, Quotas, Limits, Wanted};

const LIMIT: u64 = 100;
const TENANT: u32 = 7;

/// A small generator of chance, the same for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

#[derive(Debug)]
struct Relay {
    id: NodeId,
    told: Option<wire::Shares>,
    used: u64,
    refused: bool,
    is_connected: bool,
}

impl Relay {
    fn new(index: usize) -> Self {
        Self {
            id: format!("relay-{index}").parse().unwrap(),
            told: None,
            used: 0,
            refused: false,
            is_connected: true,
        }
    }

    fn share(&self) -> u64 {
        let told = self.told.as_ref();
        told.map_or(LIMIT / 8, |told| {
            let shares = told.shares.iter();
            shares.filter_map(|share| share.allocations).sum()
        })
    }

    fn held(&self) -> u64 {
        self.share().max(self.used)
    }

    fn arrive(&mut self) -> bool {
        let admitted = self.used < self.share();
        self.used += u64::from(admitted);
        self.refused |= !admitted;
        admitted
    }

    fn demand(&mut self) -> Demand {
        let told = self.told.as_ref();
        Demand::read(&wire::Demand {
            term: told.map_or(0, |told| told.term),
            number: told.map_or(0, |told| told.number),
            uses: vec![wire::ShareUse {
                tenant: TENANT,
                held_allocations: self.held(),
                allocations: self.used,
                refused: std::mem::take(&mut self.refused),
                ..wire::ShareUse::default()
            }],
        })
    }

    fn hear(&mut self, shares: wire::Shares) {
        let known = self.told.as_ref().map(|told| (told.term, told.number));
        if known.is_none_or(|known| known < (shares.term, shares.number)) {
            self.told = Some(shares);
        }
    }
}

struct World {
    now: Instant,
    relays: Vec<Relay>,
    controllers: [Quotas; 2],
    leader: usize,
    demands: VecDeque<(usize, Demand)>,
    shares: VecDeque<(usize, wire::Shares)>,
    limit: u64,
}

impl World {
    fn new(relays: usize) -> Self {
        Self {
            now: Instant(1),
            relays: (0..relays).map(Relay::new).collect(),
            controllers: [Quotas::default(), Quotas::default()],
            leader: 0,
            demands: VecDeque::new(),
            shares: VecDeque::new(),
            limit: LIMIT,
        }
    }

    fn wanted(&self) -> Wanted {
        let limits = Limits {
            allocations: self.limit,
            ..Limits::default()
        };
        Wanted {
            limits: BTreeMap::from([(TENANT, limits)]),
            nodes: self
                .relays
                .iter()
                .map(|it| (it.id.clone(), it.is_connected))
                .collect(),
            ..Wanted::default()
        }
    }

    fn speak(&mut self, at: usize) {
        let demand = self.relays[at].demand();
        if self.relays[at].is_connected {
            self.demands.push_back((at, demand));
        }
    }

    fn deliver(&mut self) {
        if let Some((at, demand)) = self.demands.pop_front() {
            for controller in &mut self.controllers {
                controller.demanded(&self.relays[at].id, b"run", demand.clone());
            }
        }
        if let Some((at, shares)) = self.shares.pop_front()
            && self.relays[at].is_connected
        {
            self.relays[at].hear(shares);
            self.speak(at);
        }
    }

    fn look(&mut self) {
        self.now = self.now.after(Duration::from_millis(100));
        let wanted = self.wanted();
        let millis = self.now.0 / 1_000_000;
        for (index, controller) in self.controllers.iter_mut().enumerate() {
            controller.look(self.now, millis, index == self.leader, &wanted);
        }
        let word = self.controllers[self.leader].word([].into_iter());
        self.controllers[1 - self.leader].followed(word.term, &word.shares);
        for (at, relay) in self.relays.iter().enumerate() {
            let shares = self.controllers[self.leader].shares(&relay.id);
            if let Some(shares) = shares
                && relay.is_connected
            {
                self.shares.push_back((at, shares));
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            for at in 0..self.relays.len() {
                self.speak(at);
            }
            self.look();
            while !self.demands.is_empty() || !self.shares.is_empty() {
                self.deliver();
            }
            self.check();
        }
    }

    #[track_caller]
    fn check(&self) {
        let held: u64 = self.relays.iter().map(Relay::held).sum();
        assert!(held <= LIMIT, "{held}: {:#?}", self.relays);
    }
}

#[test]
fn a_limit_holds_at_every_moment_whatever_is_under_way() {
    for seed in 1..=60 {
        let mut chance = Chance(seed * 0x9E37_79B9);
        let mut world = World::new(2 + chance.below(6));
        // Nobody can count with a relay that was cut off before its first word.
        for at in 0..world.relays.len() {
            world.speak(at);
            world.deliver();
        }
        for _ in 0..3_000 {
            let at = chance.below(world.relays.len());
            match chance.below(20) {
                0..5 => drop(world.relays[at].arrive()),
                5..8 => world.relays[at].used = world.relays[at].used.saturating_sub(1),
                8..11 => world.speak(at),
                11..17 => world.deliver(),
                17..19 => world.look(),
                _ => match chance.below(20) {
                    0 => world.leader = 1 - world.leader,
                    1..4 => {
                        let relay = &mut world.relays[at];
                        relay.is_connected = !relay.is_connected;
                        world.speak(at);
                    }
                    _ => world.relays[at].used = 0,
                },
            }
            world.check();
        }
    }
}

#[test]
fn a_busy_relay_has_nearly_everything_within_a_second_or_two() {
    let mut world = World::new(4);
    world.settle();
    for busy in [0, 3, 1] {
        for relay in &mut world.relays {
            relay.used = 0;
        }
        let begun = world.now;
        while world.relays[busy].used < 95 {
            while world.relays[busy].arrive() {}
            world.speak(busy);
            world.look();
            while !world.demands.is_empty() || !world.shares.is_empty() {
                world.deliver();
            }
            for at in 0..4 {
                world.speak(at);
            }
            world.check();
            let waited = world.now.since(begun);
            assert!(waited < Duration::from_secs(3), "{:#?}", world.relays);
        }
    }
}

#[test]
fn a_relay_that_is_cut_off_keeps_its_share_and_one_that_is_gone_gives_it_back() {
    let mut world = World::new(2);
    world.settle();
    world.relays[1].is_connected = false;
    while world.relays[0].arrive() {}
    world.settle();
    assert!(world.relays[0].share() <= LIMIT - world.relays[1].share());
    world.relays.pop();
    for _ in 0..5 {
        while world.relays[0].arrive() {}
        world.settle();
    }
    assert_eq!(world.relays[0].used, LIMIT);
}

#[test]
fn another_leader_begins_with_what_relays_hold() {
    let mut world = World::new(3);
    world.settle();
    while world.relays[0].arrive() {}
    world.settle();
    let before: Vec<_> = world.relays.iter().map(Relay::share).collect();
    world.leader = 1;
    world.controllers[1] = Quotas::default();
    world.speak(0);
    world.deliver();
    world.settle();
    let after: Vec<_> = world.relays.iter().map(Relay::share).collect();
    assert_eq!(before, after);
}

#[test]
fn a_lowered_limit_is_passed_on() {
    let mut world = World::new(2);
    world.settle();
    world.limit = 10;
    world.settle();
    let shares: u64 = world.relays.iter().map(Relay::share).sum();
    assert_eq!(shares, 10);
}

#[test]
fn a_limit_that_is_taken_away_is_no_bound() {
    let mut world = World::new(2);
    world.settle();
    world.limit = 0;
    world.settle();
    let told = world.relays[0].told.as_ref().unwrap();
    let bounds = told
        .shares
        .iter()
        .filter(|share| share.allocations.is_some());
    assert_eq!(bounds.count(), 0);
}
