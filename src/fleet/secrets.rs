//! `fleet secrets`: the generations of the shared secret, and what is done with them. None is ever shown.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};
use turnfleet_controller::fleet::WEAK_SECRET_BYTES;

use super::call::Call;
use super::console::Console;
use super::table::{Table, cell, list as values};
use crate::credentials::read_line;

/// A secret on standard input is not longer.
const MAX_SECRET: u64 = 4096;

/// What to do with secrets; without a word they are listed.
#[derive(Args, Debug)]
pub(super) struct Secrets {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Every generation: what it is good for, when it was last used, and which relays know of it
    List,
    /// Brings another secret to every relay, and then mints with it; the one before it retires
    Rotate(Given),
    /// Keeps a secret accepted until it is unpinned: a generation, or what an application has (--secret-file)
    Pin {
        /// The generation
        #[arg(required_unless_present = "secret_file", conflicts_with_all = ["secret_file", "scope"])]
        id: Option<u32>,
        #[command(flatten)]
        given: Given,
    },
    /// Lets a pinned generation retire
    Unpin {
        /// The generation
        id: u32,
    },
    /// Has every relay refuse a generation at once
    Revoke {
        /// The generation
        id: u32,
        /// Ends the allocations that were made with its credentials
        #[arg(long)]
        cut: bool,
        /// Where credentials are minted with it, mints with a random one at once
        #[arg(long)]
        replace: bool,
    },
}

