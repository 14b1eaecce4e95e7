//! Machines that start from what the modules render: three controllers with etcd, and a relay.
//!
//! ```text
//!  c0 11.74.0.10 --+
//!  c1 11.74.1.10 --+-- router --- relay  10.80.0.8, and 11.80.0.8 by 1:1 NAT, as clouds have it
//!  c2 11.74.2.10 --+      \------ client 11.90.0.2
//! ```
//!
//! cloud-init's own checker reads the user data; the setup script, the units' command lines, users and capabilities, and the firewall
//! are real. systemd, the cloud and the installation of packages are stand-ins.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use turnfleet_turn::client::AllocateOptions;

use crate::client::{Caller, Credential};
use crate::machine::Machine;
use crate::netns::{self, Namespace};
use crate::tools;
use crate::workshop::{ROOT, Workshop, succeed};

const PATIENCE: Duration = Duration::from_secs(60);
const CONTROLLERS: [&str; 3] = ["c0", "c1", "c2"];
const DOMAIN: &str = "controller.example.org";
/// The relay's address as everybody but itself sees it.
const RELAY: &str = "11.80.0.8";
const CLOUD_INIT: &str = "/usr/bin/cloud-init";
const PROGRAMS: [&str; 6] = [
    CLOUD_INIT,
    "/usr/bin/curl",
    "/usr/bin/etcd",
    "/usr/bin/openssl",
    "/usr/bin/python3",
    "/usr/bin/setpriv",
];

/// The user data of each machine, for a binary with this digest.
fn render(workshop: &Workshop, binary: &Path) -> Value {
    let printed = succeed(Command::new("/usr/bin/sha256sum").arg(binary));
    let digest = printed.split(' ').next().unwrap();
    workshop.bring("machines");
    workshop.terraform("machines", &["init"]);
    let variable = format!("binary_sha256={digest}");
    workshop.terraform("machines", &["apply", "-auto-approve", "-var", &variable]);
    workshop.outputs("machines")["machines"].clone()
}

#[track_caller]
fn assert_schema(workshop: &Workshop, name: &str, user_data: &str) {
    let file = workshop.path(name);
    fs::write(&file, user_data).unwrap();
    let mut command = Command::new(CLOUD_INIT);
    command.args(["schema", "--config-file"]).arg(file);
    succeed(&mut command);
}

/// The folder with what `make-secrets.sh` makes; the relays' certificate is that of the controllers.
fn secrets(workshop: &Workshop) -> PathBuf {
    let folder = workshop.path("secrets");
    let make = || {
        let script = Path::new(ROOT).join("terraform/modules/aws-controllers/make-secrets.sh");
        let mut command = Command::new(script);
        let addresses = ["11.74.0.10", "11.74.1.10", "11.74.2.10"];
        succeed(command.arg(&folder).arg(DOMAIN).args(addresses));
    };
    make();
    let token = fs::read(folder.join("join-token")).unwrap();
    fs::copy(folder.join("controller.pem"), folder.join("tls.pem")).unwrap();
    fs::copy(folder.join("controller.key"), folder.join("tls.key")).unwrap();
    make();
    assert_eq!(fs::read(folder.join("join-token")).unwrap(), token);
    folder
}

struct World {
    controllers: Vec<Machine>,
    relay: Machine,
    client: Namespace,
    _router: Namespace,
}

