//! Whether the image is what it should be: its labels and files, and a fleet that runs from it and relays, as its own user on a root
//! that nobody can write to.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value as Json;

use super::Places;
use crate::process::{capture, run};

/// Everything that the image has.
const FILES: [&str; 5] = [
    "etc/passwd",
    "usr/local/bin/turnfleet",
    "usr/share/doc/turnfleet/LICENSE-APACHE",
    "usr/share/doc/turnfleet/LICENSE-MIT",
    "usr/share/sbom/turnfleet.cdx.json",
];
/// The user of the image, and its group.
const USER: u32 = 65532;
/// A program header that names the loader of shared libraries.
const PT_INTERP: usize = 3;
/// As little as the containers of a cluster may have, and what a machine without limits of its own needs to be told.
const CONFINED: [&str; 11] = [
    "--rm",
    "--runtime=runc",
    "--read-only",
    "--read-only-tmpfs=false",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--ulimit=nofile=1024:1024",
    "--ulimit=nproc=4096:4096",
    "--network=host",
    "--log-driver=none",
    "--pull=never",
];

/// Looks at the configuration and at each file.
pub(super) fn look(places: &Places) -> Result<()> {
    let image = places.image();
    let text = capture(Command::new("skopeo").args(["inspect", "--config", &image]))?;
    let told: Json = serde_json::from_str(&text)?;
    let config = &told["config"];
    ensure!(
        config["User"] == "65532:65532",
        "the image's user: {config}"
    );
    let entry = &config["Entrypoint"];
    ensure!(
        *entry == serde_json::json!(["/usr/local/bin/turnfleet"]),
        "{entry}"
    );
    for label in ["title", "description", "licenses", "version", "revision"] {
        let value = &config["Labels"][format!("org.opencontainers.image.{label}")];
        let is_there = value.as_str().is_some_and(|value| !value.is_empty());
        ensure!(is_there, "the label {label} is {value}");
    }
    let bundle = places.top.join("bundle");
    let _ = fs::remove_dir_all(&bundle);
    let path = image.trim_start_matches("oci:");
    run(Command::new("umoci")
        .args(["unpack", "--image", path])
        .arg(&bundle))?;
    let files = bundle.join("rootfs");
    let listed = capture(
        Command::new("find")
            .arg(&files)
            .args(["-type", "f", "-printf", "%P\\n"]),
    )?;
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    ensure!(listed == FILES, "the files of the image: {listed:?}");
    let command = fs::read(files.join("usr/local/bin/turnfleet"))?;
    ensure!(is_static(&command), "the command needs shared libraries");
    let sbom = fs::read_to_string(files.join("usr/share/sbom/turnfleet.cdx.json"))?;
    let sbom: Json = serde_json::from_str(&sbom)?;
    let components = sbom["components"].as_array().map_or(0, Vec::len);
    ensure!(
        components > 100,
        "the bill of materials has {components} components"
    );
    Ok(())
}

/// Whether an ELF file of 64 bits asks for no loader.
fn is_static(file: &[u8]) -> bool {
    let number = |at: usize, len: usize| {
        let bytes = file.get(at..at + len)?;
        bytes.iter().rev().try_fold(0_usize, |sum, byte| {
            sum.checked_mul(256)?.checked_add(usize::from(*byte))
        })
    };
    let headers = || {
        let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        (0..count)
            .map(|index| number(start + index * size, 4))
            .collect::<Option<Vec<usize>>>()
    };
    file.starts_with(b"\x7fELF\x02\x01")
        && headers().is_some_and(|kinds| !kinds.is_empty() && !kinds.contains(&PT_INTERP))
}

/// A container that is ended with the value.
struct Running<'a> {
    child: Child,
    places: &'a Places,
    name: String,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = podman(self.places).args(["kill", &self.name]).output();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a fleet from the image, and relays from one allocation to another by a second container.
pub(super) fn relay(places: &Places) -> Result<()> {
    let base = free_ports().context("no free ports")?;
    let ports = [
        ("--port", base.to_string()),
        ("--tls-port", (base + 10).to_string()),
        ("--metrics-port", (base + 20).to_string()),
        ("--http", format!("127.0.0.1:{}", base + 30)),
        ("--grpc", format!("127.0.0.1:{}", base + 31)),
        ("--relay-ports", format!("{}-{}", base + 40, base + 79)),
    ];
    // What a cluster's volume is: a folder of the image's user.
    let state = places.top.join("state");
    let _ = fs::remove_dir_all(&state);
    fs::create_dir_all(&state)?;
    std::os::unix::fs::chown(&state, Some(USER), Some(USER)).context("--check needs root")?;
    let volume = format!("--volume={}:/var/lib/turnfleet", state.display());
    let name = format!("turnfleet-image-check-{}", std::process::id());
    let mut command = podman(places);
    command
        .arg("run")
        .args(CONFINED)
        .args(["--name", &name, &volume]);
    command.arg(places.image()).args(["up", "--json"]);
    command.args([
        "--state-dir",
        "/var/lib/turnfleet/up",
        "--listen-ip",
        "127.0.0.1",
    ]);
    command.args(ports.iter().flat_map(|(flag, value)| [*flag, value]));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().context("its output is a pipe")?;
    let _fleet = Running {
        child,
        places,
        name,
    };
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    let ready: Json = serde_json::from_str(&line).context("the fleet in the image is not ready")?;
    let secret = ready["shared_secret"]
        .as_str()
        .context("no shared secret")?;
    let server = format!("turn:127.0.0.1:{base}?transport=udp");
    run(podman(places)
        .arg("run")
        .args(CONFINED)
        .env("TURNFLEET_SHARED_SECRET", secret)
        .args(["--env", "TURNFLEET_SHARED_SECRET"])
        .arg(places.image())
        .args([
            "bench",
            &server,
            "--allocations=2",
            "--rate=10",
            "--duration=2",
        ]))
}

/// podman with a storage of its own.
fn podman(places: &Places) -> Command {
    let mut command = Command::new("podman");
    command.args([
        "--storage-driver=vfs",
        "--cgroup-manager=cgroupfs",
        "--events-backend=none",
        "--root",
    ]);
    command.arg(places.top.join("podman"));
    command.arg("--runroot").arg(places.top.join("podman-run"));
    command
}

/// The first of eighty neighbouring ports that nothing has.
fn free_ports() -> Option<u16> {
    let free = |port: u16| {
        UdpSocket::bind(("127.0.0.1", port)).is_ok()
            && TcpListener::bind(("127.0.0.1", port)).is_ok()
    };
    (20_000..32_000)
        .step_by(80)
        .find(|base| (*base..base + 80).all(free))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_asks_for_a_loader_is_not_static() {
        let mut file = vec![0; 64 + 2 * 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[32] = 64;
        file[54] = 56;
        file[56] = 2;
        file[64] = 1;
        assert!(is_static(&file));
        file[64 + 56] = 3;
        assert!(!is_static(&file));
        assert!(!is_static(b"#!/bin/sh") && !is_static(&file[..70]));
    }
}
