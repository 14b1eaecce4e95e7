//! Where relays send clients while they drain or are full, as the controller tells them.

use std::time::Duration;

use turnfleet_controller::config::ProbeMode;
use turnfleet_proto::fleet::controller_message::Message as Down;
use turnfleet_proto::fleet::listener::Transport;
use turnfleet_proto::fleet::node_message::Message as Up;
use turnfleet_proto::fleet::{Alternate, Heartbeat, Hello, Listener, Load, PolicyStatus, Snapshot};

use crate::stage::{Node, Stage, hello};

/// A relay by UDP and TLS with a name of its own.
fn introduction(name: &str, region: &str) -> Hello {
    let last = name.as_bytes()[0];
    let address = format!("203.0.113.{last}:3478").parse().unwrap();
    let mut hello = hello(name, &[Transport::Udp, Transport::Tls], address);
    hello.hostname = format!("{name}.example.org");
    hello.region = region.to_owned();
    hello.incarnation = vec![last; 16];
    hello
}

fn join(stage: &Stage, name: &str) -> Node {
    stage.node(introduction(name, "local"))
}

fn beat(snapshot: Option<&Snapshot>, draining: bool, ports_used: u64) -> Up {
    Up::Heartbeat(Heartbeat {
        applied_generation: snapshot.unwrap().generation,
        load: Some(Load {
            relayed_ports_used: ports_used,
            ..Load::default()
        }),
        draining,
        ..Heartbeat::default()
    })
}

/// Takes what the controller says until a snapshot is the newest, as a relay does.
async fn settle(node: &mut Node, generation: u64) {
    while node.snapshot.as_ref().unwrap().generation < generation {
        if let Ok(Some(Down::Snapshot(snapshot))) = node.hear().await {
            let status = PolicyStatus {
                generation: snapshot.generation,
                applied: true,
                error: String::new(),
                running_generation: snapshot.generation,
                ..PolicyStatus::default()
            };
            node.snapshot = Some(snapshot);
            node.say(Up::PolicyStatus(status)).await;
        }
    }
}

/// Three relays that run the newest policy.
fn three(stage: &Stage) -> [Node; 3] {
    let mut nodes = ["a", "b", "c"].map(|name| join(stage, name));
    let newest = nodes[2].snapshot.as_ref().unwrap().generation;
    for node in &mut nodes {
        stage.runtime.block_on(settle(node, newest));
    }
    nodes
}

#[test]
fn a_relay_is_told_the_others_and_where_clients_reach_them() {
    let stage = Stage::new();
    let [mut a, mut b, _c] = three(&stage);
    stage.runtime.block_on(async {
        a.hear_alternates(&["b.example.org", "c.example.org"]).await;
        b.hear_alternates(&["a.example.org", "c.example.org"]).await;
    });
    let listener = |transport: Transport| Listener {
        transport: transport.into(),
        address: "203.0.113.98:3478".to_owned(),
        local_address: String::new(),
    };
    let told = a.alternates.unwrap().alternates;
    let expected = Alternate {
        domain: "b.example.org".to_owned(),
        listeners: vec![listener(Transport::Udp), listener(Transport::Tls)],
    };
    assert!(told.contains(&expected), "{told:?}");
}

#[test]
fn a_relay_that_drains_or_is_full_or_gone_takes_no_clients_of_others_and_raises_no_generation() {
    let stage = Stage::new();
    let [mut a, mut b, c] = three(&stage);
    let generation = stage.controller().watch().borrow().generation;
    stage.runtime.block_on(async {
        a.hear_alternates(&["b.example.org", "c.example.org"]).await;
        b.say(beat(b.snapshot.as_ref(), true, 0)).await;
        a.hear_alternates(&["c.example.org"]).await;
        b.say(beat(b.snapshot.as_ref(), false, 0)).await;
        a.hear_alternates(&["b.example.org", "c.example.org"]).await;
        b.say(beat(b.snapshot.as_ref(), false, 1 << 20)).await;
        a.hear_alternates(&["c.example.org"]).await;
        b.hear_alternates(&["a.example.org", "c.example.org"]).await;
    });
    drop(c);
    stage.runtime.block_on(async {
        a.hear_alternates(&[]).await;
        // The one that may be left of a fleet is told so, too.
        b.hear_alternates(&["a.example.org"]).await;
    });
    assert_eq!(stage.controller().watch().borrow().generation, generation);
}

#[test]
fn heartbeats_alone_say_nothing_of_other_relays() {
    let stage = Stage::new();
    let [mut a, mut b, _c] = three(&stage);
    stage.runtime.block_on(async {
        a.hear_alternates(&["b.example.org", "c.example.org"]).await;
        b.hear_alternates(&["a.example.org", "c.example.org"]).await;
        a.alternates = None;
        for used in 1..5 {
            b.say(beat(b.snapshot.as_ref(), false, used)).await;
        }
        let quiet = tokio::time::timeout(Duration::from_millis(500), a.hear()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        assert_eq!(a.alternates, None);
    });
}

#[test]
fn relays_of_the_same_region_come_before_those_of_another() {
    let stage = Stage::new();
    let mut nodes = [("a", "north"), ("b", "north"), ("c", "south")]
        .map(|(name, region)| stage.node(introduction(name, region)));
    let newest = nodes[2].snapshot.as_ref().unwrap().generation;
    for node in &mut nodes {
        stage.runtime.block_on(settle(node, newest));
    }
    let [mut a, mut b, mut c] = nodes;
    stage.runtime.block_on(async {
        a.hear_alternates(&["b.example.org"]).await;
        b.hear_alternates(&["a.example.org"]).await;
        c.hear_alternates(&["a.example.org", "b.example.org"]).await;
    });
}

#[test]
fn the_tenants_switch_is_in_the_snapshot() {
    for on in [false, true] {
        let stage = Stage::with(|raw| {
            raw.probe.mode = ProbeMode::Off;
            raw.tenant.tcp_relaying = on;
        });
        let snapshot = join(&stage, "a").snapshot.unwrap();
        assert_eq!(snapshot.tenant.unwrap().tcp_relaying, on);
    }
}
