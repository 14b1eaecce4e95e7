//! A copy of `terraform/` to work in, and Terraform to work with.
//!
//! Terraform comes as a library of a Python package, the provider of AWS in another one; nothing is fetched. It owns the
//! copy, which is removed with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

use crate::tools;

/// What the Python of `cargo xtask test` is called.
pub(crate) const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/terraform/bin/python");
/// The repository.
pub(crate) const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A script beside this file.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(ROOT).join("tests/terraform").join(name)
}

/// A copy of `terraform/`.
pub(crate) struct Workshop {
    folder: tempfile::TempDir,
    rc: PathBuf,
}

impl Workshop {
    /// None, said to the person who runs the tests, where there is no Python with Terraform in it.
    pub(crate) fn new() -> Option<Self> {
        if !tools::present(&[PYTHON]) {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        copy(&Path::new(ROOT).join("terraform"), folder.path());
        Some(Self {
            folder,
            rc: mirror().join("terraform.rc"),
        })
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// Copies a folder of this test into the copy.
    pub(crate) fn bring(&self, name: &str) {
        copy(&script(name), &self.path(name));
    }

    /// Runs Terraform in the folder `below`.
    pub(crate) fn try_terraform(&self, below: &str, arguments: &[&str]) -> Output {
        Command::new(PYTHON)
            .arg(script("terraform.py"))
            .args(arguments)
            .current_dir(self.path(below))
            .env("TF_CLI_CONFIG_FILE", &self.rc)
            .env("TF_IN_AUTOMATION", "1")
            .env("NO_COLOR", "1")
            .output()
            .unwrap()
    }

    /// As [`Self::try_terraform`], where it has to succeed; what it prints.
    #[track_caller]
    pub(crate) fn terraform(&self, below: &str, arguments: &[&str]) -> String {
        let output = self.try_terraform(below, arguments);
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "terraform {arguments:?} in {below}:\n{out}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        out
    }

    /// The outputs of what was applied in the folder `below`.
    #[track_caller]
    pub(crate) fn outputs(&self, below: &str) -> Value {
        let text = self.terraform(below, &["output", "-json"]);
        let values: Value = serde_json::from_str(&text).unwrap();
        let values = values.as_object().unwrap().iter();
        values
            .map(|(name, output)| (name.clone(), output["value"].clone()))
            .collect()
    }
}

/// The mirror with the provider, unpacked once and kept: it is large.
fn mirror() -> &'static Path {
    static MIRROR: OnceLock<PathBuf> = OnceLock::new();
    MIRROR.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("terraform-providers-3.39.0");
        if !folder.join("terraform.rc").exists() {
            let mut command = Command::new(PYTHON);
            command
                .arg(script("terraform.py"))
                .arg("mirror")
                .arg(&folder);
            succeed(&mut command);
        }
        folder
    })
}

/// Runs what has to succeed; what it prints.
#[track_caller]
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}:\n{out}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    out
}

/// Copies what is in `from` into `to`, but for what Terraform leaves behind.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        let target = to.join(name);
        if name.to_str().unwrap().starts_with(".terraform") {
            continue;
        }
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// The folders of modules and examples, below `terraform/`.
pub(crate) fn configurations() -> Vec<String> {
    let mut found = Vec::new();
    for kind in ["modules", "examples"] {
        for entry in fs::read_dir(Path::new(ROOT).join("terraform").join(kind)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            found.push(format!("{kind}/{name}"));
        }
    }
    found.sort();
    found
}
