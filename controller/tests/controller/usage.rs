//! That the sums of every controller are the sums of the relays, and that the history tells every byte once: whatever reports are
//! lost, late or repeated, whichever controller hears them, whoever leads, and whatever relays lose.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use turnfleet_controller::store::Entry;
use turnfleet_controller::usage::Aggregate;
use turnfleet_controller::usage::aggregate::{By, Filter};
use turnfleet_controller::usage::history::Span;
use turnfleet_controller::usage::kept::Written;
use turnfleet_proto::NodeId;
use turnfleet_proto::fleet::listener::Transport;
use turnfleet_proto::fleet::{LegUsage, TenantUsage, Usage};

const NODES: usize = 3;
const CONTROLLERS: usize = 3;
const TENANTS: u32 = 300;

/// What happens.
#[derive(Clone, Debug)]
enum Step {
    Traffic {
        node: usize,
        tenant: u32,
        udp: bool,
        bytes: u32,
    },
    /// To a controller, or to nobody.
    Report {
        node: usize,
        to: Option<usize>,
    },
    /// A report that was sent before.
    Again {
        which: usize,
        to: usize,
    },
    /// A node loses what it has counted, and counts anew.
    Lose {
        node: usize,
    },
    Follow {
        from: usize,
        to: usize,
    },
    /// A leader writes so many of its records, and dies before the others where there are more.
    Keep {
        leader: usize,
        records: usize,
    },
    /// A controller begins with what the store has.
    Restart {
        controller: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = 0..NODES;
    let controller = 0..CONTROLLERS;
    let step = prop_oneof![
        4 => (node.clone(), 0..TENANTS, any::<bool>(), 1..10_000u32)
            .prop_map(|(node, tenant, udp, bytes)| Step::Traffic { node, tenant, udp, bytes }),
        4 => (node.clone(), proptest::option::weighted(0.8, controller.clone()))
            .prop_map(|(node, to)| Step::Report { node, to }),
        2 => (any::<usize>(), controller.clone()).prop_map(|(which, to)| Step::Again { which, to }),
        1 => node.prop_map(|node| Step::Lose { node }),
        3 => (controller.clone(), controller.clone()).prop_map(|(from, to)| Step::Follow { from, to }),
        2 => (controller.clone(), 0..6usize).prop_map(|(leader, records)| Step::Keep { leader, records }),
        1 => controller.prop_map(|controller| Step::Restart { controller }),
    ];
    vec(step, 1..120)
}

#[derive(Default)]
struct Node {
    epoch: u8,
    number: u64,
    counters: BTreeMap<(u32, bool), [u64; 2]>,
}

impl Node {
    fn report(&mut self, node: usize) -> (usize, Usage) {
        self.number += 1;
        let mut tenants: BTreeMap<u32, TenantUsage> = BTreeMap::new();
        for ((tenant, udp), [packets, bytes]) in &self.counters {
            let transport = if *udp { Transport::Udp } else { Transport::Tls };
            let usage = tenants.entry(*tenant).or_default();
            usage.tenant = *tenant;
            usage.legs.push(LegUsage {
                transport: transport.into(),
                packets_to_peers: *packets,
                bytes_to_peers: *bytes,
                ..LegUsage::default()
            });
        }
        let usage = Usage {
            epoch: vec![self.epoch; 16],
            begun_millis: u64::from(self.epoch) + 1,
            number: self.number,
            tenants: tenants.into_values().collect(),
            ..Usage::default()
        };
        (node, usage)
    }
}

/// The fleet, without its network.
#[derive(Default)]
struct World {
    nodes: [Node; NODES],
    sent: Vec<(usize, Usage)>,
    controllers: [Aggregate; CONTROLLERS],
    /// What each controller has been told by each, by stamp.
    known: [[u64; CONTROLLERS]; CONTROLLERS],
    store: BTreeMap<String, Vec<u8>>,
    history: Vec<Span>,
    truth: BTreeMap<u32, u64>,
}

impl World {
    fn step(&mut self, step: &Step) {
        match *step {
            Step::Traffic {
                node,
                tenant,
                udp,
                bytes,
            } => {
                let counter = self.nodes[node].counters.entry((tenant, udp)).or_default();
                counter[0] += 1;
                counter[1] += u64::from(bytes);
                *self.truth.entry(tenant).or_default() += u64::from(bytes);
            }
            Step::Report { node, to } => {
                let report = self.nodes[node].report(node);
                self.sent.push(report.clone());
                if let Some(to) = to {
                    self.hear(to, report);
                }
            }
            Step::Again { which, to } => {
                if let Some(which) = which.checked_rem(self.sent.len()) {
                    self.hear(to, self.sent[which].clone());
                }
            }
            Step::Lose { node } => {
                let last = self.nodes[node].report(node);
                self.sent.push(last);
                let epoch = self.nodes[node].epoch + 1;
                self.nodes[node] = Node {
                    epoch,
                    ..Node::default()
                };
            }
            Step::Follow { from, to } => self.follow(from, to),
            Step::Keep { leader, records } => self.keep(leader, records),
            Step::Restart { controller } => {
                self.controllers[controller] = Aggregate::default();
                self.written().fold_into(&mut self.controllers[controller]);
                for other in 0..CONTROLLERS {
                    self.known[controller][other] = 0;
                    self.known[other][controller] = 0;
                }
            }
        }
    }

