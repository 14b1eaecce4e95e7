//! The units of systemd, the installer and the scripts: what systemd and shellcheck find in them, and what the installer puts where.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::netns::{self, Namespace};
use crate::tools;
use crate::workshop::{ROOT, succeed};

const SHELLCHECK: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/target/terraform/bin/shellcheck"
);
const ANALYZE: &str = "/usr/bin/systemd-analyze";

fn terraform(below: &str) -> PathBuf {
    Path::new(ROOT).join("terraform").join(below)
}

/// The files below `folder` whose names end in `suffix`.
fn files(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, suffix));
        } else if path.to_str().unwrap().ends_with(suffix) {
            found.push(path);
        }
    }
    found
}

#[test]
fn shellcheck_finds_nothing_in_the_scripts() {
    if !tools::present(&[SHELLCHECK]) {
        return;
    }
    let scripts = files(&terraform("."), ".sh");
    assert!(scripts.len() > 4, "{scripts:?}");
    let mut command = Command::new(SHELLCHECK);
    command.args(["-x", "-P", "SCRIPTDIR"]).args(scripts);
    succeed(&mut command);
}

/// Installs below a folder, as for an image.
fn install(root: &Path, arguments: &[&str]) {
    let mut command = Command::new(terraform("systemd/install.sh"));
    command
        .args(arguments)
        .arg("--root")
        .arg(root)
        .arg(env!("CARGO_BIN_EXE_turnfleet"));
    succeed(&mut command);
}

#[test]
fn the_installer_puts_everything_in_its_place_and_keeps_a_configuration() {
    let root = tempfile::tempdir().unwrap();
    install(root.path(), &["--low-ports"]);
    let binary = root.path().join("usr/local/bin/turnfleet");
    assert_eq!(
        fs::metadata(&binary).unwrap().permissions().mode() & 0o777,
        0o755
    );
    let config = root.path().join("etc/turnfleet/turnfleet.toml");
    succeed(
        Command::new(&binary)
            .args(["check-config", "up", "--config"])
            .arg(&config),
    );
    for file in [
        "etc/sysctl.d/60-turnfleet.conf",
        "etc/systemd/system/turnfleet.service",
        "etc/systemd/system/turnfleet.service.d/low-ports.conf",
    ] {
        assert!(root.path().join(file).exists(), "{file}");
    }
    fs::write(&config, "relays = 2\n").unwrap();
    install(root.path(), &[]);
    assert_eq!(fs::read_to_string(&config).unwrap(), "relays = 2\n");

    let wrong = Command::new(terraform("systemd/install.sh"))
        .args(["--service", "relais", "/bin/true"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(
        !wrong.status.success() && said.contains("up, relay or controller was expected"),
        "{said}"
    );
}

/// Copies the units beside a binary that is there, so that systemd finds no fault in what a test cannot install.
fn units(folder: &Path) -> Vec<PathBuf> {
    let sources = files(&terraform("."), ".service")
        .into_iter()
        .chain(files(&terraform("."), ".timer"));
    sources
        .map(|source| {
            let text = fs::read_to_string(&source).unwrap();
            let text = [
                "/usr/local/bin/turnfleet",
                "/usr/local/lib/turnfleet/secrets.sh",
                "/usr/local/lib/turnfleet/termination.sh",
                "/usr/bin/etcd",
                "/usr/sbin/nft",
            ]
            .iter()
            .fold(text, |text, program| {
                text.replace(&format!("={program}"), "=/bin/true")
            });
            let unit = folder.join(source.file_name().unwrap());
            fs::write(&unit, text).unwrap();
            unit
        })
        .collect()
}

#[test]
fn systemd_understands_every_unit_and_finds_them_confined() {
    if !tools::present(&[ANALYZE]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let units = units(folder.path());
    assert!(units.len() >= 9, "{units:?}");
    let output = Command::new(ANALYZE)
        .args(["verify", "--man=no", "--generators=no"])
        .args(&units)
        .env("SYSTEMD_UNIT_PATH", format!("{}:", folder.path().display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");

    let confined = |name: &str| {
        let unit = folder.path().join(name);
        let mut command = Command::new(ANALYZE);
        command
            .args(["security", "--no-pager", "--offline=true", "--threshold=20"])
            .arg(unit);
        succeed(&mut command);
    };
    for name in ["turnfleet", "turnfleet-relay", "turnfleet-controller"] {
        confined(&format!("{name}.service"));
    }
}

/// The names of system calls that a filter of systemd lets through, sets within sets included.
fn filter(set: &str) -> BTreeSet<String> {
    let listed = succeed(Command::new(ANALYZE).args(["syscall-filter", "--no-pager", set]));
    let names = listed.lines().skip(1).map(str::trim);
    names
        .filter(|name| !name.starts_with('#') && !name.is_empty())
        .flat_map(|name| {
            if name.starts_with('@') {
                filter(name)
            } else {
                BTreeSet::from([name.to_owned()])
            }
        })
        .collect()
}

#[test]
fn the_units_filter_lets_every_system_call_of_a_fleet_through() {
    if !tools::present(&[ANALYZE, "/usr/bin/strace"])
        || !tools::present(&netns::PROGRAMS)
        || !tools::is_root()
    {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let trace = state.path().join("trace");
    // With -D the fleet is this process's own child, and the tracer its grandchild.
    let host = Namespace::new("host");
    let mut child = host
        .command("/usr/bin/strace")
        .args(["-D", "-f", "-q", "-e", "signal=none", "-o"])
        .arg(&trace)
        .arg(env!("CARGO_BIN_EXE_turnfleet"))
        .args(["up", "--json", "--relays", "1", "--state-dir"])
        .arg(state.path().join("state"))
        .stdout(Stdio::piped())
        .stderr(File::create(state.path().join("log")).unwrap())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut ready).unwrap();
    succeed(Command::new("/bin/kill").arg(child.id().to_string()));
    child.wait().unwrap();
    let log = fs::read_to_string(state.path().join("log")).unwrap();
    assert!(ready.contains("\"ready\":true"), "{ready:?}\n{log}");
    let process = child.id().to_string();
    // Short numbers of processes are padded with spaces.
    let ends = |line: &str| {
        let mut words = line.split_whitespace();
        words.next() == Some(process.as_str()) && words.next() == Some("+++")
    };
    let text = tools::eventually("the trace ends", Duration::from_secs(20), || {
        let text = fs::read_to_string(&trace).unwrap_or_default();
        text.lines().any(ends).then_some(text)
    });

    let allowed = filter("@system-service");
    let made = text.lines().filter_map(|line| {
        let call = line.split_whitespace().nth(1)?.split('(').next()?;
        line.contains('(').then(|| call.to_owned())
    });
    let made: BTreeSet<String> = made
        .filter(|call| {
            call.chars().all(|letter| {
                letter.is_ascii_lowercase() || letter == '_' || letter.is_ascii_digit()
            })
        })
        .collect();
    assert!(made.len() > 20, "{made:?}");
    let refused: Vec<&String> = made.difference(&allowed).collect();
    assert!(
        refused.is_empty(),
        "the units' filter would refuse {refused:?}"
    );
}
