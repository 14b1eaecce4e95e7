//! `turnfleet controller`: one controller, from its configuration to its last answer.

use anyhow::Context as _;
use turnfleet_controller::Controller;
use turnfleet_controller::config::Config;
use turnfleet_proto::ConfigWarning;
use turnfleet_relay::shard::raise_descriptor_limit;

use crate::cli::ServiceArgs;
use crate::shutdown::Signals;
use crate::telemetry::LogArgs;
use crate::{config, notify, telemetry};

/// Serves until the first signal.
///
/// # Errors
/// When the configuration is wrong, the store cannot be opened or a listener cannot be opened.
pub(crate) async fn run(args: &ServiceArgs, log: &LogArgs) -> anyhow::Result<()> {
    let config: Config = config::load(args.config.as_deref(), &args.set)
        .context("the configuration of the controller is wrong")?;
    let filter = log.filter.as_deref().unwrap_or(telemetry::DEFAULT_FILTER);
    telemetry::start(filter, log.log_format.unwrap_or_default())?;
    let mut signals = Signals::listen()?;
    let controller = Controller::start(config)
        .await
        .context("the controller cannot start")?;
    tracing::info!(http = %controller.http_address(), grpc = %controller.grpc_address(), "serving");
    notify::ready();

    let signal = signals.next().await;
    notify::stopping();
    tracing::info!(signal, "stopping");
    controller.stop().await;
    Ok(())
}
    // Each connection and each probe takes one.
    raise_descriptor_limit().context("cannot raise the limit on open files")?;
