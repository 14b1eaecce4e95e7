//! The rendered commands as real processes: an etcd, three controllers, a relay on a node. The relay is killed, and drained.

use std::fs::{self, File};
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Caller, Credential};
use crate::cluster::{Cluster, Pod, certificates};
use crate::{PYTHON, tools};

/// Where Debian has it.
const ETCD: &str = "/usr/bin/etcd";
/// The command under test.
const TURNFLEET: &str = env!("CARGO_BIN_EXE_turnfleet");
/// Longer than anything here takes anywhere.
const SOON: Duration = Duration::from_secs(40);
/// What the successor of a killed relay may take to its first allocation.
const SUCCESSION: Duration = Duration::from_secs(5);
/// What one attempt may take; what is granted after it would live on.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Where the controllers are. Relays know the first.
const CONTROLLERS: [&str; 3] = ["127.0.0.1", "127.0.1.2", "127.0.1.3"];

/// A process that is killed with the value, and where it logs.
struct Process(Child, PathBuf);

impl Process {
    /// The container of `pod`, run by `program`; what it says is shown with a test that fails.
    fn start(pod: &Pod, program: &str) -> Self {
        let mut command = pod.dress(Command::new(program));
        let log = pod.log();
        command.args(pod.arguments()).stdin(Stdio::null());
        command
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap());
        Self(command.spawn().unwrap(), log)
    }

    fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        if std::thread::panicking() {
            tools::tell(&fs::read_to_string(&self.1).unwrap_or_default());
        }
    }
}

/// A port that nothing listens on, by UDP or TCP, at any of the addresses, and that no other call gives. It is below those that the
/// kernel gives to who connects, who would meet themselves where nobody listens yet.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(14_000);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(port < 15_000, "no free port is left");
        let is_free = |ip: &&str| {
            UdpSocket::bind((*ip, port)).is_ok() && TcpListener::bind((*ip, port)).is_ok()
        };
        if CONTROLLERS.iter().all(is_free) {
            return port;
        }
    }
}

/// The status and text of an answer; nothing where nobody answers.
fn get(url: &str, token: &str) -> Option<(u16, String)> {
    let agent = ureq::Agent::config_builder()
        .proxy(None)
        .timeout_global(Some(Duration::from_secs(2)))
        .http_status_as_error(false)
        .build()
        .new_agent();
    let request = agent
        .get(url)
        .header("Authorization", format!("Bearer {token}"));
    let mut answer = request.call().ok()?;
    let text = answer.body_mut().read_to_string().ok()?;
    Some((answer.status().as_u16(), text))
}

#[track_caller]
fn is_ready(what: &str, pod: &Pod, port: u16, ip: &str) {
    let url = format!("http://{ip}:{port}{}", pod.readiness());
    let ready = || get(&url, "").filter(|(status, _)| *status == 200).map(drop);
    tools::eventually(what, SOON, ready);
}

/// The release on this machine, with ports that are free.
struct Release {
    cluster: Cluster,
    http: u16,
    turn: u16,
    metrics: u16,
}

impl Release {
    /// The trial's values, and controllers at addresses of their own.
    fn render() -> Self {
        let (http, grpc, turn, metrics) = (free_port(), free_port(), free_port(), free_port());
        let own = |key: &str, port: u16| {
            let name = format!("TURNFLEET_CONTROLLER__{key}__ADDRESS");
            json!({ "name": name, "value": format!("$(POD_IP):{port}") })
        };
        let extra = json!({
            "controllers": {
                "relayPorts": "45000-45063",
                "grpc": { "port": grpc },
                "http": { "port": http },
                "extraEnv": [own("GRPC", grpc), own("HTTP", http)],
            },
            "relays": {
                "listeners": [{ "transport": "udp", "port": turn }, { "transport": "tcp+tls", "port": turn }],
                "tls": { "secretName": "turn" },
                "metrics": { "port": metrics },
                "controller": { "endpoints": [format!("https://localhost:{grpc}")] },
            },
            "test": { "uri": format!("turn:127.0.0.1:{turn}?transport=udp") },
        });
        let mut rendered = Cluster::render("trial", &extra);
        let mut cluster = Cluster::of(&rendered["trial"].take());
        let etcd = "fleet-turnfleet-etcd-0.fleet-turnfleet-etcd.calls.svc";
        cluster.instead = vec![
            (etcd.to_owned(), "127.0.0.1".to_owned()),
            ("0.0.0.0:23".to_owned(), "127.0.0.1:23".to_owned()),
            (":2379".to_owned(), format!(":{}", free_port())),
            (":2380".to_owned(), format!(":{}", free_port())),
        ];
        Self {
            cluster,
            http,
            turn,
            metrics,
        }
    }

    /// Starts a pod of `of`, and gives it with its process.
    fn start(&self, of: &str, name: &str, ip: &str, program: &str) -> (Process, Pod) {
        let pod = self.cluster.pod(of, name, "node-1", ip);
        (Process::start(&pod, program), pod)
    }

