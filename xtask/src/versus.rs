//! `cargo xtask versus`: Turnfleet, coturn and a plain forwarder side by side, in two network namespaces joined by a veth
//! pair whose packet work runs in threads that can be measured. Needs root.
//!
//! The relay side has one core, the load the other. CPU time is that of the server's process and of the veth's NAPI threads.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::process::{cargo, root, run};

const RELAY: &str = "turnfleet-bench-relay";
const LOAD: &str = "turnfleet-bench-load";
/// In the benchmarking range (RFC 2544), which the relay is told to allow.
const RELAY_IP: &str = "198.18.0.1";
const LOAD_IP: &str = "198.18.0.2";
/// The one peer of the plain forwarder.
const FORWARDED_TO: &str = "198.18.0.2:9999";
const SECRET: &str = "versus";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Allocations held for the traffic.
    #[arg(long, default_value_t = 1000)]
    allocations: u32,
    /// Rounds for each server.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Seconds of a round.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 160)]
    payload: u32,
    /// Allocations held to measure memory.
    #[arg(long, default_value_t = 10_000)]
    held: u32,
}

pub(crate) fn run_all(options: &Options) -> Result<()> {
    run(cargo().args(["build", "--release", "--bin", "turnfleet"]))?;
    run(cargo().args([
        "build",
        "--release",
        "--package",
        "turnfleet-relay",
        "--example",
        "forwarder",
    ]))?;
    let rig = Rig::new()?;
    let state = std::env::temp_dir().join(format!("turnfleet-versus-{}", std::process::id()));
    let outcome = rig
        .measure_memory(options, &state)
        .and_then(|()| rig.measure_traffic(options, &state));
    let _ = fs::remove_dir_all(&state);
    outcome
}

/// The namespaces, which go with the value.
struct Rig;

impl Rig {
    fn new() -> Result<Self> {
        // Namespaces of a run that was killed would be in the way.
        for name in [RELAY, LOAD] {
            let _ = Command::new("ip")
                .args(["netns", "del", name])
                .stderr(Stdio::null())
                .status();
        }
        let rig = Self;
        for script in [
            format!("netns add {RELAY}"),
            format!("netns add {LOAD}"),
            format!("-n {RELAY} link add relay0 type veth peer name load0 netns {LOAD}"),
            format!("-n {RELAY} addr add {RELAY_IP}/24 dev relay0"),
            format!("-n {LOAD} addr add {LOAD_IP}/24 dev load0"),
            format!("-n {RELAY} link set relay0 up"),
            format!("-n {LOAD} link set load0 up"),
            format!("-n {RELAY} link set lo up"),
        ] {
            run(Command::new("ip").args(script.split(' ')))?;
        }
        for (name, card, core) in [(RELAY, "relay0", "0"), (LOAD, "load0", "1")] {
            // GRO switches the veth to NAPI, whose work can be given to threads; without TSO datagrams take that way too.
            let script = format!(
                "ethtool -K {card} gro on tso off && echo 1 > /sys/class/net/{card}/threaded"
            );
            run(inside(name, "sh").args(["-c", &script]))?;
            for thread in napi_threads(card)? {
                run(Command::new("taskset")
                    .args(["-pc", core, &thread])
                    .stdout(Stdio::null()))?;
            }
        }
        Ok(rig)
    }

    /// What an allocation costs, on servers that have held nothing yet; one after the other, because a process may seldom
    /// open 20,000 sockets.
    fn measure_memory(&self, options: &Options, state: &Path) -> Result<()> {
        for server in [self.turnfleet(state)?, self.coturn()?] {
            run(self
                .load(&server)
                .args(["--pid", &server.child.id().to_string()])
                .args([
                    format!("--allocations={}", options.held),
                    format!("--secret={SECRET}"),
                    format!("--peer={LOAD_IP}"),
                    "--duration=0".to_owned(),
                ]))?;
        }
        Ok(())
    }

