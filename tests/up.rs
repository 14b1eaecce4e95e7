//! `turnfleet up` as scripts and supervisors see it: real processes, their output, their ports and their end.

#![expect(
    clippy::unwrap_used,
    reason = "what is missing ends the test, and says where"
)]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// A generous bound on anything that has no bound of its own.
const SOON: Duration = Duration::from_secs(20);

/// Forty neighbouring ports of loopback that no other fleet of this run has.
#[derive(Clone, Copy)]
struct Ports(u16);

impl Ports {
    fn free() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(12_000);
        loop {
            let base = NEXT.fetch_add(40, Ordering::Relaxed);
            assert!(base < 19_000, "no free ports are left for another fleet");
            let free = |port: u16| {
                UdpSocket::bind(("127.0.0.1", port)).is_ok()
                    && TcpListener::bind(("127.0.0.1", port)).is_ok()
            };
            if (base..base + 40).all(free) {
                return Self(base);
            }
        }
    }

    fn arguments(self) -> Vec<String> {
        let Self(base) = self;
        let http = format!("127.0.0.1:{}", base + 30);
        let grpc = format!("127.0.0.1:{}", base + 31);
        let pairs = [
            ("--port", base.to_string()),
            ("--tls-port", (base + 10).to_string()),
            ("--metrics-port", (base + 20).to_string()),
            ("--http", http),
            ("--grpc", grpc),
        ];
        pairs
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value])
            .collect()
    }
}

/// A folder for state and logs, gone with the value.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("log")
    }

    fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap()
    }

    /// `turnfleet up` with its state here and its standard error in the log.
    fn up(&self, ports: Ports, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnfleet"));
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        command
            .args(["up", "--json", "--state-dir"])
            .arg(self.state())
            .args(ports.arguments())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        command
    }

    #[track_caller]
    fn start(&self, ports: Ports, arguments: &[&str]) -> Fleet {
        Fleet::start(&mut self.up(ports, arguments), self)
    }
}

/// A fleet that has said that it is ready; it ends with the value.
struct Fleet {
    child: Child,
    ready: Value,
    rest: BufReader<std::process::ChildStdout>,
}

