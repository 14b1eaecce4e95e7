//! Whether the programs that a test drives are on this machine, and waiting for conditions.

use std::path::Path;
use std::time::{Duration, Instant};

/// Whether all of `files` exist; says which do not, and panics where tools are required.
#[track_caller]
pub(crate) fn present(files: &[&str]) -> bool {
    let missing: Vec<_> = files
        .iter()
        .filter(|file| !Path::new(file).exists())
        .collect();
    if missing.is_empty() {
        return true;
    }
    complain(&format!(
        "missing: {missing:?}; `cargo xtask test` as root installs what the tests need"
    ));
    false
}

/// Whether this process may make network namespaces; says so where not, and panics where tools are required.
#[track_caller]
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let root = std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0);
    if !root {
        complain("network namespaces need root");
    }
    root
}

#[track_caller]
fn complain(what: &str) {
    assert!(
        std::env::var_os("TURNFLEET_REQUIRE_TOOLS").is_none(),
        "{what}"
    );
    tell(&format!("not run: {what}"));
}

/// Says something to the person who runs the tests.
#[expect(
    clippy::print_stderr,
    reason = "a person shall see what did not run, and why what ran has failed"
)]
pub(crate) fn tell(words: &str) {
    eprintln!("{words}");
}

/// Calls `attempt` until it gives a value, letting other threads run in between.
#[track_caller]
pub(crate) fn eventually<T>(
    what: &str,
    limit: Duration,
    mut attempt: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
