//! The project's chores: `cargo xtask test` installs what the tests need and runs them all, `cargo xtask lint` checks
//! format, lints and the dependency policy, `cargo xtask fuzz` runs each fuzz target for a while, `cargo xtask mutants` sees
//! whether the conformance suite notices a broken core, `cargo xtask versus` measures Turnfleet beside other servers, `cargo xtask image`
//! makes the image.
//!
//! Nothing here decides what a test means; each chore is a short list of commands, shown before they run.

mod fuzz;
mod image;
mod lint;
mod mutants;
mod node;
mod process;
mod python;
mod test;
mod versus;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(about = "The project's chores")]
enum Chore {
    /// Installs what the tests need (as root; otherwise prints the line that does) and runs every test.
    Test(test::Options),
    /// Checks format, lints and the dependency policy.
    Lint,
    /// Runs each fuzz target (needs a nightly toolchain and cargo-fuzz).
    Fuzz(fuzz::Options),
    /// Breaks the TURN core in one line at a time, and sees whether the conformance suite notices.
    Mutants(mutants::Options),
    /// Builds the image of relays and controllers without a daemon, and tries it (needs buildah, skopeo, umoci, podman, runc).
    Image(image::Options),
    /// Measures Turnfleet beside coturn and a plain forwarder in network namespaces (root; needs coturn, iproute2, ethtool).
    Versus(versus::Options),
}

#[expect(
    clippy::print_stderr,
    reason = "the person at the terminal is told what failed"
)]
fn main() -> ExitCode {
    let outcome = match Chore::parse() {
        Chore::Test(options) => test::run(&options),
        Chore::Lint => lint::run_all(),
        Chore::Fuzz(options) => fuzz::run_all(&options),
        Chore::Mutants(options) => mutants::run_all(&options),
        Chore::Image(options) => image::run_all(&options),
        Chore::Versus(options) => versus::run_all(&options),
    };
    if let Err(error) = outcome {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
