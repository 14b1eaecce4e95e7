//! Three nodes, four blocks, two controllers that may be behind: every order of events up to a depth, from several beginnings,
//! and long random ones.
//! The controllers plan with the functions beside this file, the relays keep the rule of [`turnfleet_proto::granted_range`].
//!
//! What the model takes on trust: an operator who forgets a node whose grant has no end speaks the truth. And a call that
//! goes on for longer than the whole grant of a node that nobody could reach is nobody's.

use std::collections::{HashSet, VecDeque};
use std::rc::Rc;

use turnfleet_proto::GrantedRange;
use turnfleet_proto::granted_range::has_ended;

use super::*;

const NODES: usize = 3;
const CONTROLLERS: usize = 2;
const BLOCKS: u16 = 4;
const FIRST: u16 = 50_000;
const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
/// A tick is longer than half a grant, and two are longer than one.
const TICK: u64 = 4 * 86_400;

/// What the store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Store {
    grants: Grants,
    fences: BTreeMap<u16, u64>,
    generation: u64,
}

/// What a relay runs by, and keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Policy {
    generation: u64,
    granted: Vec<GrantedRange>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Process {
    policy: Policy,
    /// Blocks with live allocations.
    in_use: u8,
    /// Those of them whose grant ended while nobody could reach the node, whether it was to give them up or not.
    lapsed: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Node {
    process: Option<Process>,
    kept: Policy,
    session: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    store: Rc<Store>,
    views: [Rc<Store>; CONTROLLERS],
    nodes: [Node; NODES],
    unix: u64,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Start(usize),
    Crash(usize),
    CutOff(usize),
    Register(usize, usize),
    /// The snapshot arrives; it is kept, or the disk is full.
    Snapshot(usize, bool),
    Report(usize),
    Open(usize),
    Close(usize, u16),
    Forget(usize, usize),
    Upkeep(usize),
    Follow(usize),
    Tick,
    Rest,
}

impl Act {
    fn brings_forward(self) -> bool {
        match self {
            Self::Start(_)
            | Self::Register(..)
            | Self::Snapshot(..)
            | Self::Report(_)
            | Self::Open(_)
            | Self::Follow(_) => true,
            Self::Crash(_)
            | Self::CutOff(_)
            | Self::Close(..)
            | Self::Forget(..)
            | Self::Upkeep(_)
            | Self::Tick
            | Self::Rest => false,
        }
    }
}

fn acts() -> Vec<Act> {
    let mut acts = vec![Act::Tick, Act::Rest];
    for node in 0..NODES {
        acts.extend([Act::Start(node), Act::Crash(node), Act::CutOff(node)]);
        acts.extend([Act::Report(node), Act::Open(node)]);
        acts.extend([true, false].map(|keeps| Act::Snapshot(node, keeps)));
        acts.extend((0..BLOCKS).map(|block| Act::Close(node, block)));
        for controller in 0..CONTROLLERS {
            acts.extend([
                Act::Register(node, controller),
                Act::Forget(node, controller),
            ]);
        }
    }
    for controller in 0..CONTROLLERS {
        acts.extend([Act::Upkeep(controller), Act::Follow(controller)]);
    }
    acts
}

fn id(node: usize) -> NodeId {
    format!("relay-{node}").parse().unwrap()
}

fn ports_of(block: u16) -> PortRange {
    PortRange::new(FIRST + 2 * block, FIRST + 2 * block + 1).unwrap()
}

impl Process {
    fn may_open(&self, block: u16, unix: u64) -> bool {
        let granted = self.policy.granted.iter();
        let mut of_block = granted.filter(|granted| granted.range.overlaps(ports_of(block)));
        of_block.any(|granted| granted.may_open(unix))
    }

    fn report(&self, kept: &Policy, unix: u64) -> PortReport {
        let all = || (0..BLOCKS).map(|block| (block, ports_of(block)));
        let open = all().filter(|(block, _)| self.may_open(*block, unix));
        let in_use = all().filter(|(block, _)| self.in_use & (1 << block) != 0);
        let withdrawn = in_use.filter(|(block, _)| !self.may_open(*block, unix));
        PortReport {
            kept_generation: kept.generation,
            uses: vec![PortUse {
                public_ip: ADDRESS,
                used: 2 * self.in_use.count_ones(),
                open: open.map(|(_, ports)| ports).collect(),
                withdrawn: withdrawn.map(|(_, ports)| ports).collect(),
            }],
        }
    }
}

impl World {
    fn new() -> Self {
        let store = Rc::new(Store {
            generation: 1,
            ..Store::default()
        });
        Self {
            views: [Rc::clone(&store), Rc::clone(&store)],
            store,
            nodes: std::array::from_fn(|_| Node::default()),
            unix: 1_700_000_000,
        }
    }

    /// A controller plans by its view, and writes if nobody was faster; it knows the store afterwards.
    fn write(&mut self, controller: usize, plan: impl FnOnce(&Sharing<'_>) -> Changes) {
        let view = Rc::clone(&self.views[controller]);
        // The worst case: whoever is not connected here is believed away.
        let is_away = |node: &NodeId| {
            !(0..NODES).any(|n| id(n) == *node && self.nodes[n].session == Some(controller))
        };
        let changes = plan(&Sharing {
            grants: &view.grants,
            plan: PortPlan {
                range: PortRange::new(FIRST, FIRST + 2 * BLOCKS - 1).unwrap(),
                relays_per_address: 0,
            },
            generation: view.generation,
            unix: self.unix,
            is_away: &is_away,
        });
        if !changes.is_empty() && view.generation == self.store.generation {
            let mut store = Store::clone(&self.store);
            store.generation += 1;
            for grant in &changes.releases {
                store.grants.remove(&(ADDRESS, grant.range.first()));
                store.fences.remove(&grant.range.first());
            }
            for grant in changes.grants {
                let first = grant.range.first();
                store.grants.insert((ADDRESS, first), grant);
                store.fences.insert(first, store.generation);
            }
            self.store = Rc::new(store);
        }
        self.views[controller] = Rc::clone(&self.store);
    }

    /// The same world after `act`; `None` where it cannot happen.
    fn after(&self, act: Act) -> Option<Self> {
        let mut world = self.clone();
        match act {
            Act::Start(node) => {
                let node = &mut world.nodes[node];
                if node.process.is_some() {
                    return None;
                }
                let policy = node.kept.clone();
                node.process = Some(Process {
                    policy,
                    ..Process::default()
                });
            }
            Act::Crash(node) => {
                world.nodes[node].process.take()?;
                world.nodes[node].session = None;
            }
            Act::CutOff(node) => drop(world.nodes[node].session.take()?),
            Act::Register(node, controller) => world.register(node, controller)?,
            Act::Snapshot(node, keeps) => world.snapshot(node, keeps)?,
            Act::Report(number) => {
                let node = &self.nodes[number];
                let report = node.process.as_ref()?.report(&node.kept, self.unix);
                world.write(node.session?, |sharing| {
                    sharing.look_after(&id(number), &[ADDRESS], &report)
                });
            }
            Act::Open(node) => {
                let process = world.nodes[node].process.as_mut()?;
                for block in 0..BLOCKS {
                    let is_open = process.may_open(block, self.unix);
                    process.in_use |= u8::from(is_open) << block;
                }
            }
            Act::Close(node, block) => {
                let process = world.nodes[node].process.as_mut()?;
                process.in_use &= !(1 << block);
                process.lapsed &= !(1 << block);
            }
            Act::Forget(node, controller) => world.forget(node, controller)?,
            Act::Upkeep(controller) => {
                world.write(controller, |sharing| sharing.ended_quarantines())
            }
            Act::Follow(controller) => world.views[controller] = Rc::clone(&self.store),
            Act::Tick => world.pass(TICK),
            Act::Rest => world.pass(QUARANTINE_SECONDS),
        }
        Some(world)
    }

    fn register(&mut self, number: usize, controller: usize) -> Option<()> {
        let in_use = self.nodes[number].process.as_ref()?.in_use;
        self.write(controller, |sharing| {
            sharing.register(&id(number), &[ADDRESS], in_use == 0)
        });
        let open = |grant: &PortGrant| grant.node == id(number) && grant.open_range().is_some();
        let has_ports = self.views[controller].grants.values().any(open);
        self.nodes[number].session = has_ports.then_some(controller);
        Some(())
    }

    fn snapshot(&mut self, number: usize, keeps: bool) -> Option<()> {
        let node = &mut self.nodes[number];
        let view = &self.views[node.session?];
        let process = node.process.as_mut()?;
        let granted = view
            .grants
            .values()
            .filter(|grant| grant.node == id(number));
        let granted = granted.filter_map(|grant| {
            Some(GrantedRange {
                public: ADDRESS,
                range: grant.open_range()?,
                fence: view.fences[&grant.range.first()],
                not_after: grant.not_after,
            })
        });
        let offered: Vec<_> = granted.collect();
        let held = &process.policy;
        let is_outdated =
            |offer: &GrantedRange| held.granted.iter().any(|held| offer.is_outdated_by(held));
        if view.generation <= held.generation || offered.iter().any(is_outdated) {
            return None;
        }
        process.policy = Policy {
            generation: view.generation,
            granted: offered,
        };
        if keeps {
            node.kept = process.policy.clone();
        }
        Some(())
    }

    fn forget(&mut self, number: usize, controller: usize) -> Option<()> {
        if self.nodes[number].session == Some(controller) {
            return None;
        }
        let own = || {
            self.store
                .grants
                .values()
                .filter(|grant| grant.node == id(number))
        };
        own().next()?;
        if own().any(|grant| grant.not_after.is_none() || grant.unconfirmed.is_some()) {
            if self.nodes[number].process.is_some() {
                return None;
            }
            self.nodes[number].kept = Policy::default();
        }
        self.write(controller, |sharing| sharing.forget(&id(number)));
        Some(())
    }

    fn pass(&mut self, seconds: u64) {
        self.unix += seconds;
        let has_ended = |end: Option<u64>| end.is_some_and(|end| has_ended(end, self.unix));
        for (number, node) in self.nodes.iter_mut().enumerate() {
            let Some(process) = &mut node.process else {
                continue;
            };
            for (bit, ports) in (0..BLOCKS).map(|block| (1 << block, ports_of(block))) {
                let mut granted = process.policy.granted.iter();
                let mut held = self.store.grants.values();
                let is_over = granted.any(|it| it.range.overlaps(ports) && has_ended(it.not_after))
                    || held.any(|it| {
                        let is_lost = it.ceded.is_some() || it.quarantined_until.is_some();
                        let is_known = it.unconfirmed.is_none();
                        let is_own = it.node == id(number) && it.range.overlaps(ports);
                        is_lost && is_known && is_own && has_ended(it.not_after)
                    });
                if is_over {
                    process.lapsed |= process.in_use & bit;
                }
            }
        }
    }

    /// I1: no port is open, or may be opened, by two processes.
    fn has_one_owner_each(&self) -> bool {
        (0..BLOCKS).all(|block| {
            let owns = |node: &&Node| {
                node.process.as_ref().is_some_and(|process| {
                    let used = process.in_use & !process.lapsed & (1 << block) != 0;
                    used || process.may_open(block, self.unix)
                })
            };
            self.nodes.iter().filter(owns).count() <= 1
        })
    }

    /// A node that has ports, or had them and nobody else does, has some again when it registers.
    fn gets_ports_back(&self, number: usize) -> bool {
        let own = self
            .store
            .grants
            .values()
            .any(|grant| grant.node == id(number));
        let mut world = self.clone();
        world.views[0] = Rc::clone(&world.store);
        world.nodes[number].process.get_or_insert_default();
        !own || (world.register(number, 0).is_some() && world.nodes[number].session.is_some())
    }

    #[track_caller]
    fn check(&self, path: &dyn Fn() -> Vec<Act>) {
        let grants: Vec<_> = self.store.grants.values().collect();
        for pair in grants.windows(2) {
            let apart = pair[0].range.last() < pair[1].range.first();
            assert!(apart, "{pair:#?}\nafter {:?}", path());
        }
        assert!(
            self.has_one_owner_each(),
            "two owners: {self:#?}\nafter {:?}",
            path()
        );
        for node in 0..NODES {
            let back = self.gets_ports_back(node);
            assert!(
                back,
                "node {node} has no way back: {self:#?}\nafter {:?}",
                path()
            );
        }
    }
}

/// Where histories begin: with nothing; with all ports in use and another node that asks for some; with two nodes of which
/// each has its part; and with one that had its part without an end, until another one took the free ports beside it.
fn beginnings() -> [Vec<Act>; 4] {
    use Act::{Crash, Forget, Open, Register, Report, Snapshot, Start, Tick, Upkeep};
    let asked = [
        Start(0),
        Register(0, 0),
        Snapshot(0, true),
        Open(0),
        Start(1),
        Register(1, 0),
    ];
    let shared = [
        Start(0),
        Register(0, 0),
        Snapshot(0, true),
        Start(1),
        Register(1, 0),
        Snapshot(0, true),
        Report(0),
        Register(1, 0),
        Snapshot(1, true),
        Open(0),
        Open(1),
    ];
    let followed = [
        Crash(1),
        Forget(1, 0),
        Tick,
        Tick,
        Upkeep(0),
        Register(0, 0),
        Snapshot(0, true),
        Start(2),
        Register(2, 0),
    ];
    let followed = [&shared[..], &followed].concat();
    [Vec::new(), asked.to_vec(), shared.to_vec(), followed]
}

#[test]
fn no_port_has_two_owners_in_any_order_of_events() {
    for beginning in beginnings() {
        explore(&beginning);
    }
}

/// The world after these acts, each of which can happen.
fn world_after(acts: &[Act]) -> World {
    acts.iter().fold(World::new(), |world, act| {
        let next = world.after(*act);
        next.unwrap_or_else(|| panic!("{act:?} cannot happen in {world:#?}"))
    })
}

/// Goes through every order of events, the short ones first.
fn explore(beginning: &[Act]) {
    const MOST: usize = 3_000;
    let (acts, world) = (acts(), world_after(beginning));
    let mut known = HashSet::from([world.clone()]);
    let mut steps: Vec<(usize, Option<Act>)> = vec![(0, None)];
    let mut queue = VecDeque::from([(world, 0)]);
    while let Some((world, place)) = queue.pop_front() {
        for act in &acts {
            let Some(next) = world.after(*act) else {
                continue;
            };
            if known.len() >= MOST || !known.insert(next.clone()) {
                continue;
            }
            steps.push((place, Some(*act)));
            let last = steps.len() - 1;
            next.check(&|| {
                let (mut path, mut at) = (Vec::new(), last);
                while let (before, Some(act)) = steps[at] {
                    path.push(act);
                    at = before;
                }
                path.extend(beginning.iter().rev());
                path.reverse();
                path
            });
            queue.push_back((next, last));
        }
    }
    assert_eq!(known.len(), MOST);
}

#[test]
fn no_port_has_two_owners_after_long_histories() {
    let acts = acts();
    // What brings nodes forward is as frequent as all that holds them up.
    let forward: Vec<_> = acts.iter().filter(|act| act.brings_forward()).collect();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut draw = |bound: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 33).unwrap() % bound
    };
    for number in 0..1_200 {
        let beginnings = beginnings();
        let mut path = beginnings[number % beginnings.len()].clone();
        let mut world = world_after(&path);
        while path.len() < 80 {
            let act = match draw(2) {
                0 => acts[draw(acts.len())],
                _ => *forward[draw(forward.len())],
            };
            if let Some(next) = world.after(act).filter(|next| *next != world) {
                world = next;
                path.push(act);
                world.check(&|| path.clone());
            }
        }
    }
}
