//! `fleet audit`: who changed what.

use clap::Args;
use serde_json::Value as Json;

use super::call::Call;
use super::console::Console;
use super::table::{Table, cell, list, time};

/// Flags of `fleet audit`.
#[derive(Args, Debug)]
pub(super) struct Audit {
    /// How many changes, the latest first
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Only changes from before this time, in Unix milliseconds
    #[arg(long)]
    before: Option<u64>,
}

impl Audit {
    /// Shows the changes.
    ///
    /// # Errors
    /// When the controller refuses.
    pub(super) fn run(&self, console: &Console) -> anyhow::Result<()> {
        let before = self.before;
        let before = before.map_or_else(String::new, |before| format!("&before={before}"));
        let path = format!("/v1/audit?limit={}{before}", self.limit);
        console.show(&Call::get(path), table)
    }
}

fn table(answer: &Json) -> Table {
    let row = |entry: &Json| {
        vec![
            time(entry, "/at_milliseconds", 1000),
            cell(entry, "/by"),
            cell(entry, "/from"),
            cell(entry, "/action"),
            cell(entry, "/target"),
            cell(entry, "/detail"),
        ]
    };
    let header = ["WHEN", "WHO", "FROM", "WHAT", "TO", "WITH"];
    Table::new(header).with(list(answer, "/entries").map(row))
}