impl World {
    fn new(secrets: &Path) -> Self {
        let binary = Path::new(env!("CARGO_BIN_EXE_turnfleet"));
        let router = Namespace::new("core");
        router.forward();
        let address = |index: usize| format!("11.74.{index}.10");
        let hosts: String = (0..3)
            .map(|index| format!("{} c{index}.{DOMAIN}\n", address(index)))
            .collect();
        let machine = |role: &str, host: &str, bundle: &str| {
            let mut machine = Machine::new(role, &router, host, &hosts);
            machine.cloud(binary, &secrets.join(bundle));
            machine
        };
        let controllers = (0..3)
            .map(|index| machine(&format!("con{index}"), &address(index), "controllers.json"))
            .collect();
        let relay = machine("rela", "10.80.0.8", "relays.json");
        router.nft(
            "table ip nat {
                chain in { type nat hook prerouting priority dstnat; ip daddr 11.80.0.8 dnat to 10.80.0.8; }
                chain out { type nat hook postrouting priority srcnat; ip saddr 10.80.0.8 snat to 11.80.0.8; }
            }",
        );
        let client = Namespace::new("call");
        client.link(&router, "card0", "11.90.0.2", "11.90.0.1");
        client.ip(&["route", "add", "default", "via", "11.90.0.1"]);
        Self {
            controllers,
            relay,
            client,
            _router: router,
        }
    }

    /// Starts the controllers, which wait for each other, and then the relay.
    fn boot(&self, user_data: &Value) {
        let data = |name: &str| user_data[name].as_str().unwrap();
        std::thread::scope(|scope| {
            for (machine, name) in self.controllers.iter().zip(CONTROLLERS) {
                scope.spawn(move || machine.boot(data(name)));
            }
        });
        self.relay.boot(data("relay"));
    }

    /// What the API answers to `curl` with `arguments`, asked on the first controller.
    fn api(&self, arguments: &str) -> Value {
        let folder = "/etc/turnfleet";
        let line = format!(
            "curl -s --cacert {folder}/ca.pem -H \"Authorization: Bearer $(cat {folder}/api-token)\" {arguments}"
        );
        serde_json::from_str(&self.controllers[0].shell(&line)).unwrap_or_default()
    }

    /// A credential, and the URIs that come with it, once the relay is in lists.
    fn servers(&self) -> (Credential, Vec<String>) {
        let ask = format!("-X POST https://c1.{DOMAIN}:8080/v1/ice-servers");
        tools::eventually("the relay is in lists", PATIENCE, || {
            let list = self.api(&ask);
            let server = list["iceServers"].get(0)?;
            let text = |key: &str| server[key].as_str().map(str::to_owned);
            let uris: Vec<String> = serde_json::from_value(server["urls"].clone()).ok()?;
            uris.iter().any(|uri| uri.contains(RELAY)).then_some(())?;
            let credential = Credential {
                username: text("username")?,
                password: text("credential")?,
            };
            Some((credential, uris))
        })
    }

    /// Whether somebody elsewhere reaches TCP `port` of the relay.
    fn reaches(&self, port: u16) -> bool {
        let address: SocketAddr = format!("{RELAY}:{port}").parse().unwrap();
        let limit = Duration::from_millis(500);
        self.client
            .inside(|| TcpStream::connect_timeout(&address, limit).is_ok())
    }
}

/// A client allocates over UDP, and its peer reaches it at a relay port.
#[track_caller]
fn assert_relays(world: &World, credential: &Credential) {
    let here = IpAddr::from([11, 90, 0, 2]);
    let server = format!("{RELAY}:3478").parse().unwrap();
    let mut caller = Caller::udp(world.client.socket(here), server, credential);
    let relayed = caller.allocate(AllocateOptions::default()).unwrap().relayed;
    assert_eq!(relayed.ip().to_string(), RELAY);
    let peer = world.client.socket(here);
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = peer.local_addr().unwrap();
    caller.permit(address).unwrap();
    caller.send(address, "there");
    let mut buffer = [0; 16];
    let (length, from) = peer.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"there"[..], relayed));
    peer.send_to(b"back", relayed).unwrap();
    assert_eq!(caller.hear(), (address, "back".to_owned()));
    caller.end().unwrap();
}

/// Open is what is served, to whom it is served.
#[track_caller]
fn assert_firewall(world: &World) {
    let listener = world
        .relay
        .network
        .inside(|| TcpListener::bind("0.0.0.0:22").unwrap());
    for (port, open) in [
        (3478, true),
        (443, true),
        (22, false),
        (9641, false),
        (5349, false),
    ] {
        assert_eq!(world.reaches(port), open, "TCP port {port}");
    }
    drop(listener);
    let metrics = format!("curl -sf --max-time 10 http://{RELAY}:9641/metrics");
    assert!(
        world.controllers[0]
            .shell(&metrics)
            .contains("turnfleet_relay_")
    );
    let rules = world.relay.network.nft("list ruleset");
    assert!(rules.contains("udp dport 49152-65535 notrack"), "{rules}");
}

