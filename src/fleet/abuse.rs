//! `fleet abuse`: who is suspected, by which rule, and what would be done.

use clap::Args;
use serde_json::Value as Json;

use super::call::{Call, encoded};
use super::console::Console;
use super::table::{Table, cell, list, time};

/// Flags of `fleet abuse`.
#[derive(Args, Debug)]
pub(super) struct Abuse {
    /// Only what this rule found
    #[arg(long)]
    rule: Option<String>,
    /// How many, whoever was found last first
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Shows the rules instead: what they find, and what they do
    #[arg(long, conflicts_with = "rule")]
    rules: bool,
}

impl Abuse {
    /// Shows them.
    ///
    /// # Errors
    /// When no controller can be reached, or it refuses.
    pub(super) fn run(&self, console: &Console) -> anyhow::Result<()> {
        let mut path = format!("/v1/abuse?limit={}", self.limit);
        if let Some(rule) = &self.rule {
            path += &format!("&rule={}", encoded(rule));
        }
        let call = Call::get(path);
        match self.rules {
            true => console.show(&call, rules),
            false => console.show(&call, suspects),
        }
    }
}

pub(super) fn suspects(answer: &Json) -> Table {
    let row = |suspect: &Json| {
        vec![
            cell(suspect, "/rule"),
            whom(suspect),
            time(suspect, "/since", 1),
            time(suspect, "/last", 1),
            cell(suspect, "/evidence"),
            cell(suspect, "/verdict"),
            cell(suspect, "/would"),
            cell(suspect, "/banned"),
            cell(suspect, "/throttled"),
        ]
    };
    let header = [
        "RULE",
        "WHOM",
        "SINCE",
        "LAST",
        "EVIDENCE",
        "VERDICT",
        "WOULD",
        "BANNED",
        "THROTTLED",
    ];
    Table::new(header).with(list(answer, "/suspects").map(row))
}

/// A network, or a user with its tenant. Users choose their names, and with them what a terminal would be told.
fn whom(suspect: &Json) -> String {
    let [network, tenant, user] = ["/network", "/tenant", "/user"].map(|part| cell(suspect, part));
    let user = user.escape_debug();
    match (network.is_empty(), tenant.as_str()) {
        (false, _) => network,
        (true, "" | "default") => user.to_string(),
        (true, tenant) => format!("{tenant}/{user}"),
    }
}

fn rules(answer: &Json) -> Table {
    let row = |rule: &Json| {
        vec![
            cell(rule, "/rule"),
            cell(rule, "/enabled"),
            cell(rule, "/threshold"),
            format!("{} s", cell(rule, "/window_seconds")),
            cell(rule, "/verdict"),
            format!("{} s", cell(rule, "/ban_seconds")),
        ]
    };
    let header = ["RULE", "ENABLED", "THRESHOLD", "WINDOW", "VERDICT", "BAN"];
    Table::new(header).with(list(answer, "/rules").map(row))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_suspect_is_a_row_that_says_what_would_be_done() {
        let answer = json!({"suspects": [
            {"rule": "denied_peers", "tenant": "acme", "user": "eve\u{1b}", "network": null, "since": 0, "last": 60,
             "count": 250, "peak": 300, "evidence": "250 peers", "verdict": "observe",
             "would": "ban user eve for 1h", "banned": false, "throttled": false},
            {"rule": "unanswered_challenges", "tenant": null, "user": null, "network": "192.0.2.0/24", "since": 0,
             "last": 0, "evidence": "", "verdict": "observe", "would": "nothing: because", "banned": true, "throttled": false},
        ]});
        let table = suspects(&answer).to_string();
        let rows: Vec<_> = table.lines().skip(1).collect();
        assert!(rows[0].contains("acme/eve\\u{1b}"), "{}", rows[0]);
        assert!(rows[0].contains("observe  ban user eve for 1h  no"));
        assert!(rows[1].contains("  192.0.2.0/24  ") && rows[1].contains("  yes  "));
    }
}
