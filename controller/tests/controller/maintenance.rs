//! Backup, restore and the move to etcd: the fleet that comes out is the one that went in, and half of one is none.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::runtime::Runtime;
use turnfleet_controller::config::{Config, ProbeMode, RawConfig, RawEtcd};
use turnfleet_controller::fleet::Plan;
use turnfleet_controller::fleet::record::{Record, RecordKey};
use turnfleet_controller::maintenance::{
    MaintenanceError, RestoreOptions, backup, migrate, restore,
};
use turnfleet_controller::store::archive::Archive;
use turnfleet_controller::store::transfer::{self, Content, TransferError};
use turnfleet_controller::store::{EmbeddedStore, MemoryStore, Store, StoreError, keys};
use turnfleet_controller::{Controller, StartError};
use turnfleet_proto::fleet::Hello;
use turnfleet_proto::fleet::controller_message::Message as Down;

use crate::cluster::Cluster;
use crate::stage::{Node, Stage, any_hello};
use crate::store_that_fails::FailingStore;

/// Restores without a word beside.
const PLAINLY: RestoreOptions = RestoreOptions {
    replace: false,
    new_epoch: false,
};
const REPLACING: RestoreOptions = RestoreOptions {
    replace: true,
    new_epoch: false,
};

fn raw(dir: &Path) -> RawConfig {
    let mut raw = RawConfig {
        id: Some("first".into()),
        state_dir: dir.to_owned(),
        ..RawConfig::default()
    };
    raw.http.address = "127.0.0.1:0".to_owned();
    raw.grpc.address = "127.0.0.1:0".to_owned();
    raw.probe.mode = ProbeMode::Off;
    raw
}

fn config(dir: &Path) -> Config {
    Config::try_from(raw(dir)).unwrap()
}

/// The same on etcd, with the key file of `dir`.
fn raw_on(cluster: &Cluster, dir: &Path) -> RawConfig {
    let mut raw = raw(dir);
    raw.store.key_file = Some(dir.join("store.key"));
    raw.store.etcd = Some(RawEtcd {
        endpoints: cluster.endpoints().to_vec(),
        ..RawEtcd::default()
    });
    raw
}

fn stage(given: RawConfig) -> Stage {
    Stage::with(|raw| *raw = given)
}

/// A fleet with a node, an operator's word on it, and a few changes; its controller has stopped.
struct Fleet {
    dir: tempfile::TempDir,
    secret: Vec<u8>,
    join_token: String,
}

impl Fleet {
    fn make() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut stage = stage(raw(dir.path()));
        drop(stage.node(any_hello("relay-0")));
        let drained = ureq::post(&stage.url("/v1/nodes/relay-0/drain"))
            .config()
            .proxy(None)
            .build()
            .header("Authorization", stage.admin())
            .send_empty();
        assert!(drained.is_ok(), "{drained:?}");
        let secret = stage.controller().shared_secret().as_bytes().to_vec();
        let join_token = stage.controller().join_token().to_owned();
        stage.stop();
        Self {
            dir,
            secret,
            join_token,
        }
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn backup(&self, runtime: &Runtime) -> PathBuf {
        let file = self.dir().join("backup");
        runtime
            .block_on(backup(&config(self.dir()), &file))
            .unwrap();
        file
    }

    /// An empty place, with the key that opens what this one has sealed.
    fn place(&self) -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        fs::copy(self.dir().join("store.key"), place.path().join("store.key")).unwrap();
        place
    }

    #[track_caller]
    fn check(&self, stage: &Stage) {
        let controller = stage.controller();
        assert_eq!(controller.shared_secret().as_bytes(), self.secret);
        assert_eq!(controller.join_token(), self.join_token);
        let view = controller.view();
        let nodes: Vec<_> = view
            .nodes
            .iter()
            .map(|it| (it.id.as_str(), it.draining))
            .collect();
        assert_eq!(nodes, [("relay-0", true)]);
    }
}

fn content(runtime: &Runtime, store: &dyn Store) -> Content {
    runtime.block_on(transfer::read(store)).unwrap().1
}

