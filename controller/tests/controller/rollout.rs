//! A changed policy goes to one relay first, and to all when that one runs it.

use std::sync::Arc;
use std::time::Duration;

use turnfleet_controller::fleet::record::{Rollout, Stage as Reached};
use turnfleet_controller::fleet::{FleetView, Wishes};
use turnfleet_proto::fleet::controller_message::Message as Down;
use turnfleet_proto::fleet::node_message::Message as Up;
use turnfleet_proto::fleet::{PolicyStatus, Snapshot};

use crate::plain_fleet;
use crate::stage::{Node, Stage, any_hello};

const RELAYS: usize = 3;

/// Relays that apply everything but what denies `poison`.
struct Relays {
    nodes: Vec<Node>,
    /// The networks that each denies, by its latest snapshot.
    deny: Vec<Vec<String>>,
    /// Who was ever offered the poison.
    touched: Vec<usize>,
    /// Who still has to hear of the generation.
    generations: Vec<u64>,
}

const POISON: &str = "198.51.100.0/24";

impl Relays {
    fn join(stage: &Stage) -> Self {
        let nodes = (0..RELAYS).map(|number| {
            let mut hello = any_hello(&format!("relay-{number}"));
            hello.public_ips = vec![format!("192.0.2.{}", number + 1)];
            stage.node(hello)
        });
        let mut relays = Self {
            nodes: nodes.collect(),
            deny: vec![Vec::new(); RELAYS],
            touched: Vec::new(),
            generations: vec![0; RELAYS],
        };
        let generation = stage.controller().view().generation;
        relays.follow(stage, generation);
        relays
    }

    /// Every relay takes what comes until it has heard of `generation`.
    fn follow(&mut self, stage: &Stage, generation: u64) {
        for number in 0..RELAYS {
            if let Some(snapshot) = &self.nodes[number].snapshot {
                self.generations[number] = self.generations[number].max(snapshot.generation);
            }
            while self.generations[number] < generation {
                stage.runtime.block_on(self.take(number));
            }
        }
    }

    async fn take(&mut self, number: usize) {
        let heard = self.nodes[number].hear().await.unwrap();
        let Some(Down::Snapshot(snapshot)) = heard else {
            panic!("no snapshot: {heard:?}");
        };
        self.generations[number] = snapshot.generation;
        let deny = denied(&snapshot);
        let poisoned = deny.iter().any(|net| net == POISON);
        if poisoned {
            self.touched.push(number);
        } else {
            self.deny[number] = deny;
        }
        let status = PolicyStatus {
            generation: snapshot.generation,
            applied: !poisoned,
            error: if poisoned { "no such network" } else { "" }.to_owned(),
            running_generation: snapshot.generation - u64::from(poisoned),
            ..PolicyStatus::default()
        };
        self.nodes[number].say(Up::PolicyStatus(status)).await;
    }

    /// Follows until the fleet's view is as wanted.
    fn until(&mut self, stage: &Stage, what: &str, holds: impl Fn(&FleetView) -> bool) {
        let mut views = stage.controller().watch();
        for _ in 0..100 {
            let view = Arc::clone(&views.borrow_and_update());
            self.follow(stage, view.generation);
            if holds(&view) {
                return;
            }
            let changed = async {
                let wait = Duration::from_secs(10);
                tokio::time::timeout(wait, views.changed()).await
            };
            stage.runtime.block_on(changed).unwrap().unwrap();
        }
        panic!("never came: {what}");
    }
}

fn denied(snapshot: &Snapshot) -> Vec<String> {
    snapshot.peer_policy.clone().unwrap().deny
}

fn wishes(deny: &[&str]) -> Wishes {
    let mut wishes = plain_fleet::wishes("turnfleet.local");
    wishes.policy.deny_peers = deny.iter().map(|net| net.parse().unwrap()).collect();
    wishes
}