    /// Starts the controllers, and waits until each sees the others.
    fn controllers(&self) -> Vec<Process> {
        let of = "fleet-turnfleet-controllers";
        let start = |(index, ip)| self.start(of, &format!("{of}-{index}"), ip, TURNFLEET);
        let started: Vec<_> = CONTROLLERS.into_iter().enumerate().map(start).collect();
        for ((_, pod), ip) in started.iter().zip(CONTROLLERS) {
            is_ready("a controller", pod, self.http, ip);
            // By the name of the Service, since no certificate has the addresses of pods.
            let metrics = format!("http://{ip}:{}/metrics", self.http);
            tools::eventually("the others are in sight", SOON, || {
                let (_, text) = get(&metrics, self.cluster.secret("api-token"))?;
                let line = "turnfleet_controller_controllers_in_sight 2";
                text.lines().any(|it| it == line).then_some(())
            });
        }
        started.into_iter().map(|(process, _)| process).collect()
    }

    /// Starts the relay of the node, with empty state.
    fn relay(&self, name: &str) -> (Process, Pod) {
        self.start("fleet-turnfleet-relays", name, "127.0.0.1", TURNFLEET)
    }

    fn caller(&self) -> Caller {
        let secret = self.cluster.secret("shared-secret");
        let credential = Credential::synapse(secret, "@alice:example.org");
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        Caller::udp(socket, ([127, 0, 0, 1], self.turn).into(), &credential)
    }

    /// Renews the Secret with the certificate and changes the ConfigMap of `relay`, which takes both over while it runs.
    fn renew(&self, relay: &Pod) {
        let metrics = format!("http://127.0.0.1:{}/metrics", self.metrics);
        let counts = |line: &str| {
            tools::eventually(line, SOON, || {
                let (_, text) = get(&metrics, "")?;
                text.lines().any(|it| it == line).then_some(())
            });
        };
        relay.publish("/etc/turnfleet/turn", &certificates());
        counts("turnfleet_relay_certificate_changes_total{outcome=\"replaced\"} 1");
        let config = relay.read("/etc/turnfleet/config/relay.toml");
        let config = format!("{config}nonce_lifetime_seconds = 600\n");
        relay.publish("/etc/turnfleet/config", &[("relay.toml", config)]);
        counts("turnfleet_relay_reloads_total{outcome=\"good\"} 1");
    }

    /// What a rolling update does to a relay with an allocation: it waits for what lives, and ends with it.
    fn drain(&self, relay: &mut Process, held: &mut Caller) {
        relay.signal("TERM");
        tools::eventually("the relay drains", SOON, || {
            let mut caller = self.caller();
            match caller.try_allocate(ATTEMPT)? {
                Ok(_) => {
                    // The signal has not arrived.
                    caller.end().unwrap();
                    None
                }
                Err(_) => Some(()),
            }
        });
        held.refresh().unwrap();
        let ended = relay.0.try_wait().unwrap();
        assert!(ended.is_none(), "it serves what lives");
        held.end().unwrap();
        let ended = tools::eventually("the relay ends", SOON, || relay.0.try_wait().unwrap());
        assert!(ended.success(), "{ended}");
    }
}

#[test]
fn the_rendered_commands_make_a_fleet_and_a_killed_relay_has_a_successor() {
    if !tools::present(&[PYTHON, ETCD]) {
        return;
    }
    let release = Release::render();
    let member = "fleet-turnfleet-etcd";
    let _etcd = release.start(member, &format!("{member}-0"), "127.0.0.1", ETCD);
    let _controllers = release.controllers();
    let (first, pod) = release.relay("fleet-turnfleet-relays-a");
    is_ready("the relay", &pod, release.metrics, "127.0.0.1");
    let nodes = format!("http://127.0.0.1:{}/v1/nodes", release.http);
    let (_, nodes) = get(&nodes, release.cluster.secret("api-token")).unwrap();
    assert!(nodes.contains("\"node-1\""), "{nodes}");
    let of = "fleet-turnfleet-test";
    let (mut test, _) = release.start(of, of, "127.0.0.1", TURNFLEET);
    assert!(test.0.wait().unwrap().success(), "the test of the release");

    // The successor has the node's name and an empty state folder, as a pod that a DaemonSet makes anew.
    drop(first);
    let killed = Instant::now();
    let (mut second, pod) = release.relay("fleet-turnfleet-relays-b");
    let mut held = tools::eventually("the successor allocates", SUCCESSION, || {
        let mut caller = release.caller();
        let allocated = caller.try_allocate(ATTEMPT);
        matches!(allocated, Some(Ok(_))).then_some(caller)
    });
    let took = killed.elapsed();
    tools::tell(&format!("the successor allocated after {took:?}"));
    release.renew(&pod);
    release.drain(&mut second, &mut held);
}
