//! `fleet events`: what happens in the fleet.

use std::fmt::Write as _;
use std::io::{BufRead as _, Write as _};
use std::time::Duration;

use clap::Args;
use serde_json::Value as Json;

use super::call::encoded;
use super::console::{Console, pause, tell};
use super::table::{cell, time};

/// Before a stream that ended is asked for again.
const RETRY: Duration = Duration::from_secs(1);

/// Flags of `fleet events`.
#[derive(Args, Debug)]
pub(super) struct Events {
    /// Goes on with what happens, and comes back to it when a controller dies; without it, what controllers still have is shown
    #[arg(long, short)]
    follow: bool,
    /// Only events of this kind, such as allocation.opened, or allocation for all of allocations; may be given several times
    #[arg(long = "kind", value_delimiter = ',')]
    kinds: Vec<String>,
    /// Only events that concern this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Only events that concern this node
    #[arg(long)]
    node: Option<String>,
    /// What came after the event with this cursor, which --json shows
    #[arg(long)]
    after: Option<String>,
}

impl Events {
    /// Shows the events.
    ///
    /// # Errors
    /// When no controller can be reached, or it refuses.
    pub(super) fn run(&self, console: &Console) -> anyhow::Result<()> {
        let mut cursor = self.after.clone();
        if !self.follow {
            cursor = cursor.or_else(|| Some("start".to_owned()));
        }
        self.read(console, &mut cursor)?;
        if !self.follow {
            return Ok(());
        }
        loop {
            pause(RETRY);
            if let Err(error) = self.read(console, &mut cursor) {
                tell(&format!("{error:#}"));
            }
        }
    }

    /// Reads one stream to its end, and leaves in `cursor` where the next one goes on.
    fn read(&self, console: &Console, cursor: &mut Option<String>) -> anyhow::Result<()> {
        let path = self.path(cursor.as_deref());
        let mut id = None;
        for line in console.stream(&path)?.lines() {
            // The stream ended with its controller.
            let Ok(line) = line else { break };
            match line.split_once(':') {
                Some(("id", text)) => id = Some(text.trim().to_owned()),
                Some(("data", text)) => {
                    let Ok(mut event) = serde_json::from_str::<Json>(text) else {
                        continue;
                    };
                    if let Some(id) = id.take() {
                        event["cursor"] = id.as_str().into();
                        *cursor = Some(id);
                    }
                    show(console, &event)?;
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    fn path(&self, after: Option<&str>) -> String {
        let mut path = format!("/v1/events?once={}", !self.follow);
        let mut add = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                write!(path, "&{name}={}", encoded(value)).expect("a String takes every text");
            }
        };
        let kinds = Some(self.kinds.join(",")).filter(|kinds| !kinds.is_empty());
        add("kinds", kinds.as_deref());
        add("tenant", self.tenant.as_deref());
        add("node", self.node.as_deref());
        add("after", after);
        path
    }
}

/// Prints an event in one line.
fn show(console: &Console, event: &Json) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    if console.is_json() {
        writeln!(out, "{event}")?;
    } else {
        let at = time(event, "/at_milliseconds", 1000);
        let kind = cell(event, "/kind");
        write!(out, "{at} {kind}")?;
        for name in ["node", "tenant"] {
            let value = cell(event, &format!("/{name}"));
            if !value.is_empty() {
                write!(out, " {name}={value}")?;
            }
        }
        for (name, value) in event["fields"].as_object().into_iter().flatten() {
            match value.as_str() {
                Some(text) if text.contains([' ', '"']) => write!(out, " {name}={text:?}")?,
                Some(text) => write!(out, " {name}={text}")?,
                None => write!(out, " {name}={value}")?,
            }
        }
        writeln!(out)?;
    }
    Ok(out.flush()?)
}
