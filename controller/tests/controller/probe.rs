//! The probe against the TURN core on real sockets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use turnfleet_controller::config::ProbeMode;
use turnfleet_controller::fleet::{Health, ProbeFailure, Probing, Transport};
use turnfleet_proto::fleet::listener::Transport as Wire;
use turnfleet_proto::fleet::{Hello, Listener, Snapshot};
use turnfleet_turn::Ledger;

use crate::small_relay::{self, distance};
use crate::stage::{Node, Stage, hello};

fn probing() -> Stage {
    Stage::with(|raw| {
        raw.probe.interval_milliseconds = 200;
        raw.probe.mode = ProbeMode::On;
    })
}

/// A node with one UDP listener, which answers once [`Relay::serve`] is called.
struct Relay {
    node: Node,
    socket: Arc<UdpSocket>,
    ledger: Arc<Ledger>,
    serving: Option<JoinHandle<()>>,
}

impl Relay {
    fn register(stage: &Stage) -> Self {
        Self::with(stage, |_| {})
    }

    fn with(stage: &Stage, change: impl FnOnce(&mut Hello)) -> Self {
        let socket = stage
            .runtime
            .block_on(UdpSocket::bind("127.0.0.1:0"))
            .unwrap();
        let mut hello = hello("relay-0", &[Wire::Udp], socket.local_addr().unwrap());
        change(&mut hello);
        Self {
            node: stage.node(hello),
            socket: Arc::new(socket),
            ledger: Arc::new(Ledger::new([2; 32])),
            serving: None,
        }
    }

    /// One that is so far away that its answers take `delay`.
    fn with_delay(stage: &Stage, delay: Duration) -> Self {
        let outside = stage
            .runtime
            .block_on(UdpSocket::bind("127.0.0.1:0"))
            .unwrap();
        let address = outside.local_addr().unwrap();
        let relay = Self::with(stage, |hello| {
            hello.listeners[0].address = address.to_string();
        });
        let inside = relay.socket.local_addr().unwrap();
        stage
            .runtime
            .spawn(distance::put(Arc::new(outside), inside, delay));
        relay
    }

    fn snapshot(&self) -> Snapshot {
        self.node.snapshot.clone().unwrap()
    }

    fn serve(&mut self, stage: &Stage) {
        let (socket, ledger) = (Arc::clone(&self.socket), Arc::clone(&self.ledger));
        let relay = small_relay::serve(socket, ledger, self.snapshot());
        self.serving = Some(stage.runtime.spawn(relay));
    }

    fn fall_silent(&mut self) {
        self.serving.take().unwrap().abort();
    }
}

#[test]
fn a_relay_that_passes_data_between_two_allocations_is_listed() {
    let stage = probing();
    let mut relay = Relay::register(&stage);
    relay.serve(&stage);
    let node = stage.wait_for("relay-0", |node| node.listed);
    assert_eq!((node.health, node.probe), (Health::Healthy, Some(Ok(()))));
}

#[test]
fn a_relay_on_the_controllers_machine_is_probed_where_it_listens() {
    let stage = probing();
    let mut relay = Relay::with(&stage, |hello| {
        for listener in &mut hello.listeners {
            // Behind 1:1 NAT; nothing answers at the external address.
            listener.local_address =
                std::mem::replace(&mut listener.address, "192.0.2.1:3478".into());
        }
    });
    relay.serve(&stage);
    let node = stage.wait_for("relay-0", |node| node.listed);
    assert_eq!(node.probe, Some(Ok(())));
    assert_eq!(
        node.identity.listeners[0].address.to_string(),
        "192.0.2.1:3478"
    );
}

#[test]
fn the_probe_takes_nothing_of_any_users_quota() {
    let stage = Stage::with(|raw| {
        raw.probe.interval_milliseconds = 200;
        raw.limits.allocations_per_user = 1;
    });
    let mut relay = Relay::register(&stage);
    relay.serve(&stage);
    let node = stage.wait_for("relay-0", |node| node.probe.is_some());
    assert_eq!(node.probe, Some(Ok(())));
}

