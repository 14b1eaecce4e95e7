//! `turnfleet up`: a whole fleet on this machine, from one command.
//!
//! The controller runs in this process, with its embedded store in the state folder. Relays are threads of it too, or with
//! `--spawn` processes of their own. Nothing outlives this process.

mod children;
mod flags;
mod listed;
mod page;
mod plan;
mod ports;
mod ready;
mod settings;

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tracing::Instrument as _;
use turnfleet_controller::Controller;
use turnfleet_controller::config::{Config as ControllerConfig, ListenerConfig};
use turnfleet_proto::ConfigWarning;
use turnfleet_proto::certificate::Certificate;
use turnfleet_relay::Node;
use turnfleet_relay::config::Config as RelayConfig;
use turnfleet_relay::shard::raise_descriptor_limit;
use turnfleet_turn::Transport;

use crate::certificate::{Authority, Files};
use crate::config;
use crate::shutdown::Signals;
use crate::spans::Source;
use crate::state_dir::StateDir;
use crate::telemetry::{Configured, DEFAULT_FILTER, LogArgs, LogFormat};
use crate::{admin, notify, telemetry};

use self::children::Children;
pub(crate) use self::flags::Flags;
use self::plan::{Plan, Relay};
use self::ready::{Ready, ReadyRelay, Urls};
use self::settings::{ControlSession, ShownCertificate};

/// What a part of the fleet may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(1);
/// The title of a list of problems.
const WRONG: &str = "the configuration of up is wrong";