    /// What a packet costs.
    fn measure_traffic(&self, options: &Options, state: &Path) -> Result<()> {
        let shared = napi_threads("relay0")?;
        let turnfleet = self.turnfleet(state)?;
        let coturn = self.coturn()?;
        let forwarder = self.forwarder()?;
        let pids = |server: &Server, flag: &str| -> Vec<String> {
            std::iter::once(server.child.id().to_string())
                .chain(shared.iter().cloned())
                .flat_map(|pid| [flag.to_owned(), pid])
                .collect()
        };
        for versus in [&coturn, &forwarder] {
            run(self
                .load(&turnfleet)
                .args(["--versus", &versus.target])
                .args(pids(&turnfleet, "--pid"))
                .args(pids(versus, "--versus-pid"))
                .args([
                    format!("--allocations={}", options.allocations),
                    format!("--rounds={}", options.rounds),
                    format!("--duration={}", options.seconds),
                    format!("--payload={}", options.payload),
                    format!("--secret={SECRET}"),
                    format!("--peer={LOAD_IP}"),
                    format!("--versus-peer={FORWARDED_TO}"),
                    "--max".to_owned(),
                ]))?;
        }
        Ok(())
    }

    fn turnfleet(&self, state: &Path) -> Result<Server> {
        let mut command = inside(RELAY, "taskset");
        command
            .args([
                "-c",
                "0",
                "target/release/turnfleet",
                "up",
                "--json",
                "--relays",
                "1",
            ])
            .args([
                "--listen-ip",
                RELAY_IP,
                "--public-ip",
                RELAY_IP,
                "--shared-secret",
                SECRET,
            ])
            .args(["--allow-peer", "198.18.0.0/15", "--set", "relay.shards=1"])
            .arg("--state-dir")
            .arg(state);
        Server::start(command, format!("turn:{RELAY_IP}:3478"))
    }

    fn coturn(&self) -> Result<Server> {
        let mut command = inside(RELAY, "taskset");
        command
            .args([
                "-c",
                "0",
                "turnserver",
                "-n",
                "--no-cli",
                "--no-tls",
                "--no-dtls",
                "-m",
                "1",
            ])
            .args([
                "-p", "3578", "-L", RELAY_IP, "-E", RELAY_IP, "--realm", "versus",
            ])
            .args(["--use-auth-secret", "--static-auth-secret", SECRET])
            .args([
                "--min-port",
                "20000",
                "--max-port",
                "45000",
                "--log-file",
                "/dev/null",
            ]);
        Server::start(command, format!("turn:{RELAY_IP}:3578"))
    }

    fn forwarder(&self) -> Result<Server> {
        let mut command = inside(RELAY, "taskset");
        command
            .args(["-c", "0", "target/release/examples/forwarder"])
            .args([format!("{RELAY_IP}:3678"), FORWARDED_TO.to_owned()]);
        Server::start(command, format!("plain:{RELAY_IP}:3678"))
    }

    fn load(&self, server: &Server) -> Command {
        let mut command = inside(LOAD, "taskset");
        command.args([
            "-c",
            "1",
            "target/release/turnfleet",
            "bench",
            &server.target,
        ]);
        command
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for name in [RELAY, LOAD] {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// A server in the relay's namespace; it ends when the value is dropped.
struct Server {
    child: Child,
    target: String,
}

impl Server {
    /// Starts `command` and waits until it listens where `target` says. Its log is written, as in production, but to
    /// nowhere.
    fn start(mut command: Command, target: String) -> Result<Self> {
        let child = command
            .current_dir(root())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let server = Self { child, target };
        let port = server
            .target
            .rsplit(':')
            .next()
            .context("a target has a port")?;
        let port: u16 = port.parse()?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !listens(port)? {
            ensure!(
                Instant::now() < deadline,
                "{} does not listen",
                server.target
            );
            std::thread::park_timeout(Duration::from_millis(50));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether some UDP socket of the relay's namespace is bound to `port`.
fn listens(port: u16) -> Result<bool> {
    let output = inside(RELAY, "cat").arg("/proc/net/udp").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).contains(&format!(":{port:04X} ")))
}

/// `program`, run inside a namespace.
fn inside(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, program]);
    command
}

/// The ids of the kernel's threads that do the packet work of `card`.
fn napi_threads(card: &str) -> Result<Vec<String>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with(&format!("napi/{card}-")) {
            threads.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    ensure!(
        !threads.is_empty(),
        "{card} has no NAPI threads: is threaded NAPI supported?"
    );
    Ok(threads)
}
