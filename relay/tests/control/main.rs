//! The control session of a node, against a controller that follows a script.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod deltas;
mod double;
mod events;
mod listeners;
mod orders;
mod traces;
mod usage;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::num::NonZeroU64;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use double::{Double, Heard};
use tonic::transport::Identity;
use turnfleet_proto::fleet::controller_message::Message as FromController;
use turnfleet_proto::fleet::listener::Transport;
use turnfleet_proto::fleet::{
    Alternate, Alternates, Drain, Listener, NonceKey, PortGrant, PortRange, SecretGeneration,
    Snapshot,
};
use turnfleet_relay::config::{Config, RawConfig, RawListener, Secret};
use turnfleet_relay::{Node, NodeError};
use turnfleet_turn::client::Event;

const TOKEN: &str = "join us";

fn config(state_dir: &Path, endpoints: &[String]) -> Config {
    let listeners = [("udp", "127.0.0.1:0"), ("tcp", "127.0.0.1:0")];
    config_with(state_dir, endpoints, &listeners)
}

fn config_with(state_dir: &Path, endpoints: &[String], listeners: &[(&str, &str)]) -> Config {
    let listener = |&(transport, address): &(&str, &str)| RawListener {
        transport: transport.into(),
        address: address.into(),
        ..RawListener::default()
    };
    let mut raw = RawConfig {
        node_id: "relay-a".into(),
        region: "north".into(),
        zone: "z1".into(),
        hostname: vec!["relay-a.example".into()],
        state_dir: state_dir.to_str().unwrap().into(),
        listeners: listeners.iter().map(listener).collect(),
        shards: 1,
        ..RawConfig::default()
    };
    raw.controller.endpoints = endpoints.to_vec();
    raw.controller.join_token = Secret(TOKEN.into());
    Config::try_from(raw).unwrap()
}

fn snapshot(generation: u64) -> Snapshot {
    Snapshot {
        generation,
        realm: "turnfleet.local".into(),
        secrets: vec![SecretGeneration {
            id: 1,
            secret: "north".into(),
            ..SecretGeneration::default()
        }],
        nonce_keys: vec![NonceKey {
            id: 1,
            key: vec![7; 32],
            ..NonceKey::default()
        }],
        port_grants: vec![PortGrant {
            public_ip: "127.0.0.1".into(),
            range: Some(PortRange {
                first: 50000,
                last: 50099,
            }),
            fence: 2,
            not_after: 0,
        }],
        ..Snapshot::default()
    }
}

/// A node with an open session and generation `generation` applied.
async fn running(state_dir: &Path, double: &mut Double, generation: u64) -> Node {
    let node = Node::start(config(state_dir, &[double.endpoint()]))
        .await
        .unwrap();
    double.hear_hello().await;
    take(double, generation).await;
    node
}

/// Sends a good snapshot, and expects it to be applied.
async fn take(double: &mut Double, generation: u64) {
    double
        .say(FromController::Snapshot(snapshot(generation)))
        .await;
    let status = double.hear_status().await;
    assert!(status.applied, "{}", status.error);
    assert_eq!(status.running_generation, generation);
}

fn answers_a_binding_request(node: &Node) -> bool {
    is_answered(node.listeners()[0].address, Duration::from_secs(5))
}