fn reconfigure(stage: &Stage, deny: &[&str]) {
    let handle = stage.controller().handle();
    stage
        .runtime
        .block_on(handle.reconfigure(wishes(deny)))
        .unwrap();
}

fn stage_of(view: &FleetView) -> Option<&Reached> {
    let rollout: Option<&Rollout> = view.rollout.as_deref();
    rollout.map(|rollout| &rollout.stage)
}

#[test]
fn a_changed_policy_goes_to_one_relay_and_then_to_all() {
    let stage = Stage::new();
    let mut relays = Relays::join(&stage);
    reconfigure(&stage, &["203.0.113.0/24"]);
    relays.until(&stage, "a canary", |view| {
        matches!(stage_of(view), Some(Reached::Canary { .. } | Reached::All))
    });
    relays.until(&stage, "all", |view| stage_of(view) == Some(&Reached::All));
    assert!(relays.deny.iter().all(|deny| deny == &["203.0.113.0/24"]));
    relays.until(&stage, "all are listed", |view| view.listed() == RELAYS);
}

/// R23: a policy that relays refuse.
#[test]
fn the_first_refusal_stops_a_rollout_and_touches_one_relay() {
    let stage = Stage::new();
    let mut relays = Relays::join(&stage);
    reconfigure(&stage, &[POISON]);
    relays.until(&stage, "stopped", |view| {
        matches!(stage_of(view), Some(Reached::Stopped { .. }))
    });
    assert_eq!(relays.touched.len(), 1, "{:?}", relays.touched);
    let view = stage.controller().view();
    let Some(Reached::Stopped { node, reason }) = stage_of(&view) else {
        panic!("stopped");
    };
    assert_eq!(node.as_str(), format!("relay-{}", relays.touched[0]));
    assert_eq!(reason, "no such network");
    // Everybody runs the old one, and is in lists.
    relays.until(&stage, "all are listed", |view| view.listed() == RELAYS);
    assert!(relays.deny.iter().all(Vec::is_empty));

    reconfigure(&stage, &["203.0.113.0/24"]);
    relays.until(&stage, "all", |view| stage_of(view) == Some(&Reached::All));
    assert!(relays.deny.iter().all(|deny| deny == &["203.0.113.0/24"]));
    assert_eq!(relays.touched.len(), 1);
}

#[test]
fn an_operator_may_force_a_policy_that_was_stopped() {
    let stage = Stage::new();
    let mut relays = Relays::join(&stage);
    let handle = stage.controller().handle().clone();
    assert!(stage.runtime.block_on(handle.force_rollout()).is_err());
    reconfigure(&stage, &[POISON]);
    relays.until(&stage, "stopped", |view| {
        matches!(stage_of(view), Some(Reached::Stopped { .. }))
    });
    stage.runtime.block_on(handle.force_rollout()).unwrap();
    relays.until(&stage, "all", |view| stage_of(view) == Some(&Reached::All));
    assert_eq!(relays.touched.len(), 1 + RELAYS);
}

#[test]
fn users_do_not_wait_for_a_canary() {
    let stage = Stage::new();
    let mut relays = Relays::join(&stage);
    reconfigure(&stage, &[POISON]);
    relays.until(&stage, "stopped", |view| {
        matches!(stage_of(view), Some(Reached::Stopped { .. }))
    });
    let mut more = wishes(&[POISON]);
    more.users = vec![turnfleet_controller::fleet::record::StaticUser {
        name: "alice".to_owned(),
        key: [7; 16],
        key_sha256: None,
    }];
    let handle = stage.controller().handle();
    stage.runtime.block_on(handle.reconfigure(more)).unwrap();
    let heard = stage.runtime.block_on(relays.nodes[0].hear()).unwrap();
    let Some(Down::Snapshot(snapshot)) = heard else {
        panic!("no snapshot: {heard:?}");
    };
    assert_eq!(snapshot.users.len(), 1);
    assert!(denied(&snapshot).is_empty());
}
