//! `turnfleet up`: a whole fleet on this machine, from one command.
//!
//! The controller runs in this process, with its embedded store in the state folder. Relays are threads of it too, or with
//! `--spawn` processes of their own. Nothing outlives this process.

mod children;
mod flags;
mod plan;
mod ready;

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use turnfleet_controller::Controller;
use turnfleet_controller::config::Config as ControllerConfig;
use turnfleet_controller::fleet::FleetView;
use turnfleet_proto::credentials::mint;
use turnfleet_relay::Node;
use turnfleet_relay::config::Config as RelayConfig;
use turnfleet_turn::Transport;

use crate::certificate::{Authority, Files};
use crate::config::{self, Problems};
use crate::credentials::unix_now;
use crate::shutdown::Signals;
use crate::state_dir::StateDir;
use crate::telemetry::{DEFAULT_FILTER, LogArgs};
use crate::{admin, notify, telemetry};

use self::children::Children;
pub(crate) use self::flags::Flags;
use self::plan::{ControlSession, Plan, Relay};
use self::ready::{Particulars, Ready, ReadyRelay};

/// What is said to be missing when the fleet is not ready after this time, and again after each such time.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a part of the fleet may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// Runs the fleet until the first signal, and ends everything at once then.
///
/// # Errors
/// When the flags are wrong, a port is taken, or a part of the fleet cannot start.
pub(crate) async fn run(flags: Flags, log: &LogArgs) -> anyhow::Result<()> {
    let filter = log.filter.as_deref().unwrap_or(DEFAULT_FILTER);
    telemetry::start(filter, log.log_format.unwrap_or_default())?;
    let mut signals = Signals::listen()?;
    let mut fleet = Fleet::prepare(flags)?;
    let result = tokio::select! {
        result = fleet.serve(log) => result,
        signal = signals.next() => {
            tracing::info!(signal, "stopping");
            Ok(())
        }
    };
    notify::stopping();
    fleet.stop().await;
    result
}

/// Reads the flags and the configuration that they make, and starts nothing.
///
/// # Errors
/// With everything that is wrong.
pub(crate) fn check(flags: Flags) -> anyhow::Result<()> {
    const WRONG: &str = "the configuration of up is wrong";
    let flags = flags.over_file().context(WRONG)?;
    let plan = Plan::new(flags).context(WRONG)?;
    let mut problems = Problems::default();
    plan.check_keys(&mut problems);
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems).context(WRONG)
    }
}

/// The parts of a fleet, as far as they have started.
struct Fleet {
    plan: Plan,
    state: StateDir,
    controller: Option<Controller>,
    threads: Vec<Arc<Node>>,
    children: Children,
}

impl Fleet {
    /// Finds out all that can be known without starting anything: wrong flags, a folder in use, taken ports.
    fn prepare(flags: Flags) -> anyhow::Result<Self> {
        let flags = flags.over_file().context("the file is wrong")?;
        let folder = match &flags.state_dir {
            Some(folder) => folder.clone(),
            None => StateDir::default_path()?,
        };
        let plan = Plan::new(flags).context("the flags are wrong")?;
        let state = StateDir::open(&folder)?;
        plan.check_ports().context("the fleet cannot listen")?;
        Ok(Self {
            plan,
            state,
            controller: None,
            threads: Vec::new(),
            children: Children::new(),
        })
    }

    /// Starts the fleet, tells when it is ready, and serves on. Returns only when something has failed.
    async fn serve(&mut self, log: &LogArgs) -> anyhow::Result<()> {
        let certificates = Certificates::open(&self.plan, &self.state)?;
        let Certificates { own, client, .. } = &certificates;
        let mut layers = self.plan.controller(self.state.path(), own, client);
        config::environment::<ControllerConfig>(&mut layers);
        let config: ControllerConfig =
            config::finish(layers).context("the configuration of the controller is wrong")?;
        let controller = Controller::start(config)
            .await
            .context("the controller cannot start")?;
        let session = ControlSession {
            endpoint: session_endpoint(controller.grpc_address()),
            ca: (!controller.grpc_address().ip().is_loopback())
                .then(|| certificates.authority.clone()),
            join_token: self.state.write("join-token", controller.join_token())?,
            certificate: certificates.client.clone(),
        };
        self.controller = Some(controller);
        let mut relays = Vec::new();
        for relay in self.plan.relays.clone() {
            relays.push(self.start_relay(&relay, &session, log).await?);
        }
        let controller = self
            .controller
            .as_ref()
            .context("the controller has just started")?;
        tokio::select! {
            () = listed(&self.plan, controller) => {}
            ended = self.children.next_end() => {
                bail!("{} ended before the fleet was ready; standard error has its words", ended.name)
            }
        }
        self.announce(relays, &certificates)?;
        notify::ready();
        loop {
            let ended = self.children.next_end().await;
            let status = ended
                .status
                .map_or_else(String::new, |status| status.to_string());
            let again = format!("turnfleet relay --config {}", ended.config.display());
            tracing::warn!(
                node = ended.name,
                status,
                again,
                "a relay has ended and is not started again"
            );
        }
    }

