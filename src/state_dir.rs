//! The folder in which `turnfleet up` keeps what must outlive it. One process at a time uses it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use turnfleet_proto::private_file;

/// A folder that only its owner reads, locked while this value lives.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    /// The lock ends with the file, and so with the process, however it ends.
    _lock: File,
}

impl StateDir {
    /// Makes the folder where it is missing, and locks it.
    ///
    /// # Errors
    /// When it cannot be written, or another process uses it.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        if path.exists() && !path.is_dir() {
            bail!("{shown} is not a folder (--state-dir)");
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.with_context(|| format!("cannot make the state folder {shown} (--state-dir)"))?;
        let path = std::path::absolute(path)?;
        let lock = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path.join("lock"));
        let lock = lock
            .with_context(|| format!("cannot write to the state folder {shown} (--state-dir)"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => bail!(
                "another turnfleet uses the state folder {shown}: stop it, or choose another folder with --state-dir"
            ),
            Err(TryLockError::Error(error)) => Err(error)
                .with_context(|| format!("cannot lock the state folder {shown} (--state-dir)")),
        }
    }

    /// Where `turnfleet up` keeps its state when it is not told: a place of the user, the same from every folder.
    ///
    /// # Errors
    /// When the environment names no such place.
    pub(crate) fn default_path() -> anyhow::Result<PathBuf> {
        let folder = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let base = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")));
        let base = base
            .context("neither XDG_STATE_HOME nor HOME is set: choose a folder with --state-dir")?;
        Ok(base.join("turnfleet").join("up"))
    }

    /// The path of a file or folder within.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file that only the owner reads, whole or not at all, and returns its path.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(crate) fn write(&self, name: &str, contents: &str) -> anyhow::Result<PathBuf> {
        let path = self.join(name);
        let written = private_file::write(&path, contents.as_bytes());
        written.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// The text of a file within, or nothing where it is missing.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub(crate) fn read(&self, name: &str) -> anyhow::Result<Option<String>> {
        let path = self.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_second_process_is_refused_and_told_why() {
        let folder = tempfile::tempdir().unwrap();
        let first = StateDir::open(folder.path()).unwrap();
        let error = StateDir::open(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains(&folder.path().display().to_string()),
            "{error}"
        );
        assert!(error.contains("--state-dir"), "{error}");
        drop(first);
        StateDir::open(folder.path()).unwrap();
    }

    #[test]
    fn only_the_owner_reads_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("a/b")).unwrap();
        assert_eq!(state.read("token").unwrap(), None);
        let path = state.write("token", "secret").unwrap();
        assert_eq!(state.read("token").unwrap().as_deref(), Some("secret"));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(state.path())), (0o600, 0o700));
    }
}
