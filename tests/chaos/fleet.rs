//! A fleet of real processes: three etcd members, three controllers, eight relays, in a network namespace of their own.
//!
//! ```text
//!   127.0.0.1      etcd               127.0.1.1 ..  controllers
//!   11.70.0.1 ..   relays, two on each address, which share its ports      11.71.0.1  clients
//! ```

use std::net::{SocketAddr, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::api::{Api, TOKEN, text};
use crate::client::{Caller, Credential};
use crate::cluster::Cluster;
use crate::cuts::{Cuts, GRPC};
use crate::netns::{self, Namespace};
use crate::process::{Process, SOON};
use crate::tools::{self, eventually};

pub(crate) const RELAYS: usize = 8;
pub(crate) const CONTROLLERS: usize = 3;
/// What a homeserver has in its configuration.
pub(crate) const SECRET: &str = "north-by-northwest";
/// Where clients are.
pub(crate) const CLIENT: &str = "11.71.0.1";
/// The groups of relays and of controllers are numbered from these.
const RELAY_GROUP: u32 = 10_000;
const CONTROLLER_GROUP: u32 = 20_000;

/// The whole fleet; everything ends with the value.
pub(crate) struct Fleet<'n> {
    pub(crate) relays: Vec<Relay>,
    pub(crate) controllers: Vec<Controller>,
    pub(crate) etcd: Cluster,
    pub(crate) cuts: Cuts<'n>,
    pub(crate) dir: TempDir,
}

/// One relay.
pub(crate) struct Relay {
    pub(crate) name: String,
    pub(crate) process: Process,
    /// Where clients reach it by UDP and TCP.
    pub(crate) server: SocketAddr,
    pub(crate) metrics: Api,
    /// The mark of what it sends.
    pub(crate) mark: u32,
}

/// One controller.
pub(crate) struct Controller {
    pub(crate) process: Process,
    pub(crate) api: Api,
    pub(crate) ip: String,
    /// The mark of what it sends.
    pub(crate) mark: u32,
}

/// How a fleet differs from the usual one.
#[derive(Default)]
pub(crate) struct Special<'s> {
    /// Arguments of every etcd member.
    pub(crate) etcd: &'s [&'s str],
    /// The environment of some relays, by their numbers.
    pub(crate) relays: &'s [(usize, Environment)],
    /// The environment of every controller.
    pub(crate) controllers: &'s [(&'static str, String)],
}

/// Variables of a process.
pub(crate) type Environment = Vec<(&'static str, String)>;

/// Lets a fleet live in a namespace of its own, one after the other.
#[track_caller]
pub(crate) fn with_fleet(act: impl FnOnce(&mut Fleet<'_>) + Send) {
    with_special_fleet(&Special::default(), act);
}

#[track_caller]
pub(crate) fn with_special_fleet(special: &Special<'_>, act: impl FnOnce(&mut Fleet<'_>) + Send) {
    with_namespace(|namespace| {
        if let Some(mut fleet) = Fleet::start(namespace, special) {
            act(&mut fleet);
        }
    });
}

/// Acts in a namespace of its own, one test at a time: they measure times.
#[track_caller]
pub(crate) fn with_namespace(act: impl FnOnce(&Namespace) + Send) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    if !tools::present(&netns::PROGRAMS) || !tools::is_root() {
        return;
    }
    let namespace = Namespace::new("chao");
    namespace.inside(|| act(&namespace));
}

impl<'n> Fleet<'n> {
    /// Starts everything, and waits until every controller lists every relay; `None` where there is no etcd.
    #[track_caller]
    fn start(namespace: &'n Namespace, special: &Special<'_>) -> Option<Self> {
        for relay in (0..RELAYS).step_by(2) {
            namespace.ip(&[
                "addr",
                "add",
                &format!("{}/32", relay_ip(relay)),
                "dev",
                "lo",
            ]);
        }
        namespace.ip(&["addr", "add", &format!("{CLIENT}/32"), "dev", "lo"]);
        let groups = (0..RELAYS).map(relay_group);
        let cuts = Cuts::new(
            namespace,
            groups.chain((0..CONTROLLERS).map(controller_group)),
        );
        let runtime = Runtime::new().unwrap();
        let etcd = runtime.block_on(async {
            let arguments: Vec<String> = special.etcd.iter().map(ToString::to_string).collect();
            let cluster = Cluster::launch("http", 3, &arguments).await?;
            cluster.ready(&cluster.config()).await;
            Some(cluster)
        })?;
        let dir = tempfile::tempdir().unwrap();
        let mut fleet = Self {
            relays: Vec::new(),
            controllers: Vec::new(),
            etcd,
            cuts,
            dir,
        };
        for number in 0..CONTROLLERS {
            fleet.add_controller(number, special.controllers);
        }
        for number in 0..RELAYS {
            let special = special.relays.iter().filter(|(which, _)| *which == number);
            let environment = special.flat_map(|(_, environment)| environment);
            fleet.add_relay(number, environment);
        }
        fleet.wait_until_whole();
        Some(fleet)
    }

