//! `turnfleet import-coturn`: from coturn's `turnserver.conf` to the file of `turnfleet up`.
//!
//! [`options`] is the one table of coturn's options and of what becomes of each; the rules that it names write a [`draft`].
//! Every line of the input is accounted for in a [`report`]. It never changes coturn's file, never overwrites one, and
//! shows no secret.

mod draft;
mod file;
mod options;
mod parse;
mod peers;
mod ranges;
mod reference;
mod report;
mod rules;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::Ipv6Addr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use self::draft::{Draft, Place};
use self::parse::Source;
use self::report::Report;

/// Coturn's own example, with all of its words, is a thirtieth of this.
const MAX_BYTES: u64 = 1 << 20;
/// The exit code of `--strict` where something is left over.
pub(crate) const LEFT_OVER: u8 = 3;
/// Where a configuration goes that is shown and not written.
const PREVIEWED: &str = "turnfleet.toml";

/// What a flag of coturn's command line is for `turnfleet up`; nothing where coturn has none of the name.
pub(crate) fn of_flag(flag: &str) -> Option<String> {
    let option = options::find(flag.trim_start_matches('-'))?;
    let keys = option.keys.iter().map(|key| match key.contains('.') {
        true => format!("--set {key}=…"),
        false => format!("--{key}"),
    });
    let keys = keys.collect::<Vec<_>>().join(" or ");
    let becomes = if keys.is_empty() {
        String::new()
    } else {
        format!(", which is {keys} here")
    };
    Some(format!(
        "{flag} is an option of coturn{becomes}. {} `turnfleet import-coturn turnserver.conf` translates a whole configuration.",
        option.why
    ))
}

/// Flags of `turnfleet import-coturn`.
#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// Coturn's configuration, often /etc/turnserver.conf
    #[arg(value_name = "FILE", required_unless_present = "options")]
    file: Option<PathBuf>,
    /// Where to write the configuration for `turnfleet up --config`; secrets go into files beside it. Without it, the
    /// configuration is shown without its secrets
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Prints the report as one JSON object
    #[arg(long, requires = "output")]
    json: bool,
    /// Ends with code 3 where a line has no equivalent or is unknown
    #[arg(long)]
    strict: bool,
    /// Prints what becomes of every option of coturn, as Markdown
    #[arg(long, exclusive = true)]
    options: bool,
}

/// Lines without an equivalent, where `--strict` asks for none.
#[derive(Debug)]
pub(crate) struct LeftOver(usize);

impl fmt::Display for LeftOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = if self.0 == 1 {
            "line has"
        } else {
            "lines have"
        };
        write!(
            f,
            "{} {lines} no place in the configuration (--strict)",
            self.0
        )
    }
}

impl std::error::Error for LeftOver {}

/// Imports the file, and tells what became of each line.
///
/// # Errors
/// When the file cannot be read, a line is wrong, something would be overwritten, or `--strict` finds lines left over.
pub(crate) fn run(args: &ImportArgs) -> anyhow::Result<()> {
    let Some(file) = args.file.as_deref().filter(|_| !args.options) else {
        return crate::print(&reference::markdown());
    };
    let text = read(file)?;
    let source = Source::parse(&text);
    let output = args
        .output
        .as_deref()
        .unwrap_or_else(|| Path::new(PREVIEWED));
    let place = Place {
        source: std::path::absolute(file)?,
        output: std::path::absolute(output)?,
        has_ipv6: has_ipv6(),
    };
    let (draft, judged) = Draft::of(&source, &place);
    let report = Report::new(file, &source, &draft, judged);
    let wrong = report.wrong();
    if wrong > 0 {
        tell(&report.text())?;
        bail!("{wrong} of the lines cannot be read; nothing is written");
    }
    let written = match &args.output {
        Some(_) => write(&draft, &place)?,
        None => {
            crate::print(&file::text(&draft, file, file::Secrets::Hidden))?;
            Vec::new()
        }
    };
    if args.json {
        crate::print(&format!("{}\n", report.json(&written)))?;
    } else {
        tell(&report.text())?;
        tell(&report::ending(&written, &place))?;
    }
    let left_over = report.left_over();
    if args.strict && left_over > 0 {
        return Err(LeftOver(left_over).into());
    }
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<String> {
    let shown = file.display();
    let cannot = || format!("cannot read {shown}");
    let opened = File::open(file).with_context(cannot)?;
    let mut bytes = Vec::new();
    // What is no file, such as a pipe, has a length only when it has ended.
    let read = opened.take(MAX_BYTES + 1).read_to_end(&mut bytes);
    read.with_context(cannot)?;
    if bytes.len() > usize::try_from(MAX_BYTES)? {
        bail!("{shown} is too long: expected {MAX_BYTES} bytes at most");
    }
    // Comments are in whatever encoding their author had; a setting that is no text shows itself as wrong.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Writes the configuration and its secrets, and returns the files.
fn write(draft: &Draft<'_>, place: &Place) -> anyhow::Result<Vec<PathBuf>> {
    let text = file::text(draft, &place.source, file::Secrets::Shown);
    let mut files = draft.secret_files(place);
    // Last, so that a configuration that is there has its secrets.
    files.push((place.output.clone(), text));
    create_all(&files)?;
    files.rotate_right(1);
    Ok(files.into_iter().map(|(path, _)| path).collect())
}

/// Makes every one of the files, or none.
fn create_all(files: &[(PathBuf, String)]) -> anyhow::Result<()> {
    for (path, _) in files {
        if path.symlink_metadata().is_ok() {
            bail!("{} exists, and nothing is overwritten", path.display());
        }
    }
    for (place, (path, text)) in files.iter().enumerate() {
        if let Err(error) = create(path, text) {
            for (made, _) in &files[..place] {
                // What is wrong with the folder may stand against this too; the error below says which folder.
                let _ = fs::remove_file(made);
            }
            return Err(error).with_context(|| format!("cannot write {}", path.display()));
        }
    }
    Ok(())
}

/// Makes a file where none is. The configuration may hold passwords of users, so it is for its owner alone as secrets are.
fn create(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

/// Whether this machine has an IPv6 address that a listener on `[::]` would stand for.
fn has_ipv6() -> bool {
    let any = Ipv6Addr::UNSPECIFIED.into();
    !turnfleet_relay::Machine::read()
        .wildcard(any, &[])
        .is_empty()
}

fn tell(text: &str) -> anyhow::Result<()> {
    let mut errors = io::stderr().lock();
    errors
        .write_all(text.as_bytes())
        .context("cannot write to standard error")
}
