//! Sets up the log, lines of text for a person or JSON for a collector, on standard error, and the way of spans to a trace
//! where one is wanted. Standard output belongs to what a command was asked to print.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};
use turnfleet_proto::spans::{ENDPOINT_FORM, TARGET, is_endpoint};

use crate::environment;
use crate::spans::{self, Source};

/// What is logged, and how.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct LogArgs {
    /// What is logged: a level, or directives such as `info,turnfleet_relay=debug`
    #[arg(
        long = "log",
        global = true,
        value_name = "FILTER",
        env = "TURNFLEET_LOG",
        hide_env_values = true,
        help_heading = "Log"
    )]
    pub(crate) filter: Option<String>,
    /// How a log line looks
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "TURNFLEET_LOG_FORMAT",
        hide_env_values = true,
        help_heading = "Log"
    )]
    pub(crate) log_format: Option<LogFormat>,
    /// Where `up`, `relay` and `controller` send traces: a collector that takes OTLP by gRPC
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        hide_env_values = true,
        help_heading = "Log"
    )]
    pub(crate) otlp_endpoint: Option<String>,
}

/// What is logged and traced where the flags say nothing else, and by whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Configured<'a> {
    pub(crate) filter: &'a str,
    pub(crate) format: LogFormat,
    pub(crate) otlp_endpoint: Option<&'a str>,
    pub(crate) source: Source<'a>,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for a person.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// The value that the flag takes.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Replaces the filter of the running log.
type Replace = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

/// Where events or spans go.
pub(crate) type Way = Box<dyn Layer<Registry> + Send + Sync>;

/// Set when the log starts.
static REPLACE: OnceLock<Replace> = OnceLock::new();

/// Where a configuration names the filter.
const KEY: &str = "log.filter";
/// The filter of a command whose configuration names none.
pub(crate) const DEFAULT_FILTER: &str = "info";

/// Starts the log, and the way of spans where a collector is named; called once in a process, within the runtime.
///
/// # Errors
/// When the filter or the collector's address cannot be read.
pub(crate) fn start(args: &LogArgs, configured: Configured<'_>) -> anyhow::Result<()> {
    let filter = match &args.filter {
        Some(filter) => parse(filter, "--log"),
        None => parse(configured.filter, KEY),
    };
    let (filter, handle) = reload::Layer::new(filter?);
    let no_spans = filter_fn(|metadata| metadata.target() != TARGET);
    // Without a word on levels, every line below that of the filter would be looked at.
    let no_spans = no_spans.with_max_level_hint(LevelFilter::TRACE);
    let filter = filter.and(no_spans);
    let log = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let log: Way = match args.log_format.unwrap_or(configured.format) {
        LogFormat::Text => log.with_filter(filter).boxed(),
        LogFormat::Json => log.json().flatten_event(true).with_filter(filter).boxed(),
    };
    let asked = args.otlp_endpoint.as_deref().filter(|it| !it.is_empty());
    let mut ways = vec![log];
    if let Some(endpoint) = asked.or(configured.otlp_endpoint) {
        anyhow::ensure!(
            is_endpoint(endpoint),
            "--otlp-endpoint {endpoint}: expected {ENDPOINT_FORM}"
        );
        ways.push(spans::layer(endpoint, configured.source)?);
    }
    tracing_subscriber::registry().with(ways).init();
    // The log starts once in a process.
    drop(REPLACE.set(Box::new(move |filter| handle.reload(filter).is_ok())));
    for warning in environment::warnings() {
        tracing::warn!("{warning}");
    }
    Ok(())
}

/// Finds out whether the filter of a configuration can be read.
///
/// # Errors
/// When it cannot.
pub(crate) fn check(filter: &str) -> anyhow::Result<()> {
    parse(filter, KEY).map(drop)
}

fn parse(filter: &str, key: &str) -> anyhow::Result<EnvFilter> {
    let wrong = || {
        format!(
            "{key} = {filter}: expected a level or directives, such as info,turnfleet_relay=debug"
        )
    };
    // A level that is misspelt would be the name of something that never logs.
    anyhow::ensure!(filter.split(',').any(is_heard), wrong());
    EnvFilter::builder().parse(filter).with_context(wrong)
}

/// Whether a directive is more than a bare name that nothing of this program has.
fn is_heard(directive: &str) -> bool {
    let directive = directive.trim();
    let is_level = directive.parse::<LevelFilter>().is_ok();
    is_level || directive.starts_with("turnfleet") || directive.contains(['=', '['])
}

/// Logs by the filter of a configuration from here on, unless the flags name one.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn change_configured(args: &LogArgs, filter: &str) -> anyhow::Result<()> {
    if args.filter.is_some() {
        return Ok(());
    }
    let filter = parse(filter, KEY)?;
    if let Some(replace) = REPLACE.get() {
        anyhow::ensure!(replace(filter), "the log cannot be changed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_level_or_says_of_what_it_is() {
        for good in [
            "info",
            "off",
            "turnfleet_relay",
            "hyper=debug",
            "warn,turnfleet_relay=debug",
            "[drain]=info",
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
        for wrong in ["debg", "hyper", "info,turnfleet=loud"] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }
}
