//! The HTTP API under Schemathesis, which makes requests from the API's own document, right and wrong ones, and compares
//! answers with it.
//!
//! `cargo xtask test` installs the tool. Where it is missing the test says so and passes, unless `TURNFLEET_REQUIRE_TOOLS` is
//! set.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use turnfleet_proto::fleet::listener::Transport;
use turnfleet_proto::fleet::node_message::Message as Up;
use turnfleet_proto::fleet::{Heartbeat, Load};

use crate::stage::{self, Stage};

/// The tool, where `cargo xtask test` leaves it.
const TOOL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/python/bin/st");

#[test]
fn requests_made_from_the_document_are_answered_as_it_says_and_none_with_a_failure() {
    if !Path::new(TOOL).exists() {
        let required = std::env::var_os("TURNFLEET_REQUIRE_TOOLS").is_some();
        assert!(!required, "{TOOL} is missing");
        eprintln!("not run: {TOOL} is missing; cargo xtask test installs it");
        return;
    }
    let stage = Stage::new();
    // Requests may drain some of them; one that is listed is enough.
    for relay in 0..4 {
        live_on(&stage, relay);
    }
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(TOOL)
        .current_dir(folder.path())
        .args(["run", &stage.url("/openapi.json")])
        .args(["--header", &format!("Authorization: {}", stage.admin())])
        .args([
            "--max-examples",
            "25",
            "--seed",
            "1",
            "--no-color",
            // Its answer has no end.
            "--exclude-path",
            "/v1/events",
            "--warnings",
            "off",
        ])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{told}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Lets a node live, and be listed, as long as the stage stands.
fn live_on(stage: &Stage, relay: u8) {
    let id = format!("relay-{relay}");
    let all = [Transport::Udp, Transport::Tcp, Transport::Tls];
    let address = SocketAddr::from(([192, 0, 2, 1 + relay], 3478));
    let node = stage.node(stage::hello(&id, &all, address));
    stage.wait_for(&id, |node| node.listed);
    let applied_generation = node.snapshot.as_ref().unwrap().generation;
    stage.runtime.spawn(async move {
        let mut beats = tokio::time::interval(Duration::from_secs(1));
        loop {
            beats.tick().await;
            let heartbeat = Heartbeat {
                applied_generation,
                load: Some(Load::default()),
                ..Heartbeat::default()
            };
            if !node.is_heard(Up::Heartbeat(heartbeat)).await {
                return;
            }
        }
    });
}
