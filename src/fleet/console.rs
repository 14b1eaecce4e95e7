//! Asks the API and prints the answer: as text or JSON, once or whenever it changes.

use std::io::{BufRead, IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::Value as Json;

use super::call::{Call, Client, ControllerArgs};
use super::table::Table;
use crate::print;

/// How often `--watch` asks.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);
/// Clears a terminal and goes to its beginning.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// How answers are printed.
#[derive(Args, Debug)]
pub(super) struct OutputArgs {
    /// Prints the JSON of the API
    #[arg(long, global = true)]
    json: bool,
    /// Asks again and again, and prints the answer whenever it has changed
    #[arg(long, global = true)]
    watch: bool,
}

/// What every command asks and prints through.
#[derive(Clone, Debug)]
pub(super) struct Console {
    client: Client,
    json: bool,
    watch: bool,
}

impl Console {
    /// # Errors
    /// When a file of the arguments cannot be read.
    pub(super) fn new(controllers: &ControllerArgs, output: &OutputArgs) -> anyhow::Result<Self> {
        Ok(Self {
            client: Client::new(controllers)?,
            json: output.json,
            watch: output.watch,
        })
    }

    /// Prints what `call` reads, as the table that `table` makes of it.
    ///
    /// # Errors
    /// When the first answer is none. Later ones that fail are told, and asked for again.
    pub(super) fn show(&self, call: &Call, table: impl Fn(&Json) -> Table) -> anyhow::Result<()> {
        let text = |answer: Json| {
            if self.json {
                format!("{answer}\n")
            } else {
                table(&answer).to_string()
            }
        };
        let mut shown = text(self.ask(call)?);
        if !self.watch {
            return print(&shown);
        }
        self.repaint(&shown)?;
        let mut failure = String::new();
        loop {
            pause(WATCH_INTERVAL);
            match self.ask(call).map(text) {
                Ok(next) => {
                    if next != shown || !failure.is_empty() {
                        self.repaint(&next)?;
                    }
                    (shown, failure) = (next, String::new());
                }
                Err(error) => {
                    let told = format!("{error:#}");
                    if told != failure {
                        tell(&told);
                    }
                    failure = told;
                }
            }
        }
    }

    /// Does what `call` changes, and prints `done`, or the answer where JSON is wanted.
    ///
    /// # Errors
    /// When the controller refuses.
    pub(super) fn act(&self, call: &Call, done: &str) -> anyhow::Result<()> {
        self.act_then(call, |_| format!("{done}\n"))
    }

    /// The same, with a text made of the answer.
    ///
    /// # Errors
    /// As [`Self::act`].
    pub(super) fn act_then(
        &self,
        call: &Call,
        text: impl Fn(&Json) -> String,
    ) -> anyhow::Result<()> {
        if self.watch {
            bail!("--watch goes with commands that show something");
        }
        let answer = self.ask(call)?;
        print(&if self.json {
            format!("{answer}\n")
        } else {
            text(&answer)
        })
    }

    /// The answer itself.
    ///
    /// # Errors
    /// When no controller can be reached, or it refuses.
    pub(super) fn ask(&self, call: &Call) -> anyhow::Result<Json> {
        self.client.ask(call)
    }

    /// The lines of an answer that goes on for as long as something happens.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(super) fn stream(&self, path: &str) -> anyhow::Result<impl BufRead> {
        self.client.stream(path)
    }

    /// Whether an answer is wanted whenever it changes.
    pub(super) fn is_watching(&self) -> bool {
        self.watch
    }

    /// Whether JSON is wanted.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// A terminal shows the latest alone; a file or a pipe gets every one.
    fn repaint(&self, text: &str) -> anyhow::Result<()> {
        let mut out = std::io::stdout();
        let clear = if out.is_terminal() && !self.json {
            CLEAR
        } else {
            ""
        };
        // A reader that has gone ends the watch.
        write!(out, "{clear}{text}")?;
        Ok(out.flush()?)
    }
}

/// Rests before the next question.
#[expect(
    clippy::disallowed_methods,
    reason = "the controller is asked again after a time; the process does nothing else"
)]
pub(super) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Says something beside the output.
pub(super) fn tell(text: &str) {
    // Standard error may be closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}
