//! When a service shall read its configuration again (at SIGHUP, and when the file has changed), and what came of it.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// What tells one state of a file from another.
type Stamp = (SystemTime, u64);

/// The reasons to read a configuration again.
#[derive(Debug)]
pub(crate) struct Reloads {
    hangup: Signal,
    file: Option<PathBuf>,
    read: Option<Stamp>,
    /// What was seen last: a file that is being written is left alone until it rests.
    seen: Option<Stamp>,
    look: Interval,
}

impl Reloads {
    /// Takes SIGHUP over from its default action, which ends the process, and watches `file`, which has just been read.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub(crate) fn listen(file: Option<&Path>) -> anyhow::Result<Self> {
        let hangup = signal(SignalKind::hangup()).context("cannot listen for signals")?;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let read = file.and_then(stamp);
        Ok(Self {
            hangup,
            file: file.map(Path::to_owned),
            read,
            seen: read,
            look,
        })
    }

    /// Waits until the configuration shall be read again, and says why. May be dropped at any point.
    pub(crate) async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.hangup.recv() => {
                    self.read = self.file.as_deref().and_then(stamp);
                    return "SIGHUP";
                }
                _ = self.look.tick(), if self.file.is_some() => {
                    if self.has_changed() {
                        return "the file has changed";
                    }
                }
            }
        }
    }

    fn has_changed(&mut self) -> bool {
        let now = self.file.as_deref().and_then(stamp);
        let rests = now == self.seen;
        self.seen = now;
        // A file that is gone is about to be replaced.
        let changed = rests && now.is_some() && now != self.read;
        if changed {
            self.read = now;
        }
        changed
    }
}

/// Logs what became of a configuration that was read again.
pub(crate) fn tell(why: &str, outcome: anyhow::Result<()>) {
    match outcome {
        Ok(()) => tracing::info!(why, "configuration read again"),
        Err(error) => tracing::error!(
            why,
            error = crate::causes(&error),
            "the configuration is not taken over; the one before stays"
        ),
    }
}

fn stamp(file: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_rests_after_a_change_is_read_again_once() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("relay.toml");
        std::fs::write(&file, "a = 1").unwrap();
        let mut reloads = Reloads::listen(Some(&file)).unwrap();
        assert!(!reloads.has_changed());
        std::fs::write(&file, "a = 12").unwrap();
        assert!(!reloads.has_changed(), "it may still be written");
        assert!(reloads.has_changed());
        assert!(!reloads.has_changed());
        std::fs::remove_file(&file).unwrap();
        assert!(!reloads.has_changed() && !reloads.has_changed());
    }
}
