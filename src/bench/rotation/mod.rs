//! `turnfleet bench rotation`: clients come all the while with fresh credentials, and are granted, refreshed and gone again,
//! while an operator rotates the shared secret. At the end one generation is revoked.
//!
//! One client in [`load::PINNED_EVERY`] comes as those of a homeserver do, with a credential of a secret that is pinned
//! for the run. Nobody whose credential is good may be refused, and everybody has to refuse what was revoked.

mod client;
mod course;
mod load;
mod operator;
mod tally;

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use turnfleet_relay::shard::raise_descriptor_limit;

use super::spread::Spread;
use super::{as_float, print, progress};
use crate::fleet::call::ControllerArgs;
use operator::Operator;
use tally::Counts;

/// Which fleet, and how much of it.
#[derive(clap::Args, Debug)]
#[group(id = "rotation_load")]
#[command(
    after_help = "The token needs the scopes mint, viewer and admin. The generations that the run makes, but for the last one, and its pinned\n\
                  secret are revoked at its end: not for a fleet that serves others. Relays on other machines answer so many strangers\n\
                  from one address only with this machine among their trusted_sources."
)]
pub(crate) struct Args {
    #[command(flatten)]
    controller: ControllerArgs,
    /// Allocations a second, each with a credential of its own
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Rotations; the generation of the last but one is revoked
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=28))]
    rotations: u32,
    /// Milliseconds from the beginning of one rotation to that of the next, if it has finished
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000)]
    every: u64,
    /// Milliseconds that an allocation is held for; one in a hundred stays until the end
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 2000)]
    hold: u64,
    /// Milliseconds after which every relay has to refuse what was revoked
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 2000)]
    revoked_within: u64,
    /// Prints one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Runs the measurement and prints its figures.
///
/// # Errors
/// When no controller can be reached or it refuses, when something good was refused, or what was revoked was not in time.
pub(crate) fn run(args: &Args) -> Result<()> {
    raise_descriptor_limit().context("cannot raise the limit on open files")?;
    let operator = Operator::new(&args.controller)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let report = runtime.block_on(course::run(args, operator));
    runtime.shutdown_timeout(Duration::from_secs(1));
    let report = report?;
    print(&if args.json {
        serde_json::to_string(&report)?
    } else {
        report.table()
    });
    report.verdict(Duration::from_millis(args.revoked_within))
}

/// The figures of a run.
#[derive(Debug, Serialize)]
struct Report {
    relays: usize,
    /// Clients that came, a second.
    offered_per_second: f64,
    allocations_per_second: f64,
    #[serde(flatten)]
    counts: Counts,
    rotations: usize,
    /// From the word of the operator until credentials were minted with the next generation.
    rotation: Option<Spread>,
    /// From an Allocate request until the allocation was there.
    allocation: Option<Spread>,
    /// From the word of the operator until every relay refused the revoked generation.
    revoked_seconds: f64,
}

impl Report {
    fn table(&self) -> String {
        let counts = &self.counts;
        let refused = Counts::sum(&counts.failures);
        let mut lines = vec![
            format!("relays                    {:>10}", self.relays),
            format!(
                "clients/s                 {:>10.0}",
                self.offered_per_second
            ),
            format!(
                "allocations/s             {:>10.0}",
                self.allocations_per_second
            ),
            format!("allocations               {:>10}", counts.allocations),
            format!(
                "of a pinned secret        {:>10}",
                counts.pinned_allocations
            ),
            format!("refreshes                 {:>10}", counts.refreshes),
            format!("refused or unanswered     {refused:>10}"),
            format!("rotations                 {:>10}", self.rotations),
        ];
        let spreads = [
            ("rotation", &self.rotation),
            ("allocation", &self.allocation),
        ];
        for (name, spread) in spreads {
            lines.extend(spread.iter().flat_map(|spread| spread.lines(name)));
        }
        lines.push(format!(
            "revoked everywhere, s     {:>10.3}",
            self.revoked_seconds
        ));
        lines.join("\n")
    }

    /// Fails where something good was refused, or what was revoked was not in time.
    fn verdict(&self, revoked_within: Duration) -> Result<()> {
        let failures = &self.counts.failures;
        if !failures.is_empty() {
            bail!("clients with good credentials came to nothing: {failures:?}");
        }
        ensure!(
            self.revoked_seconds <= revoked_within.as_secs_f64(),
            "a relay took the revoked generation for {:.3} s",
            self.revoked_seconds
        );
        Ok(())
    }
}