    /// Starts one relay, in a thread or in a process, and returns what is known of it.
    async fn start_relay(
        &mut self,
        relay: &Relay,
        session: &ControlSession,
        log: &LogArgs,
    ) -> anyhow::Result<ReadyRelay> {
        let mut layers = self.plan.relay(relay, self.state.path(), session);
        let file = format!("{}.toml", relay.name);
        let written = self.plan.spawns().then(|| layers.to_toml());
        config::environment::<RelayConfig>(&mut layers);
        let wrong = || format!("the configuration of {} is wrong", relay.name);
        let config: RelayConfig = config::finish(layers).with_context(wrong)?;
        let metrics = config.metrics_address;
        let mut listeners: Vec<(Transport, SocketAddr)> = Vec::new();
        let pid = if let Some(written) = written {
            listeners.extend(
                config
                    .listeners
                    .iter()
                    .map(|place| (place.transport, place.address)),
            );
            let file = self.state.write(&file, &written)?;
            self.children.start(&relay.name, &file, log)?
        } else {
            for warning in config.warnings() {
                tracing::warn!(node = relay.name, key = warning.key, "{}", warning.message);
            }
            let admin = match metrics {
                Some(address) => Some(admin::bind(address, "--metrics-port").await?),
                None => None,
            };
            let node = Node::start(config).await;
            let node = Arc::new(node.with_context(|| format!("{} cannot start", relay.name))?);
            if let Some(listener) = admin {
                admin::serve(listener, &node);
            }
            listeners.extend(
                node.listeners()
                    .iter()
                    .map(|place| (place.transport, place.address)),
            );
            self.threads.push(node);
            std::process::id()
        };
        let mut ready = ReadyRelay::new(relay.name.clone(), pid, &listeners);
        ready.metrics =
            metrics.map_or_else(String::new, |address| format!("http://{address}/metrics"));
        Ok(ready)
    }

    /// Prints the ready line and the page for a person.
    fn announce(
        &self,
        mut relays: Vec<ReadyRelay>,
        certificates: &Certificates,
    ) -> anyhow::Result<()> {
        let controller = self
            .controller
            .as_ref()
            .context("the controller has not started")?;
        let view = controller.view();
        let mut turn_uris = Vec::new();
        let mut public_ips = Vec::new();
        for relay in &mut relays {
            let Some(node) = view
                .nodes
                .iter()
                .find(|node| node.id.as_str() == relay.node)
            else {
                continue;
            };
            if let Some(grant) = node.grants.first() {
                relay.relay_ports = grant.range.to_string();
            }
            for listener in &node.identity.listeners {
                let hostname = node.identity.hostname.as_deref();
                let uri = ready::uri(listener.transport, listener.address, hostname);
                if !turn_uris.contains(&uri) {
                    turn_uris.push(uri);
                }
            }
            public_ips.extend(&node.identity.public_ips);
        }
        let secret = controller.shared_secret();
        let http = controller.http_address();
        let scheme = if http.ip().is_loopback() {
            "http"
        } else {
            "https"
        };
        let ready = Ready {
            ready: true,
            http: format!("{scheme}://{}", reachable(http)),
            grpc: session_endpoint(controller.grpc_address()),
            realm: self.plan.realm.clone(),
            shared_secret: String::from_utf8_lossy(secret.as_bytes()).into_owned(),
            api_token: controller.api_token().to_owned(),
            ca: self
                .plan
                .given_certificate
                .is_none()
                .then(|| certificates.authority.clone()),
            relays,
            turn_uris,
        };
        let more = Particulars {
            credential: mint(&secret, "try-me", unix_now()? + 3600),
            state_dir: self.state.path().to_owned(),
            key_file: controller.key_file().to_owned(),
            public_ips,
            loopback_peers_allowed: self.plan.danger_allow_loopback_peers,
            spawned: self.plan.spawns(),
        };
        print(&ready, &more, self.plan.json());
        Ok(())
    }

