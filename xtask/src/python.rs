//! The Python packages that tests drive, in environments of their own below `target/`: what a folder of tests names in its
//! `requirements.txt`, installed anew when that file changes.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::process::{root, run};

/// Each environment, below `target/` as its tests know it, and the file that says what is in it.
const ENVIRONMENTS: &[(&str, &str)] = &[
    ("chart", "tests/chart/requirements.txt"),
    ("python", "tests/interop/requirements.txt"),
    ("terraform", "tests/terraform/requirements.txt"),
];

/// Whether there is a Python that makes environments: Debian keeps that part in a package of its own.
pub(crate) fn makes_environments() -> bool {
    Command::new("python3")
        .args(["-c", "import ensurepip, venv"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Makes the environments and installs into them.
///
/// # Errors
/// When Python has no `venv`, or a package cannot be had.
pub(crate) fn install() -> Result<()> {
    for (name, requirements) in ENVIRONMENTS {
        install_one(
            &root().join("target").join(name),
            &root().join(requirements),
        )?;
    }
    Ok(())
}

/// A copy of the requirements in the environment tells what stands in it.
fn install_one(environment: &Path, requirements: &Path) -> Result<()> {
    let wanted = fs::read(requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let stamp = environment.join("requirements.txt");
    if fs::read(&stamp).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(environment))?;
    run(Command::new(environment.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(requirements))?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}
