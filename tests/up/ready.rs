//! What the fleet says when it is ready, and what it remembers from one start to the next.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::fleet::{Fleet, Place, Ports, SOON, within};

#[test]
fn the_ready_line_has_every_field_and_stands_alone() {
    let place = Place::new();
    let ports = Ports::free();
    let mut fleet = place.start(
        ports,
        &["--realm", "example.org", "--shared-secret", "north"],
    );
    let base = ports.0;
    assert_eq!(
        fleet.text("/http"),
        format!("http://127.0.0.1:{}", base + 30)
    );
    assert_eq!(
        fleet.text("/grpc"),
        format!("http://127.0.0.1:{}", base + 31)
    );
    assert_eq!(
        (fleet.text("/realm"), fleet.text("/shared_secret")),
        ("example.org", "north")
    );
    assert!(!fleet.text("/api_token").is_empty());
    assert!(Path::new(fleet.text("/ca")).starts_with(place.state()));
    for relay in 0..2 {
        assert_relay(&fleet, base, relay);
    }
    let said = place.said();
    let applied: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("policy applied"))
        .collect();
    for name in ["relay-0", "relay-1"] {
        let named = format!("relay{{node={name}}}");
        let is_named = |line: &&str| line.contains(&named);
        assert!(applied.iter().any(is_named), "{name} in {applied:?}");
    }
    let ranges: Vec<&str> = (0..2)
        .map(|k| ["/relays/0/relay_ports", "/relays/1/relay_ports"][k])
        .collect();
    assert_ne!(fleet.text(ranges[0]), fleet.text(ranges[1]));
    let uri = format!("turn:127.0.0.1:{base}?transport=udp");
    assert!(
        fleet.ready["turn_uris"]
            .as_array()
            .unwrap()
            .contains(&Value::from(uri)),
        "{}",
        fleet.ready
    );
    assert_eq!(fleet.signal("TERM").code(), Some(0));
    assert_eq!(fleet.printed_since(), "");
}

/// The facts of one relay, on ports that follow from the first of the fleet.
#[track_caller]
fn assert_relay(fleet: &Fleet, base: u16, relay: u16) {
    let field = |name: &str| fleet.text(&format!("/relays/{relay}/{name}")).to_owned();
    assert_eq!(field("udp"), format!("127.0.0.1:{}", base + 2 * relay));
    assert_eq!(field("tcp"), format!("127.0.0.1:{}", base + 2 * relay));
    assert_eq!(field("tls"), format!("127.0.0.1:{}", base + 10 + 2 * relay));
    let metrics_page = field("metrics");
    assert_eq!(
        metrics_page,
        format!("http://127.0.0.1:{}/metrics", base + 20 + relay)
    );
    let metrics = ureq::get(&metrics_page)
        .config()
        .proxy(None)
        .build()
        .call()
        .unwrap()
        .body_mut()
        .read_to_string()
        .unwrap();
    assert!(metrics.contains("turnfleet_relay_"), "{metrics}");
    assert_eq!(
        ureq::get(metrics_page.replace("metrics", "readyz"))
            .config()
            .proxy(None)
            .build()
            .call()
            .unwrap()
            .status(),
        200
    );
    assert!(fleet.ready["relays"][usize::from(relay)]["dtls"].is_null());
    assert!(
        fleet.ready["relays"][usize::from(relay)]["listeners"]
            .as_array()
            .unwrap()
            .len()
            >= 3
    );
    assert_eq!(fleet.pid(relay.into()), u64::from(fleet.child.0.id()));
}

