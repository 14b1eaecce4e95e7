//! Policy in sections: what a node takes, what it asks for, and what it tells the next controller.

use prost::Message as _;
use ring::digest;
use turnfleet_proto::fleet::controller_message::Message as FromController;
use turnfleet_proto::fleet::{
    Delta, Goodbye, Heartbeat, Hold, PeerPolicy, PolicyStatus, Section, Snapshot,
};
use turnfleet_relay::Node;

use crate::double::Double;
use crate::{TOKEN, answers_a_binding_request, config, snapshot};

/// A policy in two sections: what other tests use, and the rules about peers.
fn sections(deny: &str) -> Vec<Section> {
    let rest = Snapshot {
        generation: 0,
        ..snapshot(0)
    };
    let peers = Snapshot {
        peer_policy: Some(PeerPolicy {
            deny: vec![deny.into()],
            ..PeerPolicy::default()
        }),
        ..Snapshot::default()
    };
    let section = |(number, part): (u32, Snapshot)| Section {
        number,
        content: part.encode_to_vec().into(),
    };
    [(1, rest), (5, peers)].map(section).to_vec()
}

fn hash(sections: &[Section]) -> Vec<u8> {
    let all: Vec<u8> = sections.iter().flat_map(|it| it.content.to_vec()).collect();
    digest::digest(&digest::SHA256, &all).as_ref().to_vec()
}

fn whole(epoch: u8, generation: u64, deny: &str) -> Delta {
    let sections = sections(deny);
    Delta {
        epoch: vec![epoch; 16],
        base_generation: 0,
        generation,
        sha256: hash(&sections),
        sections,
    }
}

/// The way from `base` to a policy that differs in its second section.
fn step(base: u64, generation: u64, deny: &str) -> Delta {
    let mut delta = whole(1, generation, deny);
    delta.base_generation = base;
    delta.sections.remove(0);
    delta
}

async fn told(double: &mut Double, delta: Delta) -> PolicyStatus {
    double.say(FromController::Delta(delta)).await;
    double.hear_status().await
}

async fn running(root: &std::path::Path, double: &mut Double) -> Node {
    let node = Node::start(config(root, &[double.endpoint()]))
        .await
        .unwrap();
    assert_eq!(double.hear_hello().await.protocol, 1);
    let status = told(double, whole(1, 3, "192.0.2.0/24")).await;
    assert!(status.applied, "{}", status.error);
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_follows_deltas_and_says_at_its_return_what_it_runs() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let node = running(root.path(), &mut double).await;
    let delta = step(3, 4, "198.51.100.0/24");
    let expected = delta.sha256.clone();
    let status = told(&mut double, delta).await;
    assert_eq!((status.applied, status.running_generation), (true, 4));
    double.end_session();
    let hello = double.hear_hello().await;
    assert_eq!(
        (
            hello.applied_generation,
            hello.applied_epoch,
            hello.applied_sha256
        ),
        (4, vec![1; 16], expected.clone())
    );
    // Nothing has changed meanwhile: a delta without sections.
    let nothing = Delta {
        sections: Vec::new(),
        ..step(4, 4, "198.51.100.0/24")
    };
    assert!(told(&mut double, nothing).await.applied);
    node.stop().await;

    let node = Node::start(config(root.path(), &[double.endpoint()]))
        .await
        .unwrap();
    let hello = double.hear_hello().await;
    assert_eq!(
        (hello.applied_generation, hello.applied_sha256),
        (4, expected)
    );
    let status = told(&mut double, step(4, 5, "203.0.113.0/24")).await;
    assert!(
        status.applied,
        "a delta rests on what was kept: {}",
        status.error
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delta_that_does_not_fit_is_answered_with_the_wish_for_the_whole() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let node = running(root.path(), &mut double).await;
    let forged = Delta {
        sha256: vec![0; 32],
        ..step(3, 4, "198.51.100.0/24")
    };
    for bad in [step(2, 4, "198.51.100.0/24"), forged] {
        let status = told(&mut double, bad).await;
        assert!(!status.applied && status.needs_whole);
        assert_eq!(status.running_generation, 3);
    }
    let status = told(&mut double, whole(1, 4, "198.51.100.0/24")).await;
    assert!(status.applied && !status.needs_whole);
    node.stop().await;
}

/// R23, the node's half.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unparsable_block_is_refused_with_its_name_and_the_old_policy_runs() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let node = running(root.path(), &mut double).await;
    let status = told(&mut double, step(3, 4, "10.0.0.0/33")).await;
    assert!(!status.applied && !status.needs_whole);
    assert!(status.error.contains("10.0.0.0/33"), "{}", status.error);
    assert!(answers_a_binding_request(&node));
    // The next one rests on what runs.
    let status = told(&mut double, step(3, 5, "198.51.100.0/24")).await;
    assert_eq!((status.applied, status.running_generation), (true, 5));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generations_only_rise_within_an_epoch_and_another_epoch_is_followed() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let node = running(root.path(), &mut double).await;
    let status = told(&mut double, whole(1, 2, "198.51.100.0/24")).await;
    assert!(!status.applied && status.error.contains("older"));
    let status = told(&mut double, whole(2, 1, "198.51.100.0/24")).await;
    assert_eq!((status.applied, status.running_generation), (true, 1));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_held_goes_on_with_what_it_runs() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let node = running(root.path(), &mut double).await;
    double.end_session();
    double.hear_hello().await;
    let reason = "restored".to_owned();
    double.say(FromController::Hold(Hold { reason })).await;
    double
        .hear_heartbeat(|beat| beat.applied_generation == 3)
        .await;
    assert!(node.is_ready() && answers_a_binding_request(&node));
    node.stop().await;
}

/// A controller of an earlier version reads what a node of this one says, and passes over what it does not know.
#[test]
fn what_a_node_says_reads_without_the_fields_of_this_version() {
    let status = PolicyStatus {
        generation: 4,
        needs_whole: true,
        ..PolicyStatus::default()
    };
    // The fields 1 to 4 are the earlier version's, and all of the message but its last field.
    let bytes = status.encode_to_vec();
    let earlier = PolicyStatus {
        needs_whole: false,
        ..status
    };
    assert!(bytes.starts_with(&earlier.encode_to_vec()));
    let later = [bytes.as_slice(), &[0xfa, 0x7f, 0x01, 0x07]].concat();
    assert!(PolicyStatus::decode(later.as_slice()).unwrap().needs_whole);
    let none = Heartbeat::decode([].as_slice()).unwrap();
    assert_eq!((none.applied_generation, none.load), (0, None));
    assert_eq!(Goodbye::decode([].as_slice()).unwrap().reason, "");
}
