//! `fleet explain`: why relay nodes are, or are not, in somebody's list.

use clap::Args;
use serde_json::Value as Json;
use turnfleet_proto::NodeId;

use super::call::{Call, encoded};
use super::console::Console;
use super::table::{Table, cell, list};

/// Flags of `fleet explain`.
#[derive(Args, Debug)]
pub(super) struct Explain {
    /// The node; without it all of them, in the order of the user's list
    node: Option<NodeId>,
    /// Whose list it is
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// The room whose list it is
    #[arg(long, value_name = "ROOM")]
    room: Option<String>,
    /// The region that is asked for; the controller's own otherwise
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
}

impl Explain {
    /// Shows every condition of one node, or all nodes.
    ///
    /// # Errors
    /// When no controller can be reached, or it refuses.
    pub(super) fn run(&self, console: &Console) -> anyhow::Result<()> {
        let given = [
            ("user", &self.user),
            ("room", &self.room),
            ("region", &self.region),
        ];
        let pair = |(name, value): (&str, &Option<String>)| {
            let value = encoded(value.as_ref()?);
            Some(format!("{name}={value}"))
        };
        let query: Vec<String> = given.into_iter().filter_map(pair).collect();
        let query = query.join("&");
        match &self.node {
            Some(node) => console.show(
                &Call::get(format!("/v1/nodes/{node}/explain?{query}")),
                gates,
            ),
            None => console.show(&Call::get(format!("/v1/explain?{query}")), nodes),
        }
    }
}

fn nodes(answer: &Json) -> Table {
    let header = [
        "PLACE", "RANK", "NODE", "REGION", "ZONE", "HEALTH", "LISTED", "WEIGHT", "CLOSED",
    ];
    let row = |node: &Json| {
        let closed = list(node, "/gates").filter(|gate| gate.get("open") == Some(&false.into()));
        let closed: Vec<String> = closed.map(|gate| cell(gate, "/gate")).collect();
        let weight = node.pointer("/weight").and_then(Json::as_f64);
        vec![
            cell(node, "/place"),
            cell(node, "/rank"),
            cell(node, "/node"),
            cell(node, "/region"),
            cell(node, "/zone"),
            cell(node, "/health"),
            cell(node, "/listed"),
            weight.map_or_else(String::new, |weight| format!("{weight:.0}")),
            closed.join(" "),
        ]
    };
    Table::new(header).with(list(answer, "/nodes").map(row))
}

fn gates(answer: &Json) -> Table {
    let node = answer.pointer("/nodes/0").unwrap_or(&Json::Null);
    let gate = |gate: &Json| {
        vec![
            cell(gate, "/gate"),
            cell(gate, "/open"),
            cell(gate, "/found"),
        ]
    };
    let whole = |name: &str, pointer| vec![name.to_owned(), String::new(), cell(node, pointer)];
    let ends = [
        ("listed", "/listed"),
        ("weight", "/weight"),
        ("score", "/score"),
        ("rank", "/rank"),
        ("place", "/place"),
        ("reason", "/reason"),
    ];
    Table::new(["GATE", "MET", "FOUND"])
        .with(list(node, "/gates").map(gate))
        .with(ends.map(|(name, pointer)| whole(name, pointer)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_names_the_conditions_that_are_not_met() {
        let answer = json!({"nodes": [{
            "node": "relay-0", "region": "north", "zone": "a", "health": "healthy", "listed": false,
            "weight": 1000.0, "place": null, "rank": null,
            "gates": [{"gate": "known", "open": true}, {"gate": "clock", "open": false}],
        }]});
        let table = nodes(&answer).to_string();
        let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        let expected = ["relay-0", "north", "a", "healthy", "no", "1000", "clock"];
        assert_eq!(row, expected);
    }

    #[test]
    fn a_user_is_percent_encoded() {
        assert_eq!(encoded("@a b:ü&"), "%40a%20b%3A%C3%BC%26");
    }
}