    fn hear(&mut self, to: usize, (node, usage): (usize, Usage)) {
        self.controllers[to].fold(&id(node), usage, 0, true);
    }

    fn follow(&mut self, from: usize, to: usize) {
        if from == to {
            return;
        }
        let (told, known) = self.controllers[from].told_since(self.known[to][from], 1 << 20);
        self.known[to][from] = known;
        for told in told {
            let node = told.node_id.parse().unwrap();
            self.controllers[to].fold(&node, told.usage.unwrap(), 0, false);
        }
    }

    /// What the store holds, as whoever begins to lead reads it.
    fn written(&self) -> Written {
        let entry = |(key, value): (&String, &Vec<u8>)| Entry {
            key: key.clone(),
            value: value.clone(),
            mod_revision: 1,
        };
        let entries: Vec<_> = self.store.iter().map(entry).collect();
        Written::read(&entries)
    }

    fn keep(&mut self, leader: usize, records: usize) {
        let mut written = self.written();
        written.fold_into(&mut self.controllers[leader]);
        let changes = written.changes(&self.controllers[leader]);
        let mut span = Span::default();
        for change in changes.iter().take(records) {
            change.tell(&mut span);
            let put = change.put();
            assert!(put.value.len() < 64 << 10);
            self.store.insert(put.key, put.value);
        }
        self.history.push(span);
        written.wrote(&changes[..records.min(changes.len())]);
        assert!(written.changes(&self.controllers[leader]).len() <= changes.len());
    }

    /// Everything arrives in the end.
    fn settle(&mut self) {
        for node in 0..NODES {
            let last = self.nodes[node].report(node);
            self.sent.push(last);
        }
        for (which, report) in self.sent.clone().into_iter().rev().enumerate() {
            self.hear(which % CONTROLLERS, report);
        }
        for from in 0..CONTROLLERS {
            for to in 0..CONTROLLERS {
                self.follow(from, to);
            }
        }
        self.keep(0, usize::MAX);
    }
}

fn id(node: usize) -> NodeId {
    format!("relay-{node}").parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_byte_is_in_the_sums_of_every_controller_and_once_in_the_history(steps in steps()) {
        let mut world = World::default();
        for step in &steps {
            world.step(step);
        }
        world.settle();
        for controller in &world.controllers {
            let sums = controller.sums(By::Tenant, &Filter::default());
            let sums: BTreeMap<_, _> = sums
                .into_iter()
                .map(|(scope, sum)| (scope.tenant.unwrap(), sum.totals.bytes_to_peers))
                .collect();
            prop_assert_eq!(&sums, &world.truth);
            let fleet = controller.sums(By::Fleet, &Filter::default());
            let total: u64 = fleet.values().map(|sum| sum.totals.bytes_to_peers).sum();
            prop_assert_eq!(total, world.truth.values().sum::<u64>());
        }
        let told: u64 = world.history.iter().map(|span| span.totals().bytes_to_peers).sum();
        prop_assert_eq!(told, world.truth.values().sum::<u64>());
    }
}

#[test]
fn what_a_controller_knew_from_another_is_told_on_once_a_relay_repeats_it() {
    let mut node = Node::default();
    node.counters.insert((0, true), [1, 500]);
    let (_, usage) = node.report(0);
    let mut teller = Aggregate::default();
    teller.fold(&id(0), usage.clone(), 0, true);
    let mut follower = Aggregate::default();
    for told in teller.told_since(0, 1 << 20).0 {
        follower.fold(&id(0), told.usage.unwrap(), 0, false);
    }
    assert_eq!(follower.told_since(0, 1 << 20), (Vec::new(), 0));

    // The teller is gone, and whoever follows the other alone has heard nothing of it.
    follower.fold(&id(0), Usage { number: 0, ..usage }, 0, true);
    let (told, known) = follower.told_since(0, 1 << 20);
    assert_eq!(told[0].usage.as_ref().unwrap().tenants[0].legs.len(), 1);
    assert_eq!(follower.told_since(known, 1 << 20), (Vec::new(), known));
}

#[test]
fn forgotten_nodes_stay_in_the_sums_and_regions_are_where_nodes_were_last() {
    let mut aggregate = Aggregate::default();
    let mut node = Node::default();
    node.counters.insert((0, true), [1, 500]);
    let (_, usage) = node.report(0);
    aggregate.fold(&id(0), usage, 0, true);
    aggregate.place(&id(0), "north", "z1");
    let mut written = Written::default();
    let changes = written.changes(&aggregate);
    written.wrote(&changes);

    let mut next = Aggregate::default();
    written.fold_into(&mut next);
    let sums = next.sums(By::Zone, &Filter::default());
    let (scope, sum) = sums.first_key_value().unwrap();
    assert_eq!(scope.region.as_deref(), Some("north"));
    assert_eq!(scope.zone.as_deref(), Some("z1"));
    assert_eq!(sum.totals.bytes_to_peers, 500);
    assert_eq!(sum.legs.len(), 1);
}