fn is_answered(server: SocketAddr, patience: Duration) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(patience)).unwrap();
    let mut request = [0; 20];
    request[1] = 0x01;
    request[4..8].copy_from_slice(&[0x21, 0x12, 0xA4, 0x42]);
    socket.send_to(&request, server).unwrap();
    let mut answer = [0; 100];
    socket
        .recv(&mut answer)
        .is_ok_and(|_| answer[..2] == [0x01, 0x01])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_enrols_introduces_itself_and_serves_by_the_first_snapshot() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let node = Node::start(config(root.path(), &[double.endpoint()]))
        .await
        .unwrap();
    assert!(!node.is_ready());
    let hello = double.hear_hello().await;
    assert_eq!(hello.node_id, "relay-a");
    assert_eq!(
        (hello.region.as_str(), hello.zone.as_str()),
        ("north", "z1")
    );
    assert_eq!(hello.hostname, "relay-a.example");
    assert_eq!(hello.incarnation.len(), 16);
    assert_eq!(hello.public_ips, ["127.0.0.1"]);
    assert_eq!(hello.applied_generation, 0);
    assert!(hello.capacity.unwrap().allocations > 0);
    let udp = node.listeners()[0].public.to_string();
    assert_eq!(hello.listeners[0].address, udp);

    take(&mut double, 3).await;
    assert!(node.is_ready());
    let status = node.status();
    assert_eq!((status.applied_generation, status.connected), (3, true));
    assert_eq!(status.granted[0].range.to_string(), "50000-50099");
    assert!(answers_a_binding_request(&node));
    let beat = double
        .hear_heartbeat(|beat| beat.applied_generation == 3)
        .await;
    assert_eq!(beat.load.unwrap().relayed_ports_total, 100);
    let page = node.render_metrics();
    assert!(page.contains("turnfleet_relay_policy_generation 3\n"));

    let credential = root.path().join("node.credential");
    let mode = credential.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_does_not_fit_is_refused_and_the_running_one_stays() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let node = running(root.path(), &mut double, 5).await;
    let mut foreign = snapshot(6);
    foreign.realm = "other".into();
    foreign.port_grants[0].public_ip = "192.0.2.1".into();
    for (bad, reason) in [(foreign, "port_grants"), (snapshot(4), "older")] {
        let generation = bad.generation;
        double.say(FromController::Snapshot(bad)).await;
        let status = double.hear_status().await;
        assert!(!status.applied && status.error.contains(reason));
        assert_eq!(
            (status.generation, status.running_generation),
            (generation, 5)
        );
    }
    assert_eq!(node.status().applied_generation, 5);
    assert!(node.is_ready());
    take(&mut double, 5).await;
    take(&mut double, 6).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_are_given_up_in_the_snapshot_that_is_kept_and_an_earlier_grant_of_them_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let node = running(root.path(), &mut double, 5).await;
    let mut fewer = snapshot(6);
    fewer.port_grants[0].range = Some(PortRange {
        first: 50000,
        last: 50003,
    });
    fewer.port_grants[0].fence = 3;
    double.say(FromController::Snapshot(fewer.clone())).await;
    assert!(double.hear_status().await.applied);
    let beat = double
        .hear_heartbeat(|beat| beat.kept_generation == 6)
        .await;
    let ports = &beat.port_uses[0];
    assert_eq!((ports.used, ports.open.len()), (0, 1));
    assert_eq!((ports.open[0].first, ports.open[0].last), (50000, 50003));

    // By a controller that is behind.
    double.say(FromController::Snapshot(snapshot(7))).await;
    let status = double.hear_status().await;
    assert!(
        !status.applied && status.error.contains("fence 2"),
        "{}",
        status.error
    );
    node.stop().await;
    let node = Node::start(config(root.path(), &[double.endpoint()]))
        .await
        .unwrap();
    assert_eq!(node.status().granted[0].fence, 3);
    assert_eq!(double.hear_hello().await.applied_generation, 6);
    double.say(FromController::Snapshot(snapshot(7))).await;
    assert!(
        !double.hear_status().await.applied,
        "fences outlive the process"
    );
    let restored = Snapshot {
        epoch: vec![7; 16],
        ..snapshot(8)
    };
    let mut running = snapshot(7);
    running.epoch = vec![6; 16];
    running.port_grants[0].fence = 3;
    for followed in [running, restored] {
        double.say(FromController::Snapshot(followed)).await;
        let status = double.hear_status().await;
        assert!(status.applied, "{}", status.error);
    }
    assert_eq!(node.status().granted[0].fence, 2, "fences of another epoch");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_of_a_grant_that_has_ended_are_not_opened() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let node = running(root.path(), &mut double, 1).await;
    let mut ended = snapshot(2);
    ended.port_grants[0].not_after = 1_700_000_000;
    double.say(FromController::Snapshot(ended)).await;
    assert!(double.hear_status().await.applied);
    let event = client::try_allocate(node.listeners()[0].address, "north");
    assert!(!matches!(event, Event::Allocated(_)), "{event:?}");
    take(&mut double, 3).await;
    client::allocate(node.listeners()[0].address, "north");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_join_token_is_tried_until_it_is_right() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start("another").await;
    let node = Node::start(config(root.path(), &[double.endpoint()]))
        .await
        .unwrap();
    for _ in 0..2 {
        double
            .hear(|heard| matches!(heard, Heard::EnrolmentRefused).then_some(()))
            .await;
    }
    let page = node.render_metrics();
    assert!(page.contains("turnfleet_relay_control_state{state=\"refused\"} 1\n"));
    double.set_join_token(TOKEN);
    double.hear_hello().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_is_opened_again_and_meanwhile_the_node_serves() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let node = running(root.path(), &mut double, 2).await;
    double.end_session();
    wait_for(|| (!node.status().connected).then_some(())).await;
    assert!(node.is_ready() && answers_a_binding_request(&node));
    let hello = double.hear_hello().await;
    assert_eq!(hello.applied_generation, 2);
    take(&mut double, 2).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_without_memory_gets_the_node_as_a_member_again() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let node = running(root.path(), &mut double, 9).await;
    double.forget_nodes();
    double.end_session();
    double
        .hear(|heard| matches!(heard, Heard::Enrolled).then_some(()))
        .await;
    assert_eq!(double.hear_hello().await.applied_generation, 0);
    assert!(node.is_ready());
    take(&mut double, 1).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_serves_from_its_cache_while_the_controller_is_away() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let endpoint = double.endpoint();
    running(root.path(), &mut double, 4).await.stop().await;
    drop(double);

    let node = Node::start(config(root.path(), &[endpoint])).await.unwrap();
    assert!(node.is_ready());
    let status = node.status();
    assert_eq!((status.applied_generation, status.connected), (4, false));
    assert_eq!(status.granted[0].range.to_string(), "50000-50099");
    assert!(answers_a_binding_request(&node));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_says_that_it_drains_and_says_goodbye() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let node = running(root.path(), &mut double, 1).await;
    node.drain(Some(Duration::from_secs(60)));
    double.hear_heartbeat(|beat| beat.draining).await;
    assert!(!node.is_ready() && node.status().draining);
    node.drained().await;
    node.stop().await;
    double.hear_goodbye().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_controller_begins_and_ends_a_drain() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let node = running(root.path(), &mut double, 1).await;
    for draining in [true, false] {
        let wish = Drain {
            draining,
            deadline_seconds: 0,
        };
        double.say(FromController::Drain(wish)).await;
        double
            .hear_heartbeat(|beat| beat.draining == draining)
            .await;
        assert_eq!(node.is_ready(), !draining);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_node_sends_clients_where_its_controller_said_also_when_that_is_gone() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let node = running(root.path(), &mut double, 1).await;
    let server = node.listeners()[0].address;
    let other = "127.0.0.1:3478";
    let alternates = Alternates {
        alternates: vec![Alternate {
            domain: String::new(),
            listeners: vec![Listener {
                transport: Transport::Udp.into(),
                address: other.into(),
                local_address: String::new(),
            }],
        }],
    };
    double.say(FromController::Alternates(alternates)).await;
    wait_for(|| {
        let known = "\nturnfleet_relay_alternates 1\n";
        node.render_metrics().contains(known).then_some(())
    })
    .await;
    client::allocate(server, "north");
    node.drain(None);
    double.hear_heartbeat(|beat| beat.draining).await;
    double.end_session();
    drop(double);
    wait_for(|| (!node.status().connected).then_some(())).await;
    let event = client::try_allocate(server, "north");
    let Event::Redirected(redirect) = event else {
        panic!("not sent elsewhere: {event:?}");
    };
    assert_eq!(redirect.servers[..], [other.parse().unwrap()]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lives_ends_at_the_deadline_of_the_controllers_drain() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let node = running(root.path(), &mut double, 1).await;
    client::allocate(node.listeners()[0].address, "north");
    wait_for(|| (node.status().allocations == 1).then_some(())).await;
    let drain = |deadline_seconds| {
        FromController::Drain(Drain {
            draining: true,
            deadline_seconds,
        })
    };
    double.say(drain(3600)).await;
    double.hear_heartbeat(|beat| beat.draining).await;
    assert_eq!(node.status().allocations, 1);
    double.say(drain(1)).await;
    wait_for(|| (node.status().allocations == 0).then_some(())).await;
    assert!(node.status().draining && answers_a_binding_request(&node));
    node.stop().await;
}

#[tokio::test]
async fn nodes_of_one_process_share_its_descriptors() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let mut limits = Vec::new();
    for nodes in [NonZeroU64::MIN, NonZeroU64::new(2).unwrap()] {
        let mut config = config(&root.path().join(nodes.to_string()), &[double.endpoint()]);
        config.nodes_in_process = nodes;
        let node = Node::start(config).await.unwrap();
        let capacity = double.hear_hello().await.capacity.unwrap();
        limits.push(capacity.file_descriptors);
        node.stop().await;
    }
    assert_eq!(limits[1], limits[0] / 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_controller_is_tried_when_one_is_silent() {
    let root = tempfile::tempdir().unwrap();
    // Takes connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let mut double = Double::start(TOKEN).await;
    let node = Node::start(config(root.path(), &[endpoint, double.endpoint()]))
        .await
        .unwrap();
    double.hear_hello().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_is_believed_only_with_a_certificate_of_the_ca() {
    let root = tempfile::tempdir().unwrap();
    let certificate = |name: &str| {
        let made = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
        let path = root.path().join(name);
        std::fs::write(&path, made.cert.pem()).unwrap();
        (made, path)
    };
    let (own, own_ca) = certificate("ca.pem");
    let (_, other_ca) = certificate("other.pem");
    let identity = Identity::from_pem(own.cert.pem(), own.signing_key.serialize_pem());
    let mut double = Double::start_tls(TOKEN, identity).await;
    let endpoint = format!("https://localhost:{}", double.address.port());
    let node = async |ca: &Path| {
        let mut config = config(&ca.with_extension("state"), &["http://127.0.0.1:1".into()]);
        config.controller.endpoints[0].uri = endpoint.parse().unwrap();
        config.controller.endpoints[0].tls = true;
        config.controller.ca = Some(ca.to_owned());
        Node::start(config).await.unwrap()
    };

    let deceived = node(&other_ca).await;
    let page = wait_for(|| {
        Some(deceived.render_metrics()).filter(|page| page.contains("{state=\"unreachable\"} 1"))
    });
    page.await;
    deceived.stop().await;
    // The first thing that the double hears of anybody is the other node.
    let believing = node(&own_ca).await;
    let first = double.hear(|heard| Some(matches!(heard, Heard::Enrolled)));
    assert!(first.await);
    double.hear_hello().await;
    believing.stop().await;
}

/// Waits until `condition` gives something.
async fn wait_for<T>(condition: impl Fn() -> Option<T>) -> T {
    let mut look = tokio::time::interval(Duration::from_millis(20));
    let found = async {
        loop {
            look.tick().await;
            if let Some(found) = condition() {
                return found;
            }
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(60), found).await;
    found.expect("the condition holds in time")
}

#[tokio::test]
async fn a_node_that_can_never_be_a_member_does_not_start() {
    let root = tempfile::tempdir().unwrap();
    let mut config = config(root.path(), &["http://127.0.0.1:1".into()]);
    config.controller.join_token = None;
    let error = Node::start(config).await.unwrap_err();
    assert!(
        matches!(error, NodeError::Config(errors) if errors.0[0].key() == "controller.join_token")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_cannot_share_a_state_folder() {
    let root = tempfile::tempdir().unwrap();
    let config = config(root.path(), &["http://127.0.0.1:1".into()]);
    let _first = Node::start(config.clone()).await.unwrap();
    let error = Node::start(config).await.unwrap_err();
    assert!(matches!(error, NodeError::StateDir { .. }));
}
