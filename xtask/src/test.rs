//! `cargo xtask test`: brings the tools that the tests drive onto this machine, then runs every test of the workspace.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process::{self, answers, cargo};
use crate::python;

/// A Debian package that tests need, and a file by which to see that it is there.
struct Tool {
    package: &'static str,
    file: &'static str,
}

const TOOLS: [Tool; 16] = [
    Tool {
        package: "etcd-server",
        file: "/usr/bin/etcd",
    },
    Tool {
        package: "etcd-client",
        file: "/usr/bin/etcdctl",
    },
    Tool {
        package: "strace",
        file: "/usr/bin/strace",
    },
    Tool {
        package: "coturn",
        file: "/usr/bin/turnutils_uclient",
    },
    Tool {
        package: "chromium",
        file: "/usr/bin/chromium",
    },
    Tool {
        package: "chromium-driver",
        file: "/usr/bin/chromedriver",
    },
    Tool {
        package: "haproxy",
        file: "/usr/sbin/haproxy",
    },
    Tool {
        package: "nginx",
        file: "/usr/sbin/nginx",
    },
    Tool {
        package: "prosody",
        file: "/usr/bin/prosody",
    },
    Tool {
        package: "dnsmasq-base",
        file: "/usr/sbin/dnsmasq",
    },
    Tool {
        package: "bind9-dnsutils",
        file: "/usr/bin/dig",
    },
    Tool {
        package: "openssl",
        file: "/usr/bin/openssl",
    },
    Tool {
        package: "curl",
        file: "/usr/bin/curl",
    },
    Tool {
        package: "iproute2",
        file: "/bin/ip",
    },
    Tool {
        package: "faketime",
        file: "/usr/bin/faketime",
    },
    Tool {
        package: "nftables",
        file: "/usr/sbin/nft",
    },
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
    let absent = TOOLS.iter().filter(|tool| !Path::new(tool.file).exists());
    let mut missing: Vec<&str> = absent.map(|tool| tool.package).collect();
    if !python::makes_environments() {
        missing.push("python3-venv");
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
