//! `cargo xtask lint`: format, lints and the dependency policy of `.deny.toml`.

use anyhow::Result;

use crate::process::{answers, cargo, run};

/// The version of cargo-deny that `.deny.toml` is written for.
const CARGO_DENY: &str = "0.20.2";

pub(crate) fn run_all() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ]))?;
    if !answers("cargo-deny", "--version") {
        // Unoptimised, it takes seconds more to run and minutes less to build.
        run(cargo().args([
            "install",
            "cargo-deny",
            "--debug",
            "--locked",
            "--version",
            CARGO_DENY,
        ]))?;
    }
    run(cargo().args([
        "deny",
        "--offline",
        "--config",
        ".deny.toml",
        "check",
        "bans",
        "licenses",
        "sources",
    ]))
}
