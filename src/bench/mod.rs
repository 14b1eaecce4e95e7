//! `turnfleet bench`: load on a TURN server, on a controller's HTTP API, on a controller by a whole fleet of relays, on
//! a DNS server, or on a fleet whose secrets rotate, with what came of it and what it cost.

mod controller;
mod dns;
mod fleet;
mod process;
mod relay;
mod rotation;
mod spread;

use anyhow::Result;
use clap::Subcommand;
use hdrhistogram::Histogram;

/// What is measured: a TURN server, or one of the others by name.
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    other: Option<Other>,
    #[command(flatten)]
    relay: relay::Args,
}

/// What else than a TURN server can be measured.
#[derive(Debug, Subcommand)]
enum Other {
    /// Asks a controller for credentials, as fast as it answers
    Controller(controller::Args),
    /// Asks a DNS server the same question, as fast as it answers or at a rate
    Dns(dns::Args),
    /// Joins a controller with many relays that have sessions and nothing else, and measures what that takes
    Fleet(fleet::Args),
    /// Rotates the shared secret while clients come with fresh credentials, and counts those that were refused
    Rotation(rotation::Args),
}

/// Runs the measurement and prints its figures.
///
/// # Errors
/// When what is measured cannot be reached or used, or does not do what it is there for.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    match &args.other {
        Some(Other::Controller(args)) => controller::run(args),
        Some(Other::Dns(args)) => dns::run(args),
        Some(Other::Fleet(args)) => fleet::run(args),
        Some(Other::Rotation(args)) => rotation::run(args),
        None => relay::run(&args.relay),
    }
}

#[expect(
    clippy::print_stdout,
    reason = "the figures are what the command is for"
)]
fn print(text: &str) {
    println!("{}", text.trim_end());
}

#[expect(clippy::print_stderr, reason = "a person watches the command run")]
fn progress(line: &str) {
    eprintln!("{line}");
}

/// A percentile of latencies that were counted in nanoseconds.
fn micros(latency: &Histogram<u64>, quantile: f64) -> f64 {
    as_float(latency.value_at_quantile(quantile)) / 1e3
}

/// The nearest float.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts and nanoseconds here stay far below 2^53"
)]
fn as_float(count: u64) -> f64 {
    count as f64
}
