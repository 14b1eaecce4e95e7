//! The Helm chart: what it renders to, what it refuses, the life of a release, and its commands with its configuration as real
//! processes. There is no cluster: `chart.py` and `check.py` drive the Helm SDK, `api.py` stands in for the API server.

#![expect(
    clippy::unwrap_used,
    reason = "what is missing ends the test, and says where"
)]

#[path = "../client/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "other test programs share it, and use more of it"
)]
mod client;
mod cluster;
mod live;
#[path = "../interop/tools.rs"]
#[expect(dead_code, reason = "other test programs share it, and use more of it")]
mod tools;

use std::process::Command;

use cluster::Cluster;

/// The environment of requirements.txt, which `cargo xtask test` makes.
pub(crate) const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/chart/bin/python");

/// A program of this folder.
fn program(name: &str) -> Command {
    let mut command = Command::new(PYTHON);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chart");
    command.arg(format!("{folder}/{name}"));
    // Nothing is left in the tree.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

#[track_caller]
fn check(name: &str) {
    if !tools::present(&[PYTHON]) {
        return;
    }
    let output = program("check.py").arg(name).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn the_chart_passes_the_linter_and_can_be_packaged() {
    check("lint");
}

#[test]
fn every_value_set_renders_to_objects_of_every_version_of_kubernetes() {
    check("schemas");
}

#[test]
fn each_port_of_a_relay_without_host_networking_is_on_one_service() {
    check("services");
}

#[test]
fn values_that_cannot_work_are_refused_in_clear_words() {
    check("refusals");
}

#[test]
fn rules_and_dashboards_come_from_files() {
    check("monitoring");
}

#[test]
fn a_release_is_installed_tested_upgraded_rolled_back_and_uninstalled() {
    check("release");
}

#[test]
fn the_readme_and_the_schema_know_every_value() {
    check("readme");
}

#[test]
fn the_dockerfile_passes_its_linter() {
    check("dockerfile");
}

/// What relays and controllers are told by each value set is a good configuration.
#[test]
fn rendered_configurations_are_good() {
    if !tools::present(&[PYTHON]) {
        return;
    }
    let rendered = Cluster::render("all", &serde_json::json!({}));
    for (case, objects) in rendered.as_object().unwrap() {
        let cluster = Cluster::of(objects);
        let mut judged = 0;
        for pod in cluster.pods() {
            let arguments = pod.arguments();
            let (what, rest) = arguments.split_first().unwrap();
            if !["controller", "relay"].contains(&what.as_str()) {
                continue;
            }
            let rest = rest
                .iter()
                .filter(|it| !it.starts_with("--public-ip-from="));
            let output = pod
                .dress(Command::new(env!("CARGO_BIN_EXE_turnfleet")))
                .args(["check-config", what])
                .args(rest)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{case}, {what}: {said}");
            judged += 1;
        }
        assert!(judged > 0, "{case} has neither controllers nor relays");
    }
}

/// A node that the map of addresses does not know gets no relay, and the log says which.
#[test]
fn a_relay_on_a_node_without_an_address_says_so() {
    if !tools::present(&[PYTHON]) {
        return;
    }
    let case = "addresses-by-node";
    let rendered = Cluster::render(case, &serde_json::json!({}));
    let cluster = Cluster::of(&rendered[case]);
    let pod = cluster.pod("fleet-turnfleet-relays", "relay", "node-3", "127.0.0.1");
    let output = pod
        .dress(Command::new(env!("CARGO_BIN_EXE_turnfleet")))
        .args(pod.arguments())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    for words in [
        "cannot find this machine's public address",
        "addresses/node-3",
    ] {
        assert!(said.contains(words), "{said}");
    }
}
