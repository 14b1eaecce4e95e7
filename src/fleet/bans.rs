//! `fleet ban`, `unban` and `bans`: who is not let in.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::{Value as Json, json};

use super::call::{Call, encoded};
use super::console::Console;
use super::table::{Table, cell, list, time};
use crate::credentials;

/// Digits of an id that a table shows: enough to name the ban.
const SHORT_ID: usize = 12;

/// What is banned.
#[derive(Args, Debug)]
struct Whom {
    /// A username without its time, of the default tenant where none is named
    #[arg(long, conflicts_with_all = ["source", "peer"])]
    user: Option<String>,
    /// The user's tenant; without --user, all users of it
    #[arg(long, conflicts_with_all = ["source", "peer"])]
    tenant: Option<String>,
    /// Clients from this address or network
    #[arg(long, value_name = "CIDR", conflicts_with = "peer")]
    source: Option<String>,
    /// Peers at this address or in this network
    #[arg(long, value_name = "CIDR")]
    peer: Option<String>,
}

impl Whom {
    /// The fields that name it.
    fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let fields = [
            ("user", &self.user),
            ("tenant", &self.tenant),
            ("source", &self.source),
            ("peer", &self.peer),
        ];
        let given = fields.into_iter();
        given.filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }
}

/// Flags of `fleet ban`.
#[derive(Args, Debug)]
pub(super) struct Ban {
    #[command(flatten)]
    whom: Whom,
    /// When it ends: seconds, or a number with s, m, h or d; never where it is left out
    #[arg(long = "for", value_name = "TIME", value_parser = credentials::duration)]
    time: Option<Duration>,
    /// Why, for whoever lists bans
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Also where it is so wide, or covers what is the fleet's own or yours, that it may be a mistake, or names a whole username
    #[arg(long)]
    force: bool,
}

/// Flags of `fleet unban`.
#[derive(Args, Debug)]
pub(super) struct Unban {
    /// The id of the ban, or its first eight digits or more
    id: Option<String>,
    #[command(flatten)]
    whom: Whom,
}

/// Flags of `fleet bans`.
#[derive(Args, Debug)]
pub(super) struct Bans {
    /// Only those of a user, a tenant, a source or a peer
    #[arg(long, value_parser = ["user", "tenant", "source", "peer"])]
    kind: Option<String>,
    /// How many, the latest first
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Goes on behind what an earlier answer ended with (`next` in its JSON)
    #[arg(long, value_name = "NEXT")]
    after: Option<String>,
}

impl Ban {
    /// Places the ban.
    ///
    /// # Errors
    /// When the flags name nothing, or the controller refuses.
    pub(super) fn run(&self, console: &Console) -> anyhow::Result<()> {
        if self.whom.fields().next().is_none() {
            bail!("nothing is named: --user, --tenant, --source or --peer");
        }
        let mut body = json!({
            "seconds": self.time.map(|time| time.as_secs()),
            "reason": self.reason,
            "force": self.force,
        });
        for (name, value) in self.whom.fields() {
            body[name] = json!(value);
        }
        console.act_then(&Call::post("/v1/bans").with(body), |ban| {
            let until = time(ban, "/until", 1);
            let until = match until.as_str() {
                "" => String::new(),
                until => format!(" until {until}"),
            };
            format!("{} is banned{until} ({})\n", whom(ban), short_id(ban))
        })
    }
}

impl Unban {
    /// Lifts the ban.
    ///
    /// # Errors
    /// When the flags name nothing, or both an id and what is banned, or the controller refuses.
    pub(super) fn run(&self, console: &Console) -> anyhow::Result<()> {
        let query: Vec<_> = self.whom.fields().collect();
        let path = match (&self.id, query.as_slice()) {
            (Some(id), []) => format!("/v1/bans/{}", encoded(id)),
            (None, [_, ..]) => {
                let query = query
                    .iter()
                    .map(|(name, it)| format!("{name}={}", encoded(it)));
                format!("/v1/bans?{}", query.collect::<Vec<_>>().join("&"))
            }
            (_, _) => {
                bail!("expected an id, or what is banned: --user, --tenant, --source or --peer")
            }
        };
        console.act_then(&Call::delete(path), |ban| {
            format!("{} is banned no longer\n", whom(ban))
        })
    }
}

impl Bans {
    /// Shows the bans.
    ///
    /// # Errors
    /// When the controller refuses.
    pub(super) fn run(&self, console: &Console) -> anyhow::Result<()> {
        let mut path = format!("/v1/bans?limit={}", self.limit);
        for (name, value) in [("kind", &self.kind), ("after", &self.after)] {
            if let Some(value) = value {
                path += &format!("&{name}={}", encoded(value));
            }
        }
        console.show(&Call::get(path), table)
    }
}

fn short_id(ban: &Json) -> String {
    cell(ban, "/id").chars().take(SHORT_ID).collect()
}

/// What is banned, in a few words.
fn whom(ban: &Json) -> String {
    let (kind, tenant) = (cell(ban, "/kind"), cell(ban, "/tenant"));
    match kind.as_str() {
        "user" if tenant == "default" => format!("user {}", cell(ban, "/user")),
        "user" => format!("user {tenant}/{}", cell(ban, "/user")),
        "tenant" => format!("tenant {tenant}"),
        kind => format!("{kind} {}", cell(ban, "/network")),
    }
}

pub(super) fn table(answer: &Json) -> Table {
    let row = |ban: &Json| {
        vec![
            short_id(ban),
            whom(ban),
            time(ban, "/since", 1),
            time(ban, "/until", 1),
            cell(ban, "/by"),
            cell(ban, "/automatic"),
            cell(ban, "/reason"),
        ]
    };
    let header = ["ID", "WHOM", "SINCE", "UNTIL", "BY", "AUTOMATIC", "REASON"];
    let more = answer.pointer("/next").and_then(Json::as_str);
    let more = more.map(|next| vec!["...".to_owned(), format!("more with --after {next}")]);
    Table::new(header)
        .with(list(answer, "/bans").map(row))
        .with(more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_is_a_row_that_says_whom_and_until_when() {
        let answer = json!({
            "bans": [
                { "id": "0123456789abcdef", "kind": "user", "tenant": "acme", "user": "alice", "network": null,
                  "reason": "spam", "by": "night", "since": 0, "until": 60, "automatic": false },
                { "id": "fedcba9876543210", "kind": "source", "tenant": null, "user": null,
                  "network": "192.0.2.0/24", "reason": "", "by": "rule", "since": 0, "until": null,
                  "automatic": true },
            ],
            "next": "0-fedcba9876543210", "total": 9,
        });
        let table = table(&answer).to_string();
        let rows: Vec<Vec<_>> = table
            .lines()
            .skip(1)
            .map(|it| it.split_whitespace().collect())
            .collect();
        assert_eq!(
            rows[0].join(" "),
            "0123456789ab user acme/alice 1970-01-01T00:00:00Z 1970-01-01T00:01:00Z night no spam"
        );
        assert_eq!(
            rows[1].join(" "),
            "fedcba987654 source 192.0.2.0/24 1970-01-01T00:00:00Z rule yes"
        );
        assert_eq!(
            rows[2].join(" "),
            "... more with --after 0-fedcba9876543210"
        );
    }
}
