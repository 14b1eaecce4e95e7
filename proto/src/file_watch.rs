//! Looks at files again and again, and says when they have changed.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// How often the files are looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What tells one state of some files from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStates(Vec<Option<FileState>>);

impl FileStates {
    /// The files as they are. Taken before they are read, so that a replacement in the meantime is one that is still to be seen.
    pub fn of<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> Self {
        let states = files.into_iter().map(|file| FileState::of(file.as_ref()));
        Self(states.map(Result::ok).collect())
    }
}

/// Tells of changed files until it is dropped.
#[derive(Debug)]
pub struct FileWatcher {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl FileWatcher {
    /// Looks every second, from a thread of its own, whether `files` are in another state than `seen`, and calls `changed` then.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn start(
        files: Vec<PathBuf>,
        mut seen: FileStates,
        mut changed: impl FnMut() + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let look = move || {
            while stopped.recv_timeout(POLL_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let found = FileStates::of(&files);
                if found != seen {
                    seen = found;
                    changed();
                }
            }
        };
        let thread = thread::Builder::new()
            .name("files".to_owned())
            .spawn(look)?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for FileWatcher {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in the thread has been printed; there is nothing left to clean up after it.
            let _ = thread.join();
        }
    }
}

/// The state of one file, following links: a mounted secret is replaced by moving a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileState {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileState {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}
