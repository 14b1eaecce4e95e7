//! How far a changed policy has come, and the operator's word where it waits for one.

use serde_json::Value as Json;

use super::call::Call;
use super::console::Console;
use super::table::{Table, cell};

/// Shows the rollout, and whether the store is an old one.
pub(super) fn show(console: &Console) -> anyhow::Result<()> {
    console.show(&Call::get("/v1/rollout"), table)
}

/// Gives every relay the policy.
pub(super) fn force(console: &Console) -> anyhow::Result<()> {
    console.act(
        &Call::post("/v1/rollout/force"),
        "every relay gets the policy",
    )
}

/// Follows a restored store.
pub(super) fn confirm_restore(console: &Console) -> anyhow::Result<()> {
    console.act(
        &Call::post("/v1/restore/confirm"),
        "the store is followed as it is",
    )
}

fn table(answer: &Json) -> Table {
    let header = ["STAGE", "GENERATION", "NODE", "REASON", "RESTORED BELOW"];
    let row = vec![
        cell(answer, "/stage"),
        cell(answer, "/generation"),
        cell(answer, "/node"),
        cell(answer, "/reason"),
        cell(answer, "/restored/runs"),
    ];
    Table::new(header).with([row])
}
