//! `turnfleet bench` against a fleet: what it shows, and that the fleet carries it.

use std::process::Command;

use serde_json::Value;

use crate::fleet::{Fleet, Place, Ports};

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
    let common = ["--load", "50", "--allocations", "4", "--duration", "1"];
    let report = bench(&[&[&tcp[..], "--versus", &udp], &common[..]].concat());
    let rates = [0, 1].map(|at| report["medians"][at]["packets/s"].as_f64().unwrap());
    let [over_tcp, over_udp] = rates;
    assert!((0.5..2.0).contains(&(over_tcp / over_udp)), "{report}");
    assert!(
        report["differences"]["latency p99, us"].is_f64(),
        "{report}"
    );
}