#[test]
fn a_relay_far_away_stays_listed_when_it_loses_its_session() {
    let stage = probing();
    let mut relay = Relay::with_delay(&stage, Duration::from_millis(300));
    relay.serve(&stage);
    stage.wait_for("relay-0", |node| node.listed);
    let Relay { node, serving, .. } = relay;
    drop(node);
    // The session ends, and a probe that was begun after that speaks for the node.
    let node = stage.wait_for("relay-0", |node| node.health == Health::Unmanaged);
    let Probing::Yes { round } = node.probing else {
        panic!("a node without a session is probed");
    };
    let beyond_the_verdict = Instant::now() + Duration::from_secs(2);
    let node = stage.wait_for("relay-0", |node| {
        assert_eq!(node.health, Health::Unmanaged, "since round {round}");
        Instant::now() > beyond_the_verdict
    });
    assert!(node.listed);
    drop(serving);
}

#[test]
fn an_examination_that_another_one_overtakes_leaves_no_allocation_behind() {
    let stage = probing();
    let mut relay = Relay::with_delay(&stage, Duration::from_millis(100));
    relay.serve(&stage);
    let allocations = || relay.ledger.usage().allocations;
    stage.within("an examination has allocated", || allocations() > 0);
    // A broken session asks for a Binding at once.
    drop(relay.node);
    stage.wait_for("relay-0", |node| node.health == Health::Unmanaged);
    stage.within("all allocations are deleted", || allocations() == 0);
}

#[test]
fn a_relay_that_does_not_answer_is_not_listed_and_the_reason_is_known() {
    let stage = probing();
    let _relay = Relay::register(&stage);
    let node = stage.wait_for("relay-0", |node| node.probe.is_some());
    assert_eq!(
        (node.probe, node.listed),
        (Some(Err(ProbeFailure::NoAnswer)), false)
    );
}

#[test]
fn a_relay_that_knows_other_secrets_is_not_listed() {
    let stage = probing();
    let relay = Relay::register(&stage);
    let mut snapshot = relay.snapshot();
    for generation in &mut snapshot.secrets {
        generation.secret = b"another fleet's".to_vec();
    }
    let (socket, ledger) = (Arc::clone(&relay.socket), Arc::clone(&relay.ledger));
    stage
        .runtime
        .spawn(small_relay::serve(socket, ledger, snapshot));
    let refused = Some(Err(ProbeFailure::Refused(401)));
    let node = stage.wait_for("relay-0", |node| node.probe == refused);
    assert!(!node.listed);
}

#[test]
fn a_relay_that_falls_silent_leaves_the_lists() {
    let stage = probing();
    let mut relay = Relay::register(&stage);
    relay.serve(&stage);
    stage.wait_for("relay-0", |node| node.listed);
    relay.fall_silent();
    let node = stage.wait_for("relay-0", |node| !node.listed);
    assert!(node.connected);
    assert_eq!(node.health, Health::Unhealthy);
}

#[test]
fn a_killed_relay_leaves_the_lists() {
    let stage = probing();
    let mut relay = Relay::register(&stage);
    relay.serve(&stage);
    stage.wait_for("relay-0", |node| node.listed);
    relay.fall_silent();
    drop(relay);
    stage.wait_for("relay-0", |node| {
        node.health == Health::Gone && !node.listed
    });
}

#[test]
fn a_relay_that_only_lost_its_session_stays_listed() {
    let stage = probing();
    let mut relay = Relay::register(&stage);
    relay.serve(&stage);
    stage.wait_for("relay-0", |node| node.listed);
    let Relay { node, serving, .. } = relay;
    drop(node);
    let node = stage.wait_for("relay-0", |node| node.health == Health::Unmanaged);
    assert!(node.listed && !node.connected);
    drop(serving);
}

#[test]
fn a_broken_transport_is_left_out_while_the_node_stays_listed() {
    let stage = probing();
    // A port that was free a moment ago: nobody listens there.
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = unused.local_addr().unwrap();
    drop(unused);
    let tcp = Listener {
        transport: Wire::Tcp.into(),
        address: address.to_string(),
        ..Listener::default()
    };
    let mut relay = Relay::with(&stage, |hello| hello.listeners.push(tcp));
    relay.serve(&stage);
    let node = stage.wait_for("relay-0", |node| !node.broken.is_empty());
    assert_eq!(node.broken, [Transport::Tcp]);
    assert!(node.listed);
}
