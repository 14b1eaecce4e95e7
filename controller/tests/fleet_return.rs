//! The fleet as a value after a restart of its controller: the store is all that is known, and nodes come back one by one.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use turnfleet_controller::config::PortPlan;
use turnfleet_controller::fleet::record::{NodeRecord, Record};
use turnfleet_controller::fleet::{
    Event, Fleet, Health, Identity, Listener, NodeView, ProbeFailure, ProbeOutcome, Probing,
    Registration, Settings, Transport,
};
use turnfleet_proto::{NodeId, PortRange};
use turnfleet_turn::Now;

/// A fleet of one node that the store alone knows.
struct Restarted {
    fleet: Fleet,
    now: Now,
}

fn id() -> NodeId {
    "relay-0".parse().unwrap()
}

fn identity() -> Identity {
    let listener = Listener {
        transport: Transport::Udp,
        address: ([192, 0, 2, 1], 3478).into(),
        local: None,
    };
    Identity {
        listeners: vec![listener],
        public_ips: vec![[192, 0, 2, 1].into()],
        ..Identity::default()
    }
}

impl Restarted {
    fn controller() -> Self {
        let settings = Settings {
            region: "local".into(),
            ports: PortPlan {
                range: PortRange::DYNAMIC,
                relays_per_address: 1,
            },
            probing: true,
        };
        let mut restarted = Self {
            fleet: Fleet::new(settings),
            now: Now::default(),
        };
        let record = Record::Node(NodeRecord {
            id: id(),
            credential: [0; 32],
            identity: Some(identity()),
        });
        restarted.apply(Event::Stored {
            key: record.key(),
            record: Some(Box::new(record)),
            revision: 1,
        });
        restarted
    }

    fn apply(&mut self, event: Event) {
        self.fleet.apply(self.now, event);
    }

    fn node(&self) -> NodeView {
        NodeView::clone(&self.fleet.view(self.now).nodes[0])
    }

    fn is(&self) -> (Health, bool) {
        let node = self.node();
        (node.health, node.listed)
    }

    fn probe(&mut self, result: Result<Duration, ProbeFailure>) {
        let Probing::Yes { round } = self.node().probing else {
            panic!("the node is not to be probed");
        };
        let outcome = ProbeOutcome {
            round,
            result,
            broken: Vec::new(),
        };
        let node = id();
        self.apply(Event::Probed { node, outcome });
    }

    fn connect(&mut self, number: u64, incarnation: u8) {
        let registration = Box::new(Registration {
            id: id(),
            incarnation: [incarnation; 16],
            identity: identity(),
            applied_generation: 1,
            allocations: 0,
        });
        self.apply(Event::SessionOpened {
            number,
            registration,
        });
    }
}

#[test]
fn a_node_that_its_probe_has_listed_stays_listed_when_it_connects() {
    let mut restarted = Restarted::controller();
    assert_eq!(restarted.is(), (Health::Gone, false));
    restarted.probe(Ok(Duration::ZERO));
    assert_eq!(restarted.is(), (Health::Unmanaged, true));
    let before = restarted.node().probing;
    restarted.connect(1, 7);
    assert_eq!(restarted.is(), (Health::Healthy, true));
    assert_ne!(restarted.node().probing, before, "it is asked for at once");
}

#[test]
fn a_node_that_connects_before_its_probe_waits_for_it() {
    let mut restarted = Restarted::controller();
    restarted.connect(1, 7);
    assert_eq!(restarted.is(), (Health::Starting, false));
    restarted.probe(Ok(Duration::ZERO));
    assert_eq!(restarted.is(), (Health::Healthy, true));
}

#[test]
fn a_later_run_of_its_process_begins_anew() {
    let mut restarted = Restarted::controller();
    restarted.probe(Ok(Duration::ZERO));
    restarted.connect(1, 7);
    restarted.connect(2, 8);
    assert_eq!(restarted.is(), (Health::Starting, false));
}
