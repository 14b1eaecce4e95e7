//! The file of a backup: what a store held at one revision, as JSON lines.
//!
//! ```text
//! {"format":"turnfleet-backup","version":1,"made_at":1795305600,"store":"etcd","revision":812}
//! {"key":"/tf/v1/gen","value":"CCU="}
//! {"entries":1,"sha256":"6cb0…"}
//! ```
//!
//! The first line says what the file is, each further one holds an entry, in the order of keys, and the last one counts them
//! and has the SHA-256 of all bytes before it. Values are base64 of the bytes in the store: secrets stay sealed, and the key that
//! opens them is not in the file. Reading is bounded, and takes a file that was cut off or changed for what it is. Nothing here
//! opens a file.

use std::fmt::Write as _;
use std::io::{self, BufRead, Read as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::transfer::Content;
use super::{MAX_KEY, MAX_VALUE, Revision};

/// What the first line says of itself.
const FORMAT: &str = "turnfleet-backup";
/// The version of the format that is written and read.
const VERSION: u32 = 1;
/// The most entries of a file.
const MAX_ENTRIES: usize = 1_000_000;
/// The most bytes of a line: the largest value in base64, and the longest key with every byte escaped.
const MAX_LINE: usize = MAX_VALUE / 3 * 4 + 6 * MAX_KEY + 256;

/// What a store held at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// When it was read, in Unix seconds.
    pub made_at: u64,
    /// The kind of store that it was read from: `embedded` or `etcd`.
    pub store: String,
    /// The revision of that store.
    pub revision: Revision,
    /// What stood there.
    pub content: Content,
}

/// Why a file is not taken for a backup.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file cannot be read.
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    /// The first line is none of a backup.
    #[error("it is not a backup: its first line is no header of {FORMAT:?}")]
    Foreign,
    /// Written by another version.
    #[error("it has version {found} of the format, and this is a reader of version {VERSION}")]
    Version {
        /// Its version.
        found: u32,
    },
    /// A line that does not belong there.
    #[error("line {line} is damaged: {reason}")]
    Line {
        /// Its number, from one.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The last line is missing.
    #[error("it was cut off after line {line}: the last line with the checksum is missing")]
    CutOff {
        /// The last line there is.
        line: usize,
    },
    /// Some byte is not what it was.
    #[error(
        "its checksum is {found}, and its last line says {expected}: it was changed or damaged"
    )]
    Checksum {
        /// What the last line says.
        expected: String,
        /// What the lines before it have.
        found: String,
    },
    /// More entries than a store has.
    #[error("it has more than {MAX_ENTRIES} entries")]
    TooLarge,
}

#[derive(Deserialize, Serialize)]
struct Head {
    format: String,
    version: u32,
    #[serde(default)]
    made_at: u64,
    #[serde(default)]
    store: String,
    #[serde(default)]
    revision: Revision,
}

#[derive(Deserialize, Serialize)]
struct Line<'a> {
    key: std::borrow::Cow<'a, str>,
    value: String,
}

#[derive(Deserialize, Serialize)]
struct Foot {
    entries: usize,
    sha256: String,
}

impl Archive {
    /// The bytes of the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let head = Head {
            format: FORMAT.to_owned(),
            version: VERSION,
            made_at: self.made_at,
            store: self.store.clone(),
            revision: self.revision,
        };
        let mut file = Vec::new();
        push_line(&mut file, &head);
        for (key, value) in self.content.entries() {
            let (key, value) = (key.into(), STANDARD.encode(value));
            push_line(&mut file, &Line { key, value });
        }
        let foot = Foot {
            entries: self.content.len(),
            sha256: hex(&Sha256::digest(&file)),
        };
        push_line(&mut file, &foot);
        file
    }

    /// Reads a file to its end.
    ///
    /// # Errors
    /// When it is no backup of this version, or not whole.
    pub fn read(file: impl BufRead) -> Result<Self, ArchiveError> {
        let mut lines = Lines {
            file,
            number: 0,
            sum: Sha256::new(),
        };
        let first = lines.next()?.ok_or(ArchiveError::Foreign)?;
        let head: Head = serde_json::from_slice(&first).map_err(|_| ArchiveError::Foreign)?;
        if head.format != FORMAT {
            return Err(ArchiveError::Foreign);
        }
        if head.version != VERSION {
            return Err(ArchiveError::Version {
                found: head.version,
            });
        }
        Ok(Self {
            made_at: head.made_at,
            store: head.store,
            revision: head.revision,
            content: lines.content(first)?,
        })
    }
}

struct Lines<R> {
    file: R,
    number: usize,
    /// Of every line but the one that was read last.
    sum: Sha256,
}

impl<R: BufRead> Lines<R> {
    /// The next line with its end; `None` at the end of the file.
    fn next(&mut self) -> Result<Option<Vec<u8>>, ArchiveError> {
        let mut line = Vec::new();
        let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
        let mut bounded = self.file.by_ref().take(limit);
        bounded.read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        match line.last() {
            Some(b'\n') => Ok(Some(line)),
            _ if line.len() == MAX_LINE => Err(self.damaged("it is longer than any entry")),
            _ => Err(ArchiveError::CutOff {
                line: self.number - 1,
            }),
        }
    }

