//! The command line: each command with its flags, defined once; help, completions and errors come from here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::document::Configured;
use crate::telemetry::LogArgs;
use crate::{
    bench, conformance, credentials, doctor, fleet, import, maintenance, public_address, up,
};

/// A clustered, load-balanced TURN deployment with a control plane
#[derive(Debug, Parser)]
#[command(name = "turnfleet", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// What to run.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs a whole fleet on this machine: a controller with its store, and relays
    Up(Box<up::Flags>),
    /// Runs a relay node
    Relay(RelayArgs),
    /// Runs the controller, or backs up, restores or moves its store
    Controller(maintenance::ControllerArgs),
    /// Mints or verifies ephemeral credentials
    #[command(subcommand)]
    Credentials(credentials::Action),
    /// Shows the relay nodes of a running fleet and their capacity, drains and forgets them
    Fleet(fleet::FleetArgs),
    /// Puts load on a TURN server, or on a controller, and prints what it carried, lost and cost
    Bench(Box<bench::BenchArgs>),
    /// Examines a TURN server statement by statement of RFC 8489, RFC 8656 and RFC 6062, and fails where a MUST does
    Conformance(Box<conformance::Args>),
    /// Finds out why a call does not connect: checks servers, credentials, paths, a homeserver's settings, a fleet
    Doctor(Box<doctor::Args>),
    /// Reads the configuration of a command and shows every error at once
    #[command(subcommand)]
    CheckConfig(Checked),
    /// Prints the reference of all configuration keys
    ConfigReference,
    /// Prints the JSON schema of a configuration, for editors
    ConfigSchema {
        /// Whose configuration
        of: Configured,
    },
    /// Makes the file of `turnfleet up` from coturn's turnserver.conf, and tells what becomes of each line
    ImportCoturn(import::ImportArgs),
    /// Prints completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Writes the manual, a page for each command
    Man {
        /// The folder, such as /usr/local/share/man/man1; made where it is missing
        #[arg(long, value_name = "DIR")]
        output: PathBuf,
    },
}

/// A command whose configuration is checked.
#[derive(Debug, Subcommand)]
pub(crate) enum Checked {
    /// That of `turnfleet relay`
    Relay(ServiceArgs),
    /// That of `turnfleet controller`
    Controller(ServiceArgs),
    /// That of `turnfleet up`
    Up(Box<up::Flags>),
}

/// Where a relay or controller finds its configuration.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ServiceArgs {
    /// The configuration, a TOML file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Sets one key of the configuration, over the file and the environment
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
}

/// Flags of `turnfleet relay`.
#[derive(Args, Debug)]
pub(crate) struct RelayArgs {
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
    #[command(flatten)]
    pub(crate) public_ip: public_address::Args,
    /// Ends when standard input ends: for the process that started this one
    #[arg(long, hide = true)]
    pub(crate) end_with_stdin: bool,
}

/// Splits `KEY=VALUE` at the first equals sign.
pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        Some(_) | None => Err("expected KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_secret_may_begin_as_a_flag_does() {
        let secrets = ["secret", "shared_secret", "token", "join_token", "password"];
        let mut commands = vec![Cli::command()];
        let mut seen = 0;
        while let Some(command) = commands.pop() {
            for flag in command.get_arguments() {
                if secrets.contains(&flag.get_id().as_str()) {
                    let place = format!("{} --{}", command.get_name(), flag.get_id());
                    assert!(flag.is_allow_hyphen_values_set(), "{place}");
                    seen += 1;
                }
            }
            commands.extend(command.get_subcommands().cloned());
        }
        assert!(seen > secrets.len(), "{seen}");
    }
}
