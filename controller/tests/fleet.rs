//! The fleet as a value, in virtual time: who is listed, and which relays a user is given.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use turnfleet_controller::config::PortPlan;
use turnfleet_controller::fleet::record::{
    Desired, NodeRecord, NonceKey, Policy, PortGrant, Record, SecretGeneration, SecretState,
};
use turnfleet_controller::fleet::{
    Ask, Capacity, Ended, Event, Fleet, FleetView, Health, Identity, Listener, Load, ProbeFailure,
    ProbeOutcome, Probing, Registration, Settings, Transport, UriKind,
};
use turnfleet_proto::credentials::SharedSecret;
use turnfleet_proto::{NodeId, PortRange};
use turnfleet_turn::Now;

/// A fleet whose nodes are numbered from zero, with a clock.
struct Stage {
    fleet: Fleet,
    now: Now,
    sessions: u64,
    revision: u64,
}

fn id(number: u8) -> NodeId {
    format!("relay-{number}").parse().unwrap()
}

fn identity(number: u8) -> Identity {
    let listener = |transport, port| Listener {
        transport,
        address: ([192, 0, 2, number], port).into(),
        local: None,
    };
    Identity {
        region: "north".into(),
        zone: format!("zone-{}", number % 2),
        listeners: vec![
            listener(Transport::Udp, 3478),
            listener(Transport::Tcp, 3478),
            listener(Transport::Tls, 5349),
        ],
        public_ips: vec![[192, 0, 2, number].into()],
        capacity: Capacity {
            allocations: 1000,
            file_descriptors: 10_000,
        },
        ..Identity::default()
    }
}

impl Stage {
    fn empty() -> Self {
        let settings = Settings {
            region: "north".into(),
            ports: PortPlan {
                range: PortRange::DYNAMIC,
                relays_per_address: 1,
            },
            probing: true,
        };
        let mut stage = Self {
            fleet: Fleet::new(settings),
            now: Now::default(),
            sessions: 0,
            revision: 0,
        };
        stage.now.unix = 1_700_000_000;
        stage.store(Record::Generation(7));
        stage.store(Record::Policy(Policy {
            realm: "example.org".into(),
            allow_peers: Vec::new(),
            deny_peers: Vec::new(),
            danger_allow_loopback: false,
            allocations_per_user: 100,
            max_lifetime_seconds: 3600,
            max_session_seconds: 0,
            strict_expiry: false,
            tcp_relaying: false,
        }));
        stage.store(Record::Secret(SecretGeneration {
            id: 1,
            secret: SharedSecret::new("north"),
            state: SecretState::Active,
        }));
        stage
    }

    /// A fleet of `count` healthy nodes.
    fn of(count: u8) -> Self {
        let mut stage = Self::empty();
        for number in 0..count {
            stage.join(number, identity(number));
        }
        stage
    }

    fn store(&mut self, record: Record) {
        self.revision += 1;
        let (key, revision) = (record.key(), self.revision);
        self.fleet.apply(
            self.now,
            Event::Stored {
                key,
                record: Some(Box::new(record)),
                revision,
            },
        );
    }

    /// Registers a node and lets it become healthy.
    fn join(&mut self, number: u8, identity: Identity) {
        self.register(number, identity, 1);
        self.probe(number, true);
    }

    fn register(&mut self, number: u8, identity: Identity, incarnation: u8) {
        let record = NodeRecord {
            id: id(number),
            credential: [number; 32],
            identity: Some(identity.clone()),
        };
        self.store(Record::Node(record));
        self.sessions += 1;
        let registration = Box::new(Registration {
            id: id(number),
            incarnation: [incarnation; 16],
            identity,
            applied_generation: self.fleet.generation(),
            allocations: 0,
        });
        let event = Event::SessionOpened {
            number: self.sessions,
            registration,
        };
        self.fleet.apply(self.now, event);
    }

    fn probe(&mut self, number: u8, good: bool) {
        let Some(Probing::Yes { round }) = self.view().node(&id(number)).map(|node| node.probing)
        else {
            return;
        };
        let result = if good {
            Ok(Duration::ZERO)
        } else {
            Err(ProbeFailure::NoAnswer)
        };
        let outcome = ProbeOutcome {
            round,
            result,
            broken: Vec::new(),
        };
        self.fleet.apply(
            self.now,
            Event::Probed {
                node: id(number),
                outcome,
            },
        );
    }