    fn add_controller(&mut self, number: usize, environment: &[(&str, String)]) {
        let ip = controller_ip(number);
        let dir = self.dir.path();
        let name = format!("controller-{number}");
        let endpoints = serde_json::to_string(self.etcd.endpoints()).unwrap();
        let config = format!(
            "id = \"{name}\"\nstate_dir = \"{dir}/{name}\"\nshared_secret = \"{SECRET}\"\n\
             join_token = \"{TOKEN}\"\nrelays_per_address = 2\n\
             [http]\naddress = \"{ip}:8080\"\n[grpc]\naddress = \"{ip}:{GRPC}\"\n\
             [store]\nkey_file = \"{dir}/store.key\"\n[store.etcd]\nendpoints = {endpoints}\n\
             [[api_tokens]]\nname = \"operator\"\ntoken = \"{TOKEN}\"\n\
             scopes = [\"mint\", \"viewer\", \"operator\", \"admin\"]\n",
            dir = dir.display(),
        );
        let mut command = turnfleet("controller", &name, dir, &config, controller_group(number));
        command.envs(environment.iter().map(|(key, value)| (key, value)));
        let process = Process::start(command, dir.join(format!("{name}.log")));
        let api = Api::new(&format!("{ip}:8080"));
        if number == 0 {
            // It makes the key file that the others need.
            eventually("the first controller serves", SOON, || api.nodes().ok());
        }
        self.controllers.push(Controller {
            process,
            api,
            ip,
            mark: controller_group(number),
        });
    }