    /// The entries between the first line and the last.
    fn content(&mut self, first: Vec<u8>) -> Result<Content, ArchiveError> {
        let mut content = Content::default();
        let mut before = first;
        loop {
            self.sum.update(&before);
            let Some(line) = self.next()? else {
                return Err(ArchiveError::CutOff { line: self.number });
            };
            if let Ok(foot) = serde_json::from_slice::<Foot>(&line) {
                return self.finish(&foot, content);
            }
            if content.len() == MAX_ENTRIES {
                return Err(ArchiveError::TooLarge);
            }
            let (key, value) = self.entry(&line)?;
            if !content.push(key, value) {
                return Err(self.damaged("its key does not follow that of the line before"));
            }
            before = line;
        }
    }

    fn entry(&self, line: &[u8]) -> Result<(String, Vec<u8>), ArchiveError> {
        let line: Line<'_> =
            serde_json::from_slice(line).map_err(|_| self.damaged("it is no entry"))?;
        let value = STANDARD.decode(line.value);
        let value = value.map_err(|_| self.damaged("its value is not base64"))?;
        if line.key.len() > MAX_KEY || value.len() > MAX_VALUE {
            return Err(self.damaged("its key or value is longer than any in a store"));
        }
        if !Content::is_within(&line.key) {
            return Err(self.damaged("its key is none of a fleet"));
        }
        Ok((line.key.into_owned(), value))
    }

    fn finish(&mut self, foot: &Foot, content: Content) -> Result<Content, ArchiveError> {
        let found = hex(&self.sum.finalize_reset());
        if found != foot.sha256 {
            let expected = foot.sha256.clone();
            return Err(ArchiveError::Checksum { expected, found });
        }
        if foot.entries != content.len() {
            return Err(self.damaged("it counts other entries than there are"));
        }
        match self.next()? {
            Some(_) => Err(self.damaged("it comes after the last one")),
            None => Ok(content),
        }
    }

    fn damaged(&self, reason: &'static str) -> ArchiveError {
        let line = self.number;
        ArchiveError::Line { line, reason }
    }
}

fn push_line(file: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(&mut *file, line).expect("texts and numbers are JSON");
    file.push(b'\n');
}

/// Bytes as text.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes every text");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Archive {
        let mut content = Content::default();
        assert!(content.push("/tf/audit/v1/1-2".into(), Vec::new()));
        assert!(content.push("/tf/v1/gen".into(), vec![8, 37]));
        assert!(content.push("/tf/v1/nodes/\u{1}\"".into(), vec![b'x'; MAX_VALUE]));
        Archive {
            made_at: 1_795_305_600,
            store: "etcd".into(),
            revision: 812,
            content,
        }
    }

    fn read(bytes: &[u8]) -> Result<Archive, ArchiveError> {
        Archive::read(bytes)
    }

    #[test]
    fn a_backup_reads_as_it_was_written() {
        assert_eq!(read(&archive().encode()).unwrap(), archive());
        let empty = Archive {
            content: Content::default(),
            ..archive()
        };
        assert_eq!(read(&empty.encode()).unwrap(), empty);
    }

    #[test]
    fn a_backup_that_was_cut_off_anywhere_is_refused() {
        let mut short = archive();
        short.content = Content::default();
        assert!(short.content.push("/tf/v1/gen".into(), vec![8, 37]));
        let bytes = short.encode();
        for end in 0..bytes.len() {
            let error = read(&bytes[..end]).unwrap_err();
            assert!(
                matches!(error, ArchiveError::CutOff { .. } | ArchiveError::Foreign),
                "{end}: {error}"
            );
        }
    }

    #[test]
    fn a_backup_with_one_bit_changed_anywhere_is_refused() {
        let mut short = archive();
        short.content = Content::default();
        assert!(short.content.push("/tf/v1/gen".into(), vec![8, 37]));
        let bytes = short.encode();
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            let read = read(&changed);
            assert!(read.is_err(), "byte {place} is not covered: {read:?}");
        }
    }

    #[test]
    fn what_no_backup_holds_is_refused_with_its_line() {
        let text = |lines: &[&str]| {
            let mut text = lines.join("\n") + "\n";
            let sum = hex(&Sha256::digest(text.as_bytes()));
            writeln!(
                text,
                r#"{{"entries":{},"sha256":"{sum}"}}"#,
                lines.len() - 1
            )
            .unwrap();
            read(text.as_bytes()).unwrap_err().to_string()
        };
        let head = r#"{"format":"turnfleet-backup","version":1}"#;
        let entry = r#"{"key":"/tf/v1/gen","value":""}"#;
        for (lines, expected) in [
            (&["{}"][..], "not a backup"),
            (&[r#"{"format":"x","version":1}"#], "not a backup"),
            (
                &[r#"{"format":"turnfleet-backup","version":2}"#],
                "version 2",
            ),
            (
                &[head, entry, entry],
                "line 3 is damaged: its key does not follow",
            ),
            (
                &[head, r#"{"key":"/other","value":""}"#],
                "line 2 is damaged: its key is none",
            ),
            (&[head, r#"{"key":"/tf/v1/gen","value":"*"}"#], "not base64"),
            (&[head, "[]"], "it is no entry"),
        ] {
            let told = text(lines);
            assert!(told.contains(expected), "{lines:?}: {told}");
        }
        let long = format!("{head}\n{}", "x".repeat(2 * MAX_LINE));
        let told = read(long.as_bytes()).unwrap_err().to_string();
        assert!(told.contains("longer than any entry"), "{told}");
    }
}
