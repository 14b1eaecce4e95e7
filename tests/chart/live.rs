//! The rendered commands as real processes: an etcd, three controllers, a relay on a node. The relay is killed, and drained.

use std::fs::{self, File};
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use turnfleet_turn::client::AllocateOptions;

use crate::client::{Caller, Credential};
use crate::cluster::{Cluster, Pod};
use crate::{PYTHON, tools};

/// Where Debian has it.
const ETCD: &str = "/usr/bin/etcd";
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

/// A port that nothing listens on, by UDP or TCP, at any of the addresses.
fn free_port() -> u16 {
    loop {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        if CONTROLLERS
            .iter()
            .all(|ip| TcpListener::bind((*ip, port)).is_ok())
        {
            return port;
        }
    }
}

/// The status and text of an answer; nothing where nobody answers.
fn get(url: &str, token: &str) -> Option<(u16, String)> {
    let agent = ureq::Agent::config_builder()
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

struct Ports {
    http: u16,
    grpc: u16,
    turn: u16,
    metrics: u16,
}

/// The release on this machine: the trial's values, with ports that are free, and controllers at addresses of their own.
fn release(ports: &Ports) -> Cluster {
    let (http, grpc, turn) = (ports.http, ports.grpc, ports.turn);
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
            "listeners": [{ "transport": "udp", "port": turn }, { "transport": "tcp", "port": turn }],
            "metrics": { "port": ports.metrics },
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
    cluster
}

#[test]
fn the_rendered_commands_make_a_fleet_and_a_killed_relay_has_a_successor() {
    if !tools::present(&[PYTHON, ETCD]) {
        return;
    }
    let turnfleet = env!("CARGO_BIN_EXE_turnfleet");
    let ports = Ports {
        http: free_port(),
        grpc: free_port(),
        turn: free_port(),
        metrics: free_port(),
    };
    let cluster = release(&ports);
    let etcd = cluster.pod(
        "fleet-turnfleet-etcd",
        "fleet-turnfleet-etcd-0",
        "node-9",
        "127.0.0.1",
    );
    let _etcd = Process::start(&etcd, ETCD);
    let mut controllers = Vec::new();
    for (index, ip) in CONTROLLERS.into_iter().enumerate() {
        let name = format!("fleet-turnfleet-controllers-{index}");
        let pod = cluster.pod("fleet-turnfleet-controllers", &name, "node-9", ip);
        controllers.push((Process::start(&pod, turnfleet), pod));
    }
    let token = cluster.secret("api-token");
    for ((_, pod), ip) in controllers.iter().zip(CONTROLLERS) {
        is_ready("a controller", pod, ports.http, ip);
        // By the name of the Service, since no certificate has the addresses of pods.
        let metrics = format!("http://{ip}:{}/metrics", ports.http);
        tools::eventually("the others are in sight", SOON, || {
            let (_, text) = get(&metrics, token)?;
            let line = "turnfleet_controller_controllers_in_sight 2";
            text.lines().any(|it| it == line).then_some(())
        });
    }

    let relay = |name: &str| {
        let pod = cluster.pod("fleet-turnfleet-relays", name, "node-1", "127.0.0.1");
        (Process::start(&pod, turnfleet), pod)
    };
    let (first, pod) = relay("fleet-turnfleet-relays-a");
    is_ready("the relay", &pod, ports.metrics, "127.0.0.1");
    let nodes = format!("http://127.0.0.1:{}/v1/nodes", ports.http);
    let (_, text) = get(&nodes, token).unwrap();
    let nodes: Value = serde_json::from_str(&text).unwrap();
    assert!(nodes.to_string().contains("\"node-1\""), "{nodes}");
    let credential = Credential::synapse(cluster.secret("shared-secret"), "@alice:example.org");
    let caller = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        Caller::udp(socket, ([127, 0, 0, 1], ports.turn).into(), &credential)
    };
    caller().allocate(AllocateOptions::default()).unwrap();
    let test = cluster.pod(
        "fleet-turnfleet-test",
        "fleet-turnfleet-test",
        "node-9",
        "127.0.0.1",
    );
    let mut test = Process::start(&test, turnfleet);
    assert!(test.0.wait().unwrap().success(), "the test of the release");

    // The successor has the node's name and an empty state folder, as a pod that a DaemonSet makes anew.
    drop(first);
    let killed = Instant::now();
    let (mut second, _) = relay("fleet-turnfleet-relays-b");
    let mut held = tools::eventually("the successor allocates", SUCCESSION, || {
        let mut caller = caller();
        let allocated = caller.try_allocate(ATTEMPT);
        matches!(allocated, Some(Ok(_))).then_some(caller)
    });
    tools::tell(&format!(
        "the successor allocated after {:?}",
        killed.elapsed()
    ));

    // What a rolling update does: the relay waits for what lives, and ends with it.
    second.signal("TERM");
    let refused = || {
        let mut caller = caller();
        match caller.try_allocate(ATTEMPT)? {
            Ok(_) => {
                // The signal has not arrived.
                caller.end().unwrap();
                None
            }
            Err(_) => Some(()),
        }
    };
    tools::eventually("the relay drains", SOON, refused);
    held.refresh().unwrap();
    assert!(
        second.0.try_wait().unwrap().is_none(),
        "it serves what lives"
    );
    held.end().unwrap();
    let ended = tools::eventually("the relay ends", SOON, || second.0.try_wait().unwrap());
    assert!(ended.success(), "{ended}");
}
