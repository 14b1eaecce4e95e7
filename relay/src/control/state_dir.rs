//! The folder that outlives the process: files for the owner alone, replaced whole or not at all, used by one process.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use turnfleet_proto::private_file;

/// Held while the process lives: a second node with the same name and ports would take this one's calls apart.
const LOCK: &str = "lock";

/// The state folder of one node.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    _lock: File,
}

/// Why the state folder is of no use.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {} (state_dir)", path.display())]
pub(crate) struct StateDirError {
    pub(crate) path: PathBuf,
    #[source]
    pub(crate) source: io::Error,
}

impl StateDir {
    /// Opens the folder, and makes it where it is missing.
    pub(crate) fn open(path: &Path) -> Result<Self, StateDirError> {
        let fail = |source| StateDirError {
            path: path.to_owned(),
            source,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(fail)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).mode(0o600);
        let lock = options.open(path.join(LOCK)).map_err(fail)?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => fail(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "another process uses it already",
            )),
            fs::TryLockError::Error(source) => fail(source),
        })?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// The path of a file or folder there.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The contents of a file; `None` where it is missing.
    pub(crate) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path.join(name)) {
            Ok(contents) => Ok(Some(contents)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces a file. After a crash at any moment it has the old contents or the new ones.
    pub(crate) fn write(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        private_file::write(&self.path.join(name), contents)
    }

    /// As [`Self::write`], but the contents outlive the process only, not the machine: what is written often.
    pub(crate) fn write_unsynced(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        private_file::write_unsynced(&self.path.join(name), contents)
    }

    /// Removes a file.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_private_and_replaced() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        let dir = StateDir::open(&path).unwrap();
        assert_eq!(dir.read("x").unwrap(), None);
        dir.write("x", b"long contents").unwrap();
        dir.write("x", b"short").unwrap();
        assert_eq!(dir.read("x").unwrap().unwrap(), b"short");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path.join("x")), 0o600);
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn one_process_at_a_time_uses_it() {
        let root = tempfile::tempdir().unwrap();
        let first = StateDir::open(root.path()).unwrap();
        let refused = StateDir::open(root.path()).unwrap_err();
        assert!(refused.source.to_string().contains("another process"));
        drop(first);
        StateDir::open(root.path()).unwrap();
    }
}