    fn add_relay<'e>(
        &mut self,
        number: usize,
        environment: impl Iterator<Item = &'e (&'static str, String)>,
    ) {
        let name = format!("relay-{number}");
        let dir = self.dir.path();
        let server: SocketAddr = format!("{}:{}", relay_ip(number), 3478 + 2 * (number % 2))
            .parse()
            .unwrap();
        let metrics = format!("127.0.2.{}:9641", number + 1);
        let endpoints =
            (0..CONTROLLERS).map(|number| format!("http://{}:{GRPC}", controller_ip(number)));
        let endpoints: Vec<String> = endpoints.collect();
        let config = format!(
            "node_id = \"{name}\"\nzone = \"zone-{}\"\nstate_dir = \"{}/{name}\"\nshards = 1\n\
             listeners = [{{ transport = \"udp\", address = \"{server}\" }}, \
             {{ transport = \"tcp\", address = \"{server}\" }}]\n\
             [controller]\nendpoints = {}\njoin_token = \"{TOKEN}\"\n\
             [metrics]\naddress = \"{metrics}\"\n",
            number % 2,
            dir.display(),
            serde_json::to_string(&endpoints).unwrap(),
        );
        let mut command = turnfleet("relay", &name, dir, &config, relay_group(number));
        command.envs(environment.map(|(key, value)| (key, value)));
        let process = Process::start(command, dir.join(format!("{name}.log")));
        self.relays.push(Relay {
            name,
            process,
            server,
            metrics: Api::new(&metrics),
            mark: relay_group(number),
        });
    }

    /// Waits until every controller lists every relay, and is followed by the others.
    #[track_caller]
    pub(crate) fn wait_until_whole(&self) {
        let all = 0..CONTROLLERS;
        self.within(
            SOON,
            "every controller lists every relay",
            all,
            |controller| {
                let others = controller
                    .api
                    .metric("turnfleet_controller_controllers_in_sight", "");
                controller
                    .api
                    .listed()
                    .is_ok_and(|listed| listed.len() == RELAYS)
                    && others == Some(2.0)
            },
        );
    }

    /// When `condition` began to hold for each of some controllers, counted from now; it must do so for all within `limit`.
    #[track_caller]
    pub(crate) fn within(
        &self,
        limit: Duration,
        what: &str,
        which: impl IntoIterator<Item = usize>,
        condition: impl Fn(&Controller) -> bool,
    ) -> Vec<Duration> {
        let begun = Instant::now();
        let mut times: Vec<(usize, Option<Duration>)> =
            which.into_iter().map(|number| (number, None)).collect();
        eventually(what, limit, || {
            for (number, time) in &mut times {
                if time.is_none() && condition(&self.controllers[*number]) {
                    *time = Some(begun.elapsed());
                }
            }
            times.iter().map(|(_, time)| *time).collect()
        })
    }

    /// How often the fleet's policy has changed, where every relay runs the latest.
    pub(crate) fn settled(&self) -> Option<u64> {
        let nodes = self.controllers[0].api.nodes().ok()?;
        let mut runs = nodes.iter().map(|node| node["applied_generation"].as_u64());
        let first = runs.next()??;
        runs.all(|other| other == Some(first)).then_some(first)
    }

    /// Makes a tenant, or changes it; returns when every relay knows.
    #[track_caller]
    pub(crate) fn set_tenant(&self, name: &str, terms: &Value) {
        let before = eventually("the policy is settled", SOON, || self.settled());
        let api = &self.controllers[0].api;
        let (status, answer) = api.put(&format!("/v1/tenants/{name}"), terms).unwrap();
        assert!(status < 300, "{status} {answer}");
        eventually("every relay knows of the tenant", SOON, || {
            (self.settled()? > before).then_some(())
        });
    }

    /// The number of the controller that leads.
    #[track_caller]
    pub(crate) fn leader(&self) -> usize {
        eventually("one controller leads", SOON, || {
            (0..CONTROLLERS).find(|number| self.controllers[*number].leads())
        })
    }

    /// The ports that a relay holds, as a controller shows them.
    #[track_caller]
    pub(crate) fn ports(&self, controller: usize, relay: usize) -> Value {
        let node = self.controllers[controller]
            .api
            .node(&self.relays[relay].name);
        assert!(
            node["ports"]
                .as_array()
                .is_some_and(|ports| !ports.is_empty()),
            "{node}"
        );
        node["ports"].clone()
    }

    /// What is shown when an experiment fails: the ends of the logs.
    fn logs(&self) -> String {
        let controllers = self.controllers.iter().map(|it| it.process.log());
        let relays = self.relays.iter().map(|it| it.process.log());
        let mut shown = String::new();
        for path in controllers.chain(relays) {
            let log = std::fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(25)..];
            shown += &format!("--- {}\n{}\n", path.display(), last.join("\n"));
        }
        shown
    }
}

impl Drop for Fleet<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tools::tell(&self.logs());
        }
    }
}

impl Controller {
    pub(crate) fn leads(&self) -> bool {
        self.api.metric("turnfleet_controller_leader", "") == Some(1.0)
    }

    /// Control sessions of relays that it holds.
    pub(crate) fn sessions(&self) -> f64 {
        let sessions = self.api.metric("turnfleet_controller_sessions", "");
        sessions.unwrap_or(0.0)
    }

    /// Whether lists of this controller may hold `relay`.
    pub(crate) fn lists(&self, relay: &Relay) -> bool {
        self.api.node(&relay.name)["listed"] == true
    }

    pub(crate) fn health(&self, relay: &Relay) -> String {
        text(&self.api.node(&relay.name)["health"])
    }
}

impl Relay {
    /// A client of this relay, with the credential that a homeserver would give to `user`.
    pub(crate) fn caller(&self, user: &str) -> Caller {
        caller(self.server, &Credential::synapse(SECRET, user))
    }
}

/// A client of `server` by UDP.
pub(crate) fn caller(server: SocketAddr, credential: &Credential) -> Caller {
    Caller::udp(UdpSocket::bind((CLIENT, 0)).unwrap(), server, credential)
}

fn relay_ip(number: usize) -> String {
    format!("11.70.0.{}", number / 2 + 1)
}

fn controller_ip(number: usize) -> String {
    format!("127.0.1.{}", number + 1)
}

fn relay_group(number: usize) -> u32 {
    RELAY_GROUP + u32::try_from(number).unwrap()
}

fn controller_group(number: usize) -> u32 {
    CONTROLLER_GROUP + u32::try_from(number).unwrap()
}

fn turnfleet(what: &str, name: &str, dir: &Path, config: &str, group: u32) -> Command {
    let file = dir.join(format!("{name}.toml"));
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnfleet"));
    command.arg(what).arg("--config").arg(file).gid(group);
    command
}
