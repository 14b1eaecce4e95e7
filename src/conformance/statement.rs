//! What a statement is, and what can come of checking it.

use super::subject::Subject;

/// How much an RFC asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// A MUST, or a procedure that the RFC lays down.
    Must,
    /// A SHOULD or RECOMMENDED.
    Should,
    /// A MAY, or what is usual where the RFC leaves it open.
    May,
}

impl Level {
    /// The word of RFC 2119.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
            Self::May => "MAY",
        }
    }
}

/// Decides whether a server does what a statement says.
type Check = Box<dyn Fn(&Subject) -> Verdict>;

/// One thing that an RFC says of servers, and how to see whether a server does it.
pub(super) struct Statement {
    /// RFC, section and a word or two: `RFC8656-7.2-transport-6`. Nothing else has it.
    pub(super) id: String,
    /// How much it is asked for.
    pub(super) level: Level,
    /// The statement in our own words.
    pub(super) text: String,
    /// How it is seen.
    pub(super) check: Check,
}

/// A statement that a server has to keep.
pub(super) fn must(
    id: impl Into<String>,
    text: impl Into<String>,
    check: impl Fn(&Subject) -> Verdict + 'static,
) -> Statement {
    Statement {
        id: id.into(),
        level: Level::Must,
        text: text.into(),
        check: Box::new(check),
    }
}

/// A statement that a server keeps unless it has a good reason.
pub(super) fn should(
    id: impl Into<String>,
    text: impl Into<String>,
    check: impl Fn(&Subject) -> Verdict + 'static,
) -> Statement {
    Statement {
        level: Level::Should,
        ..must(id, text, check)
    }
}

/// A statement that a server is free to keep.
pub(super) fn may(
    id: impl Into<String>,
    text: impl Into<String>,
    check: impl Fn(&Subject) -> Verdict + 'static,
) -> Statement {
    Statement {
        level: Level::May,
        ..must(id, text, check)
    }
}

/// What a check found.
pub(super) type Verdict = Result<Outcome, Shortfall>;

/// The server did what it should, so far.
pub(super) enum Outcome {
    /// There is nothing more to see.
    Met,
    /// Met, unless something comes that should not: asked once the time for it has passed.
    MetIfQuiet(Box<dyn FnOnce() -> Verdict>),
}

/// Why a statement does not count as kept.
#[derive(Debug)]
pub(super) enum Shortfall {
    /// The server did otherwise.
    Failed {
        /// What the statement asks for.
        expected: String,
        /// What the server did.
        seen: String,
    },
    /// It cannot be seen on this server, or in this setting.
    Skipped(String),
}

impl From<anyhow::Error> for Shortfall {
    fn from(error: anyhow::Error) -> Self {
        failed("a server that can be talked to", format!("{error:#}"))
    }
}

impl From<std::io::Error> for Shortfall {
    fn from(error: std::io::Error) -> Self {
        anyhow::Error::from(error).into()
    }
}

/// The server did otherwise.
pub(super) fn failed(expected: impl Into<String>, seen: impl Into<String>) -> Shortfall {
    Shortfall::Failed {
        expected: expected.into(),
        seen: seen.into(),
    }
}

/// The statement does not apply here.
pub(super) fn skipped(why: impl Into<String>) -> Shortfall {
    Shortfall::Skipped(why.into())
}

/// The statement is kept.
pub(super) fn met() -> Verdict {
    Ok(Outcome::Met)
}

/// The statement is kept where `expected` holds.
pub(super) fn ensure(
    holds: bool,
    expected: impl Into<String>,
    seen: impl std::fmt::Debug,
) -> Result<(), Shortfall> {
    if holds {
        Ok(())
    } else {
        Err(failed(expected, format!("{seen:?}")))
    }
}