#[test]
fn a_person_is_told_what_to_do_with_the_fleet() {
    let place = Place::new();
    let fleet = place.start(
        Ports::free(),
        &["--relays", "1", "--shared-secret", "north"],
    );
    within(SOON, "the page is whole", || {
        place.said().contains("Ctrl-C")
    });
    let page = place.said();
    let file = place.state().join("secrets.txt");
    for part in ["--danger-allow-loopback-peers", file.to_str().unwrap()] {
        assert!(page.contains(part), "{part:?} is missing from\n{page}");
    }
    let secrets = fs::read_to_string(&file).unwrap();
    for secret in [
        "turn_shared_secret: \"north\"",
        fleet.text("/api_token"),
        "password  ",
    ] {
        assert!(
            secrets.contains(secret),
            "{secret:?} is missing from\n{secrets}"
        );
        assert!(!page.contains(secret), "a log holds {secret:?}:\n{page}");
    }
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_second_start_keeps_the_secret_the_tokens_and_the_nodes() {
    let place = Place::new();
    let ports = Ports::free();
    let facts = |fleet: &Fleet| {
        let fields = [
            "/shared_secret",
            "/api_token",
            "/relays/0/node",
            "/relays/1/node",
        ];
        let ranges = ["/relays/0/relay_ports", "/relays/1/relay_ports"];
        let fields = fields
            .into_iter()
            .chain(ranges)
            .map(|field| fleet.text(field).to_owned());
        (
            fields.collect::<Vec<_>>(),
            fs::read(fleet.text("/ca")).unwrap(),
        )
    };
    let mut fleet = place.start(ports, &[]);
    let first = facts(&fleet);
    assert!(
        first.0[0].len() >= 32,
        "a secret of at least 32 characters: {}",
        first.0[0]
    );
    assert_eq!(fleet.signal("INT").code(), Some(0));
    assert_eq!(facts(&place.start(ports, &[])), first);
}

#[test]
fn another_realm_is_told_by_the_start_that_brings_it() {
    let place = Place::new();
    let ports = Ports::free();
    for realm in ["north.example", "south.example"] {
        let mut fleet = place.start(ports, &["--realm", realm]);
        assert_eq!(fleet.text("/realm"), realm);
        assert_eq!(fleet.signal("TERM").code(), Some(0));
    }
}

#[test]
fn one_machine_is_described_by_a_file() {
    let place = Place::new();
    let ports = Ports::free();
    let file = place.0.path().join("turnfleet.toml");
    let text = format!(
        "relays = 1\nrealm = 'file.example'\nport = {}\ntls-port = {}\nmetrics-port = {}\n\
         http = '127.0.0.1:{}'\ngrpc = '127.0.0.1:{}'\nlisten-ip = ['127.0.0.1']\nstate-dir = '{}'\n\
         [controller]\nshared_secret = 'from-the-file'\n[relay]\nzone = 'attic'\n",
        ports.0,
        ports.0 + 10,
        ports.0 + 20,
        ports.0 + 30,
        ports.0 + 31,
        place.state().display(),
    );
    fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnfleet"));
    let log = File::create(place.log()).unwrap();
    command
        .args(["up", "--json", "--config"])
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(log);
    let fleet = Fleet::start(&mut command, &place);
    assert_eq!(
        (fleet.text("/realm"), fleet.text("/shared_secret")),
        ("file.example", "from-the-file")
    );
    assert_eq!(fleet.ready["relays"].as_array().unwrap().len(), 1);
    assert!(fleet.api("/v1/nodes").to_string().contains("attic"));
}

#[test]
fn a_machine_behind_nat_is_ready_although_it_cannot_reach_itself() {
    let place = Place::new();
    let nat = ["--listen-ip", "127.0.0.1", "--public-ip", "203.0.113.5"];
    let fleet = place.start(Ports::free(), &[&["--relays", "1"], &nat[..]].concat());
    assert!(
        fleet.text("/turn_uris/0").starts_with("turn:203.0.113.5:"),
        "{}",
        fleet.ready
    );
    assert!(
        fleet.text("/relays/0/udp").starts_with("127.0.0.1:"),
        "{}",
        fleet.ready
    );
    let list = fleet.api("/turn?service=turn&username=a").to_string();
    assert!(list.contains("turn:203.0.113.5:"), "{list}");
}
