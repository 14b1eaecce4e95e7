//! A running `turnfleet up`, with the facts of its ready line; it ends when the value is dropped.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;

use crate::tools;

/// The fleet's standard error, in its state folder.
const LOG: &str = "log";

/// One fleet of two relays on loopback, on ports that no other fleet of this test run has.
pub(crate) struct Fleet {
    child: Child,
    ready: Value,
    state: tempfile::TempDir,
}

/// One relay of the ready line.
pub(crate) struct Relay {
    pub(crate) pid: u64,
    pub(crate) udp: SocketAddr,
    pub(crate) tcp: SocketAddr,
    pub(crate) tls: SocketAddr,
}

impl Fleet {
    /// Starts a fleet with `arguments` besides the ports, and waits for its ready line.
    #[track_caller]
    pub(crate) fn up(arguments: &[&str]) -> Self {
        Self::up_by(Command::new(env!("CARGO_BIN_EXE_turnfleet")), arguments)
    }

    /// As [`Fleet::up`], by way of `command`: the program itself, or one that runs the rest of its line elsewhere.
    #[track_caller]
    pub(crate) fn up_by(mut command: Command, arguments: &[&str]) -> Self {
        let base = free_ports();
        command
            .args(["up", "--json"])
            .args([
                "--port",
                &base.to_string(),
                "--tls-port",
                &(base + 10).to_string(),
            ])
            .args(["--metrics-port", &(base + 20).to_string()])
            .args(["--http", &format!("127.0.0.1:{}", base + 30)])
            .args(["--grpc", &format!("127.0.0.1:{}", base + 31)])
            .args(arguments);
        Self::start(command)
    }

    /// A fleet on the ports of its own configuration, by way of `command`.
    #[track_caller]
    pub(crate) fn by_file(mut command: Command, file: &Path) -> Self {
        command.args(["up", "--json", "--config"]).arg(file);
        Self::start(command)
    }

    #[track_caller]
    fn start(mut command: Command) -> Self {
        let state = tempfile::tempdir().unwrap();
        let log = File::create(state.path().join(LOG)).unwrap();
        command
            .arg("--state-dir")
            .arg(state.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_default();
        let fleet = Self {
            child,
            ready,
            state,
        };
        assert_eq!(fleet.ready["ready"], true, "{line:?}");
        fleet
    }

    /// What it has said on standard error so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.state.path().join(LOG)).unwrap_or_default()
    }

    /// The ports of everything that the first relay and the controller listen on.
    pub(crate) fn ports(&self) -> Vec<u16> {
        let relay = &self.ready["relays"][0];
        let places = [&relay["udp"], &relay["tls"], &relay["metrics"]];
        let places = places
            .into_iter()
            .chain([&self.ready["http"], &self.ready["grpc"]]);
        let port = |place: &Value| {
            let digits = place.as_str()?.trim_end_matches("/metrics");
            digits.rsplit(':').next()?.parse().ok()
        };
        places.map(|place| port(place).unwrap()).collect()
    }

    /// A text of the ready line.
    #[track_caller]
    pub(crate) fn text(&self, key: &str) -> &str {
        self.ready[key]
            .as_str()
            .unwrap_or_else(|| panic!("{key} in {}", self.ready))
    }

    /// The relays of the ready line.
    pub(crate) fn relays(&self) -> Vec<Relay> {
        let address = |relay: &Value, key: &str| relay[key].as_str().unwrap().parse().unwrap();
        let relays = self.ready["relays"].as_array().unwrap().iter();
        relays
            .map(|relay| Relay {
                pid: relay["pid"].as_u64().unwrap(),
                udp: address(relay, "udp"),
                tcp: address(relay, "tcp"),
                tls: address(relay, "tls"),
            })
            .collect()
    }
}

/// Ends the fleet; where the test has failed, its log is shown.
impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            tools::tell(&self.log());
        }
    }
}

/// The first of forty neighbouring ports that are free on loopback by UDP and TCP, and that no other call gives. They are below
/// those that the kernel gives to whoever opens a socket, and those that relays give to clients.
pub(crate) fn free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    loop {
        let base = NEXT.fetch_add(40, Ordering::Relaxed);
        assert!(base < 32_000, "no free ports are left for another fleet");
        let free = |port: u16| {
            UdpSocket::bind(("127.0.0.1", port)).is_ok()
                && TcpListener::bind(("127.0.0.1", port)).is_ok()
        };
        if (base..base + 40).all(free) {
            return base;
        }
    }
}
