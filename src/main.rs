//! The one command of Turnfleet: a process shell around the relay and the controller.
//!
//! It reads configuration, starts what a command asks for, and ends it. It knows no protocol and decides nothing of what a
//! relay or a controller does.

mod admin;
mod bench;
mod certificate;
mod cli;
mod config;
mod conformance;
mod controller;
mod credentials;
mod doctor;
mod environment;
mod fleet;
mod held;
mod import;
mod knock;
mod link;
mod maintenance;
mod manual;
mod notify;
mod proxy;
mod public_address;
mod relay;
mod reload;
mod resolve;
mod shutdown;
mod spans;
mod state_dir;
mod target;
mod telemetry;
mod up;

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, Parser as _};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::cli::{Checked, Cli, Command};
use crate::config::{document, reference};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return unread(&error),
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed; the code tells it all the same.
            let _ = writeln!(std::io::stderr(), "error: {}", causes(&error));
            if error.is::<import::LeftOver>() {
                return ExitCode::from(import::LEFT_OVER);
            }
            ExitCode::FAILURE
        }
    }
}

/// Says what cannot be read of the command line, or helps; a flag of coturn's is told what it is here.
fn unread(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    let is_up = std::env::args_os().nth(1).is_some_and(|word| word == "up");
    if let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg)
        && is_up
        && error.kind() == ErrorKind::UnknownArgument
        && let Some(told) = import::of_flag(flag)
    {
        let _ = writeln!(std::io::stderr(), "\n{told}");
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// The error and its causes; a list of problems begins on a line of its own.
fn causes(error: &anyhow::Error) -> String {
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    causes.join(": ").replace(":   ", ":\n  ")
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let log = cli.log;
    // The services have it in their log; completions are for a shell that starts.
    if !matches!(
        cli.command,
        Command::Up(_) | Command::Relay(_) | Command::Controller(_) | Command::Completions { .. }
    ) {
        warn(environment::warnings());
    }
    match cli.command {
        Command::Up(flags) => block_on(up::run(*flags, &log)),
        Command::Relay(args) => block_on(relay::run(&args, &log)),
        Command::Controller(args) => block_on(maintenance::run(args, log)),
        Command::Credentials(action) => credentials::run(&action),
        Command::Fleet(args) => fleet::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Conformance(args) => conformance::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::CheckConfig(checked) => check(checked),
        Command::ImportCoturn(args) => import::run(&args),
        Command::ConfigSchema { of } => print(&document::text(of)),
        Command::ConfigReference => print(&reference::markdown()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "turnfleet", &mut script);
            print(&String::from_utf8(script)?)
        }
        Command::Man { output } => manual::write(&output),
    }
}

/// Runs a service to its end. What it left behind does not hold the process back.
fn block_on(service: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let provider = rustls::crypto::ring::default_provider();
    // It is installed once in a process, here.
    let _ = provider.install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.context("cannot start the runtime")?;
    let result = runtime.block_on(service);
    runtime.shutdown_background();
    result
}

/// Finds out all that can be known without starting anything.
fn check(checked: Checked) -> anyhow::Result<()> {
    let (warnings, reload) = match checked {
        Checked::Relay(args) => (relay::check(&args)?, relay::RELOAD),
        Checked::Controller(args) => (controller::check(&args)?, controller::RELOAD),
        Checked::Up(flags) => (up::check(*flags)?, ""),
    };
    warn(warnings);
    print(&format!("the configuration is good\n{reload}"))
}

/// Tells what is seldom meant. Standard error may be closed.
fn warn(warnings: impl IntoIterator<Item = impl Display>) {
    for warning in warnings {
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
}

/// Bytes that nobody can guess.
fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    match filled {
        Ok(()) => Ok(bytes),
        Err(_) => anyhow::bail!("the system has no randomness"),
    }
}

/// Prints what a command was asked for. A reader that has gone is no error.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
