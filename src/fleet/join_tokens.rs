//! `fleet join-tokens`: what lets relays into the fleet.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};

use super::call::{Call, encoded};
use super::console::Console;
use super::table::{Table, cell, list, time};
use crate::credentials;

/// What to do with join tokens.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// What lets relays into the fleet
    List,
    /// Makes a token and prints it; it is not shown again
    Create(Create),
    /// Revokes a token: it enrols nobody from then on, and its relays stay members
    Revoke {
        /// Its name
        name: String,
    },
}

/// Flags of `fleet join-tokens create`.
#[derive(Args, Debug)]
pub(super) struct Create {
    /// What to call it
    name: String,
    /// The region of its relays, whatever they say of themselves
    #[arg(long)]
    region: Option<String>,
    /// The tenant whose users its relays are for alone
    #[arg(long)]
    tenant: Option<String>,
    /// When it ends: seconds, or a number with s, m, h or d; never where it is left out
    #[arg(long, value_name = "TIME", value_parser = credentials::duration)]
    expires: Option<Duration>,
}

impl Action {
    /// Runs the command.
    ///
    /// # Errors
    /// When the controller refuses.
    pub(super) fn run(&self, console: &Console) -> anyhow::Result<()> {
        match self {
            Self::List => console.show(&Call::get("/v1/join-tokens"), table),
            Self::Create(create) => create.run(console),
            Self::Revoke { name } => console.act(
                &Call::delete(format!("/v1/join-tokens/{}", encoded(name))),
                &format!("{name} is revoked"),
            ),
        }
    }
}

impl Create {
    fn run(&self, console: &Console) -> anyhow::Result<()> {
        let call = Call::post("/v1/join-tokens").with(json!({
            "name": self.name,
            "region": self.region,
            "tenant": self.tenant,
            "expires_in_seconds": self.expires.map(|life| life.as_secs()),
        }));
        console.act_then(&call, |answer| format!("{}\n", cell(answer, "/token")))
    }
}

fn table(answer: &Json) -> Table {
    let row = |token: &Json| {
        vec![
            cell(token, "/name"),
            cell(token, "/region"),
            cell(token, "/tenant"),
            time(token, "/expires_at", 1),
            cell(token, "/configured"),
        ]
    };
    let header = ["NAME", "REGION", "TENANT", "EXPIRES", "CONFIGURED"];
    Table::new(header).with(list(answer, "/join_tokens").map(row))
}