fn embedded(runtime: &Runtime, dir: &Path) -> EmbeddedStore {
    runtime.block_on(EmbeddedStore::open(dir)).unwrap()
}

/// All but what a restore changes: the epoch.
fn lasting(content: &Content) -> Vec<(String, Vec<u8>)> {
    let entries = content.entries().filter(|(key, _)| *key != keys::EPOCH);
    entries
        .map(|(key, value)| (key.to_owned(), value.to_vec()))
        .collect()
}

#[track_caller]
fn told(error: &(dyn std::error::Error + 'static), expected: &str) {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    assert!(text.contains(expected), "{text}");
}

#[test]
fn a_restored_embedded_store_has_the_same_fleet_in_another_epoch() {
    let (fleet, runtime) = (Fleet::make(), Runtime::new().unwrap());
    let file = fleet.backup(&runtime);
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "the backup is for its owner only");
    let place = fleet.place();
    let there = config(place.path());
    let restored = restore(&there, &file, PLAINLY);
    let report = runtime.block_on(restored).unwrap();
    let before = content(&runtime, &embedded(&runtime, fleet.dir()));
    let after = content(&runtime, &embedded(&runtime, place.path()));
    assert_eq!(lasting(&after), lasting(&before));
    assert_ne!(after.epoch(), before.epoch());
    assert_eq!((report.entries, report.hash), (after.len(), after.hash()));
    assert!(
        before
            .entries()
            .any(|(key, _)| key.starts_with("/tf/audit/v1/"))
    );
    fleet.check(&stage(raw(place.path())));
}

#[test]
fn a_fleet_goes_to_etcd_by_a_backup_and_back() {
    let (fleet, runtime) = (Fleet::make(), Runtime::new().unwrap());
    let Some(cluster) = runtime.block_on(Cluster::start()) else {
        return;
    };
    let file = fleet.backup(&runtime);
    let place = fleet.place();
    let on_etcd = raw_on(&cluster, place.path());
    let config_on_etcd = Config::try_from(on_etcd.clone()).unwrap();
    runtime
        .block_on(restore(&config_on_etcd, &file, PLAINLY))
        .unwrap();
    let stage = stage(on_etcd);
    fleet.check(&stage);
    stage.within("the controller is known", || {
        let found = runtime
            .block_on(cluster.store().range("/tf/v1/controllers/"))
            .unwrap();
        !found.entries.is_empty()
    });

    // A controller runs: a backup is possible, a restore is not.
    let second = place.path().join("second");
    runtime.block_on(backup(&config_on_etcd, &second)).unwrap();
    let refused = runtime
        .block_on(restore(&config_on_etcd, &second, REPLACING))
        .unwrap_err();
    told(&refused, "controllers run on it: first");
    drop(stage);
    let archive = Archive::read(fs::read(&second).unwrap().as_slice()).unwrap();
    assert_eq!(archive.store, "etcd");
    let passing = |key: &str| key == keys::LEADER || key.contains("/controllers/");
    assert!(!archive.content.entries().any(|(key, _)| passing(key)));
    let home = fleet.place();
    runtime
        .block_on(restore(&config(home.path()), &second, PLAINLY))
        .unwrap();
    fleet.check(&self::stage(raw(home.path())));

    // In the place of another fleet, and only if told so.
    let refused = runtime
        .block_on(restore(&config_on_etcd, &second, PLAINLY))
        .unwrap_err();
    told(&refused, "--replace");
    runtime
        .block_on(restore(&config_on_etcd, &second, REPLACING))
        .unwrap();
    fleet.check(&self::stage(raw_on(&cluster, place.path())));
}

