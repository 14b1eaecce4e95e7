//! Who had a relayed address, through real processes: killed ones, and a folder that is lost.

use std::fs;
use std::net::UdpSocket;
use std::process::Command;
use std::time::UNIX_EPOCH;

use serde_json::Value;
use turnfleet_turn::client::AllocateOptions;

use crate::client::{Caller, Credential};
use crate::fleet::{Fleet, Place, Ports, SOON, lives, signal, within};

const SECRET: &str = "north-by-northwest";

fn unix() -> u64 {
    UNIX_EPOCH.elapsed().unwrap().as_secs()
}

impl Fleet {
    /// What `turnfleet fleet trace` says of `address` about `at`.
    #[track_caller]
    fn trace(&self, address: &str, at: u64) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_turnfleet"))
            .args(["fleet", "trace", address, "--at", &at.to_string()])
            .args(["--within", "1", "--user", "@alice:example.org"])
            .args(["--json", "--controller", self.text("/http")])
            .env("TURNFLEET_API_TOKEN", self.text("/api_token"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The same, once the relay is heard.
    #[track_caller]
    fn heard_trace(&self, address: &str, at: u64) -> Value {
        let mut answer = Value::Null;
        within(SOON, "the relay answers", || {
            answer = self.trace(address, at);
            answer["heard"].as_array().unwrap().len() == 1
        });
        answer
    }
}

#[test]
fn an_allocation_is_traced_after_its_relay_was_killed_and_a_lost_folder_is_a_gap() {
    let place = Place::new();
    let arguments = ["--relays", "1", "--spawn", "--shared-secret", SECRET];
    let fleet = place.start(Ports::free(), &arguments);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = socket.local_addr().unwrap();
    let credential = Credential::synapse(SECRET, "@alice:example.org");
    let mut caller = Caller::udp(socket, fleet.relay(0), &credential);
    let allocated = caller.allocate(AllocateOptions::default()).unwrap();
    let address = allocated.relayed.to_string();
    let opened = unix();
    let mut found = Value::Null;
    within(SOON, "the live one is found", || {
        found = fleet.trace(&address, opened)["traces"][0].clone();
        found["is_user"].is_boolean()
    });
    assert_eq!(found["client"], client.to_string());
    assert_eq!(
        (&found["ending"], &found["is_user"]),
        (&"live".into(), &true.into())
    );
    caller.end().unwrap();
    within(SOON, "the closed one is found", || {
        found = fleet.trace(&address, opened)["traces"][0].clone();
        found["reason"] == "refreshed"
    });

    signal("KILL", fleet.pid(0));
    within(SOON, "the relay ends", || !lives(fleet.pid(0)));
    let relay = place.relay(0);
    let answer = fleet.heard_trace(&address, opened);
    assert_eq!(answer["traces"][0], found, "{answer}");

    signal("KILL", relay.0.id().into());
    drop(relay);
    fs::remove_dir_all(place.state().join("relay-0/journal")).unwrap();
    let _relay = place.relay(0);
    let answer = fleet.heard_trace(&address, opened);
    assert_eq!(answer["traces"].as_array().unwrap().len(), 0, "{answer}");
    assert_eq!(answer["gaps"][0]["reason"], "before_journal", "{answer}");
    let since = answer["heard"][0]["covers_since"].as_u64().unwrap();
    assert!(since >= opened, "{answer}");
}
