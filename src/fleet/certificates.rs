//! `fleet certificates`.

use serde_json::Value as Json;

use super::call::Call;
use super::console::Console;
use super::table::{Table, cell, list, time};

/// Shows the fleet's certificate, the order of the next one, and what each relay shows.
pub(super) fn show(console: &Console) -> anyhow::Result<()> {
    console.show(&Call::get("/v1/certificates"), table)
}

fn table(answer: &Json) -> Table {
    let header = ["WHOSE", "STATE", "ENDS", "NEXT", "NAMES", "ERROR"];
    let fleet = answer.get("fleet").filter(|fleet| !fleet.is_null());
    let order = answer.get("order").filter(|order| !order.is_null());
    let fleet = fleet.map(|fleet| {
        vec![
            "fleet".to_owned(),
            "issued".to_owned(),
            time(fleet, "/not_after", 1),
            time(fleet, "/renews_at", 1),
            names(fleet),
            String::new(),
        ]
    });
    let order = order.and_then(|order| {
        let failures = cell(order, "/failures");
        let state = match (cell(order, "/under_way").as_str(), failures.as_str()) {
            (_, failures) if failures != "0" => format!("failed {failures} times"),
            ("true" | "yes", _) => "under way".to_owned(),
            (_, _) => return None,
        };
        Some(vec![
            "order".to_owned(),
            state,
            String::new(),
            time(order, "/next_at", 1),
            names(order),
            cell(order, "/last_error"),
        ])
    });
    let relay = |relay: &Json| {
        vec![
            cell(relay, "/node"),
            cell(relay, "/state"),
            time(relay, "/not_after", 1),
            String::new(),
            String::new(),
            String::new(),
        ]
    };
    let relays = list(answer, "/relays").map(relay);
    Table::new(header).with(fleet.into_iter().chain(order).chain(relays))
}

fn names(of: &Json) -> String {
    let names = list(of, "/names").filter_map(Json::as_str);
    names.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_failed_order_stands_below_the_certificate_that_stays() {
        let answer = json!({
            "fleet": {"names": ["a.example.org", "b.example.org"], "not_after": 1_800_000_000,
                "renews_at": 1_799_000_000},
            "order": {"names": ["a.example.org"], "under_way": false, "failures": 2,
                "next_at": 1_799_000_060, "last_error": "no answer"},
            "relays": [{"node": "relay-a", "state": "good", "not_after": 1_800_000_000}],
        });
        let table = table(&answer).to_string();
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[1].contains("a.example.org b.example.org"), "{table}");
        assert!(
            lines[2].contains("failed 2 times") && lines[2].ends_with("no answer"),
            "{table}"
        );
        assert!(lines[3].starts_with("relay-a"), "{table}");
        let idle = json!({"fleet": null, "relays": [],
            "order": {"names": ["a"], "under_way": false, "failures": 0}});
        assert_eq!(super::table(&idle).to_string().lines().count(), 1);
    }
}
