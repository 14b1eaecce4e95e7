//! The packages of npm that tests look at pages with, below `target/`: what a folder of tests has pinned in its
//! `package-lock.json`, installed anew when that file changes. No script of a package runs.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{answers, root, run};

/// The folder below `target/` as its tests know it, and the folder with the manifest and the lock.
const PACKAGES: &[(&str, &str)] = &[("node", "tests/dashboard")];

/// What npm reads.
const FILES: [&str; 2] = ["package.json", "package-lock.json"];
/// Written last: what was installed.
const STAMP: &str = "installed.json";

/// Whether there is an npm.
pub(crate) fn is_there() -> bool {
    answers("npm", "--version")
}

/// Installs the packages.
///
/// # Errors
/// When a package cannot be had, or is not the one that the lock names.
pub(crate) fn install() -> Result<()> {
    for (name, manifest) in PACKAGES {
        install_one(&root().join("target").join(name), &root().join(manifest))?;
    }
    Ok(())
}

fn install_one(place: &Path, manifest: &Path) -> Result<()> {
    let lock = manifest.join("package-lock.json");
    let wanted = fs::read(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    let stamp = place.join(STAMP);
    if fs::read(&stamp).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    fs::create_dir_all(place).with_context(|| format!("cannot make {}", place.display()))?;
    for file in FILES {
        let copied = fs::copy(manifest.join(file), place.join(file));
        copied.with_context(|| format!("cannot copy {file} to {}", place.display()))?;
    }
    run(Command::new("npm")
        .args([
            "ci",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--prefix",
        ])
        .arg(place))?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}