    fn heartbeat(&mut self, number: u8, applied_generation: u64, load: Load) {
        let session = self.session(number);
        let load = Some(load);
        let draining = false;
        self.fleet.apply(
            self.now,
            Event::Heartbeat {
                session,
                applied_generation,
                load,
                draining,
            },
        );
    }

    /// The session of a node that is the only one it ever had.
    fn session(&self, number: u8) -> (NodeId, u64) {
        let current = |session: &u64| self.fleet.is_current(&(id(number), *session));
        let session = (1..=self.sessions).rev().find(current).unwrap_or(0);
        (id(number), session)
    }

    fn end(&mut self, number: u8, ended: Ended) {
        let session = self.session(number);
        self.fleet
            .apply(self.now, Event::SessionEnded { session, ended });
    }

    fn wait(&mut self, millis: u64) {
        for _ in 0..millis.div_ceil(100) {
            self.now.instant = self.now.instant.after(Duration::from_millis(100));
            self.fleet.tick(self.now);
        }
        self.now.unix += millis / 1000;
    }

    fn view(&self) -> FleetView {
        self.fleet.view(self.now)
    }

    fn list(&self, ask: &Ask<'_>) -> Vec<String> {
        self.view()
            .list(ask)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    fn listed(&self) -> Vec<String> {
        let view = self.view();
        view.nodes
            .iter()
            .filter(|node| node.listed)
            .map(|node| node.id.to_string())
            .collect()
    }
}

/// The host of the first `turn:` URI by UDP.
fn first_choice(view: &FleetView, user: &str) -> String {
    let ask = Ask {
        user,
        kinds: &[UriKind::Udp],
        count: Some(1),
        ..Ask::default()
    };
    view.list(&ask)[0].host.clone()
}

#[test]
fn the_default_list_is_stun_two_relays_by_udp_and_tls() {
    let stage = Stage::of(4);
    let list = stage.list(&Ask {
        user: "alice",
        ..Ask::default()
    });
    let (a, b) = (&list[0]["stun:".len()..], &list[2]["turn:".len()..]);
    let a_host = a.trim_end_matches(":3478");
    assert_eq!(list[1], format!("turn:{a}?transport=udp"));
    assert!(
        b.ends_with(":3478?transport=udp") && !b.starts_with(a),
        "{list:?}"
    );
    assert_eq!(list[3], format!("turns:{a_host}:5349?transport=tcp"));
    assert_eq!(list.len(), 4);
}

#[test]
fn without_tls_the_default_list_ends_with_tcp() {
    let mut stage = Stage::empty();
    for number in 0..2 {
        let mut plain = identity(number);
        plain
            .listeners
            .retain(|listener| listener.transport != Transport::Tls);
        stage.join(number, plain);
    }
    let list = stage.list(&Ask {
        user: "alice",
        ..Ask::default()
    });
    assert!(
        list[3].starts_with("turn:") && list[3].ends_with("?transport=tcp"),
        "{list:?}"
    );
}

#[test]
fn a_single_relay_fills_the_list_with_what_it_serves() {
    let list = Stage::of(1).list(&Ask {
        user: "alice",
        ..Ask::default()
    });
    assert_eq!(
        list,
        [
            "stun:192.0.2.0:3478",
            "turn:192.0.2.0:3478?transport=udp",
            "turns:192.0.2.0:5349?transport=tcp",
            "turn:192.0.2.0:3478?transport=tcp",
        ]
    );
}

#[test]
fn tls_carries_the_name_and_ipv4_comes_before_ipv6() {
    let mut stage = Stage::empty();
    let mut named = identity(1);
    named.hostname = Some("turn.example.org".into());
    let v6 = |listener: &Listener| Listener {
        address: format!("[2001:db8::1]:{}", listener.address.port())
            .parse()
            .unwrap(),
        ..*listener
    };
    let mut listeners: Vec<_> = named.listeners.iter().map(v6).collect();
    listeners.append(&mut named.listeners);
    named.listeners = listeners;
    stage.join(1, named);
    let list = stage.list(&Ask {
        user: "alice",
        count: Some(3),
        ..Ask::default()
    });
    assert_eq!(
        list,
        [
            "stun:192.0.2.1:3478",
            "turn:192.0.2.1:3478?transport=udp",
            "turns:turn.example.org:5349?transport=tcp",
        ]
    );
}

#[test]
fn the_caller_may_ask_for_kinds_and_a_count() {
    let stage = Stage::of(5);
    let ask = |kinds, count| {
        stage.list(&Ask {
            user: "alice",
            kinds,
            count: Some(count),
            ..Ask::default()
        })
    };
    let tcp = ask(&[UriKind::Tcp], 3);
    assert!(
        tcp.len() == 3 && tcp.iter().all(|uri| uri.ends_with("?transport=tcp")),
        "{tcp:?}"
    );
    let both = ask(&[UriKind::Tls, UriKind::Udp], 4);
    assert!(
        both[..2].iter().all(|uri| uri.starts_with("turns:")),
        "{both:?}"
    );
    assert!(
        both[2..].iter().all(|uri| uri.ends_with("?transport=udp")),
        "{both:?}"
    );
    let one = stage.list(&Ask {
        user: "alice",
        count: Some(1),
        ..Ask::default()
    });
    assert!(one.len() == 1 && one[0].starts_with("turn:"), "{one:?}");
    let many = stage.list(&Ask {
        user: "alice",
        count: Some(100),
        ..Ask::default()
    });
    assert_eq!(many.len(), turnfleet_controller::fleet::MAX_URIS);
}

#[test]
fn the_two_relays_of_a_list_are_of_different_zones() {
    let stage = Stage::of(6);
    let view = stage.view();
    for number in 0..200 {
        let user = format!("user-{number}");
        let ask = Ask {
            user: &user,
            kinds: &[UriKind::Udp],
            count: Some(2),
            ..Ask::default()
        };
        let zones: Vec<_> = view
            .list(&ask)
            .iter()
            .map(|uri| uri.host.rsplit('.').next().unwrap().parse::<u8>().unwrap() % 2)
            .collect();
        assert_ne!(zones[0], zones[1]);
    }
}

#[test]
fn the_region_asked_for_comes_first_and_others_fill_up() {
    let mut stage = Stage::of(3);
    let south = Identity {
        region: "south".into(),
        ..identity(9)
    };
    stage.join(9, south);
    let view = stage.view();
    for number in 0..50 {
        let user = format!("user-{number}");
        let kinds = &[UriKind::Udp];
        let ask = Ask {
            user: &user,
            kinds,
            count: Some(2),
            ..Ask::default()
        };
        assert!(view.list(&ask).iter().all(|uri| uri.host != "192.0.2.9"));
        let south = view.list(&Ask {
            region: Some("south"),
            ..ask
        });
        assert_eq!((south[0].host.as_str(), south.len()), ("192.0.2.9", 2));
        assert_eq!(
            view.list(&Ask {
                region: Some("nowhere"),
                ..ask
            })
            .len(),
            2
        );
    }
}

#[test]
fn a_node_that_leaves_moves_only_its_own_users() {
    let mut stage = Stage::of(20);
    let before = stage.view();
    stage.end(7, Ended::Goodbye);
    let after = stage.view();
    let mut moved = 0;
    for number in 0..5000 {
        let user = format!("user-{number}");
        let (old, new) = (first_choice(&before, &user), first_choice(&after, &user));
        if old == "192.0.2.7" {
            moved += 1;
            assert_ne!(new, old);
        } else {
            assert_eq!(new, old, "{user}");
        }
    }
    assert!(moved > 0);
}

#[test]
fn shares_follow_capacity() {
    let mut stage = Stage::of(19);
    let mut large = identity(19);
    large.capacity.allocations *= 3;
    stage.join(19, large);
    let view = stage.view();
    let mut shares: BTreeMap<String, f64> = BTreeMap::new();
    for number in 0..44_000 {
        *shares
            .entry(first_choice(&view, &format!("user-{number}")))
            .or_default() += 1.0;
    }
    for (host, share) in shares {
        let expected = if host == "192.0.2.19" { 6000.0 } else { 2000.0 };
        assert!(
            (share / expected - 1.0).abs() < 0.1,
            "{host} has {share} of {expected}"
        );
    }
}

#[test]
fn a_loaded_node_is_given_to_fewer_users_and_a_full_one_to_none() {
    let mut stage = Stage::of(2);
    let load = |allocations| Load {
        allocations,
        ..Load::default()
    };
    let share = |stage: &Stage| {
        let view = stage.view();
        (0..2000)
            .filter(|n| first_choice(&view, &format!("user-{n}")) == "192.0.2.0")
            .count()
    };
    let even = share(&stage);
    assert!((900..1100).contains(&even), "{even}");
    stage.heartbeat(0, 7, load(760));
    stage.heartbeat(1, 7, load(0));
    let loaded = share(&stage);
    assert!(
        (320..480).contains(&loaded),
        "{loaded}: a quarter of the other's headroom"
    );
    stage.heartbeat(0, 7, load(901));
    assert_eq!(stage.listed(), ["relay-1"]);
    stage.end(1, Ended::Goodbye);
    assert_eq!(
        stage.listed(),
        ["relay-0"],
        "a full node is better than none"
    );
}

#[test]
fn an_empty_user_is_placed_by_the_callers_network() {
    let stage = Stage::of(20);
    let ask = |client: &str| {
        stage.list(&Ask {
            client: Some(client.parse().unwrap()),
            ..Ask::default()
        })
    };
    assert_eq!(ask("198.51.100.1"), ask("198.51.100.254"));
    assert_eq!(ask("::ffff:198.51.100.1"), ask("198.51.100.1"));
    assert_eq!(ask("2001:db8:0:1::1"), ask("2001:db8:0:ff::2"));
    let others = (0..20).map(|net| ask(&format!("203.0.{net}.1")));
    assert!(others.collect::<std::collections::BTreeSet<_>>().len() > 5);
}

#[test]
fn a_transport_that_the_probe_found_broken_leaves_the_lists() {
    let mut stage = Stage::of(1);
    let Probing::Yes { round } = stage.view().nodes[0].probing else {
        panic!("it is probed")
    };
    let broken = vec![Transport::Tls];
    let outcome = ProbeOutcome {
        round,
        result: Ok(Duration::ZERO),
        broken,
    };
    stage.fleet.apply(
        stage.now,
        Event::Probed {
            node: id(0),
            outcome,
        },
    );
    let list = stage.list(&Ask::default());
    assert!(
        list.len() == 3 && list.iter().all(|uri| !uri.starts_with("turns:")),
        "{list:?}"
    );
}

#[test]
fn a_killed_node_is_out_of_lists_within_two_seconds_and_back_with_its_first_good_probe() {
    let mut stage = Stage::of(2);
    stage.end(0, Ended::Reset);
    stage.wait(1900);
    assert_eq!(stage.listed(), ["relay-1"]);
    stage.register(0, identity(0), 2);
    assert_eq!(stage.listed(), ["relay-1"]);
    stage.probe(0, true);
    assert_eq!(stage.listed(), ["relay-0", "relay-1"]);
}

#[test]
fn a_draining_node_is_in_no_list() {
    let mut stage = Stage::of(2);
    stage.store(Record::Desired(
        id(0),
        Desired {
            draining: true,
            drain_deadline: None,
        },
    ));
    assert_eq!(stage.listed(), ["relay-1"]);
    stage.end(1, Ended::Goodbye);
    assert!(
        stage.list(&Ask::default()).is_empty(),
        "nobody is sent to a draining node"
    );
}

#[test]
fn a_node_that_stays_behind_the_generation_leaves_the_lists() {
    let mut stage = Stage::of(2);
    stage.store(Record::Generation(8));
    assert_eq!(stage.listed().len(), 2, "everybody gets a moment");
    stage.heartbeat(1, 8, Load::default());
    stage.wait(5000);
    assert_eq!(stage.listed(), ["relay-1"]);
    stage.heartbeat(0, 8, Load::default());
    assert_eq!(stage.listed().len(), 2);
    let session = stage.session(0);
    stage.store(Record::Generation(9));
    let refusal = Some("no such network".into());
    stage.fleet.apply(
        stage.now,
        Event::PolicyStatus {
            session,
            running: 8,
            refusal,
        },
    );
    assert_eq!(stage.listed(), ["relay-1"], "a refusal is no delay");
    stage.end(1, Ended::Goodbye);
    assert_eq!(
        stage.listed(),
        ["relay-0"],
        "an old policy is better than none"
    );
}

#[test]
fn a_replaced_session_speaks_for_nobody() {
    let mut stage = Stage::of(1);
    let old = stage.session(0);
    stage.register(0, identity(0), 2);
    stage.probe(0, true);
    stage.fleet.apply(
        stage.now,
        Event::SessionEnded {
            session: old,
            ended: Ended::Goodbye,
        },
    );
    assert_eq!(stage.fleet.health(&id(0)), Some(Health::Healthy));
}

#[test]
fn a_snapshot_holds_the_nodes_ports_and_the_fleets() {
    let mut stage = Stage::of(2);
    for number in 0..2 {
        stage.store(Record::Grant(PortGrant {
            node: id(number),
            public_ip: [192, 0, 2, number].into(),
            range: PortRange::DYNAMIC,
        }));
    }
    stage.store(Record::Secret(SecretGeneration {
        id: 2,
        secret: SharedSecret::new("south"),
        state: SecretState::Active,
    }));
    stage.store(Record::Secret(SecretGeneration {
        id: 1,
        secret: SharedSecret::new("north"),
        state: SecretState::Retiring {
            accept_until: 1_700_086_520,
        },
    }));
    for id in 1..=2 {
        stage.store(Record::NonceKey(NonceKey {
            id,
            key: [7; 32],
            created_at: 0,
        }));
    }
    let snapshot = stage.fleet.snapshot(&id(1)).unwrap();
    assert_eq!(
        (snapshot.generation, snapshot.realm.as_str()),
        (7, "example.org")
    );
    let secrets: Vec<_> = snapshot
        .secrets
        .iter()
        .map(|secret| (secret.id, secret.accept_until))
        .collect();
    assert_eq!(secrets, [(2, 0), (1, 1_700_086_520)]);
    let keys: Vec<_> = snapshot.nonce_keys.iter().map(|key| key.id).collect();
    assert_eq!(keys, [2, 1]);
    let own: Vec<_> = snapshot
        .port_grants
        .iter()
        .map(|grant| grant.public_ip.as_str())
        .collect();
    assert_eq!(own, ["192.0.2.1"]);
    assert_eq!(snapshot.peer_policy.unwrap().fleet.len(), 2);
}

#[test]
fn capacity_counts_what_lives() {
    let mut stage = Stage::of(3);
    stage.heartbeat(
        0,
        7,
        Load {
            allocations: 100,
            ..Load::default()
        },
    );
    stage.end(2, Ended::Goodbye);
    let capacity = stage.view().capacity();
    let total = capacity.total;
    assert_eq!((total.nodes, total.listed), (3, 2));
    assert_eq!(
        (total.allocations.used, total.allocations.limit),
        (100, 2000)
    );
    assert_eq!(total.allocations.headroom(), 1500);
    assert_eq!((capacity.regions.len(), capacity.zones.len()), (1, 2));
}

#[derive(Clone, Debug)]
enum Step {
    Register(u8, u8),
    Probe(u8, bool),
    Heartbeat(u8, u64),
    End(u8, bool),
    Drain(u8, bool),
    Generation,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0u8..4;
    prop_oneof![
        (node.clone(), 1u8..4).prop_map(|(node, run)| Step::Register(node, run)),
        (node.clone(), any::<bool>()).prop_map(|(node, good)| Step::Probe(node, good)),
        (node.clone(), 0u64..1000).prop_map(|(node, load)| Step::Heartbeat(node, load)),
        (node.clone(), any::<bool>()).prop_map(|(node, reset)| Step::End(node, reset)),
        (node, any::<bool>()).prop_map(|(node, on)| Step::Drain(node, on)),
        Just(Step::Generation),
        (1u64..80).prop_map(|tenths| Step::Wait(tenths * 100)),
    ]
}

impl Stage {
    fn take(&mut self, step: &Step) {
        match *step {
            Step::Register(node, run) => self.register(node, identity(node), run),
            Step::Probe(node, good) => self.probe(node, good),
            Step::Heartbeat(node, allocations) => {
                let load = Load {
                    allocations,
                    ..Load::default()
                };
                self.heartbeat(node, self.fleet.generation(), load);
            }
            Step::End(node, true) => self.end(node, Ended::Reset),
            Step::End(node, false) => self.end(node, Ended::Goodbye),
            Step::Drain(node, draining) => {
                let desired = Desired {
                    draining,
                    drain_deadline: None,
                };
                self.store(Record::Desired(id(node), desired));
            }
            Step::Generation => self.store(Record::Generation(self.fleet.generation() + 1)),
            Step::Wait(millis) => self.wait(millis),
        }
    }
}

proptest! {
    #[test]
    fn a_list_is_empty_only_where_no_node_serves(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut stage = Stage::of(2);
        for step in &steps {
            stage.take(step);
            let view = stage.view();
            let serves = |node: &turnfleet_controller::fleet::NodeView| {
                matches!(node.health, Health::Healthy | Health::Unmanaged) && !node.draining
            };
            let any = view.nodes.iter().any(|node| serves(node));
            prop_assert_eq!(!view.list(&Ask::default()).is_empty(), any);
            prop_assert!(view.nodes.iter().all(|node| serves(node) || !node.listed));
        }
    }
}
