//! `turnfleet controller backup`, `restore` and `migrate`, as an operator types them, beside a controller that runs.

#![expect(
    clippy::unwrap_used,
    reason = "what is missing ends the test, and says where"
)]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longer than a start takes anywhere.
const PATIENCE: Duration = Duration::from_secs(60);

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn write_config(dir: &Path) -> String {
    let file = dir.join("controller.toml");
    let state = dir.join("state").display().to_string();
    let text = format!(
        "state_dir = {state:?}\nhttp.address = \"127.0.0.1:0\"\ngrpc.address = \"127.0.0.1:0\"\n"
    );
    fs::write(&file, text).unwrap();
    file.display().to_string()
}

fn start(config: &str) -> Running {
    let child = Command::new(env!("CARGO_BIN_EXE_turnfleet"))
        .args(["controller", "--config", config])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Running(child.unwrap())
}

fn wait_for(path: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while !path.exists() {
        assert!(Instant::now() < deadline, "{} never came", path.display());
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn controller(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_turnfleet"))
        .arg("controller")
        .args(arguments)
        .output()
        .unwrap()
}

#[track_caller]
fn printed(arguments: &[&str]) -> String {
    let output = controller(arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn refused(arguments: &[&str]) -> String {
    let output = controller(arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_store_is_backed_up_and_restored_by_its_commands() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (config, other) = (write_config(here.path()), write_config(there.path()));
    let (config, other) = (config.as_str(), other.as_str());
    let file = here.path().join("backup.jsonl").display().to_string();
    let missing = refused(&["backup", "--config", config, &file]);
    assert!(missing.contains("there is no store in"), "{missing}");

    let running = start(config);
    wait_for(&here.path().join("state/join-token"));
    let locked = refused(&["backup", "--config", config, &file]);
    assert!(locked.contains("stop the controller"), "{locked}");
    drop(running);

    // The flags stand before the word or after it.
    let told = printed(&["--config", config, "backup", &file]);
    assert!(told.contains("entries, generation"), "{told}");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with(r#"{"format":"turnfleet-backup","version":1,"#));
    let token = fs::read_to_string(here.path().join("state/join-token")).unwrap();
    assert!(!text.contains(token.trim()), "secrets stay sealed");

    let keyless = refused(&["restore", "--config", other, &file]);
    assert!(keyless.contains("store.key_file"), "{keyless}");
    fs::create_dir_all(there.path().join("state")).unwrap();
    let key = |dir: &Path| dir.join("state/store.key");
    fs::copy(key(here.path()), key(there.path())).unwrap();
    let told = printed(&["restore", "--config", other, &file]);
    assert!(told.contains("confirm-restore"), "{told}");
    let full = refused(&["restore", "--config", other, &file]);
    assert!(full.contains("--replace"), "{full}");
    let told = printed(&[
        "restore",
        "--config",
        other,
        "--replace",
        "--new-epoch",
        &file,
    ]);
    assert!(told.contains("every relay follows it"), "{told}");
    let _running = start(other);
    let there = there.path().join("state/join-token");
    wait_for(&there);
    assert_eq!(fs::read_to_string(there).unwrap(), token);

    let nowhere = refused(&["migrate", "--config", config]);
    assert!(nowhere.contains("store.etcd"), "{nowhere}");
}
