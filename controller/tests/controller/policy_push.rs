//! How a policy comes to relays over real sockets: whole, as a delta, not at all.

use std::time::Duration;

use turnfleet_controller::fleet::record::{PortGrant, Record, RecordKey};
use turnfleet_proto::fleet::controller_message::Message as Down;
use turnfleet_proto::fleet::node_message::Message as Up;
use turnfleet_proto::fleet::section::Number;
use turnfleet_proto::fleet::{Delta, Heartbeat, Hello, Load, PolicyStatus, PortRange, PortUse};

use crate::stage::{Node, Stage, any_hello};

fn takes_deltas(id: &str) -> Hello {
    Hello {
        protocol: 1,
        ..any_hello(id)
    }
}

async fn delta(node: &mut Node) -> Delta {
    let heard = node.hear().await.unwrap();
    let Some(Down::Delta(delta)) = heard else {
        panic!("no delta: {heard:?}");
    };
    delta
}

async fn say(node: &Node, generation: u64, applied: bool, needs_whole: bool) {
    node.say(Up::PolicyStatus(PolicyStatus {
        generation,
        applied,
        needs_whole,
        ..PolicyStatus::default()
    }))
    .await;
}

/// Raises the generation without any other change that relays see.
fn raise(stage: &Stage) {
    let handle = stage.controller().handle().clone();
    let raised = handle.change(|fleet, _| {
        let mut plan = turnfleet_controller::fleet::Plan::default();
        plan.puts.push(Record::Generation(fleet.generation() + 1));
        plan.compares.push((
            RecordKey::Generation,
            fleet.revision(&RecordKey::Generation).unwrap_or(0),
        ));
        Ok(plan)
    });
    stage.runtime.block_on(raised).unwrap();
}

#[test]
fn a_relay_gets_the_whole_and_then_what_differs() {
    let stage = Stage::new();
    let credential = stage.enroll("relay-0").unwrap();
    let mut node = stage.session(&credential, takes_deltas("relay-0"));
    stage.runtime.block_on(async {
        let first = delta(&mut node).await;
        assert_eq!((first.base_generation, first.epoch.len()), (0, 16));
        // 32 of them are for tenants, and 64 for bans.
        assert_eq!(first.sections.len(), 9 + 32 + 64);
        say(&node, first.generation, true, false).await;
        // Another relay's ports are the only change.
        let other = Hello {
            public_ips: vec!["192.0.2.7".into()],
            ..takes_deltas("relay-1")
        };
        let enrolled = stage.controller().handle();
        let id = "relay-1".parse().unwrap();
        let token = stage.controller().join_token();
        let credential = enrolled.enroll(token, &id).await.unwrap();
        let session = enrolled.open_session(&credential, other).await.unwrap();
        let second = delta(&mut node).await;
        assert_eq!(second.base_generation, first.generation);
        let numbers: Vec<u32> = second.sections.iter().map(|it| it.number).collect();
        assert_eq!(
            numbers,
            [u32::try_from(i32::from(Number::FleetPorts)).unwrap()]
        );
        // The relay cannot use it.
        say(&node, second.generation, false, true).await;
        let whole = delta(&mut node).await;
        assert_eq!(
            (whole.base_generation, whole.generation),
            (0, second.generation)
        );
        assert_eq!(whole.sha256, second.sha256);
        say(&node, whole.generation, true, false).await;
        drop(session);
    });
}

#[test]
fn a_relay_that_comes_back_gets_what_changed_meanwhile() {
    let stage = Stage::new();
    let credential = stage.enroll("relay-0").unwrap();
    let mut node = stage.session(&credential, takes_deltas("relay-0"));
    let first = stage.runtime.block_on(async {
        let first = delta(&mut node).await;
        say(&node, first.generation, true, false).await;
        first
    });
    drop(node);
    stage.wait_for("relay-0", |node| !node.connected);
    raise(&stage);
    let knows = |sha256: Vec<u8>| Hello {
        applied_generation: first.generation,
        applied_epoch: first.epoch.clone(),
        applied_sha256: sha256,
        ..takes_deltas("relay-0")
    };
    let mut node = stage.session(&credential, knows(first.sha256.clone()));
    let resumed = stage.runtime.block_on(delta(&mut node));
    assert_eq!(resumed.base_generation, first.generation);
    assert_eq!(resumed.generation, first.generation + 1);
    assert_eq!(
        (resumed.sections.len(), &resumed.sha256),
        (0, &first.sha256)
    );
    let mut other = stage.session(&credential, knows(vec![7; 32]));
    let whole = stage.runtime.block_on(delta(&mut other));
    assert_eq!(
        (whole.base_generation, whole.sections.len()),
        (0, 9 + 32 + 64)
    );
}

