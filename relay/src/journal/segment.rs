//! The files of the journal: their names, and how they are listed, made and read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::record::{Next, Record};

/// What the name of a segment ends with.
const SUFFIX: &str = ".journal";

/// One file, by its number; a later one has a higher number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

/// Makes the folder where it is missing, for its owner alone.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// The segments of a folder, the oldest first; none where there is no folder.
pub(super) fn list(folder: &Path) -> io::Result<Vec<Segment>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut segments = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        let Some(number) = number.and_then(|number| number.parse().ok()) else {
            continue;
        };
        segments.push(Segment {
            number,
            path: entry.path(),
            // One that is dropped at this moment has none.
            bytes: entry.metadata().map_or(0, |metadata| metadata.len()),
        });
    }
    segments.sort_by_key(|segment| segment.number);
    Ok(segments)
}

/// Makes the segment of that number, which may not exist, and sees to it that its name lasts.
pub(super) fn create(folder: &Path, number: u64) -> io::Result<(Segment, File)> {
    let path = folder.join(format!("{number:012}{SUFFIX}"));
    let mut options = OpenOptions::new();
    options.read(true).append(true).create_new(true).mode(0o600);
    let file = options.open(&path)?;
    File::open(folder)?.sync_all()?;
    let segment = Segment {
        number,
        path,
        bytes: 0,
    };
    Ok((segment, file))
}

/// When a segment begins, and the incarnation that wrote it; `None` where that cannot be read.
pub(super) fn beginning(segment: &Segment) -> Option<(u64, [u8; 16])> {
    let mut file = File::open(&segment.path).ok()?;
    match Record::read(&mut file).ok()? {
        Next::Record(Record::Begin { at, incarnation }) => Some((at, incarnation)),
        Next::Record(_) | Next::End | Next::Torn => None,
    }
}

/// The records of a file from its beginning, wherever somebody else writes or has written.
pub(super) fn reader(file: &File) -> BufReader<impl Read> {
    BufReader::with_capacity(64 * 1024, FromStart { file, offset: 0 })
}

struct FromStart<'f> {
    file: &'f File,
    offset: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(bytes, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}