/// A secret of the operator's, and for whom it is.
#[derive(Args, Debug)]
struct Given {
    /// Whose relays accept it: fleet, region:NAME or tenant:NAME [default: fleet]
    #[arg(long)]
    scope: Option<String>,
    /// A file that holds the secret, - for standard input; space around it is ignored
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

impl Given {
    /// The body that names what was given.
    fn body(&self) -> anyhow::Result<Json> {
        let secret = self.secret_file.as_deref().map(read).transpose()?;
        Ok(json!({ "scope": self.scope, "secret": secret }))
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    let secret = if file == Path::new("-") {
        let mut text = String::new();
        let mut input = std::io::stdin().take(MAX_SECRET);
        input
            .read_to_string(&mut text)
            .context("cannot read the secret from standard input")?;
        text.trim().to_owned()
    } else {
        read_line(file)?
    };
    if secret.is_empty() {
        bail!("the secret is empty (--secret-file)");
    }
    if secret.contains(char::is_control) {
        bail!(
            "the secret has more than one line, or another control character (--secret-file): expected a file with the secret alone"
        );
    }
    if secret.len() < WEAK_SECRET_BYTES {
        let _ = writeln!(
            std::io::stderr(),
            "warning: {} bytes are few enough to be guessed from one captured credential: take {WEAK_SECRET_BYTES} or more",
            secret.len()
        );
    }
    Ok(secret)
}

impl Secrets {
    /// Lists secrets, or changes them.
    ///
    /// # Errors
    /// When the controller refuses, or a file cannot be read.
    pub(super) fn run(&self, console: &Console) -> anyhow::Result<()> {
        let id = |answer: &Json| cell(answer, "/id");
        match self.action.as_ref().unwrap_or(&Action::List) {
            Action::List => console.show(&Call::get("/v1/secrets"), |answer| table(answer, now())),
            Action::Rotate(given) => {
                let call = Call::post("/v1/secrets/rotate").with(given.body()?);
                console.act_then(&call, |answer| {
                    let id = id(answer);
                    let done = "is staged: it becomes active once the relays have it";
                    with_warning(format!("secret {id} {done}\n"), answer)
                })
            }
            Action::Pin {
                id: Some(pinned), ..
            } => {
                let call = Call::post(format!("/v1/secrets/{pinned}/pin"));
                console.act(&call, &format!("secret {pinned} is pinned"))
            }
            Action::Pin { id: None, given } => {
                let call = Call::post("/v1/secrets/pin").with(given.body()?);
                console.act_then(&call, |answer| {
                    with_warning(format!("secret {} is pinned\n", id(answer)), answer)
                })
            }
            Action::Unpin { id } => {
                let call = Call::post(format!("/v1/secrets/{id}/unpin"));
                console.act(&call, &format!("secret {id} retires"))
            }
            Action::Revoke { id, cut, replace } => {
                let call = Call::post(format!("/v1/secrets/{id}/revoke"))
                    .with(json!({ "cut": cut, "replace": replace }));
                console.act_then(&call, |answer| revoked(*id, answer))
            }
        }
    }
}

/// What was done, and what the controller warns of.
fn with_warning(done: String, answer: &Json) -> String {
    match answer.pointer("/warning").and_then(Json::as_str) {
        Some(warning) => format!("{done}warning: {warning}\n"),
        None => done,
    }
}

fn revoked(id: u32, answer: &Json) -> String {
    match answer.pointer("/replaced_by").and_then(Json::as_u64) {
        Some(replacement) => format!("secret {id} is revoked, and {replacement} is minted with\n"),
        None => format!("secret {id} is revoked\n"),
    }
}

/// Unix seconds.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

pub(super) fn table(answer: &Json, now: u64) -> Table {
    let header = [
        "ID",
        "SCOPE",
        "STATE",
        "MINTED",
        "AGE",
        "LAST USED",
        "ENDS",
        "RELAYS",
    ];
    let time = |secret: &Json, pointer| secret.pointer(pointer).and_then(Json::as_u64);
    let row = |secret: &Json| {
        let age = time(secret, "/created_at").map(|at| span(now.saturating_sub(at)));
        let used = time(secret, "/last_used");
        let used = used.map(|at| format!("{} ago", span(now.saturating_sub(at))));
        let ends = time(secret, "/accept_until").filter(|until| *until > now);
        let ends = ends.map(|until| format!("in {}", span(until - now)));
        let relays = format!(
            "{} of {}",
            cell(secret, "/acknowledged"),
            cell(secret, "/of")
        );
        vec![
            cell(secret, "/id"),
            cell(secret, "/scope"),
            cell(secret, "/state"),
            cell(secret, "/minted"),
            age.unwrap_or_default(),
            used.unwrap_or_else(|| "never".to_owned()),
            ends.unwrap_or_default(),
            relays,
        ]
    };
    Table::new(header).with(values(answer, "/secrets").map(row))
}

/// Seconds in the largest unit of which there are two.
fn span(seconds: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(86_400, "d"), (3600, "h"), (60, "min")];
    let unit = UNITS.into_iter().find(|(unit, _)| seconds >= 2 * unit);
    let (unit, name) = unit.unwrap_or((1, "s"));
    format!("{} {name}", seconds / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_row_that_says_when_it_was_last_used() {
        let secret = |last_used: Option<u64>| {
            json!({"secrets": [{
                "id": 3, "scope": "region:north", "state": "retiring", "minted": false, "created_at": 0,
                "accept_until": 1_000_060, "last_used": last_used, "acknowledged": 7, "of": 8,
            }]})
        };
        let row = |last_used| {
            let table = table(&secret(last_used), 1_000_000).to_string();
            let row = table.lines().nth(1).unwrap().to_owned();
            row.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            row(Some(999_998)),
            "3 region:north retiring no 11 d 2 s ago in 60 s 7 of 8"
        );
        assert!(row(None).contains("never"));
    }

    #[test]
    fn a_warning_follows_what_was_done() {
        let told = |warning: Json| {
            let answer = json!({"id": 3, "warning": warning});
            with_warning("secret 3 is pinned\n".to_owned(), &answer)
        };
        assert_eq!(told(Json::Null), "secret 3 is pinned\n");
        assert_eq!(
            told(json!("no relay is in the region eu")),
            "secret 3 is pinned\nwarning: no relay is in the region eu\n"
        );
    }

    #[test]
    fn a_span_is_told_in_a_unit_that_fits() {
        let spans = [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h")];
        for (seconds, text) in spans {
            assert_eq!(span(seconds), text);
        }
        assert_eq!(span(41 * 86_400), "41 d");
    }
}