#[test]
fn an_embedded_store_moves_to_etcd_once_and_stays_the_same_epoch() {
    let (fleet, runtime) = (Fleet::make(), Runtime::new().unwrap());
    let Some(cluster) = runtime.block_on(Cluster::start()) else {
        return;
    };
    let on_etcd = raw_on(&cluster, fleet.dir());
    let config_on_etcd = Config::try_from(on_etcd.clone()).unwrap();
    let nowhere = runtime
        .block_on(migrate(&config(fleet.dir()), None))
        .unwrap_err();
    told(&nowhere, "store.etcd");
    let running = embedded(&runtime, fleet.dir());
    let refused = runtime
        .block_on(migrate(&config_on_etcd, None))
        .unwrap_err();
    told(&refused, "stop the controller that runs on it");
    let before = content(&runtime, &running);
    drop(running);

    let report = runtime.block_on(migrate(&config_on_etcd, None)).unwrap();
    let after = content(&runtime, &cluster.store());
    assert_eq!((&after, report.hash), (&before, before.hash()));
    assert_eq!(after.epoch(), before.epoch());
    fleet.check(&stage(on_etcd));
    let started = runtime.block_on(Controller::start(config(fleet.dir())));
    let Err(StartError::Fleet { source, .. }) = started else {
        panic!("the embedded store is closed: {started:?}");
    };
    told(&source, "was moved to http://127.0.0.1");
    let again = runtime
        .block_on(migrate(&config_on_etcd, None))
        .unwrap_err();
    told(&again, "was moved to http://127.0.0.1");
}

#[test]
fn what_cannot_be_restored_is_refused_before_anything_is_written() {
    let (fleet, runtime) = (Fleet::make(), Runtime::new().unwrap());
    let file = fleet.backup(&runtime);
    let refused = |config: &Config, file: &Path| {
        runtime
            .block_on(restore(config, file, PLAINLY))
            .unwrap_err()
    };
    let place = fleet.place();
    let there = config(place.path());
    let missing = refused(&there, &place.path().join("nothing"));
    told(
        &missing,
        "nothing cannot be used: it cannot be read: No such file",
    );
    let damaged = place.path().join("damaged");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&damaged, &bytes).unwrap();
    let error = refused(&there, &damaged);
    assert!(matches!(error, MaintenanceError::Archive { .. }), "{error}");

    // Another store's key, and none at all.
    let other = Fleet::make();
    fs::copy(
        other.dir().join("store.key"),
        place.path().join("store.key"),
    )
    .unwrap();
    told(
        &refused(&there, &file),
        "does not open it: bring the key file",
    );
    fs::remove_file(place.path().join("store.key")).unwrap();
    told(&refused(&there, &file), "is missing");
    assert!(!place.path().join("store.redb").exists());

    told(&refused(&config(fleet.dir()), &file), "--replace");
    let running = embedded(&runtime, fleet.dir());
    told(
        &refused(&config(fleet.dir()), &file),
        "stop the controller that runs on it",
    );
    let locked = runtime
        .block_on(backup(&config(fleet.dir()), &damaged))
        .unwrap_err();
    told(&locked, "stop the controller that runs on it");
    drop(running);
    let empty = tempfile::tempdir().unwrap();
    let nothing = runtime
        .block_on(backup(&config(empty.path()), &damaged))
        .unwrap_err();
    told(&nothing, "there is no store in");
}

#[test]
fn a_restore_that_is_cut_off_anywhere_leaves_no_fleet_and_can_be_done_again() {
    let (fleet, runtime) = (Fleet::make(), Runtime::new().unwrap());
    let file = fleet.backup(&runtime);
    let archive = Archive::read(fs::read(&file).unwrap().as_slice()).unwrap();
    // The store that is written over holds a fleet, and each transaction takes few operations.
    let mut cut_off = 0;
    loop {
        let memory = MemoryStore::new();
        let old = transfer::write(&memory, &archive.content, "old", 1, false);
        runtime.block_on(old).unwrap();
        let failing = FailingStore::after(memory.clone(), cut_off);
        let written = transfer::write(&failing, &archive.content, "a backup", 2, true);
        if runtime.block_on(written).is_ok() {
            break;
        }
        let left = runtime.block_on(transfer::read(&memory));
        let half = matches!(left, Err(TransferError::Store(StoreError::HalfRestored)));
        assert!(
            half || cut_off == 0,
            "after {cut_off} transactions: {left:?}"
        );
        let again = transfer::write(&memory, &archive.content, "a backup", 3, cut_off == 0);
        runtime.block_on(again).unwrap();
        assert_eq!(content(&runtime, &memory), archive.content);
        cut_off += 1;
    }
    assert!(cut_off > 5, "{cut_off} transactions");
}

