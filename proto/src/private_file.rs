//! Files that are for their owner alone: what must outlive a process, and secrets that people put there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Replaces the file at `path`. After a crash at any moment it has the old contents or the new ones, and nobody but its
/// owner reads either.
///
/// # Errors
/// When the folder cannot be written.
pub fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    replace(path, contents, File::sync_all)?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

/// As [`write`], without waiting for the disk: after a crash of the machine, not of the process, the file may be as it was
/// before, or gone.
///
/// # Errors
/// When the folder cannot be written.
pub fn write_unsynced(path: &Path, contents: &[u8]) -> io::Result<()> {
    replace(path, contents, |_| Ok(()))
}

fn replace(
    path: &Path,
    contents: &[u8],
    sync: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut draft = name.to_owned();
    draft.push(".half");
    let draft = path.with_file_name(draft);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&draft)?;
    file.write_all(contents)?;
    sync(&file)?;
    fs::rename(&draft, path)
}

/// The secret in the file at `path`: its text without the space around it, which editors and `echo` leave there. Every
/// file with a secret, token or password is read by this.
///
/// # Errors
/// When the file cannot be read or is no text.
pub fn read_secret(path: &Path) -> io::Result<String> {
    let text = fs::read_to_string(path)?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        write(&path, b"long contents").unwrap();
        write(&path, b"short").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"short");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn space_around_a_secret_is_no_part_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        for text in ["north star", "north star\n", "\tnorth star \r\n\n"] {
            fs::write(&path, text).unwrap();
            assert_eq!(read_secret(&path).unwrap(), "north star");
        }
    }
}
