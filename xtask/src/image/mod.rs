//! `cargo xtask image`: one image for relays and controllers, from a command that needs no file of its image but itself.
//!
//! buildah makes it of the second stage of `xtask/image/Dockerfile`, without a daemon and without a registry; what that stage
//! copies is laid out here. `--check` looks at what came out, runs it, and relays through it.

mod check;
mod sbom;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value as Json;

use crate::process::{capture, cargo, root, run};

/// Where it is found by the command, and the name of the command.
const COMMAND: &str = "turnfleet";
/// What the programs that make, copy, unpack and run images are, each with the argument that it answers to.
const TOOLS: [&str; 5] = ["buildah", "skopeo", "umoci", "podman", "runc"];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Builds as the tests are built, which takes a minute after them; unpacks the image, runs it, and relays through it (root).
    #[arg(long)]
    check: bool,
    /// Lays the files of the image out in a folder, and makes no image: what the Dockerfile asks for.
    #[arg(long, value_name = "FOLDER", conflicts_with = "check")]
    files: Option<PathBuf>,
}

/// The places of one build, below `target/image`.
struct Places {
    top: PathBuf,
}

impl Places {
    fn files(&self) -> PathBuf {
        self.top.join("context/files")
    }

    /// The image as tools name it: a layout of files, and a tag in it.
    fn image(&self) -> String {
        format!("oci:{}:latest", self.top.join("oci").display())
    }
}

/// Builds the image, and with `--check` tries it.
///
/// # Errors
/// When a tool is missing, or the image is not what it should be.
pub(crate) fn run_all(options: &Options) -> Result<()> {
    if let Some(folder) = &options.files {
        return lay_out(&build(false)?, folder);
    }
    let missing = TOOLS.iter().filter(|tool| find(tool).is_none());
    let missing: Vec<&str> = missing.copied().collect();
    if !missing.is_empty() {
        let tools = TOOLS.join(" ");
        bail!(
            "{} cannot be found: apt-get install --no-install-recommends {tools}",
            missing.join(", ")
        );
    }
    let places = Places {
        top: root().join("target/image"),
    };
    let _ = fs::remove_dir_all(places.files());
    lay_out(&build(options.check)?, &places.files())?;
    pack(&places)?;
    if options.check {
        check::look(&places)?;
        check::relay(&places)?;
    }
    tell(&format!("{}: {}", places.image(), size(&places)?));
    Ok(())
}

/// The folder of `PATH` and of root's own places that has `tool`.
fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = [PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
    let mut folders = std::env::split_paths(&path).chain(more);
    folders.find(|folder| folder.join(tool).is_file())
}

/// Builds the command without shared libraries: for people, or as tests are built.
fn build(as_tests: bool) -> Result<PathBuf> {
    let mut build = cargo();
    if as_tests {
        // The same packages and features as `cargo test --workspace` has, so that only the command itself is compiled again.
        build.args(["test", "--workspace", "--no-run", "--test", "cli"]);
    } else {
        build.args(["build", "--release", "--bin", COMMAND]);
    }
    build
        .args(["--locked", "--features", "turnfleet/static"])
        .arg("--message-format=json-render-diagnostics")
        .env("RUSTC_WRAPPER", root().join("xtask/image/static-rustc"));
    let messages = capture(&mut build)?;
    let mut made = messages.lines().filter_map(|line| {
        let message: Json = serde_json::from_str(line).ok()?;
        let is_it = message["target"]["name"] == COMMAND && message["target"]["kind"][0] == "bin";
        let path = message["executable"].as_str().filter(|_| is_it)?;
        Some(PathBuf::from(path))
    });
    made.next_back().context("cargo has built no command")
}

/// Puts into `folder` what the Dockerfile copies: `root`, and `state` for the command's own user.
fn lay_out(command: &Path, folder: &Path) -> Result<()> {
    let top = folder.join("root");
    let place = |name: &str, from: Source<'_>, mode: u32| -> Result<()> {
        let to = top.join(name);
        let parent = to.parent().context("a file lies in a folder")?;
        fs::create_dir_all(parent)?;
        match from {
            Source::File(from) => {
                fs::copy(from, &to)?;
            }
            Source::Text(text) => fs::write(&to, text)?,
        }
        fs::set_permissions(&to, fs::Permissions::from_mode(mode))?;
        Ok(())
    };
    place("usr/local/bin/turnfleet", Source::File(command), 0o755)?;
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        let from = root().join(licence);
        let to = format!("usr/share/doc/turnfleet/{licence}");
        place(&to, Source::File(&from), 0o644)?;
    }
    let sbom = serde_json::to_string_pretty(&sbom::make()?)?;
    place(
        "usr/share/sbom/turnfleet.cdx.json",
        Source::Text(&sbom),
        0o644,
    )?;
    let user = "turnfleet:x:65532:65532:Turnfleet:/var/lib/turnfleet:/\n";
    place("etc/passwd", Source::Text(user), 0o644)?;
    // The folder above the state is root's.
    fs::create_dir_all(top.join("var/lib"))?;
    let state = folder.join("state/turnfleet");
    fs::create_dir_all(&state)?;
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700))?;
    Ok(())
}

/// What a file of the image is made of.
enum Source<'a> {
    File(&'a Path),
    Text(&'a str),
}

/// Has buildah make the image of the last stage of the Dockerfile.
fn pack(places: &Places) -> Result<()> {
    let dockerfile = fs::read_to_string(root().join("xtask/image/Dockerfile"))?;
    let stage = dockerfile.find("FROM scratch");
    let stage = &dockerfile[stage.context("xtask/image/Dockerfile has no stage from scratch")?..];
    let recipe = places.top.join("Containerfile");
    fs::write(&recipe, stage.replace("--from=build ", ""))?;
    let _ = fs::remove_dir_all(places.top.join("oci"));
    let revision = capture(Command::new("git").args(["rev-parse", "HEAD"])).unwrap_or_default();
    run(buildah(places)
        .args([
            "build",
            "--isolation",
            "chroot",
            "--pull-never",
            "--timestamp",
            "0",
        ])
        .args([
            "--build-arg",
            concat!("VERSION=", env!("CARGO_PKG_VERSION")),
        ])
        .args(["--build-arg", &format!("REVISION={}", revision.trim())])
        .arg("--file")
        .arg(&recipe)
        .args(["--tag", &places.image()])
        .arg(places.top.join("context")))
}

/// buildah with a storage of its own, which needs nothing of the machine.
fn buildah(places: &Places) -> Command {
    let mut command = Command::new("buildah");
    command.args(["--storage-driver", "vfs", "--root"]);
    command.arg(places.top.join("buildah"));
    command.arg("--runroot").arg(places.top.join("buildah-run"));
    command
}

/// What the image takes, and the command in it.
fn size(places: &Places) -> Result<String> {
    let command = fs::metadata(places.files().join("root/usr/local/bin/turnfleet"))?.len();
    let text = capture(Command::new("skopeo").args(["inspect", "--raw", &places.image()]))?;
    let told: Json = serde_json::from_str(&text)?;
    let layers = told["layers"].as_array().into_iter().flatten();
    let all: u64 = layers.filter_map(|layer| layer["size"].as_u64()).sum();
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    let (command, all) = (mebibytes(command), mebibytes(all));
    Ok(format!("{all} MiB, of which the command is {command} MiB"))
}

#[expect(clippy::print_stderr, reason = "a chore tells what it has made")]
fn tell(line: &str) {
    eprintln!("{line}");
}
