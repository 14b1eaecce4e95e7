//! `turnfleet controller`: one controller, from its configuration to its last answer.

use anyhow::{Context as _, bail};
use turnfleet_controller::Controller;
use turnfleet_controller::config::Config;
use turnfleet_proto::ConfigWarning;
use turnfleet_relay::shard::raise_descriptor_limit;

use crate::cli::ServiceArgs;
use crate::reload::Reloads;
use crate::shutdown::Signals;
use crate::telemetry::LogArgs;
use crate::{config, notify, telemetry};

/// The title of a list of problems.
pub(crate) const WRONG: &str = "the configuration of the controller is wrong";

/// What is wrong with a configuration, and what is seldom meant, without starting anything.
///
/// # Errors
/// When the controller would not start with it.
pub(crate) fn check(args: &ServiceArgs) -> anyhow::Result<Vec<ConfigWarning>> {
    let config: Config = config::load(args.config.as_deref(), &args.set).context(WRONG)?;
    if let Err(errors) = Controller::check(&config) {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        bail!("{WRONG}: {}", errors.join("; "));
    }
    Ok(config.warnings())
}

/// Serves until the first signal.
///
/// # Errors
/// When the configuration is wrong, the store cannot be opened or a listener cannot be opened.
pub(crate) async fn run(args: &ServiceArgs, log: &LogArgs) -> anyhow::Result<()> {
    let config: Config = config::load(args.config.as_deref(), &args.set).context(WRONG)?;
    let filter = log.filter.as_deref().unwrap_or(telemetry::DEFAULT_FILTER);
    telemetry::start(filter, log.log_format.unwrap_or_default())?;
    let mut signals = Signals::listen()?;
    let mut reloads = Reloads::listen(args.config.as_deref())?;
    // Each connection and each probe takes one.
    raise_descriptor_limit().context("cannot raise the limit on open files")?;
    // The start waits for an etcd that does not answer.
    let controller = tokio::select! {
        started = Controller::start(config) => started.context("the controller cannot start")?,
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
            why = reloads.next() => reload(&controller, args, why).await,
        }
    };
    notify::stopping();
    tracing::info!(signal, "stopping");
    controller.stop().await;
    Ok(())
}

/// Takes over what can change while the controller runs; a configuration that is wrong changes nothing.
async fn reload(controller: &Controller, args: &ServiceArgs, why: &str) {
    let outcome = match config::load::<Config>(args.config.as_deref(), &args.set) {
        Ok(config) => controller.reload(&config).await.map_err(Into::into),
        Err(errors) => Err(anyhow::Error::new(errors).context(WRONG)),
    };
    controller.reloaded(outcome.is_ok());
    match outcome {
        Ok(()) => tracing::info!(why, "configuration read again"),
        Err(error) => tracing::error!(
            why,
            error = crate::causes(&error),
            "the configuration is not taken over; the one before stays"
        ),
    }
}
