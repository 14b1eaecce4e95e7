//! `turnfleet doctor`: why a call does not connect, found out by doing what a client does, step by step.
//!
//! [`plan`] reads what there is to look at, [`examine`] looks, group by group, and [`report`] keeps what was found. Every wait
//! has an end, and the run as a whole has one: what is not done by then stands in the report as skipped, and the run as failed.

mod allocation;
mod catalogue;
mod clock;
mod controller;
mod credential;
mod examine;
mod firewall;
mod homeserver;
mod host;
mod ice;
mod identity;
mod old_tls;
mod outside;
mod pairs;
mod path;
mod plan;
mod reach;
mod report;
mod session;
mod tls;
mod trace;
mod way;

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::CommandFactory as _;
use clap::error::ErrorKind;
use turnfleet_proto::{PortRange, TurnUri};

use crate::cli::Cli;
use crate::credentials::SecretArgs;
use plan::Plan;
use report::{Report, State};

/// How long a run may take.
const LIMIT: Duration = Duration::from_secs(28);

/// What to look at, and as whom.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The servers as clients are told of them: turn:HOST[:PORT][?transport=udp|tcp], turns:HOST[:PORT], stun:HOST[:PORT]
    #[arg(value_name = "URI")]
    uris: Vec<TurnUri>,
    #[command(flatten)]
    secret: SecretArgs,
    /// A username that somebody was given, instead of those that a secret makes
    #[arg(long, value_name = "NAME", requires = "password")]
    username: Option<String>,
    /// Its password
    #[arg(long, requires = "username", allow_hyphen_values = true)]
    password: Option<String>,
    /// The settings of a Matrix homeserver: its URIs and its secret are looked at
    #[arg(long, value_name = "FILE")]
    homeserver: Option<PathBuf>,
    /// The HTTP API of a controller: every relay of its fleet is looked at
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    controller: Vec<String>,
    /// A file with an API token of the scope viewer, for --controller
    #[arg(long, value_name = "FILE", requires = "controller")]
    token_file: Option<PathBuf>,
    /// A certificate authority, PEM, that is trusted besides the public ones
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Looks at this machine too, which is the relay: its sockets, its firewall, its limits
    #[arg(long)]
    on_relay: bool,
    /// The relay ports of this machine, for --on-relay [default: 49152-65535]
    #[arg(long, value_name = "FIRST-LAST", requires = "on_relay")]
    relay_ports: Option<PortRange>,
    /// Prints a JSON array of findings instead of lines
    #[arg(long)]
    json: bool,
    /// Prints every check that there is, and looks at nothing
    #[arg(long)]
    list: bool,
}

/// Looks at everything, prints what was found, and tells by the code of the process whether something does not work.
///
/// # Errors
/// When a check has failed.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.list {
        return crate::print(&format!("{}\n", report::list(args.json)));
    }
    let plan = match Plan::new(args) {
        Ok(plan) => plan,
        // As clap tells of what is wrong with a command line, and with its code.
        Err(error) => Cli::command()
            .error(ErrorKind::ValueValidation, format!("{error:#}"))
            .exit(),
    };
    let report = Arc::new(Report::default());
    let (done, whether_done) = mpsc::channel();
    let examiner = std::thread::Builder::new().spawn({
        let report = Arc::clone(&report);
        move || {
            examine::everything(&plan, &report);
            // The other end may have gone on without it.
            let _ = done.send(());
        }
    });
    examiner.context("cannot start a thread")?;
    let is_whole = whether_done.recv_timeout(LIMIT).is_ok();
    let findings = report.finish(is_whole);
    let text = if args.json {
        findings.json().to_string()
    } else {
        findings.text()
    };
    crate::print(&format!("{text}\n"))?;
    match findings.count(State::Fail) {
        0 => Ok(()),
        1 => bail!("one check has failed"),
        failed => bail!("{failed} checks have failed"),
    }
}
