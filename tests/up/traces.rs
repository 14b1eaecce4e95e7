//! Who had a relayed address, through real processes: killed ones, and a folder that is lost.

use std::fs;
use std::io::Write as _;
use std::net::UdpSocket;
use std::path::PathBuf;
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

/// A client, and its address.
fn alice(fleet: &Fleet) -> (Caller, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = socket.local_addr().unwrap().to_string();
    let credential = Credential::synapse(SECRET, "@alice:example.org");
    (Caller::udp(socket, fleet.relay(0), &credential), client)
}

/// The address of an allocation that lives, a second in which it does, and what is told of it.
#[track_caller]
fn live(fleet: &Fleet, caller: &mut Caller) -> (String, u64, Value) {
    let allocated = caller.allocate(AllocateOptions::default()).unwrap();
    let address = allocated.relayed.to_string();
    let at = unix();
    let mut found = Value::Null;
    within(SOON, "the live one is found", || {
        found = fleet.trace(&address, at)["traces"][0].clone();
        found["is_user"].is_boolean()
    });
    (address, at, found)
}

impl Fleet {
    /// A figure of a relay.
    #[track_caller]
    fn metric(&self, relay: usize, name: &str) -> u64 {
        let place = self.text(&format!("/relays/{relay}/metrics"));
        let mut response = ureq::get(place)
            .config()
            .proxy(None)
            .build()
            .call()
            .unwrap();
        let page = response.body_mut().read_to_string().unwrap();
        let value = page.lines().find_map(|line| line.strip_prefix(name));
        value
            .unwrap_or_else(|| panic!("{name} in {page}"))
            .trim()
            .parse()
            .unwrap()
    }

    /// What `turnfleet fleet trace` says of `address` about `at`; nothing where it was asked too often.
    #[track_caller]
    fn trace(&self, address: &str, at: u64) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_turnfleet"))
            .args(["fleet", "trace", address, "--at", &at.to_string()])
            .args(["--within", "1", "--user", "@alice:example.org"])
            .args(["--json", "--controller", self.text("/http")])
            .env("TURNFLEET_API_TOKEN", self.text("/api_token"))
            .output()
            .unwrap();
        if String::from_utf8_lossy(&output.stderr).contains("429") {
            return Value::Null;
        }
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The same, once the relay is heard.
    #[track_caller]
    fn heard_trace(&self, address: &str, at: u64) -> Value {
        let mut answer = Value::Null;
        within(SOON, "the relay answers", || {
            answer = self.trace(address, at);
            !answer["heard"][0].is_null()
        });
        answer
    }
}

#[test]
fn an_allocation_is_traced_after_its_relay_was_killed_and_a_lost_folder_is_a_gap() {
    let place = Place::new();
    let arguments = ["--relays", "1", "--spawn", "--shared-secret", SECRET];
    let fleet = place.start(Ports::free(), &arguments);
    let (mut caller, client) = alice(&fleet);
    let (address, opened, mut found) = live(&fleet, &mut caller);
    assert_eq!(found["client"], client);
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

#[test]
fn what_lived_when_everything_was_killed_is_traced_by_the_next_run() {
    let place = Place::new();
    let ports = Ports::free();
    let arguments = ["--relays", "1", "--spawn", "--shared-secret", SECRET];
    let mut fleet = place.start(ports, &arguments);
    let (mut caller, client) = alice(&fleet);
    let (address, opened, found) = live(&fleet, &mut caller);
    let relay = fleet.pid(0);
    fleet.signal("KILL");
    within(SOON, "the relay ends", || !lives(relay));

    let fleet = place.start(ports, &arguments);
    let answer = fleet.heard_trace(&address, opened);
    let trace = &answer["traces"][0];
    assert_eq!(trace["client"], client, "{answer}");
    assert_eq!(trace["user_hash"], found["user_hash"], "{answer}");
    assert_eq!(
        (&trace["ending"], &trace["is_user"]),
        (&"died".into(), &true.into()),
        "{answer}"
    );
}

/// A file system of a megabyte; gone with the value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this user may mount none.
    fn mount(folder: PathBuf) -> Option<Self> {
        fs::create_dir_all(&folder).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs"]);
        let mounted = mount.arg(&folder).output();
        let is_mounted = mounted.is_ok_and(|output| output.status.success());
        assert!(
            is_mounted || std::env::var_os("TURNFLEET_REQUIRE_TOOLS").is_none(),
            "a test needs to mount a file system"
        );
        is_mounted.then_some(Self(folder))
    }

    /// Takes all that is left.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = fs::File::create(&path).unwrap();
        while file.write_all(&[0; 512]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_stops_no_allocation_and_shows_as_a_loss_until_it_has_room() {
    let place = Place::new();
    let folder = place.state().join("relay-0/journal");
    let Some(disk) = SmallDisk::mount(folder) else {
        println!("this user may not mount a file system");
        return;
    };
    let arguments = ["--relays", "1", "--spawn", "--shared-secret", SECRET];
    let fleet = place.start(Ports::free(), &arguments);
    let count = |name: &str| fleet.metric(0, name);
    let lost = "turnfleet_relay_journal_events_lost_total";
    let ballast = disk.fill();
    // Some may find room at the end of a page.
    within(SOON, "the disk refuses", || {
        let (mut caller, _) = alice(&fleet);
        caller.allocate(AllocateOptions::default()).unwrap();
        caller.end().unwrap();
        count(lost) > 0
    });
    let refused = unix();
    assert!(count("turnfleet_relay_journal_failures_total") > 0);
    fs::remove_file(ballast).unwrap();
    let (mut caller, client) = alice(&fleet);
    let mut address = String::new();
    within(SOON, "the journal is written again", || {
        let allocated = caller.allocate(AllocateOptions::default());
        address = allocated.unwrap().relayed.to_string();
        let answer = fleet.trace(&address, unix());
        caller.end().unwrap();
        answer["traces"][0]["client"] == client
    });
    let gaps = fleet.heard_trace(&address, refused)["gaps"].clone();
    let is_loss = |gap: &Value| gap["reason"] == "lost";
    assert!(gaps.as_array().unwrap().iter().any(is_loss), "{gaps}");
}
