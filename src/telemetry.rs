//! Sets up the log: lines of text for a person or JSON for a collector, on standard error. Standard output belongs to what
//! a command was asked to print.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

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

/// Set when the log starts.
static REPLACE: OnceLock<Replace> = OnceLock::new();

/// Where a configuration names the filter.
const KEY: &str = "log.filter";
/// The filter of a command whose configuration names none.
pub(crate) const DEFAULT_FILTER: &str = "info";

/// Starts logging; called once in a process.
///
/// # Errors
/// When the filter cannot be read.
pub(crate) fn start(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    start_named(filter, "--log", format)
}

/// As [`start`], with what the configuration says where the flags do not.
///
/// # Errors
/// When the filter cannot be read.
pub(crate) fn start_configured(
    args: &LogArgs,
    filter: &str,
    format: LogFormat,
) -> anyhow::Result<()> {
    let format = args.log_format.unwrap_or(format);
    match &args.filter {
        Some(filter) => start(filter, format),
        None => start_named(filter, KEY, format),
    }
}

/// Finds out whether the filter of a configuration can be read.
///
/// # Errors
/// When it cannot.
pub(crate) fn check(filter: &str) -> anyhow::Result<()> {
    parse(filter, KEY).map(drop)
}

fn parse(filter: &str, key: &str) -> anyhow::Result<EnvFilter> {
    let parsed = EnvFilter::builder().parse(filter);
    parsed.with_context(|| {
        format!(
            "{key} = {filter}: expected a level or directives, such as info,turnfleet_relay=debug"
        )
    })
}

/// As [`start`], with a filter that was written at `key`.
///
/// # Errors
/// When the filter cannot be read.
fn start_named(filter: &str, key: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = parse(filter, key)?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let replace: Replace = match format {
        LogFormat::Text => {
            let log = log.with_filter_reloading();
            let handle = log.reload_handle();
            log.init();
            Box::new(move |filter| handle.reload(filter).is_ok())
        }
        LogFormat::Json => {
            let log = log.json().flatten_event(true).with_filter_reloading();
            let handle = log.reload_handle();
            log.init();
            Box::new(move |filter| handle.reload(filter).is_ok())
        }
    };
    // The log starts once in a process.
    drop(REPLACE.set(replace));
    Ok(())
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
