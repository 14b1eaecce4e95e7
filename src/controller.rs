//! `turnfleet controller`: one controller, from its configuration to its last answer.

use anyhow::{Context as _, bail};
use turnfleet_controller::Controller;
use turnfleet_controller::config::{Config, LogFormat as ConfiguredFormat};
use turnfleet_proto::ConfigWarning;
use turnfleet_relay::shard::raise_descriptor_limit;

use crate::cli::ServiceArgs;
use crate::reload::Reloads;
use crate::shutdown::Signals;
use crate::spans::Source;
use crate::telemetry::{Configured, LogArgs, LogFormat};
use crate::{config, held, notify, reload, telemetry};

/// The title of a list of problems.
pub(crate) const WRONG: &str = "the configuration of the controller is wrong";

/// What a configuration that is checked is told to have in store for a controller that runs.
pub(crate) const RELOAD: &str = "a controller that runs takes over realm, peers, limits, tenant, users, shared_secret, join_token, api_tokens and log.filter at \
    SIGHUP; anything else, http and grpc among it, at its next start\n";

/// What is wrong with a configuration, and what is seldom meant, without starting anything.
///
/// # Errors
/// When the controller would not start with it.
pub(crate) fn check(args: &ServiceArgs) -> anyhow::Result<Vec<ConfigWarning>> {
    let config: Config = config::load(args.config.as_deref(), &args.set).context(WRONG)?;
    telemetry::check(&config.log.filter)?;
    if let Err(errors) = Controller::check(&config) {
        let errors: Vec<String> = errors
            .into_iter()
            .map(|error| format!("{:#}", anyhow::Error::new(error)))
            .collect();
        bail!("{WRONG}:\n  {}", errors.join("\n  "));
    }
    Ok(config.warnings())
}

/// Serves until the first signal.
///
/// # Errors
/// When the configuration is wrong, the store cannot be opened or a listener cannot be opened.
pub(crate) async fn run(args: &ServiceArgs, log: &LogArgs) -> anyhow::Result<()> {
    let config: Config = config::load(args.config.as_deref(), &args.set).context(WRONG)?;
    let format = match config.log.format {
        ConfiguredFormat::Text => LogFormat::Text,
        ConfiguredFormat::Json => LogFormat::Json,
    };
    let source = Source {
        service: "turnfleet-controller",
        instance: config.controller.id.as_str(),
    };
    let configured = Configured {
        filter: &config.log.filter,
        format,
        otlp_endpoint: config.otlp_endpoint.as_deref(),
        source,
    };
    telemetry::start(log, configured)?;
    let mut signals = Signals::listen()?;
    let mut reloads = Reloads::listen(args.config.as_deref())?;
    // Each connection and each probe takes one.
    raise_descriptor_limit().context("cannot raise the limit on open files")?;
    // The start waits for an etcd that does not answer.
    let start = async || {
        let started = Controller::start(config.clone()).await;
        started.context("the controller cannot start")
    };
    let controller = tokio::select! {
        started = held::start(start) => started?,
        signal = signals.next() => {
            tracing::info!(signal, "stopping before the start was through");
            return Ok(());
        }
    };
    tracing::info!(http = %controller.http_address(), grpc = %controller.grpc_address(), "serving");
    notify::ready();

    let signal = loop {
        tokio::select! {
            signal = signals.next() => break signal,
            why = reloads.next() => reload(&controller, args, log, why).await,
        }
    };
    notify::stopping();
    tracing::info!(signal, "stopping");
    controller.stop().await;
    Ok(())
}

/// Takes over what can change while the controller runs; a configuration that is wrong changes nothing.
async fn reload(controller: &Controller, args: &ServiceArgs, log: &LogArgs, why: &str) {
    let outcome = async {
        let config: Config = config::load(args.config.as_deref(), &args.set).context(WRONG)?;
        telemetry::check(&config.log.filter)?;
        controller.reload(&config).await?;
        telemetry::change_configured(log, &config.log.filter)
    };
    let outcome = outcome.await;
    controller.reloaded(outcome.is_ok());
    reload::tell(why, outcome);
}
