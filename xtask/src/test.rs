//! `cargo xtask test`: brings the tools that the tests drive onto this machine, then runs every test of the workspace.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process::{self, answers, cargo};
use crate::{node, python};

/// The Debian packages that tests need, each with a file by which to see that it is there.
const TOOLS: &[(&str, &str)] = &[
    ("bind9-dnsutils", "/usr/bin/dig"),
    ("buildah", "/usr/bin/buildah"),
    ("chromium", "/usr/bin/chromium"),
    ("chromium-driver", "/usr/bin/chromedriver"),
    ("cloud-init", "/usr/bin/cloud-init"),
    ("coturn", "/usr/bin/turnutils_uclient"),
    ("curl", "/usr/bin/curl"),
    ("dnsmasq-base", "/usr/sbin/dnsmasq"),
    ("etcd-client", "/usr/bin/etcdctl"),
    ("etcd-server", "/usr/bin/etcd"),
    ("faketime", "/usr/bin/faketime"),
    ("fish", "/usr/bin/fish"),
    ("haproxy", "/usr/sbin/haproxy"),
    ("iproute2", "/bin/ip"),
    ("nftables", "/usr/sbin/nft"),
    ("nginx", "/usr/sbin/nginx"),
    ("openssl", "/usr/bin/openssl"),
    ("podman", "/usr/bin/podman"),
    ("procps", "/bin/kill"),
    ("prometheus", "/usr/bin/prometheus"),
    (
        "prometheus-alertmanager",
        "/usr/bin/prometheus-alertmanager",
    ),
    ("prosody", "/usr/bin/prosody"),
    ("runc", "/usr/sbin/runc"),
    ("skopeo", "/usr/bin/skopeo"),
    ("strace", "/usr/bin/strace"),
    ("systemd", "/usr/bin/systemd-analyze"),
    ("umoci", "/usr/bin/umoci"),
    ("zsh", "/usr/bin/zsh"),
];

/// Set for the tests where every tool is there: a test whose tool is missing then fails instead of saying so.
const REQUIRE_TOOLS: &str = "TURNFLEET_REQUIRE_TOOLS";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Passed on to `cargo test`, such as `-p turnfleet-turn` or the name of a test.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let complete = install()?;
    let mut test = cargo();
    test.args(["test", "--workspace", "--no-fail-fast"])
        .args(&options.arguments);
    if complete {
        test.env(REQUIRE_TOOLS, "1");
    }
    process::run(&mut test)
}

/// Installs the missing tools as root, or prints the line that does; returns whether all are there.
fn install() -> Result<bool> {
    let absent = TOOLS.iter().filter(|(_, file)| !Path::new(file).exists());
    let mut missing: Vec<&str> = absent.map(|(package, _)| *package).collect();
    if !python::makes_environments() {
        missing.push("python3-venv");
    }
    if !node::is_there() {
        missing.push("npm");
    }
    if !missing.is_empty() {
        if !is_root() || !answers("apt-get", "--version") {
            explain(&missing);
            return Ok(false);
        }
        process::run(Command::new("apt-get").args(["update", "--quiet"]))?;
        process::run(
            Command::new("apt-get")
                .args(["install", "--yes", "--quiet", "--no-install-recommends"])
                .args(&missing)
                .env("DEBIAN_FRONTEND", "noninteractive"),
        )?;
    }
    python::install()?;
    node::install()?;
    Ok(is_root())
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

#[expect(
    clippy::print_stderr,
    reason = "the person at the terminal is told what to type"
)]
fn explain(missing: &[&str]) {
    eprintln!("Some tests need tools that are missing and will say so. To have them, run:");
    eprintln!(
        "  sudo apt-get install --no-install-recommends {}",
        missing.join(" ")
    );
}