impl Fleet {
    #[track_caller]
    fn start(command: &mut Command, place: &Place) -> Self {
        let mut child = command.spawn().unwrap();
        let mut rest = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        rest.read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("no ready line ({error}): {line:?}\n{}", place.said()));
        Self { child, ready, rest }
    }

    #[track_caller]
    fn text(&self, pointer: &str) -> &str {
        let value = self.ready.pointer(pointer).and_then(Value::as_str);
        value.unwrap_or_else(|| panic!("{pointer} in {}", self.ready))
    }

    fn pid(&self, relay: usize) -> u64 {
        self.ready["relays"][relay]["pid"].as_u64().unwrap()
    }

    /// The answer of the HTTP API.
    #[track_caller]
    fn api(&self, path: &str) -> Value {
        let request = ureq::get(format!("{}{path}", self.text("/http")));
        let token = format!("Bearer {}", self.text("/api_token"));
        let mut response = request.header("Authorization", token).call().unwrap();
        response.body_mut().read_json().unwrap()
    }

    /// The ports of all relays that lists name to one of several users.
    fn listed_ports(&self) -> Vec<u16> {
        let mut ports = Vec::new();
        for user in 0..32 {
            let list = self.api(&format!("/turn?service=turn&username=user{user}"));
            for uri in list["uris"].as_array().unwrap() {
                let place = uri.as_str().unwrap().split('?').next().unwrap();
                ports.push(place.rsplit(':').next().unwrap().parse().unwrap());
            }
        }
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    #[track_caller]
    fn signal(&mut self, name: &str) -> ExitStatus {
        signal(name, u64::from(self.child.id()));
        exit(&mut self.child)
    }

    /// What was printed behind the ready line, up to the end.
    fn printed_since(mut self) -> String {
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.rest, &mut rest).unwrap();
        rest
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(name: &str, pid: u64) {
    let status = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

/// Looks until `condition` holds, at most for `limit`, and returns how long it took.
#[track_caller]
fn within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    start.elapsed()
}

#[track_caller]
fn exit(child: &mut Child) -> ExitStatus {
    let mut status = None;
    within(SOON, "the process ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// Whether a process is there; one that has ended and waits for its parent is not.
fn lives(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

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
    for relay in 0..2_u16 {
        let field = |name: &str| fleet.text(&format!("/relays/{relay}/{name}")).to_owned();
        assert_eq!(field("udp"), format!("127.0.0.1:{}", base + 2 * relay));
        assert_eq!(field("tcp"), format!("127.0.0.1:{}", base + 2 * relay));
        assert_eq!(field("tls"), format!("127.0.0.1:{}", base + 10 + 2 * relay));
        let metrics = field("metrics");
        assert_eq!(
            metrics,
            format!("http://127.0.0.1:{}/metrics", base + 20 + relay)
        );
        let metrics = ureq::get(&metrics)
            .call()
            .unwrap()
            .body_mut()
            .read_to_string()
            .unwrap();
        assert!(metrics.contains("turnfleet_relay_"), "{metrics}");
        let ready = format!("http://127.0.0.1:{}/readyz", base + 20 + relay);
        assert_eq!(ureq::get(&ready).call().unwrap().status(), 200);
        assert!(fleet.ready["relays"][usize::from(relay)]["dtls"].is_null());
        assert!(
            fleet.ready["relays"][usize::from(relay)]["listeners"]
                .as_array()
                .unwrap()
                .len()
                >= 3
        );
        assert_eq!(fleet.pid(relay.into()), u64::from(fleet.child.id()));
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

#[test]
fn a_person_is_told_what_to_do_with_the_fleet() {
    let place = Place::new();
    let fleet = place.start(
        Ports::free(),
        &["--relays", "1", "--shared-secret", "north"],
    );
    let page = place.said();
    for part in [
        "turn_shared_secret: \"north\"",
        "--danger-allow-loopback-peers",
        "Ctrl-C",
        fleet.text("/api_token"),
    ] {
        assert!(page.contains(part), "{part:?} is missing from\n{page}");
    }
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
fn a_taken_port_is_named_with_its_flag() {
    let ports = Ports::free();
    let base = ports.0;
    let taken = [
        ("--port", "UDP", base + 2),
        ("--tls-port", "TCP", base + 10),
        ("--metrics-port", "TCP", base + 21),
        ("--http", "TCP", base + 30),
    ];
    let datagrams = UdpSocket::bind(("127.0.0.1", taken[0].2)).unwrap();
    let streams: Vec<_> = taken[1..]
        .iter()
        .map(|(_, _, port)| TcpListener::bind(("127.0.0.1", *port)).unwrap())
        .collect();
    let place = Place::new();
    let mut child = place.up(ports, &[]).spawn().unwrap();
    assert_eq!(exit(&mut child).code(), Some(1));
    for (flag, kind, port) in taken {
        let expected =
            format!("{flag} = 127.0.0.1:{port}: expected a free port: {kind} port {port} is taken");
        assert!(
            place.said().contains(&expected),
            "{expected:?} is missing from\n{}",
            place.said()
        );
    }
    drop((datagrams, streams));
}

#[test]
fn one_state_folder_serves_one_fleet_at_a_time() {
    let place = Place::new();
    let _fleet = place.start(Ports::free(), &["--relays", "1"]);
    let mut second = place.up(Ports::free(), &["--relays", "1"]).spawn().unwrap();
    assert_eq!(exit(&mut second).code(), Some(1));
    let said = place.said();
    assert!(
        said.contains("another turnfleet uses the state folder"),
        "{said}"
    );
    assert!(said.contains("--state-dir"), "{said}");
}

#[test]
fn an_address_that_the_machine_lacks_is_an_error_when_it_is_asked_for() {
    let place = Place::new();
    let mut child = place
        .up(Ports::free(), &["--listen-ip", "203.0.113.77"])
        .spawn()
        .unwrap();
    assert_eq!(exit(&mut child).code(), Some(1));
    assert!(
        place.said().contains("--listen-ip = 203.0.113.77"),
        "{}",
        place.said()
    );
}

#[test]
fn the_end_gives_every_port_back_and_ends_every_child() {
    let place = Place::new();
    let ports = Ports::free();
    for arguments in [&["--relays", "2"][..], &["--relays", "2", "--spawn"]] {
        let mut fleet = place.start(ports, arguments);
        let pids = [fleet.pid(0), fleet.pid(1)];
        let begun = Instant::now();
        assert_eq!(fleet.signal("TERM").code(), Some(0));
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{:?}",
            begun.elapsed()
        );
        assert!(!pids.iter().any(|pid| lives(*pid)));
        for port in [ports.0, ports.0 + 2] {
            UdpSocket::bind(("127.0.0.1", port)).unwrap();
        }
    }
}

#[test]
fn children_die_with_a_parent_that_is_killed() {
    let place = Place::new();
    let mut fleet = place.start(Ports::free(), &["--spawn"]);
    let pids = [fleet.pid(0), fleet.pid(1)];
    assert!(
        pids.iter()
            .all(|pid| lives(*pid) && *pid != u64::from(fleet.child.id()))
    );
    fleet.signal("KILL");
    within(Duration::from_secs(2), "the children end", || {
        !pids.iter().any(|pid| lives(*pid))
    });
}

#[test]
fn a_killed_relay_leaves_the_lists_and_comes_back_with_its_ports() {
    let place = Place::new();
    let ports = Ports::free();
    let fleet = place.start(ports, &["--relays", "3", "--spawn"]);
    let victim = ports.0 + 2;
    let granted = fleet.text("/relays/1/relay_ports").to_owned();
    within(SOON, "lists name the relay", || {
        fleet.listed_ports().contains(&victim)
    });

    signal("KILL", fleet.pid(1));
    let gone = within(Duration::from_secs(2), "lists forget the relay", || {
        !fleet.listed_ports().contains(&victim)
    });
    assert!(fleet.listed_ports().contains(&ports.0), "after {gone:?}");

    let log = File::options()
        .create(true)
        .append(true)
        .open(place.log())
        .unwrap();
    let mut relay = Command::new(env!("CARGO_BIN_EXE_turnfleet"))
        .args(["relay", "--config"])
        .arg(place.state().join("relay-1.toml"))
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    within(SOON, "lists name the relay again", || {
        fleet.listed_ports().contains(&victim)
    });
    let nodes = fleet.api("/v1/nodes").to_string();
    assert!(nodes.contains(&granted), "{granted} in {nodes}");

    signal("TERM", relay.id().into());
    assert_eq!(exit(&mut relay).code(), Some(0), "{}", place.said());
}

#[test]
fn a_supervisor_is_told_when_it_serves_and_when_it_stops() {
    let place = Place::new();
    let path = place.0.path().join("notify");
    let supervisor = UnixDatagram::bind(&path).unwrap();
    supervisor.set_read_timeout(Some(SOON)).unwrap();
    let heard = || {
        let mut state = [0; 64];
        let length = supervisor.recv(&mut state).unwrap();
        String::from_utf8(state[..length].to_vec()).unwrap()
    };
    let mut command = place.up(Ports::free(), &["--spawn", "--relays", "1"]);
    let mut fleet = Fleet::start(command.env("NOTIFY_SOCKET", &path), &place);
    assert_eq!(heard(), "READY=1");
    assert_eq!(fleet.signal("TERM").code(), Some(0));
    assert_eq!(heard(), "STOPPING=1");
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