    /// Ends every part that has started.
    async fn stop(self) {
        in_time("relays", self.children.stop()).await;
        in_time("relays", async {
            // A request for metrics may hold a node for a moment; the end of the process ends it as well.
            for node in self.threads.into_iter().filter_map(Arc::into_inner) {
                node.stop().await;
            }
        })
        .await;
        if let Some(controller) = self.controller {
            in_time("controller", controller.stop()).await;
        }
    }
}

/// Waits for the end of a part of the fleet, which the end of this process brings in any case.
async fn in_time(part: &str, end: impl Future<Output = ()>) {
    if tokio::time::timeout(STOP_LIMIT, end).await.is_err() {
        tracing::warn!(part, "did not end in time");
    }
}

/// Resolves when every relay is in the lists. Says now and then which are not.
async fn listed(plan: &Plan, controller: &Controller) {
    let mut changes = controller.changes();
    loop {
        let all = changes.wait_for(|view| missing(plan, view).is_empty());
        match tokio::time::timeout(PATIENCE, all).await {
            Ok(_) => return,
            Err(_) => {
                let missing = missing(plan, &controller.view()).join(", ");
                tracing::warn!(missing, "the fleet is not ready yet: relays are not listed");
            }
        }
    }
}

/// The relays that lists do not name, and what is known of the reason.
fn missing(plan: &Plan, view: &FleetView) -> Vec<String> {
    let reason = |relay: &Relay| {
        let Some(node) = view
            .nodes
            .iter()
            .find(|node| node.id.as_str() == relay.name)
        else {
            return Some("has not registered".to_owned());
        };
        let reason = match (&node.refusal, &node.probe) {
            _ if node.listed => return None,
            _ if !node.connected => "has no control session".to_owned(),
            (Some(refusal), _) => format!("refused its policy: {refusal}"),
            (None, Some(Err(failure))) => format!("fails its probe: {}", failure.name()),
            (None, None | Some(Ok(()))) => "has not been probed".to_owned(),
        };
        Some(reason)
    };
    let relays = plan.relays.iter();
    relays
        .filter_map(|relay| Some(format!("{} {}", relay.name, reason(relay)?)))
        .collect()
}

/// The certificates of a fleet.
struct Certificates {
    /// The certificate of the fleet's own authority.
    authority: std::path::PathBuf,
    /// Signed by the authority: what relays check the controller against.
    own: Files,
    /// What clients see: the given one, or else the same.
    client: Files,
}

impl Certificates {
    fn open(plan: &Plan, state: &StateDir) -> anyhow::Result<Self> {
        let authority = Authority::open(state)?;
        let addresses = plan.certificate_addresses();
        let own = authority.issue(state, "server", &plan.hostnames, &addresses);
        let own = own.context("cannot make a certificate (--hostname)")?;
        let client = plan
            .given_certificate
            .clone()
            .unwrap_or_else(|| own.clone());
        Ok(Self {
            authority: authority.certificate,
            own,
            client,
        })
    }
}

/// The URL at which relays of this machine reach the controller.
fn session_endpoint(address: SocketAddr) -> String {
    let scheme = if address.ip().is_loopback() {
        "http"
    } else {
        "https"
    };
    format!("{scheme}://{}", reachable(address))
}

/// An address of this machine that reaches a listener, which may listen on all of them.
fn reachable(address: SocketAddr) -> SocketAddr {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// Prints what is ready. With JSON the line alone is on standard output. A reader that has gone stops no fleet.
fn print(ready: &Ready, more: &Particulars, json: bool) {
    let page = ready.page(more);
    if json {
        let line = serde_json::to_string(ready).expect("texts and numbers are JSON");
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        let _ = std::io::stderr().write_all(page.as_bytes());
    } else {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(page.as_bytes()).and_then(|()| out.flush());
    }
}