#[test]
fn no_controller_starts_on_half_of_a_fleet() {
    let (fleet, runtime) = (Fleet::make(), Runtime::new().unwrap());
    let file = fleet.backup(&runtime);
    let archive = Archive::read(fs::read(&file).unwrap().as_slice()).unwrap();
    let place = fleet.place();
    let store = embedded(&runtime, place.path());
    let failing = FailingStore::after(store.clone(), 3);
    let written = transfer::write(&failing, &archive.content, "a backup", 2, false);
    let _ = runtime.block_on(written).unwrap_err();
    drop((failing, store));
    let started = runtime.block_on(Controller::start(config(place.path())));
    let Err(StartError::Fleet { source, .. }) = started else {
        panic!("it holds half of a fleet: {started:?}");
    };
    told(&source, "half of a fleet");
    let half = runtime.block_on(backup(&config(place.path()), &file.with_extension("half")));
    told(&half.unwrap_err(), "half of a fleet");
    runtime
        .block_on(restore(&config(place.path()), &file, PLAINLY))
        .unwrap();
    fleet.check(&stage(raw(place.path())));
}

/// The first thing that a relay is told, which runs what `stage` had it run before.
fn first_word(stage: &Stage, credential: &str, epoch: &[u8], generation: u64) -> (Down, Node) {
    let hello = Hello {
        protocol: 1,
        applied_generation: generation,
        applied_epoch: epoch.to_vec(),
        ..any_hello("relay-0")
    };
    let mut node = stage.session(credential, hello);
    let word = stage.runtime.block_on(node.hear()).unwrap().unwrap();
    (word, node)
}

/// R25: relays that know more than the backup, because a secret was retired since, keep what they have until an operator says
/// otherwise, however far the restored store has gone on by itself.
#[test]
fn a_restored_store_tells_relays_that_know_more_nothing_without_a_word() {
    let (fleet, runtime) = (Fleet::make(), Runtime::new().unwrap());
    let file = fleet.backup(&runtime);
    let later = stage(raw(fleet.dir()));
    let credential = later.enroll("relay-0").unwrap();
    let known = later.controller().view().generation;
    let handle = later.controller().handle().clone();
    let raised = handle.change(|fleet, _| {
        let mut plan = Plan::default();
        plan.puts.push(Record::Generation(fleet.generation() + 1));
        let read = fleet.revision(&RecordKey::Generation).unwrap_or(0);
        plan.compares.push((RecordKey::Generation, read));
        Ok(plan)
    });
    later.runtime.block_on(raised).unwrap();
    let (Down::Delta(seen), _) = first_word(&later, &credential, &[], 0) else {
        panic!("it is told its policy");
    };
    assert!(seen.generation > known);
    drop((handle, later));

    for (options, confirmed) in [
        (REPLACING, false),
        (
            RestoreOptions {
                new_epoch: true,
                ..REPLACING
            },
            true,
        ),
    ] {
        runtime
            .block_on(restore(&config(fleet.dir()), &file, options))
            .unwrap();
        let stage = stage(raw(fleet.dir()));
        let credential = stage.enroll("relay-0").unwrap();
        let (word, _) = first_word(&stage, &credential, &seen.epoch, known);
        assert!(
            matches!(word, Down::Delta(_)),
            "it knows no more than the backup: {word:?}"
        );
        let (word, _node) = first_word(&stage, &credential, &seen.epoch, seen.generation);
        if confirmed {
            assert!(matches!(word, Down::Delta(_)), "{word:?}");
            continue;
        }
        assert!(matches!(word, Down::Hold(_)), "{word:?}");
        let mut views = stage.controller().watch();
        let alarm = views.wait_for(|view| view.restored.is_some());
        let alarm = async { tokio::time::timeout(Duration::from_secs(20), alarm).await };
        let _view = stage.runtime.block_on(alarm).unwrap().unwrap();
    }
}
