//! etcd that is gone, slow, full, or has forgotten: what controllers know is served all the while, and nothing is missed.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use turnfleet_controller::fleet::record::SecretScope;
use turnfleet_controller::store::{Put, Store as _, StoreError, Txn};
use turnfleet_proto::NodeId;
use turnfleet_proto::fleet::Heartbeat;
use turnfleet_proto::fleet::listener::Transport;
use turnfleet_proto::fleet::node_message::Message as Up;

use crate::cluster::Cluster;
use crate::paused_link::PausedLink;
use crate::stage::calls::ask;
use crate::stage::{Node, Stage, any_hello, hello};

/// The slower of the things that are waited for, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);
/// For how long etcd is gone or slow: the minute of the promise, scaled.
const OUTAGE: Duration = Duration::from_secs(10);

fn relay(id: &str) -> NodeId {
    id.parse().unwrap()
}

/// Asks for credentials with a list for as long as `time`, and gives how long the answers took, in order.
#[track_caller]
fn serves(stage: &Stage, node: &Node, time: Duration) -> Vec<Duration> {
    let admin = stage.admin();
    let headers = [
        ("authorization", admin.as_str()),
        ("content-type", "application/json"),
    ];
    let end = Instant::now() + time;
    let mut taken = Vec::new();
    while Instant::now() < end {
        let begun = Instant::now();
        let answer = ask(
            stage,
            "POST",
            "/v1/ice-servers",
            &headers,
            r#"{"user":"a"}"#,
        );
        taken.push(begun.elapsed());
        let view = stage.controller().view();
        let known = view.node(&relay("relay-0")).unwrap();
        assert_eq!(answer.status, 201, "{}", answer.body);
        assert!(answer.body.contains("192.0.2.1"), "{}", answer.body);
        assert!(known.connected && known.listed, "{known:?}");
        let heartbeat = Heartbeat {
            applied_generation: node.snapshot.as_ref().unwrap().generation,
            ..Heartbeat::default()
        };
        let heard = node.is_heard(Up::Heartbeat(heartbeat));
        assert!(stage.runtime.block_on(heard), "its session has ended");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    taken.sort_unstable();
    taken
}

/// Tries until a change goes through.
#[track_caller]
fn changes(stage: &Stage) {
    let deadline = Instant::now() + PATIENCE;
    let handle = stage.controller().handle();
    let lasting = Some(Duration::from_secs(600));
    while let Err(error) = stage
        .runtime
        .block_on(handle.drain(&relay("relay-0"), lasting))
    {
        assert!(Instant::now() < deadline, "never written: {error}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// R5.
#[test]
fn an_etcd_that_is_gone_costs_no_session_no_credential_and_no_list() {
    let runtime = Runtime::new().unwrap();
    let Some(cluster) = runtime.block_on(Cluster::start()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::of_cluster(cluster.endpoints(), dir.path(), "first");
    let node = stage.node(any_hello("relay-0"));
    stage.wait_for("relay-0", |node| node.listed);
    cluster.kill_all();
    serves(&stage, &node, OUTAGE);
    assert!(stage.controller().view().store_stale);
    let handle = stage.controller().handle();
    let refused = stage
        .runtime
        .block_on(handle.drain(&relay("relay-0"), None));
    assert!(refused.is_err(), "nothing can be changed meanwhile");

    cluster.restart_all();
    runtime.block_on(cluster.ready(&cluster.config()));
    let back = Instant::now();
    changes(&stage);
    let writes_again = back.elapsed();
    assert!(writes_again <= Duration::from_secs(5), "{writes_again:?}");
    stage.wait_for("relay-0", |node| node.draining && node.connected);
    assert!(!stage.controller().view().store_stale);
}

/// strace, which delays what a process asks of the kernel, until it is dropped.
struct Slowed(Vec<Child>);

impl Slowed {
    fn new(processes: &[u32], delay: Duration) -> Option<Self> {
        const STRACE: &str = "/usr/bin/strace";
        if !Path::new(STRACE).exists() {
            assert!(
                std::env::var_os("TURNFLEET_REQUIRE_TOOLS").is_none(),
                "strace is missing; `cargo xtask test` as root installs it"
            );
            return None;
        }
        let inject = format!("inject=fsync,fdatasync:delay_exit={}", delay.as_micros());
        let attach = |process: &u32| {
            let mut command = Command::new(STRACE);
            command.args(["-f", "-q", "-o", "/dev/null", "-e", &inject, "-p"]);
            command.arg(process.to_string());
            command.stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().unwrap()
        };
        Some(Self(processes.iter().map(attach).collect()))
    }
}

impl Drop for Slowed {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// R13.
#[test]
fn an_etcd_with_a_slow_disk_kills_nobody_and_slows_no_list() {
    let runtime = Runtime::new().unwrap();
    let Some(cluster) = runtime.block_on(Cluster::start()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::of_cluster(cluster.endpoints(), dir.path(), "first");
    let node = stage.node(any_hello("relay-0"));
    stage.wait_for("relay-0", |node| node.listed);
    let before = serves(&stage, &node, Duration::from_secs(2));
    for delay in [Duration::from_millis(500), Duration::from_secs(2)] {
        let Some(slowed) = Slowed::new(&cluster.processes(), delay) else {
            return;
        };
        let meanwhile = serves(&stage, &node, OUTAGE / 2);
        drop(slowed);
        let nearly_all = |taken: &[Duration]| taken[taken.len() * 99 / 100];
        let (usual, slow) = (nearly_all(&before), nearly_all(&meanwhile));
        // Both are a few milliseconds, in which this machine does other things.
        let bound = 2 * usual + Duration::from_millis(250);
        assert!(slow <= bound, "{slow:?} in place of {usual:?}");
    }
    changes(&stage);
}

/// R14.
#[test]
fn a_full_etcd_is_called_so_and_everything_known_is_served() {
    let runtime = Runtime::new().unwrap();
    let quota = ["--quota-backend-bytes", "2097152"].map(str::to_owned);
    let Some(cluster) = runtime.block_on(Cluster::launch("http", 1, &quota)) else {
        return;
    };
    runtime.block_on(cluster.ready(&cluster.config()));
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::of_cluster(cluster.endpoints(), dir.path(), "first");
    let node = stage.node(any_hello("relay-0"));
    stage.wait_for("relay-0", |node| node.listed);
    let store = cluster.store();
    let fill = Txn {
        puts: vec![Put {
            key: "/filler".into(),
            value: vec![b'x'; 60_000],
            lease: None,
        }],
        ..Txn::default()
    };
    let begun = Instant::now();
    let full = loop {
        assert!(begun.elapsed() < PATIENCE, "it is never full");
        if let Err(error) = runtime.block_on(store.commit(fill.clone())) {
            break error;
        }
    };
    assert!(matches!(full, StoreError::Full), "{full:?}");
    serves(&stage, &node, Duration::from_secs(2));
    let admin = stage.admin();
    let headers = [("authorization", admin.as_str())];
    let refused = ask(&stage, "POST", "/v1/nodes/relay-0/drain", &headers, "");
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.body.contains("NOSPACE"), "{}", refused.body);

    let revision = runtime.block_on(store.range("/filler")).unwrap().revision;
    cluster.ctl(&["compact", &revision.to_string()]);
    cluster.ctl(&["defrag"]);
    cluster.ctl(&["alarm", "disarm"]);
    changes(&stage);
    stage.wait_for("relay-0", |node| node.draining && node.connected);
}

/// R15.
#[test]
fn a_controller_that_history_left_behind_misses_no_change() {
    let runtime = Runtime::new().unwrap();
    let Some(cluster) = runtime.block_on(Cluster::start()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let first = Stage::of_cluster(cluster.endpoints(), dir.path(), "first");
    let link = runtime.block_on(PausedLink::to(&cluster.endpoints()[0]));
    let second = Stage::of_cluster(&[link.endpoint()], dir.path(), "second");
    let _nodes = ["relay-0", "relay-1", "relay-2"].map(|id| {
        let address = format!("192.0.2.{}:3478", id.len() + usize::from(id.as_bytes()[6]));
        first.node(hello(id, &[Transport::Udp], address.parse().unwrap()))
    });
    second.within("the second one knows the nodes", || {
        second.controller().view().nodes.len() == 3
    });

    link.pause();
    let handle = first.controller().handle().clone();
    first.runtime.block_on(async {
        for round in 0..100 {
            let node = relay(["relay-0", "relay-1"][round % 2]);
            handle.drain(&node, None).await.unwrap();
            if round % 4 != 1 {
                handle.undrain(&node).await.unwrap();
            }
        }
        handle
            .rotate_secret(SecretScope::Fleet, None)
            .await
            .unwrap();
        handle
            .enroll(first.controller().join_token(), &relay("relay-3"))
            .await
            .unwrap();
    });
    let revision = runtime
        .block_on(cluster.store().range("/tf/"))
        .unwrap()
        .revision;
    cluster.ctl(&["compact", &revision.to_string()]);
    let generation = |stage: &Stage| stage.controller().view().generation;
    assert!(generation(&second) < generation(&first), "it hears nothing");
    link.cut_and_go_on();

    let shown = |stage: &Stage| {
        let view = stage.controller().view();
        let node = |it: &std::sync::Arc<turnfleet_controller::fleet::NodeView>| {
            (it.id.clone(), it.draining)
        };
        let nodes: Vec<_> = view.nodes.iter().map(node).collect();
        let secret = |it: &turnfleet_controller::fleet::SecretView| (it.id, it.state);
        let secrets: Vec<_> = view.secrets.iter().map(secret).collect();
        (view.generation, nodes, secrets)
    };
    let deadline = Instant::now() + PATIENCE;
    while shown(&first) != shown(&second) {
        let both = (shown(&first), shown(&second));
        assert!(Instant::now() < deadline, "{both:#?}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    assert_eq!(shown(&second).1.len(), 4);
    let minted = |stage: &Stage| stage.controller().shared_secret();
    assert_eq!(minted(&first), minted(&second));
}
