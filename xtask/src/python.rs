//! The Python packages that tests drive, in an environment of their own below `target/`: what `tests/interop/requirements.txt`
//! names, installed anew when that file changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

/// Whether there is a Python that makes environments: Debian keeps that part in a package of its own.
pub(crate) fn makes_environments() -> bool {
    Command::new("python3")
        .args(["-c", "import ensurepip, venv"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
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
    let wanted = wanted()?;
    if fs::read(stamp()).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    let environment = environment();
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&environment))?;
    run(Command::new(environment.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(Path::new(REQUIREMENTS)))?;
    fs::write(stamp(), wanted).with_context(|| format!("cannot write {}", stamp().display()))
}