/// Runs the fleet until the first signal, and ends everything at once then.
///
/// # Errors
/// When the flags are wrong, a port is taken, or a part of the fleet cannot start.
pub(crate) async fn run(flags: Flags, log: &LogArgs) -> anyhow::Result<()> {
    let configured = Configured {
        filter: DEFAULT_FILTER,
        format: LogFormat::default(),
        otlp_endpoint: None,
        source: Source {
            service: "turnfleet-up",
            instance: &format!("up-{}", std::process::id()),
        },
    };
    telemetry::start(log, configured)?;
    let mut signals = Signals::listen()?;
    raise_descriptor_limit().context("cannot raise the limit on open files")?;
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

/// Reads the flags and the keys that they hold for the controller and the relays, and starts nothing. Returns what is
/// seldom meant.
///
/// # Errors
/// With everything that is wrong.
pub(crate) fn check(flags: Flags) -> anyhow::Result<Vec<ConfigWarning>> {
    let flags = flags.over_file().context(WRONG)?;
    let plan = Plan::new(flags).context(WRONG)?;
    if let Some(files) = &plan.given_certificate {
        let loaded = Certificate::load(&files.certificate, &files.key);
        loaded.context("cannot use the certificate (--tls-cert, --tls-key)")?;
    }
    Ok(plan.warnings())
}

/// The parts of a fleet, as far as they have started.
struct Fleet {
    plan: Plan,
    state: StateDir,
    controller: Option<Arc<Controller>>,
    threads: Vec<Arc<Node>>,
    children: Children,
}

impl Fleet {
    /// Finds out all that can be known without starting anything: wrong flags, a folder in use, taken ports.
    fn prepare(flags: Flags) -> anyhow::Result<Self> {
        let flags = flags.over_file().context(WRONG)?;
        let folder = match &flags.state_dir {
            Some(folder) => folder.clone(),
            None => StateDir::default_path()?,
        };
        let plan = Plan::new(flags).context(WRONG)?;
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
        let authority = Authority::open(&self.state)?;
        let addresses = self.plan.certificate_addresses();
        let own = authority.issue(
            &self.state,
            "server",
            &self.plan.flags().hostname,
            &addresses,
        );
        let own = own.context("cannot make a certificate (--hostname)")?;
        let (controller, session, urls) = self.start_controller(&authority, &own).await?;
        let mut relays = Vec::new();
        for relay in self.plan.relays.clone() {
            relays.push(self.start_relay(&relay, &session, log).await?);
        }
        tokio::select! {
            () = listed::all(&self.plan, &controller) => {}
            ended = self.children.next_end() => {
                bail!("{} ended before the fleet was ready; standard error has its words", ended.name)
            }
        }
        let is_own = session.certificate == ShownCertificate::Files(own);
        let ca = is_own.then_some(authority.certificate);
        let ready = Ready::new(&controller, urls, ca, relays);
        page::print(&ready, &self.plan, &self.state, &controller)?;
        notify::ready();
        drop(controller);
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

    async fn start_controller(
        &mut self,
        authority: &Authority,
        own: &Files,
    ) -> anyhow::Result<(Arc<Controller>, ControlSession, Urls)> {
        let layers = self.plan.controller(self.state.path(), own);
        let config: ControllerConfig =
            config::finish(layers).context("the configuration of the controller is wrong")?;
        let secured = |listener: &ListenerConfig| listener.tls.is_some();
        let (https, grpcs) = (secured(&config.http), secured(&config.grpc));
        let (ports, acme) = (config.ports, config.acme.clone());
        let controller = Controller::start(config)
            .await
            .context("the controller cannot start")?;
        self.plan.forget_others(&controller, ports).await?;
        let urls = Urls {
            http: ready::url(https, controller.http_address()),
            grpc: ready::url(grpcs, controller.grpc_address()),
        };
        let session = ControlSession {
            endpoint: urls.grpc.clone(),
            ca: grpcs.then(|| authority.certificate.clone()),
            join_token: controller.join_token_file(),
            certificate: self.plan.shown_certificate(acme.as_ref(), own),
        };
        let controller = Arc::new(controller);
        self.controller = Some(Arc::clone(&controller));
        Ok((controller, session, urls))
    }

    /// Starts one relay, in a thread or in a process, and returns what is known of it.
    async fn start_relay(
        &mut self,
        relay: &Relay,
        session: &ControlSession,
        log: &LogArgs,
    ) -> anyhow::Result<ReadyRelay> {
        let layers = self.plan.relay(relay, self.state.path(), session);
        let file = layers.to_toml();
        let wrong = || format!("the configuration of {} is wrong", relay.name);
        let mut config: RelayConfig = config::finish(layers).with_context(wrong)?;
        let metrics = config.metrics_address;
        let (pid, listeners) = if self.plan.flags().spawn {
            let listeners = config.listeners.iter();
            let listeners = listeners
                .map(|listener| (listener.transport, listener.address))
                .collect();
            let file = self.state.write(&format!("{}.toml", relay.name), &file)?;
            (self.children.start(&relay.name, &file, log)?, listeners)
        } else {
            let nodes = u64::try_from(self.plan.relays.len()).ok();
            config.nodes_in_process = nodes.and_then(NonZeroU64::new).unwrap_or(NonZeroU64::MIN);
            let node = start_thread(relay, config).await?;
            let listeners: Vec<(Transport, SocketAddr)> = node
                .listeners()
                .iter()
                .map(|listener| (listener.transport, listener.address))
                .collect();
            self.threads.push(node);
            (std::process::id(), listeners)
        };
        Ok(ReadyRelay::new(
            relay.name.clone(),
            pid,
            &listeners,
            metrics,
        ))
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
        if let Some(controller) = self.controller.and_then(Arc::into_inner) {
            in_time("controller", controller.stop()).await;
        }
    }
}

/// Starts a relay in this process, with its listener for metrics.
async fn start_thread(relay: &Relay, config: RelayConfig) -> anyhow::Result<Arc<Node>> {
    let admin = match config.metrics_address {
        Some(address) => Some(admin::bind(address, "--metrics-port").await?),
        None => None,
    };
    // Whatever the filter lets through of the relay's is to say which one it is of.
    let span = tracing::error_span!(target: "turnfleet_relay", "relay", node = %relay.name);
    let node = Node::start(config).instrument(span).await;
    let node = Arc::new(node.with_context(|| format!("{} cannot start", relay.name))?);
    if let Some(listener) = admin {
        admin::serve(listener, &node);
    }
    Ok(node)
}

/// Waits for the end of a part of the fleet, which the end of this process brings in any case.
async fn in_time(part: &str, end: impl Future<Output = ()>) {
    if tokio::time::timeout(STOP_LIMIT, end).await.is_err() {
        tracing::warn!(part, "did not end in time");
    }
}
