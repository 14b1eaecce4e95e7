//! `fleet tokens`: the API tokens of a controller.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value as Json, json};

use super::call::{Call, encoded};
use super::console::Console;
use super::table::{Table, cell, list, time};
use crate::credentials;

/// What to do with API tokens.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Who may use the API
    List,
    /// Makes a token and prints it; it is not shown again
    Create(Create),
    /// Revokes a token: it opens nothing from then on
    Revoke {
        /// Its name
        name: String,
    },
}

/// Flags of `fleet tokens create`.
#[derive(Args, Debug)]
pub(super) struct Create {
    /// What to call the bearer
    name: String,
    /// What it opens; several with commas
    #[arg(long, value_enum, value_delimiter = ',', required = true)]
    scope: Vec<Scope>,
    /// The tenant that it is bound to; it then mints for that tenant's users and opens nothing else
    #[arg(long)]
    tenant: Option<String>,
    /// When it ends: seconds, or a number with s, m, h or d; never where it is left out
    #[arg(long, value_name = "TIME", value_parser = credentials::duration)]
    expires: Option<Duration>,
}

/// What an API token opens.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Scope {
    /// Asks for credentials
    Mint,
    /// Sees nodes and capacity
    Viewer,
    /// Also changes nodes
    Operator,
    /// Everything
    Admin,
}

impl Action {
    /// Runs the command.
    ///
    /// # Errors
    /// When the controller refuses.
    pub(super) fn run(&self, console: &Console) -> anyhow::Result<()> {
        match self {
            Self::List => console.show(&Call::get("/v1/tokens"), table),
            Self::Create(create) => create.run(console),
            Self::Revoke { name } => console.act(
                &Call::delete(format!("/v1/tokens/{}", encoded(name))),
                &format!("{name} is revoked"),
            ),
        }
    }
}

impl Create {
    fn run(&self, console: &Console) -> anyhow::Result<()> {
        let names = self.scope.iter().filter_map(Scope::to_possible_value);
        let scopes: Vec<_> = names.map(|name| name.get_name().to_owned()).collect();
        let call = Call::post("/v1/tokens").with(json!({
            "name": self.name,
            "scopes": scopes,
            "tenant": self.tenant,
            "expires_in_seconds": self.expires.map(|life| life.as_secs()),
        }));
        console.act_then(&call, |answer| format!("{}\n", cell(answer, "/token")))
    }
}

fn table(answer: &Json) -> Table {
    let row = |token: &Json| {
        let scopes: Vec<_> = list(token, "/scopes").filter_map(Json::as_str).collect();
        vec![
            cell(token, "/name"),
            scopes.join(","),
            cell(token, "/tenant"),
            time(token, "/expires_at", 1),
            cell(token, "/configured"),
        ]
    };
    let header = ["NAME", "SCOPES", "TENANT", "EXPIRES", "CONFIGURED"];
    Table::new(header).with(list(answer, "/tokens").map(row))
}
