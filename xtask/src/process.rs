//! Runs one command with its output in sight, and says which one failed.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// The top folder of the workspace, where every command runs.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace's top folder")
}

/// `cargo`, by the path of the one that started this program.
pub(crate) fn cargo() -> Command {
    Command::new(env!("CARGO"))
}

/// Runs `command` in the top folder, showing it first.
///
/// # Errors
/// When it cannot be started or does not succeed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    announce(&shown);
    let status = command
        .current_dir(root())
        .status()
        .with_context(|| format!("cannot start: {shown}"))?;
    ensure!(status.success(), "{status}: {shown}");
    Ok(())
}

/// Runs `command` in the top folder, showing it first, and returns what it prints.
///
/// # Errors
/// When it cannot be started, does not succeed, or prints no text.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let shown = show(command);
    announce(&shown);
    let output = command
        .current_dir(root())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start: {shown}"))?;
    ensure!(output.status.success(), "{}: {shown}", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("no text: {shown}"))
}

/// Whether `program` answers to `argument` with success.
pub(crate) fn answers(program: &str, argument: &str) -> bool {
    Command::new(program)
        .arg(argument)
        .current_dir(root())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[expect(clippy::print_stderr, reason = "a chore shows what it runs")]
fn announce(line: &str) {
    eprintln!("+ {line}");
}

fn show(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
