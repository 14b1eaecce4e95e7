//! What became of every line, for a person and as JSON. Values of options that hold secrets are never shown.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use super::draft::{Draft, Place};
use super::options::{CoturnOption, Takes};
use super::parse::{Setting, Source};
use super::peers::Open;

/// How many blocks of one rule a person is shown.
const SHOWN_BLOCKS: usize = 4;

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is a key of the configuration.
    Translated,
    /// It is so here by default.
    Default,
    /// It means nothing here, and is missed by nobody.
    NotNeeded,
    /// It is not to be had here.
    NoEquivalent,
    /// Coturn does not know it either.
    Unknown,
    /// Its value cannot be read.
    Wrong,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Translated,
        Self::Default,
        Self::NotNeeded,
        Self::NoEquivalent,
        Self::Unknown,
        Self::Wrong,
    ];

    /// What the report calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Translated => "translated",
            Self::Default => "default here",
            Self::NotNeeded => "not needed",
            Self::NoEquivalent => "no equivalent",
            Self::Unknown => "unknown",
            Self::Wrong => "wrong",
        }
    }
}

/// What became of a line, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) kind: Kind,
    /// The key, where there is one, and what is to be said of it.
    pub(super) words: String,
}

impl Outcome {
    pub(super) fn new(kind: Kind, words: impl Into<String>) -> Self {
        Self {
            kind,
            words: words.into(),
        }
    }

    /// The same with more words.
    pub(super) fn noting(mut self, words: &str) -> Self {
        self.words.push_str(": ");
        self.words.push_str(words);
        self
    }
}

/// A line of the input and what became of it.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) line: usize,
    /// The setting without its secrets.
    pub(super) shown: String,
    pub(super) outcome: Outcome,
}

impl Judged {
    pub(super) fn new(setting: &Setting, option: Option<&CoturnOption>, outcome: Outcome) -> Self {
        Self {
            line: setting.line,
            shown: shown(setting, option),
            outcome,
        }
    }
}

/// The setting without its secrets. A line that nobody knows may hold one too.
pub(super) fn shown(setting: &Setting, option: Option<&CoturnOption>) -> String {
    let is_open = option.is_some_and(|option| option.takes != Takes::Secret);
    let name = setting.name.as_str();
    // A slip such as NAME:VALUE has its value in the name.
    let slip = name.find(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c));
    let text = match (&setting.value, slip) {
        (_, Some(end)) => format!("{}…", &name[..end]),
        (Some(value), None) if is_open => format!("{name}={value}"),
        (Some(_), None) => format!("{name}=…"),
        (None, None) => name.to_owned(),
    };
    // A comment of the file that is written, and a line on a terminal, have none of these.
    text.replace(char::is_control, "?")
}

/// What became of a file.
#[derive(Debug)]
pub(super) struct Report {
    file: String,
    lines: usize,
    comments: usize,
    empty: usize,
    judged: Vec<Judged>,
    open: Vec<Open>,
    remarks: Vec<String>,
}

impl Report {
    pub(super) fn new(
        file: &Path,
        source: &Source,
        draft: &Draft<'_>,
        judged: Vec<Judged>,
    ) -> Self {
        Self {
            file: file.display().to_string(),
            lines: source.lines,
            comments: source.comments,
            empty: source.empty,
            judged,
            open: draft.peers.open(),
            remarks: draft.remarks.clone(),
        }
    }

    /// How many lines cannot be read.
    pub(super) fn wrong(&self) -> usize {
        self.of(Kind::Wrong).count()
    }

    /// How many lines have no place in the configuration.
    pub(super) fn left_over(&self) -> usize {
        self.of(Kind::NoEquivalent).count() + self.of(Kind::Unknown).count()
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = &Judged> {
        let of_kind = move |judged: &&Judged| judged.outcome.kind == kind;
        self.judged.iter().filter(of_kind)
    }

    /// The report for a person.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{}: {} lines: {} comments, {} empty, {} settings\n",
            self.file,
            self.lines,
            self.comments,
            self.empty,
            self.judged.len()
        );
        let counts = Kind::ALL.map(|kind| format!("{} {}", self.of(kind).count(), kind.name()));
        let _ = writeln!(text, "settings: {}", counts.join(", "));
        for kind in Kind::ALL {
            if self.of(kind).next().is_none() {
                continue;
            }
            let _ = writeln!(text, "\n{}:", kind.name());
            for Judged {
                line,
                shown,
                outcome,
            } in self.of(kind)
            {
                let _ = writeln!(text, "  line {line}: {shown}: {}", outcome.words);
            }
        }
        self.peers(&mut text);
        if !self.remarks.is_empty() {
            text.push_str("\nto know:\n");
        }
        for remark in &self.remarks {
            let _ = writeln!(text, "  {remark}");
        }
        text
    }

    fn peers(&self, text: &mut String) {
        if self.open.is_empty() {
            return;
        }
        let ipv4: u128 = self.open.iter().map(|open| open.ipv4).sum();
        let _ = writeln!(
            text,
            "\npeers that coturn lets clients reach and the default filter here refuses: {ipv4} addresses of IPv4, and those of \
             IPv6 below"
        );
        for open in &self.open {
            let blocks = open.blocks.iter().take(SHOWN_BLOCKS);
            let blocks: Vec<String> = blocks.map(ToString::to_string).collect();
            let _ = write!(text, "  {}: {}", open.rule, blocks.join(", "));
            let more = open.blocks.len().saturating_sub(SHOWN_BLOCKS);
            if more > 0 {
                let _ = write!(text, " and {more} more");
            }
            if !open.can_be_allowed {
                text.push_str(" (nothing opens these)");
            }
            text.push('\n');
        }
        text.push_str(
            "  allow-peer opens those of them that clients need, such as a media server's\n",
        );
    }

    /// The report for a program.
    pub(super) fn json(&self, written: &[PathBuf]) -> Json {
        let lines = self.judged.iter().map(|judged| {
            json!({
                "line": judged.line,
                "setting": judged.shown,
                "outcome": judged.outcome.kind.name(),
                "words": judged.outcome.words,
            })
        });
        let counts = Kind::ALL.map(|kind| (kind.name().to_owned(), json!(self.of(kind).count())));
        let open = self.open.iter().map(|open| {
            let blocks: Vec<String> = open.blocks.iter().map(ToString::to_string).collect();
            // JSON has no number for all of IPv6, and 2^32 is the most of IPv4.
            let ipv4 = u64::try_from(open.ipv4).unwrap_or(u64::MAX);
            json!({
                "rule": open.rule,
                "ipv4_addresses": ipv4,
                "blocks": blocks,
                "can_be_allowed": open.can_be_allowed,
            })
        });
        json!({
            "file": self.file,
            "lines": self.lines,
            "comments": self.comments,
            "empty": self.empty,
            "settings": lines.collect::<Vec<_>>(),
            "counts": Json::Object(counts.into_iter().collect()),
            "refused_peers": open.collect::<Vec<_>>(),
            "remarks": self.remarks,
            "written": written.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
        })
    }
}

/// What was written, and what comes next.
pub(super) fn ending(written: &[PathBuf], place: &Place) -> String {
    if written.is_empty() {
        return "\na preview, without secrets: --output FILE writes the configuration, and secrets into files beside it\n"
            .to_owned();
    }
    let files: Vec<String> = written
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    format!(
        "\nwritten, for their owner alone: {}\nnext: turnfleet check-config up --config {}\n",
        files.join(", "),
        place.output.display()
    )
}
