//! What is sealed cannot be read from the files of a store, and cannot be moved or put back within it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use turnfleet_controller::config::{ProbeMode, RawConfig, RawEtcd, RawUser};
use turnfleet_controller::fleet::FleetView;
use turnfleet_controller::fleet::record::{SecretScope, SecretState};
use turnfleet_controller::reconcile::{Handle, Reconciler};
use turnfleet_controller::store::{MemoryStore, Put, Sealer, Store as _, Txn};
use turnfleet_proto::credentials::SharedSecret;

use crate::cluster::Cluster;
use crate::plain_fleet;
use crate::stage::{Stage, any_hello};

const CONFIGURED: &str = "the secret that the configuration names";
const USER: &str = "a user whose name nobody may read";
const PASSWORD: &str = "a password that nobody may read";
const PATIENCE: Duration = Duration::from_secs(30);

/// Has a controller write everything that is secret, and gives what must not be read anywhere.
fn write_secrets(stage: &Stage) -> Vec<Vec<u8>> {
    let controller = stage.controller();
    let mut secrets: Vec<Vec<u8>> = vec![
        CONFIGURED.into(),
        USER.into(),
        PASSWORD.into(),
        controller.api_token().into(),
        controller.join_token().into(),
    ];
    let mut views = controller.watch();
    for number in 0..4 {
        let text = format!("rotation {number} has brought this secret");
        let secret = SharedSecret::new(text.as_str());
        let rotation = controller
            .handle()
            .rotate_secret(SecretScope::Fleet, Some(secret));
        let id = stage.runtime.block_on(rotation).unwrap();
        let minted = views.wait_for(|view| view.secrets.iter().any(|it| it.id == id && it.minted));
        let minted = async { tokio::time::timeout(PATIENCE, minted).await };
        drop(stage.runtime.block_on(minted).unwrap().unwrap());
        secrets.push(text.into_bytes());
    }
    // Relays come afterwards: a rotation waits for those that are away.
    let node = stage.node(any_hello("relay-0"));
    let credential = stage.enroll("relay-1").unwrap();
    secrets.push(credential.into_bytes());
    let snapshot = node.snapshot.as_ref().unwrap();
    secrets.extend(snapshot.nonce_keys.iter().map(|key| key.key.clone()));
    secrets
}

/// Bytes as text in which the standard library searches fast.
fn one_char_a_byte(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// All files below `dir`.
fn files(dir: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let mut bytes = std::fs::read(&path).unwrap();
            // etcd writes its log into files of zeros.
            let end = bytes.iter().rposition(|byte| *byte != 0);
            bytes.truncate(end.map_or(0, |last| last + 1));
            found.push((path.display().to_string(), one_char_a_byte(&bytes)));
        }
    }
    found
}

#[track_caller]
fn nothing_secret_is_in(files: &[(String, String)], secrets: &[Vec<u8>]) {
    let readable = files.iter().any(|(_, text)| text.contains("relay-0"));
    assert!(readable, "what is no secret can be read");
    for (file, text) in files {
        for secret in secrets {
            let coded = STANDARD.encode(secret);
            for form in [one_char_a_byte(secret), coded] {
                assert!(!text.contains(&form), "{form:?} can be read in {file}");
            }
        }
    }
}

#[test]
fn nothing_secret_stands_in_the_files_of_etcd() {
    let runtime = Runtime::new().unwrap();
    // Snapshots of the log come early.
    let arguments = ["--snapshot-count", "20"].map(str::to_owned);
    let Some(cluster) = runtime.block_on(Cluster::launch("http", 1, &arguments)) else {
        return;
    };
    runtime.block_on(cluster.ready(&cluster.config()));
    let dir = tempfile::tempdir().unwrap();
    let mut stage = Stage::with(|raw| {
        prepare(raw);
        raw.store.key_file = Some(dir.path().join("store.key"));
        raw.store.etcd = Some(RawEtcd {
            endpoints: cluster.endpoints().to_vec(),
            ..RawEtcd::default()
        });
    });
    let secrets = write_secrets(&stage);
    nothing_secret_is_in(&files(&cluster.data()), &secrets);
    let revision = runtime
        .block_on(cluster.store().range("/tf/"))
        .unwrap()
        .revision;
    cluster.ctl(&["compact", &revision.to_string()]);
    cluster.ctl(&["defrag"]);
    stage.stop();
    cluster.kill_all();
    let files = files(&cluster.data());
    for part in ["/member/snap/db", ".wal"] {
        assert!(files.iter().any(|(path, _)| path.ends_with(part)), "{part}");
    }
    nothing_secret_is_in(&files, &secrets);
}

