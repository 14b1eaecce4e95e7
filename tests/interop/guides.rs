//! The commands of guides, run word for word, in their order, on a fleet.

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::fleet::Fleet;
use crate::tools;

const CURL: &str = "/usr/bin/curl";
const OPENSSL: &str = "/usr/bin/openssl";
const LIMIT: Duration = Duration::from_secs(60);

/// A fleet, and a folder in which a guide's reader is.
struct Reader {
    fleet: Fleet,
    folder: tempfile::TempDir,
}

impl Reader {
    #[track_caller]
    fn new() -> Self {
        let reader = Self {
            fleet: Fleet::up(&["--spawn"]),
            folder: tempfile::tempdir().unwrap(),
        };
        tools::eventually("both relays are listed", LIMIT, || {
            let nodes = reader.answer("turnfleet fleet --json nodes");
            let nodes = nodes["nodes"].as_array()?.clone();
            (nodes.len() == 2 && nodes.iter().all(|node| node["listed"] == true)).then_some(())
        });
        reader
    }

    /// Runs a script of the guide, up to the first command that fails.
    fn types(&self, script: &str) -> Output {
        let bin = std::path::Path::new(env!("CARGO_BIN_EXE_turnfleet"));
        let bin = bin.parent().unwrap().display();
        Command::new("/bin/sh")
            .args(["-euc", script])
            .current_dir(self.folder.path())
            .env("PATH", format!("{bin}:/usr/bin:/bin"))
            .env("TURNFLEET_CONTROLLER_URL", self.fleet.text("http"))
            .env("TURNFLEET_API_TOKEN", self.fleet.text("api_token"))
            .output()
            .unwrap()
    }

    /// What a command prints as JSON.
    fn answer(&self, script: &str) -> Value {
        let output = self.types(script);
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    #[track_caller]
    fn succeeds(&self, script: &str) {
        let output = self.types(script);
        assert!(output.status.success(), "{script}{output:?}");
    }

    /// Waits until no secret is on its way to the relays, so that the next rotation begins where the guide has it begin.
    #[track_caller]
    fn secrets_settle(&self) {
        tools::eventually("no secret is staged", LIMIT, || {
            let secrets = self.answer("turnfleet fleet --json secrets list");
            let secrets = secrets["secrets"].as_array()?.clone();
            let settled = secrets.iter().all(|secret| secret["state"] != "staged");
            (settled && !secrets.is_empty()).then_some(())
        });
    }
}

/// The scripts of a guide.
fn scripts(guide: &str) -> impl Iterator<Item = &str> {
    let blocks = guide.split("\n```sh\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap())
}

#[test]
fn secrets_are_rotated_as_the_guide_has_it() {
    if !tools::present(&[OPENSSL]) {
        return;
    }
    let reader = Reader::new();
    // The homeserver's old secret is the fleet's first.
    reader.succeeds("turnfleet fleet secrets pin 1");
    let mut run = 0;
    for script in scripts(include_str!("../../docs/guides/rotate.md")) {
        reader.secrets_settle();
        reader.succeeds(script);
        run += 1;
    }
    assert!(run >= 7, "{run}");
    let secrets = reader.answer("turnfleet fleet --json secrets list");
    let secrets = secrets["secrets"].as_array().unwrap();
    let state = |id: u64| {
        secrets
            .iter()
            .find(|secret| secret["id"] == id)
            .map(|it| &it["state"])
    };
    assert!(
        state(1).is_none_or(|state| state == "revoked"),
        "{secrets:?}"
    );
}

#[test]
fn a_relay_is_drained_as_the_guide_has_it() {
    let reader = Reader::new();
    let mut run = 0;
    for script in scripts(include_str!("../../docs/guides/drain.md")) {
        let output = reader.types(script);
        // The node lives, and the guide says that it is not forgotten then.
        let expected = !script.contains("forget");
        assert_eq!(output.status.success(), expected, "{script}{output:?}");
        run += 1;
    }
    assert!(run >= 5, "{run}");
    let nodes = reader.answer("turnfleet fleet --json nodes");
    assert_eq!(nodes["nodes"].as_array().unwrap().len(), 2, "{nodes}");
}

#[test]
fn an_upgrade_is_prepared_as_the_guide_has_it() {
    if !tools::present(&[CURL]) {
        return;
    }
    let reader = Reader::new();
    for name in ["controller.toml", "relay.toml"] {
        fs::write(reader.folder.path().join(name), "region = 'local'\n").unwrap();
    }
    let here = reader.fleet.text("http");
    let mut run = 0;
    for script in scripts(include_str!("../../docs/guides/upgrade.md")) {
        reader.succeeds(&script.replace("http://127.0.0.1:8080", here));
        run += 1;
    }
    assert!(run >= 4, "{run}");
}

#[test]
fn coturn_is_imported_as_the_guide_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        "listening-ip=127.0.0.1\nuse-auth-secret\nstatic-auth-secret=north\nrealm=example.org\n";
    fs::write(folder.path().join("turnserver.conf"), text).unwrap();
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_turnfleet"));
    for script in scripts(include_str!("../../docs/guides/from-coturn.md")) {
        let output = Command::new("/bin/sh")
            .args(["-euc", script])
            .current_dir(folder.path())
            .env(
                "PATH",
                format!("{}:/usr/bin:/bin", bin.parent().unwrap().display()),
            )
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}{output:?}");
    }
    assert!(folder.path().join("turnfleet.secret").exists());
}
