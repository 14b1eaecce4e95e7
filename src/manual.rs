//! The manual: a page in the form of `man` for each command, made from the command line itself.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;

use crate::cli::Cli;

/// Writes `turnfleet.1`, `turnfleet-up.1` and so on into `folder`.
///
/// # Errors
/// When the folder cannot be written.
pub(crate) fn write(folder: &Path) -> anyhow::Result<()> {
    let cannot = || format!("cannot write the manual to {} (--output)", folder.display());
    fs::create_dir_all(folder).with_context(cannot)?;
    clap_mangen::generate_to(Cli::command(), folder).with_context(cannot)
}
