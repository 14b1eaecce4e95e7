//! A controller that starts again: the store is all that is known, and nodes come back one by one.

use turnfleet_controller::fleet::record::{
    Membership, NodeRecord, Record, SecretGeneration, SecretScope, SecretState,
};
use turnfleet_controller::fleet::{Health, Probing};
use turnfleet_proto::credentials::SharedSecret;

use crate::stage::{Stage, id, identity, outcome};

/// A fleet of one node that the store alone knows.
fn restarted() -> Stage {
    let mut stage = Stage::empty();
    stage.store(Record::Node(NodeRecord {
        id: id(0),
        credential: [0; 32],
        identity: Some(identity(0)),
        membership: Membership::default(),
    }));
    stage
}

fn standing(stage: &Stage) -> (Health, bool, Probing) {
    let view = stage.view();
    let node = view.node(&id(0)).unwrap();
    (node.health, node.listed, node.probing)
}

#[track_caller]
fn assert_standing(stage: &Stage, health: Health, listed: bool) {
    let (is, is_listed, _) = standing(stage);
    assert_eq!((is, is_listed), (health, listed));
}

#[test]
fn a_node_that_its_probe_has_listed_stays_listed_when_it_connects() {
    let mut stage = restarted();
    assert_standing(&stage, Health::Gone, false);
    stage.probe(0, true);
    assert_standing(&stage, Health::Unmanaged, true);
    let (.., before) = standing(&stage);
    stage.register(0, identity(0), 7);
    assert_standing(&stage, Health::Healthy, true);
    assert_ne!(standing(&stage).2, before, "it is probed at once");
}

#[test]
fn a_node_that_connects_before_its_probe_waits_for_it() {
    let mut stage = restarted();
    stage.register(0, identity(0), 7);
    assert_standing(&stage, Health::Starting, false);
    stage.probe(0, true);
    assert_standing(&stage, Health::Healthy, true);
}

#[test]
fn a_later_run_of_its_process_begins_anew() {
    let mut stage = restarted();
    stage.probe(0, true);
    stage.register(0, identity(0), 7);
    stage.register(0, identity(0), 8);
    assert_standing(&stage, Health::Starting, false);
}

fn secret(id: u32, state: SecretState, since_generation: u64) -> Record {
    Record::Secret(SecretGeneration {
        id,
        scope: SecretScope::Fleet,
        secret: SharedSecret::new(format!("secret {id}")),
        state,
        created_at: 0,
        since_generation,
    })
}

/// The leader has seen what this controller has not: every relay runs generation 8, which brought secret 2.
fn rotate(stage: &mut Stage) {
    let accept_until = stage.now.unix + 86_520;
    stage.store(Record::Generation(9));
    stage.store(secret(1, SecretState::Retiring { accept_until }, 1));
    stage.store(secret(2, SecretState::Active, 8));
}

fn minted(stage: &Stage) -> String {
    let secret = stage.view().minting_secret().clone();
    String::from_utf8(secret.as_bytes().to_vec()).unwrap()
}

#[test]
fn a_silent_node_is_listed_when_a_probe_has_shown_that_it_accepts_the_latest_secret() {
    let mut stage = restarted();
    stage.join(1, identity(1));
    let Probing::Yes { round } = standing(&stage).2 else {
        panic!("it is not probed");
    };
    // A Binding shows nobody a credential.
    stage.report(0, outcome(round));
    assert_standing(&stage, Health::Unmanaged, false);
    assert!(stage.view().node(&id(0)).unwrap().secret_unproven);
    stage.probe(0, true);
    assert_standing(&stage, Health::Unmanaged, true);
}

#[test]
fn a_probe_with_the_secret_before_does_not_keep_a_silent_node_in_lists() {
    let mut stage = restarted();
    stage.join(1, identity(1));
    stage.probe(0, true);
    assert_standing(&stage, Health::Unmanaged, true);
    let before = standing(&stage).2;
    rotate(&mut stage);
    assert_ne!(standing(&stage).2, before, "it is probed at once");
    stage.heartbeat(1, 9, turnfleet_controller::fleet::Load::default());
    assert_eq!(minted(&stage), "secret 2");
    assert_standing(&stage, Health::Unmanaged, false);
    stage.probe(0, true);
    assert_standing(&stage, Health::Unmanaged, true);
}

#[test]
fn a_controller_mints_with_the_former_secret_until_a_relay_is_known_to_accept_the_latest() {
    let mut stage = restarted();
    stage.probe(0, true);
    rotate(&mut stage);
    assert_eq!(minted(&stage), "secret 1");
    assert_standing(&stage, Health::Unmanaged, true);
    stage.probe(0, true);
    assert_eq!(minted(&stage), "secret 2");
    assert_standing(&stage, Health::Unmanaged, true);
}

#[test]
fn the_former_secret_is_minted_with_only_while_it_outlasts_every_credential() {
    let mut stage = restarted();
    stage.probe(0, true);
    rotate(&mut stage);
    stage.now.unix += 121;
    assert_eq!(minted(&stage), "secret 2");
    assert_standing(&stage, Health::Unmanaged, true);
}

#[test]
fn of_several_former_secrets_the_latest_that_a_relay_is_known_to_accept_is_minted_with() {
    let mut stage = restarted();
    stage.probe(0, true);
    rotate(&mut stage);
    let accept_until = stage.now.unix + 86_520;
    stage.store(Record::Generation(11));
    stage.store(secret(2, SecretState::Retiring { accept_until }, 8));
    stage.store(secret(3, SecretState::Active, 10));
    assert_eq!(minted(&stage), "secret 1");
    assert_standing(&stage, Health::Unmanaged, true);
}
