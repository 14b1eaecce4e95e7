//! `fleet capacity`.

use serde_json::Value as Json;

use super::call::Call;
use super::console::Console;
use super::table::{Table, cell, gauge, list, percent};

/// Shows what the fleet, its regions, zones and nodes can hold.
pub(super) fn show(console: &Console) -> anyhow::Result<()> {
    console.show(&Call::get("/v1/capacity"), table)
}

pub(super) fn table(answer: &Json) -> Table {
    let header = [
        "SCOPE",
        "NODES",
        "LISTED",
        "ALLOCATIONS",
        "PORTS",
        "DESCRIPTORS",
        "HEADROOM",
        "WITHOUT ZONE",
        "FULL IN",
        "SATURATION",
        "STATE",
    ];
    let row = |scope: String, totals: &Json| {
        vec![
            scope,
            cell(totals, "/nodes"),
            cell(totals, "/listed"),
            gauge(totals, "/allocations"),
            gauge(totals, "/relayed_ports"),
            gauge(totals, "/file_descriptors"),
            cell(totals, "/allocations/headroom"),
            cell(totals, "/allocations/headroom_n1"),
            time(totals),
            percent(totals, "/saturation"),
            cell(totals, "/state"),
        ]
    };
    let total = answer.get("total");
    let total = total.map(|total| row("fleet".to_owned(), total));
    let regions = list(answer, "/regions").map(|region| row(cell(region, "/region"), region));
    let zones = list(answer, "/zones").filter(|zone| !cell(zone, "/zone").is_empty());
    let zone = |zone: &Json| {
        let scope = format!("{}/{}", cell(zone, "/region"), cell(zone, "/zone"));
        row(scope, zone)
    };
    let nodes = list(answer, "/nodes").map(|node| row(cell(node, "/node"), node));
    let scopes = total.into_iter().chain(regions).chain(zones.map(zone));
    Table::new(header).with(scopes.chain(nodes))
}

/// When it is full, in a unit of the size.
pub(super) fn time(totals: &Json) -> String {
    match totals.pointer("/seconds_to_full").and_then(Json::as_u64) {
        None => String::new(),
        Some(seconds) if seconds < 2 * 60 => format!("{seconds} s"),
        Some(seconds) if seconds < 2 * 3600 => format!("{} min", seconds / 60),
        Some(seconds) if seconds < 2 * 86_400 => format!("{} h", seconds / 3600),
        Some(seconds) => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_limit_that_is_not_known_is_left_out() {
        let totals = json!({"nodes": 2, "listed": 2, "allocations": {"used": 3, "limit": null},
            "relayed_ports": {"used": 3, "limit": 16384}, "saturation": 0.0, "state": "ok"});
        let table = table(&json!({"total": totals, "regions": [], "zones": []})).to_string();
        assert!(
            table
                .lines()
                .nth(1)
                .unwrap()
                .contains("3            3 of 16384"),
            "{table}"
        );
    }
}
