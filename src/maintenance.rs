//! `turnfleet controller` and what is done to its store: `backup`, `restore` and `migrate`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use turnfleet_controller::config::Config;
use turnfleet_controller::maintenance::{self, Report, RestoreOptions};

use crate::cli::ServiceArgs;
use crate::controller::WRONG;
use crate::telemetry::LogArgs;
use crate::{config, controller, print};

/// Flags of `turnfleet controller`; without a word it runs.
#[derive(Args, Debug)]
pub(crate) struct ControllerArgs {
    #[command(flatten)]
    service: ServiceArgs,
    #[command(subcommand)]
    action: Option<Action>,
}

/// What is done to the store that the configuration names.
#[derive(Debug, Subcommand)]
enum Action {
    /// Writes everything that the store holds, as of one moment, to a file; secrets stay sealed, and their key is not in it
    Backup {
        #[command(flatten)]
        service: ServiceArgs,
        /// The file; one that is there is replaced
        file: PathBuf,
    },
    /// Writes a backup into an empty store; the store's key file must be in its place
    Restore {
        #[command(flatten)]
        service: ServiceArgs,
        /// The file
        file: PathBuf,
        /// Deletes the fleet that the store holds
        #[arg(long)]
        replace: bool,
        /// Has relays that know more than the backup follow it at once; otherwise they keep what they have until `turnfleet fleet
        /// confirm-restore`
        #[arg(long)]
        new_epoch: bool,
    },
    /// Moves the embedded store to the etcd cluster that the configuration names
    Migrate {
        #[command(flatten)]
        service: ServiceArgs,
        /// The state folder with the embedded store [default: state_dir of the configuration]
        #[arg(long, value_name = "FOLDER")]
        from: Option<PathBuf>,
    },
}

/// Runs the controller, or does what is asked for.
///
/// # Errors
/// When that fails.
pub(crate) async fn run(args: ControllerArgs, log: LogArgs) -> anyhow::Result<()> {
    let outer = args.service;
    let Some(action) = args.action else {
        return controller::run(&outer, &log).await;
    };
    match action {
        Action::Backup { service, file } => {
            let report = maintenance::backup(&load(outer, service)?, &file).await?;
            print(&told(&format!("{} has", file.display()), &report))
        }
        Action::Restore {
            service,
            file,
            replace,
            new_epoch,
        } => {
            let options = RestoreOptions { replace, new_epoch };
            let report = maintenance::restore(&load(outer, service)?, &file, options).await?;
            let mut text = told(&format!("{} has", report.store), &report);
            text.push_str(if new_epoch {
                "every relay follows it as soon as controllers run: secrets that were revoked since are accepted again\n"
            } else {
                "relays that know more than it keep what they have until `turnfleet fleet confirm-restore`\n"
            });
            print(&text)
        }
        Action::Migrate { service, from } => {
            let report = maintenance::migrate(&load(outer, service)?, from.as_deref()).await?;
            let text = told(&format!("{} has", report.store), &report);
            print(&(text + "the embedded store is closed, and kept as it was\n"))
        }
    }
}

/// The configuration, whether its flags stand before the word or after it.
fn load(outer: ServiceArgs, inner: ServiceArgs) -> anyhow::Result<Config> {
    let file = inner.config.or(outer.config);
    let sets = [outer.set, inner.set].concat();
    config::load(file.as_deref(), &sets).context(WRONG)
}

fn told(what: &str, report: &Report) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let age = now.map_or(0, |now| now.as_secs().saturating_sub(report.made_at));
    let mut text = format!(
        "{what} {} entries, generation {}, {} old\nsha256 of its keys and values: ",
        report.entries,
        report.generation,
        in_words(Duration::from_secs(age)),
    );
    for byte in report.hash {
        // A String takes every text.
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\n');
    text
}

/// An age as a person says it.
fn in_words(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