#[test]
fn a_relay_without_deltas_gets_snapshots() {
    let stage = Stage::new();
    let mut node = stage.node(any_hello("relay-0"));
    let before = node.snapshot.take().unwrap();
    raise(&stage);
    let heard = stage.runtime.block_on(node.hear()).unwrap();
    let Some(Down::Snapshot(snapshot)) = heard else {
        panic!("no snapshot: {heard:?}");
    };
    assert_eq!(snapshot.generation, before.generation + 1);
    assert_eq!(snapshot.port_grants, before.port_grants);
}

/// R25: a store that was restored from an older backup.
#[test]
fn a_store_behind_its_relays_pushes_nothing_until_an_operator_confirms() {
    let stage = Stage::new();
    let credential = stage.enroll("relay-0").unwrap();
    let mut node = stage.session(&credential, takes_deltas("relay-0"));
    let first = stage.runtime.block_on(delta(&mut node));
    let ahead = Hello {
        applied_generation: first.generation + 100,
        applied_epoch: first.epoch.clone(),
        ..takes_deltas("relay-0")
    };
    let mut node = stage.session(&credential, ahead);
    let heard = stage.runtime.block_on(node.hear()).unwrap();
    assert!(matches!(heard, Some(Down::Hold(_))), "{heard:?}");
    let stranger = stage.enroll("relay-1").unwrap();
    let handle = stage.controller().handle().clone();
    let elsewhere = Hello {
        public_ips: vec!["192.0.2.7".into()],
        ..takes_deltas("relay-1")
    };
    let opened = handle.open_session(&stranger, elsewhere);
    let refused = stage.runtime.block_on(opened).unwrap_err();
    assert!(refused.to_string().contains("confirm-restore"), "{refused}");

    let mut views = stage.controller().watch();
    let alarmed = views.wait_for(|view| view.restored.is_some());
    let alarmed = async { tokio::time::timeout(Duration::from_secs(20), alarmed).await };
    let restored = stage
        .runtime
        .block_on(alarmed)
        .unwrap()
        .unwrap()
        .restored
        .clone()
        .unwrap();
    assert_eq!(restored.runs, first.generation + 100);
    // Ports that it got after the backup.
    let ports = PortUse {
        public_ip: "192.0.2.9".into(),
        open: vec![PortRange {
            first: 50_000,
            last: 50_099,
        }],
        ..PortUse::default()
    };
    let heartbeat = Heartbeat {
        applied_generation: first.generation + 100,
        load: Some(Load {
            allocations: 7,
            ..Load::default()
        }),
        port_uses: vec![ports],
        ..Heartbeat::default()
    };
    stage.runtime.block_on(node.say(Up::Heartbeat(heartbeat)));
    stage.wait_for("relay-0", |node| node.load.allocations == 7);
    stage.runtime.block_on(handle.confirm_restore()).unwrap();
    let holds = stage.controller().view().nodes[0].grants.clone();
    let got = |grant: &PortGrant| grant.range.to_string() == "50000-50099";
    assert!(holds.iter().any(got), "{holds:?}");
    // The relay is asked to register again, and follows the other epoch.
    while let Ok(Some(_)) = stage.runtime.block_on(node.hear()) {}
    let again = Hello {
        applied_generation: first.generation + 100,
        applied_epoch: first.epoch.clone(),
        ..takes_deltas("relay-0")
    };
    let mut node = stage.session(&credential, again);
    let followed = stage.runtime.block_on(delta(&mut node));
    assert_ne!(followed.epoch, first.epoch);
    assert!(followed.generation > first.generation + 100);
    assert_eq!(followed.base_generation, 0);
}