/// The machine holds its secrets for its service, and took the address that is its own.
#[track_caller]
fn assert_set_up(relay: &Machine) {
    let token = relay.path("etc/turnfleet/join-token");
    assert_eq!(
        fs::metadata(token).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let owner = relay.shell("stat -c %U /etc/turnfleet/join-token /etc/turnfleet/tls.key");
    assert_eq!(owner, "turnfleet\nturnfleet\n");
    let calls = relay.calls();
    let address = r#""Action": "AssociateAddress", "AllocationId": "eipalloc-0123456789abcdef0""#;
    assert!(
        calls.contains(address) && calls.contains("SecretId"),
        "{calls}"
    );
    let ports = relay.shell(
        "cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/net/ipv4/ip_local_reserved_ports",
    );
    assert_eq!(
        ports.split_whitespace().collect::<Vec<_>>(),
        ["16384", "49151", "443,3478,49152-65535"]
    );
}

/// A certificate that was renewed in the secret comes to the relay, and nothing else does.
#[track_caller]
fn assert_renews(relay: &Machine) {
    let secret = relay.path("cloud/secret");
    let mut bundle: Value = serde_json::from_slice(&fs::read(&secret).unwrap()).unwrap();
    let renewed = format!("{}\n", bundle["tls.pem"].as_str().unwrap());
    let token = bundle["join-token"].take();
    bundle["tls.pem"] = renewed.as_str().into();
    bundle["join-token"] = "another".into();
    fs::write(&secret, bundle.to_string()).unwrap();
    let unit = "/etc/systemd/system/turnfleet-secrets.service";
    let fetch = format!("$(sed -n s/^ExecStart=//p {unit})");
    let key = relay.shell("stat -c %i /etc/turnfleet/tls.key");
    relay.shell(&fetch);
    let there = |name: &str| fs::read_to_string(relay.path(&format!("etc/turnfleet/{name}")));
    assert_eq!(there("tls.pem").unwrap(), renewed);
    assert_eq!(there("join-token").unwrap(), token.as_str().unwrap());
    assert_eq!(relay.shell("stat -c %i /etc/turnfleet/tls.key"), key);
    let owner = relay.shell("stat -c '%U %a' /etc/turnfleet/tls.pem");
    assert_eq!(owner, "turnfleet 600\n");
}

/// The relay drains when the cloud says that its machine is about to end, and not before.
#[track_caller]
fn assert_drains(world: &World) {
    let unit = "turnfleet-relay.service";
    let look = "/usr/local/lib/turnfleet/termination.sh";
    world.relay.shell(look);
    assert!(world.relay.runs(unit), "it ends without a notice");
    fs::write(world.relay.path("cloud/notice"), "").unwrap();
    let said = world.relay.shell(look);
    assert!(
        !world.relay.runs(unit) && said.contains("drained"),
        "{said}"
    );
    assert!(!world.reaches(3478));
    let calls = world.relay.calls();
    let last = calls.lines().last().unwrap();
    for part in [
        "CompleteLifecycleAction",
        "relay-1",
        "drain",
        "i-0123456789abcdef0",
    ] {
        assert!(last.contains(part), "{last}");
    }
    let nodes = world.api(&format!("https://c2.{DOMAIN}:8080/v1/nodes"));
    assert!(nodes.to_string().contains("relay-1"), "{nodes}");
}

#[test]
fn machines_that_start_from_rendered_user_data_are_a_fleet() {
    if !tools::present(&PROGRAMS) || !tools::present(&netns::PROGRAMS) || !tools::is_root() {
        return;
    }
    let Some(workshop) = Workshop::new() else {
        return;
    };
    let user_data = render(&workshop, Path::new(env!("CARGO_BIN_EXE_turnfleet")));
    for (name, text) in user_data.as_object().unwrap() {
        assert_schema(&workshop, name, text.as_str().unwrap());
    }
    let world = World::new(&secrets(&workshop));
    world.boot(&user_data);
    assert_set_up(&world.relay);
    let (credential, uris) = world.servers();
    let udp = format!("turn:{RELAY}:3478?transport=udp");
    assert!(uris.contains(&udp), "{uris:?}");
    assert!(uris.iter().any(|uri| uri.starts_with("turns:")), "{uris:?}");
    assert_relays(&world, &credential);
    assert_firewall(&world);
    assert_renews(&world.relay);
    assert_drains(&world);
}
