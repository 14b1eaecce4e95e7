//! Starts fleets, looks at them, and ends them.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// A generous bound on anything that has no bound of its own.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Forty neighbouring ports of loopback that no other fleet of this run has.
#[derive(Clone, Copy)]
pub(crate) struct Ports(pub(crate) u16);

impl Ports {
    pub(crate) fn free() -> Self {
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

    pub(crate) fn arguments(self) -> Vec<String> {
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
pub(crate) struct Place(pub(crate) TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.0.path().join("log")
    }

    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap()
    }

    /// `turnfleet up` with its state here and its standard error in the log.
    pub(crate) fn up(&self, ports: Ports, arguments: &[&str]) -> Command {
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
    pub(crate) fn start(&self, ports: Ports, arguments: &[&str]) -> Fleet {
        Fleet::start(&mut self.up(ports, arguments), self)
    }

    /// Starts a relay of a fleet that runs with `--spawn` again, by its file in the state folder.
    #[track_caller]
    pub(crate) fn relay(&self, number: usize) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnfleet"));
        let log = File::options().append(true).open(self.log()).unwrap();
        command
            .args(["relay", "--config"])
            .arg(self.state().join(format!("relay-{number}.toml")))
            .stdin(Stdio::null())
            .stderr(log);
        Running(command.spawn().unwrap())
    }
}

/// A fleet that has said that it is ready; it ends with the value.
pub(crate) struct Fleet {
    pub(crate) child: Running,
    pub(crate) ready: Value,
    rest: BufReader<std::process::ChildStdout>,
}

impl Fleet {
    #[track_caller]
    pub(crate) fn start(command: &mut Command, place: &Place) -> Self {
        let mut child = Running(command.spawn().unwrap());
        let mut rest = BufReader::new(child.0.stdout.take().unwrap());
        let mut line = String::new();
        rest.read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("no ready line ({error}): {line:?}\n{}", place.said()));
        Self { child, ready, rest }
    }

    #[track_caller]
    pub(crate) fn text(&self, pointer: &str) -> &str {
        let value = self.ready.pointer(pointer).and_then(Value::as_str);
        value.unwrap_or_else(|| panic!("{pointer} in {}", self.ready))
    }

    /// Where clients reach a relay by UDP and TCP.
    pub(crate) fn relay(&self, number: usize) -> SocketAddr {
        let place = self.text(&format!("/relays/{number}/udp"));
        place.parse().unwrap()
    }

    pub(crate) fn pid(&self, relay: usize) -> u64 {
        self.ready["relays"][relay]["pid"].as_u64().unwrap()
    }

    /// The answer of the HTTP API.
    #[track_caller]
    pub(crate) fn api(&self, path: &str) -> Value {
        let request = ureq::get(format!("{}{path}", self.text("/http")))
            .config()
            .proxy(None)
            .build();
        let token = format!("Bearer {}", self.text("/api_token"));
        let mut response = request.header("Authorization", token).call().unwrap();
        response.body_mut().read_json().unwrap()
    }

    /// Says something to `turnfleet fleet`.
    #[track_caller]
    pub(crate) fn order(&self, arguments: &[&str]) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_turnfleet"))
            .arg("fleet")
            .args(arguments)
            .args(["--json", "--controller", self.text("/http")])
            .env("TURNFLEET_API_TOKEN", self.text("/api_token"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The ports of all relays that lists name to one of several users.
    pub(crate) fn listed_ports(&self) -> Vec<u16> {
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
    pub(crate) fn signal(&mut self, name: &str) -> ExitStatus {
        signal(name, u64::from(self.child.0.id()));
        exit(&mut self.child.0)
    }

    /// What was printed behind the ready line, up to the end.
    pub(crate) fn printed_since(mut self) -> String {
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.rest, &mut rest).unwrap();
        rest
    }
}

/// A process that ends with the value.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn signal(name: &str, pid: u64) {
    let status = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

/// Looks until `condition` holds, at most for `limit`, and returns how long it took.
#[track_caller]
pub(crate) fn within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    start.elapsed()
}

#[track_caller]
pub(crate) fn exit(child: &mut Child) -> ExitStatus {
    let mut status = None;
    within(SOON, "the process ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// Whether a process is there; one that has ended and waits for its parent is not.
pub(crate) fn lives(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}
