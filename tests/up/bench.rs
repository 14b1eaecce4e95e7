//! `turnfleet bench` against a fleet: what it shows, and that the fleet carries it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::fleet::{Fleet, Place, Ports, Running, SOON, within};

const SECRET: &str = "north-by-northwest";
/// What a relay's memory may grow by while it passes bytes on: its buffers, and code that runs for the first time.
const SLACK: u64 = 8 << 20;

fn fleet(place: &Place) -> Fleet {
    let fixed = ["--relays", "1", "--spawn", "--danger-allow-loopback-peers"];
    let secret = ["--shared-secret", SECRET];
    place.start(Ports::free(), &[&fixed[..], &secret].concat())
}

/// Runs the command with a peer on loopback, and returns what it prints.
#[track_caller]
fn bench(arguments: &[&str]) -> Value {
    let fixed = ["--secret", SECRET, "--peer", "127.0.0.1", "--json"];
    let output = Command::new(env!("CARGO_BIN_EXE_turnfleet"))
        .arg("bench")
        .args(arguments)
        .args(fixed)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn bulk_bytes_come_back_as_they_went_and_memory_stays_flat() {
    let place = Place::new();
    let fleet = fleet(&place);
    let pid = fleet.pid(0).to_string();
    let tcp = format!("turn:{}?transport=tcp", fleet.text("/relays/0/tcp"));
    let tls = format!("turns:{}", fleet.text("/relays/0/tls"));
    for (target, bytes) in [(tcp, 200_000_000_u64), (tls, 50_000_000)] {
        let size = bytes.to_string();
        let ca = fleet.text("/ca");
        let report = bench(&[&target, "--bulk", &size, "--pid", &pid, "--ca", ca]);
        assert_eq!(report["bytes"], bytes, "{report}");
        let [before, most, after] = [0, 1, 2].map(|at| report["memory_bytes"][at].as_u64());
        assert!(most.max(after) <= before.map(|it| it + SLACK), "{report}");
    }
}

#[test]
fn a_part_of_the_load_that_the_slower_server_takes_is_put_on_both() {
    let place = Place::new();
    let fleet = fleet(&place);
    let server = fleet.text("/relays/0/tcp");
    let [tcp, udp] = ["tcp", "udp"].map(|way| format!("turn:{server}?transport={way}"));
    let common = ["--load", "25", "--allocations", "4", "--duration", "1"];
    let report = bench(&[&[&tcp[..], "--versus", &udp], &common[..]].concat());
    let rates = [0, 1].map(|at| report["medians"][at]["packets/s"].as_f64().unwrap());
    let [over_tcp, over_udp] = rates;
    assert!((0.5..2.0).contains(&(over_tcp / over_udp)), "{report}");
    assert!(
        report["differences"]["latency p99, us"].is_f64(),
        "{report}"
    );
}

#[test]
fn credentials_are_asked_for_and_every_answer_counts() {
    let place = Place::new();
    let fleet = fleet(&place);
    for path in ["turn", "ice-servers"] {
        let output = Command::new(env!("CARGO_BIN_EXE_turnfleet"))
            .args(["bench", "controller", fleet.text("/http"), "--path", path])
            .args(["--token", fleet.text("/api_token"), "--threads", "2"])
            .args(["--connections", "5", "--duration", "1", "--json"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{path}: {output:?}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(report["requests"].as_u64().unwrap() > 100, "{report}");
        let faults = ["refused", "wrong", "ended"].map(|name| report[name].as_u64());
        assert_eq!(faults, [Some(0); 3], "{report}");
    }
}

#[test]
fn a_bench_with_a_token_that_is_not_known_fails() {
    let place = Place::new();
    let fleet = fleet(&place);
    let output = Command::new(env!("CARGO_BIN_EXE_turnfleet"))
        .args(["bench", "controller", fleet.text("/http")])
        .args(["--token", "stranger", "--duration", "1"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("unauthenticated"),
        "{said}"
    );
}

#[test]
fn rotations_under_load_refuse_nobody_and_what_is_revoked_is_refused() {
    let place = Place::new();
    let fleet = place.start(Ports::free(), &["--relays", "2"]);
    within(SOON, "lists name both relays", || {
        fleet.api("/v1/capacity")["total"]["listed"] == 2
    });
    let output = Command::new(env!("CARGO_BIN_EXE_turnfleet"))
        .args(["bench", "rotation", "--controller", fleet.text("/http")])
        .args(["--rate", "40", "--rotations", "5", "--every", "250"])
        .args(["--hold", "500", "--revoked-within", "10000", "--json"])
        .env("TURNFLEET_API_TOKEN", fleet.text("/api_token"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["relays"], &report["rotations"]),
        (&json!(2), &json!(5))
    );
    let counts = ["allocations", "pinned_allocations", "refreshes"];
    let counts = counts.map(|name| report[name].as_u64().unwrap());
    assert!(counts.iter().all(|count| *count > 0), "{report}");
    assert_eq!(report["failures"], json!({}), "{report}");

    // The next run finds room: but for the one that is minted with, nothing of this one is accepted.
    let secrets = fleet.api("/v1/secrets");
    let state = |secret: &Value| secret["state"].as_str().unwrap().to_owned();
    let mut states: Vec<_> = secrets["secrets"]
        .as_array()
        .unwrap()
        .iter()
        .map(state)
        .collect();
    states.retain(|state| state != "revoked");
    assert_eq!(states, ["retiring", "active"], "{secrets}");
}

const JOIN_TOKEN: &str = "the-join-token-of-a-bench";

/// A controller that probes nobody.
fn controller(ports: Ports, state: &Path) -> Running {
    let Ports(base) = ports;
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnfleet"));
    command.arg("controller").args([
        "--set".to_owned(),
        format!("state_dir={}", state.display()),
        "--set".to_owned(),
        format!("http.address=127.0.0.1:{base}"),
        "--set".to_owned(),
        format!("grpc.address=127.0.0.1:{}", base + 1),
        "--set".to_owned(),
        format!("join_token={JOIN_TOKEN}"),
        "--set".to_owned(),
        "probe.mode=off".to_owned(),
    ]);
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running(quiet.spawn().unwrap());
    let place = ("127.0.0.1", base + 1);
    within(SOON, "the controller takes relays", || {
        TcpStream::connect(place).is_ok()
    });
    running
}

#[test]
fn a_fleet_of_sessions_hears_of_changes_and_comes_back() {
    let place = Place::new();
    let ports = Ports::free();
    let state = place.state();
    let first = controller(ports, &state);
    let grpc = format!("http://127.0.0.1:{}", ports.0 + 1);
    let mut bench = Running(
        Command::new(env!("CARGO_BIN_EXE_turnfleet"))
            .args(["bench", "fleet", &grpc, "--join-token", JOIN_TOKEN])
            .args(["--nodes", "8", "--pushes", "2", "--rest", "1", "--json"])
            .args(["--pid", &first.0.id().to_string(), "--restart"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut said = BufReader::new(bench.0.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap() == "restart the controller"));
    drop(first);
    let _second = controller(ports, &state);
    let mut printed = String::new();
    let mut output = bench.0.stdout.take().unwrap();
    output.read_to_string(&mut printed).unwrap();
    let report: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(report["nodes"], 8, "{report}");
    for spread in ["push", "back"] {
        assert!(report[spread]["all"].is_f64(), "{report}");
    }
    assert!(report["controller_cores_at_rest"].is_f64(), "{report}");
}
