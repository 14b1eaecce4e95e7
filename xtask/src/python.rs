//! The Python packages that tests drive, in an environment of their own below `target/`: what `tests/interop/requirements.txt`
//! names, installed anew when that file changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{root, run};

/// What is to be installed.
const REQUIREMENTS: &str = "tests/interop/requirements.txt";

/// Where it is, as the tests know it.
fn environment() -> PathBuf {
    root().join("target/python")
}

/// What stands in the environment.
fn stamp() -> PathBuf {
    environment().join("requirements.txt")
}

/// Whether everything is there.
///
/// # Errors
/// When the list of packages cannot be read.
pub(crate) fn is_there() -> Result<bool> {
    Ok(fs::read(stamp()).is_ok_and(|there| Some(there) == wanted().ok()))
}

fn wanted() -> Result<Vec<u8>> {
    let path = root().join(REQUIREMENTS);
    fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Makes the environment and installs into it.
///
/// # Errors
/// When Python has no `venv`, or a package cannot be had.
pub(crate) fn install() -> Result<()> {
    if is_there()? {
        return Ok(());
    }
    let environment = environment();
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&environment))?;
    run(Command::new(environment.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(Path::new(REQUIREMENTS)))?;
    fs::write(stamp(), wanted()?).with_context(|| format!("cannot write {}", stamp().display()))
}