#[test]
fn nothing_secret_stands_in_the_file_of_the_embedded_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut stage = Stage::with(|raw| {
        prepare(raw);
        raw.state_dir = dir.path().to_owned();
    });
    let secrets = write_secrets(&stage);
    stage.stop();
    let mut files = files(dir.path());
    files.retain(|(path, _)| path.ends_with("store.redb"));
    assert_eq!(files.len(), 1);
    nothing_secret_is_in(&files, &secrets);
}

fn prepare(raw: &mut RawConfig) {
    raw.probe.mode = ProbeMode::Off;
    raw.shared_secret = Some(CONFIGURED.into());
    raw.users = vec![RawUser {
        name: USER.into(),
        password: PASSWORD.into(),
    }];
}

/// A controller's owner of the fleet, without listeners.
async fn run(store: MemoryStore, dir: &Path) -> (Handle, watch::Sender<bool>) {
    let settings = plain_fleet::settings();
    let wishes = plain_fleet::wishes("example.org");
    let sealer = Sealer::open(&dir.join("store.key"), true).unwrap();
    let opened = Reconciler::open(Arc::new(store), sealer, settings, &wishes).await;
    let (reconciler, handle) = opened.unwrap();
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(reconciler.run(stopped));
    (handle, stop)
}

async fn value(store: &MemoryStore, key: &str) -> Vec<u8> {
    store.range(key).await.unwrap().entries[0].value.clone()
}

#[tokio::test]
async fn what_is_moved_or_put_back_is_not_believed_and_written_over() {
    let (store, dir) = (MemoryStore::new(), tempfile::tempdir().unwrap());
    let (handle, stop) = run(store.clone(), dir.path()).await;
    let [first, second] = [1, 2].map(|id| format!("/tf/v1/secrets/fleet/{id:010}"));
    let active = value(&store, &first).await;
    let rotated = handle
        .rotate_secret(SecretScope::Fleet, None)
        .await
        .unwrap();
    assert_eq!(rotated, 2);
    let retired = |view: &Arc<FleetView>| {
        let first = view.secrets.iter().find(|it| it.id == 1).unwrap();
        matches!(first.state, SecretState::Retiring { .. })
    };
    let mut views = handle.changes();
    let waited = tokio::time::timeout(PATIENCE, views.wait_for(retired)).await;
    drop(waited.unwrap().unwrap());

    let moved = value(&store, &second).await;
    for foreign in [active, moved, b"no seal at all".to_vec()] {
        let revision = store.range(&first).await.unwrap().revision;
        let mut watch = store.watch(&first, revision + 1).await.unwrap();
        let put = Put {
            key: first.clone(),
            value: foreign.clone(),
            lease: None,
        };
        let txn = Txn {
            puts: vec![put],
            ..Txn::default()
        };
        store.commit(txn).await.unwrap();
        // Ours, and what the controller makes of it.
        for _ in 0..2 {
            let next = tokio::time::timeout(PATIENCE, watch.next()).await;
            next.expect("it is written over").unwrap();
        }
        assert_ne!(value(&store, &first).await, foreign);
        let mut views = handle.changes();
        let believed = views.wait_for(|view| view.refused == 0);
        let waited = tokio::time::timeout(PATIENCE, believed).await;
        drop(waited.unwrap().unwrap());
        assert!(retired(&handle.view()), "what was known stays");
    }
    stop.send_replace(true);

    // Another controller takes what stands there for good.
    let (handle, _stop) = run(store, dir.path()).await;
    assert!(retired(&handle.view()));
}
