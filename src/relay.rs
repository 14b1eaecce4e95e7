//! `turnfleet relay`: one relay node, from its configuration to its last allocation.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use turnfleet_proto::ConfigWarning;
use turnfleet_proto::certificate::Certificate;
use turnfleet_relay::Node;
use turnfleet_relay::config::{Config, LogFormat as ConfiguredFormat};

use crate::cli::{RelayArgs, ServiceArgs};
use crate::reload::Reloads;
use crate::shutdown::Signals;
use crate::spans::Source;
use crate::telemetry::{Configured, LogArgs, LogFormat};
use crate::{admin, config, held, notify, reload, shutdown, telemetry};

/// The title of a list of problems.
const WRONG: &str = "the configuration of the relay is wrong";

/// What a configuration that is checked is told to have in store for a relay that runs.
pub(crate) const RELOAD: &str = "a relay that runs takes over listeners, limits, nonce_lifetime_seconds, tcp_relaying.low_peer_ports and log.filter at SIGHUP; \
    anything else, tls among it, at its next start\n";

/// What is wrong with a configuration, and what is seldom meant, without starting anything.
///
/// # Errors
/// When the relay would not start with it on this machine.
pub(crate) fn check(args: &ServiceArgs) -> anyhow::Result<Vec<ConfigWarning>> {
    let config: Config = config::load(args.config.as_deref(), &args.set).context(WRONG)?;
    telemetry::check(&config.log.filter)?;
    let mut warnings = config.warnings.clone();
    warnings.extend(config.check_addresses().context(WRONG)?);
    if let Some(files) = &config.tls {
        let loaded = Certificate::load(&files.certificate, &files.key);
        loaded.context("cannot use the certificate (tls.certificate, tls.key)")?;
    }
    Ok(warnings)
}

/// Serves until the first signal, then drains until the last allocation ends, the deadline passes or a second signal comes.
///
/// # Errors
/// When the configuration is wrong or a listener cannot be opened.
pub(crate) async fn run(args: &RelayArgs, log: &LogArgs) -> anyhow::Result<()> {
    if args.end_with_stdin {
        shutdown::end_with_standard_input()?;
    }
    let mut service = args.service.clone();
    service.set.extend(args.public_ip.find().await?);
    let service = &service;
    let config: Config = config::load(service.config.as_deref(), &service.set).context(WRONG)?;
    let format = match config.log.format {
        ConfiguredFormat::Text => LogFormat::Text,
        ConfiguredFormat::Json => LogFormat::Json,
    };
    let source = Source {
        service: "turnfleet-relay",
        instance: config.node_id.as_str(),
    };
    let configured = Configured {
        filter: &config.log.filter,
        format,
        otlp_endpoint: config.otlp_endpoint.as_deref(),
        source,
    };
    telemetry::start(log, configured)?;
    let mut signals = Signals::listen()?;
    let mut reloads = Reloads::listen(service.config.as_deref())?;
    let deadline = config.drain_deadline;
    let admin = match config.metrics_address {
        Some(address) => {
            let bind = async || admin::bind(address, "metrics.address").await;
            Some(held::start(bind).await?)
        }
        None => None,
    };
    let start = async || {
        let started = Node::start(config.clone()).await;
        started.context("the relay cannot start")
    };
    let node = Arc::new(held::start(start).await?);
    if let Some(listener) = admin {
        admin::serve(listener, &node);
    }
    tracing::info!(node = %node.status().node_id, listeners = node.listeners().len(), "serving");
    notify::ready();

    let killed = loop {
        tokio::select! {
            signal = signals.next() => break leave(&node, signal, &mut signals, deadline).await,
            reason = node.killed() => break Some(reason),
            why = reloads.next() => reload(&node, service, log, why),
        }
    };
    // A request for metrics may hold the node for a moment; the end of the process ends the node as well.
    if let Some(node) = Arc::into_inner(node) {
        node.stop().await;
    }
    match killed {
        Some(reason) => anyhow::bail!("the controller ended this relay: {reason}"),
        None => Ok(()),
    }
}

/// Drains after the first signal; gives the controller's reason where that ends it.
async fn leave(
    node: &Node,
    signal: &'static str,
    signals: &mut Signals,
    deadline: Option<Duration>,
) -> Option<String> {
    notify::stopping();
    tracing::info!(signal, "leaving");
    node.drain(deadline);
    tokio::select! {
        () = node.drained() => None,
        signal = signals.next() => {
            tracing::info!(signal, "stopping at once");
            None
        }
        reason = node.killed() => Some(reason),
    }
}

/// Takes over what can change while allocations live; a configuration that is wrong changes nothing.
fn reload(node: &Node, service: &ServiceArgs, log: &LogArgs, why: &str) {
    let outcome = config::load::<Config>(service.config.as_deref(), &service.set)
        .context(WRONG)
        .and_then(|config| {
            telemetry::check(&config.log.filter)?;
            node.reload(&config)?;
            telemetry::change_configured(log, &config.log.filter)
        });
    node.reloaded(outcome.is_ok());
    reload::tell(why, outcome);
}
