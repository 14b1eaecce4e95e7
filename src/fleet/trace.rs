//! `fleet trace`: who had a relayed address at a time, by the journals of the relay nodes.

use std::net::SocketAddr;

use clap::Args;
use serde_json::{Value as Json, json};

use super::call::Call;
use super::console::Console;
use super::table::{Table, cell, list, parse_moment, time};

/// Flags of `fleet trace`.
#[derive(Args, Debug)]
pub(super) struct Trace {
    /// The relayed address and port that the packet came from, IP:PORT or [IP]:PORT
    address: SocketAddr,
    /// When it came: a time with its zone such as 2026-11-22T05:43:24Z or 2026-11-22T06:43:24+01:00, or Unix seconds
    #[arg(long, value_parser = parse_moment)]
    at: u64,
    /// How many seconds before and after that are searched, too
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=43_200))]
    within: u64,
    /// Is it this user? As it stands in usernames, behind the time
    #[arg(long)]
    user: Option<String>,
}

impl Trace {
    /// Shows who it was, and what nobody knows.
    ///
    /// # Errors
    /// When the controller refuses.
    pub(super) fn run(&self, console: &Console) -> anyhow::Result<()> {
        let body = json!({
            "ip": self.address.ip(),
            "port": self.address.port(),
            "at": self.at,
            "within_seconds": self.within,
            "user": self.user,
        });
        console.act_then(&Call::post("/v1/trace").with(body), text)
    }
}

fn text(answer: &Json) -> String {
    let header = [
        "NODE", "CLIENT", "BY", "RELAYED", "TENANT", "USER", "IS", "OPENED", "ENDED", "HOW",
    ];
    let row = |trace: &Json| {
        let how = match cell(trace, "/reason") {
            reason if reason.is_empty() => cell(trace, "/ending"),
            reason => reason,
        };
        vec![
            cell(trace, "/node"),
            cell(trace, "/client"),
            cell(trace, "/transport"),
            cell(trace, "/relayed_transport"),
            cell(trace, "/tenant"),
            cell(trace, "/user_hash"),
            cell(trace, "/is_user"),
            time(trace, "/opened", 1),
            time(trace, "/ended", 1),
            how,
        ]
    };
    let table = Table::new(header).with(list(answer, "/traces").map(row));
    let mut text = match list(answer, "/traces").next() {
        Some(_) => table.to_string(),
        None => "no allocation is known to have had the address then\n".to_owned(),
    };
    for gap in list(answer, "/gaps") {
        let (node, reason) = (cell(gap, "/node"), cell(gap, "/reason"));
        let (from, to) = (time(gap, "/from", 1), time(gap, "/to", 1));
        let what = match reason.as_str() {
            "before_journal" => "its journal begins later",
            "stopped" => "it was not running",
            "died" => "it died in between, and what it had begun in its last second may be missing",
            "silent" => "it wrote nothing",
            "lost" => "it could not write all",
            "damaged" => "its journal is damaged",
            "unread" => "there was too much to read: ask for less time",
            other => other,
        };
        text.push_str(&format!("gap: {node} from {from} to {to}: {what}\n"));
    }
    for heard in list(answer, "/heard").filter(|heard| cell(heard, "/has_more") == "yes") {
        let node = cell(heard, "/node");
        text.push_str(&format!(
            "{node} found more than it can tell: search less time\n"
        ));
    }
    for unheard in list(answer, "/unheard") {
        let (node, reason) = (cell(unheard, "/node"), cell(unheard, "/reason"));
        text.push_str(&format!("not heard: {node}: {reason}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_gaps_and_who_was_not_heard_are_lines() {
        let answer = json!({
            "traces": [{
                "node": "relay-0", "client": "198.51.100.7:1000", "transport": "tls", "relayed_transport": "udp", "tenant": null,
                "user_hash": "a5a5", "is_user": true, "opened": 951_782_399, "ended": 951_782_400,
                "ending": "closed", "reason": "refreshed",
            }],
            "gaps": [{"node": "relay-1", "from": 0, "to": 951_782_399, "reason": "before_journal"}],
            "heard": [{"node": "relay-0", "has_more": true}],
            "unheard": [{"node": "relay-2", "reason": "it has no control session"}],
        });
        let text = text(&answer);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[1],
            "relay-0  198.51.100.7:1000  tls  udp              a5a5  yes  2000-02-28T23:59:59Z  2000-02-29T00:00:00Z  refreshed"
        );
        assert_eq!(
            lines[2],
            "gap: relay-1 from 1970-01-01T00:00:00Z to 2000-02-28T23:59:59Z: its journal begins later"
        );
        assert_eq!(lines[4], "not heard: relay-2: it has no control session");
        let nothing = super::text(&json!({"traces": [], "gaps": []}));
        assert!(nothing.starts_with("no allocation"), "{nothing}");
    }
}
