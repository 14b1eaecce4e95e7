//! `turnfleet bench fleet`: many relays in one process, of which only the control sessions exist: each has a connection of its
//! own, says what it is, beats, applies what it is sent, and comes back when it is cut off.
//!
//! Their addresses are those of benchmarks (198.18.0.0/15, RFC 2544), and nothing answers there: the controller's probe
//! finds them dead, and its lists are empty unless it probes nobody.

mod course;
mod node;
mod roll;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use tonic::transport::Endpoint;
use turnfleet_relay::shard::raise_descriptor_limit;

use super::process::Processes;
use super::spread::Spread;
use super::{print, progress};
use crate::credentials::read_line;

/// The addresses of the nodes begin here.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

/// How many relays join which controller, and what happens to them.
#[derive(clap::Args, Debug)]
#[group(id = "fleet_load")]
pub(crate) struct Args {
    /// Where relays connect, http://HOST:PORT
    #[arg(value_name = "URL")]
    url: String,
    #[command(flatten)]
    join: JoinArgs,
    /// Relays
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    nodes: u32,
    /// Seconds at rest, in which CPU time counts
    #[arg(long, default_value_t = 10)]
    rest: u64,
    /// Changes of the policy that all have to acknowledge: each is one more relay, whose ports they all hear of
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pushes: u32,
    /// At the end, waits until somebody has restarted the controller, and measures how long all take to come back
    #[arg(long)]
    restart: bool,
    /// The process of the controller, if it is on this machine: its CPU time and memory count
    #[arg(long)]
    pid: Vec<u32>,
    /// Prints one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// What the relays enrol with.
#[derive(clap::Args, Debug)]
#[group(required = true, multiple = false)]
struct JoinArgs {
    /// The join token
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    join_token: Option<String>,
    /// A file that holds the join token
    #[arg(long, value_name = "FILE")]
    join_token_file: Option<PathBuf>,
}

impl JoinArgs {
    fn read(&self) -> Result<String> {
        match (&self.join_token, &self.join_token_file) {
            (Some(token), _) => Ok(token.clone()),
            (None, Some(file)) => read_line(file),
            (None, None) => anyhow::bail!("--join-token or --join-token-file is needed"),
        }
    }
}

/// Runs the measurement and prints its figures.
///
/// # Errors
/// When the controller cannot be reached or refuses, or not all relays came as far as they should have.
pub(crate) fn run(args: &Args) -> Result<()> {
    let endpoint = Endpoint::from_shared(args.url.clone());
    let endpoint = endpoint.with_context(|| format!("{}: expected http://HOST:PORT", args.url))?;
    let join_token = args.join.read()?;
    raise_descriptor_limit().context("cannot raise the limit on open files")?;
    let processes = Processes::new(&args.pid)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let report = runtime.block_on(course::run(args, endpoint, &join_token, &processes));
    runtime.shutdown_timeout(Duration::from_secs(1));
    let report = report?;
    print(&if args.json {
        serde_json::to_string(&report)?
    } else {
        report.table()
    });
    Ok(())
}

/// The figures of a run.
#[derive(Debug, Default, Serialize)]
struct Report {
    nodes: u32,
    enrolments_per_second: f64,
    /// From the first connection until every node had a session and ran the newest policy.
    sessions_seconds: f64,
    /// Cores that the controller used at rest, where its process is named.
    controller_cores_at_rest: Option<f64>,
    controller_memory_bytes: Option<u64>,
    /// Bytes of the last snapshot of a node.
    snapshot_bytes: usize,
    /// From the cause of a change until a node had acknowledged it.
    push: Option<Spread>,
    /// From the first connection to the restarted controller until a node had a session.
    back: Option<Spread>,
}

impl Report {
    fn table(&self) -> String {
        let mut lines = vec![
            format!("relays                    {:>10}", self.nodes),
            format!(
                "enrolments/s              {:>10.0}",
                self.enrolments_per_second
            ),
            format!("all have a session, s     {:>10.2}", self.sessions_seconds),
            format!("bytes of a snapshot       {:>10}", self.snapshot_bytes),
        ];
        if let Some(cores) = self.controller_cores_at_rest {
            lines.push(format!("CPU at rest, cores        {cores:>10.3}"));
        }
        if let Some(memory) = self.controller_memory_bytes {
            let megabytes = memory / 1_000_000;
            lines.push(format!("memory of controller, MB  {megabytes:>10}"));
        }
        let spreads = [("acknowledged", &self.push), ("back", &self.back)];
        for (name, spread) in spreads {
            lines.extend(spread.iter().flat_map(|spread| spread.lines(name)));
        }
        lines.join("\n")
    }
}
