//! `cargo xtask fuzz`: every fuzz target of `relay/fuzz` for a while, one after the other. What it finds worth keeping
//! stays in `corpus/`, beside the committed `seeds/`.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::{answers, cargo, root, run};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The targets to run: all of them where none is named.
    targets: Vec<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 300)]
    seconds: u32,
}

pub(crate) fn run_all(options: &Options) -> Result<()> {
    if !answers("cargo-fuzz", "--version") {
        run(cargo().args(["install", "cargo-fuzz", "--locked"]))?;
    }
    let targets = root().join("relay/fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in targets
        .read_dir()
        .with_context(|| format!("cannot read {}", targets.display()))?
    {
        if let Some(name) = entry?.path().file_stem() {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    if let Some(unknown) = options.targets.iter().find(|name| !names.contains(name)) {
        bail!(
            "there is no fuzz target {unknown}: expected one of {}",
            names.join(", ")
        );
    }
    names.retain(|name| options.targets.is_empty() || options.targets.contains(name));
    for name in names {
        let limit = format!("-max_total_time={}", options.seconds);
        let corpus = root().join("relay/fuzz/corpus").join(&name);
        let seeds = root().join("relay/fuzz/seeds").join(&name);
        std::fs::create_dir_all(&corpus)
            .with_context(|| format!("cannot make {}", corpus.display()))?;
        run(Command::new("rustup")
            .args(["run", "nightly", "cargo", "fuzz", "run"])
            .args(["--fuzz-dir", "relay/fuzz"])
            .arg(&name)
            .args([&corpus, &seeds])
            .args(["--", &limit]))?;
    }
    Ok(())
}
