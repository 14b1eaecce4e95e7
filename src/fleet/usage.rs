//! `fleet usage`, and `fleet top` of users or networks: who uses the fleet, and how much.

use clap::{Args, ValueEnum};
use serde_json::Value as Json;

use super::call::{Call, encoded};
use super::console::Console;
use super::table::{Table, cell, list, time};
use super::top;

/// Flags of `fleet usage`.
#[derive(Args, Debug)]
pub(super) struct Usage {
    /// What each sum is of
    #[arg(long, value_enum, default_value_t)]
    by: By,
    /// This tenant alone
    #[arg(long)]
    tenant: Option<String>,
    /// This region alone
    #[arg(long)]
    region: Option<String>,
    /// Shows the past instead: what was counted within each minute of the last hour, or each hour of the last day
    #[arg(long, value_enum, conflicts_with = "by")]
    history: Option<Resolution>,
}

/// What sums are of.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum By {
    Fleet,
    #[default]
    Tenant,
    Region,
    Zone,
    Node,
}

/// How long spans of the past are.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Resolution {
    Minute,
    Hour,
}

/// Flags of `fleet top`.
#[derive(Args, Debug)]
pub(super) struct Top {
    /// Users, networks of clients or of peers, or networks of those who have proved nothing; without it the whole fleet, live
    /// in a terminal
    #[arg(value_enum)]
    of: Option<Of>,
    /// Shows the whole fleet once, in a terminal too
    #[arg(long, conflicts_with = "of")]
    once: bool,
    /// What they are ordered by
    #[arg(long, value_enum, default_value_t)]
    by: Span,
    /// How many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
    limit: u16,
}

/// Who is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Of {
    Users,
    Sources,
    Peers,
    Strangers,
}

/// The time that counts.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Span {
    #[default]
    Minute,
    Hour,
}

impl Usage {
    /// Shows the sums.
    ///
    /// # Errors
    /// When no controller can be reached, or it refuses.
    pub(super) fn run(&self, console: &Console) -> anyhow::Result<()> {
        let mut query = match self.history {
            Some(resolution) => format!("/history?resolution={}", name(resolution)),
            None => format!("?by={}", name(self.by)),
        };
        for (key, value) in [("tenant", &self.tenant), ("region", &self.region)] {
            if let Some(value) = value {
                query.push_str(&format!("&{key}={}", encoded(value)));
            }
        }
        let call = Call::get(format!("/v1/usage{query}"));
        match self.history {
            Some(_) => console.show(&call, spans),
            None => console.show(&call, sums),
        }
    }
}

impl Top {
    /// Shows the largest, or the whole fleet.
    ///
    /// # Errors
    /// When no controller can be reached, or it refuses.
    pub(super) fn run(&self, console: &Console) -> anyhow::Result<()> {
        let Some(wanted) = self.of else {
            return top::run(console, self.once);
        };
        let (of, by, limit) = (name(wanted), name(self.by), self.limit);
        let call = Call::get(format!("/v1/usage/top?of={of}&by={by}&limit={limit}"));
        match wanted {
            Of::Users => console.show(&call, users),
            Of::Sources | Of::Peers => console.show(&call, networks),
            Of::Strangers => console.show(&call, strangers),
        }
    }
}

fn name(value: impl ValueEnum) -> String {
    let known = value.to_possible_value();
    known.map_or_else(String::new, |known| known.get_name().to_owned())
}

fn sums(answer: &Json) -> Table {
    let row = |sum: &Json| {
        let scope = ["/tenant", "/region", "/zone", "/node"].map(|part| cell(sum, part));
        let scope: Vec<_> = scope.into_iter().filter(|part| !part.is_empty()).collect();
        let scope = match scope.as_slice() {
            [] => "fleet".to_owned(),
            parts => parts.join("/"),
        };
        vec![
            scope,
            bytes(sum, "/bytes_to_peers"),
            bytes(sum, "/bytes_to_clients"),
            cell(sum, "/packets_to_peers"),
            cell(sum, "/packets_to_clients"),
            cell(sum, "/open"),
            cell(sum, "/opened"),
            cell(sum, "/refused"),
        ]
    };
    let header = [
        "SCOPE",
        "TO PEERS",
        "TO CLIENTS",
        "PACKETS TO PEERS",
        "PACKETS TO CLIENTS",
        "OPEN",
        "OPENED",
        "REFUSED",
    ];
    Table::new(header).with(list(answer, "/sums").map(row))
}

fn spans(answer: &Json) -> Table {
    let row = |span: &Json| {
        vec![
            time(span, "/from", 1),
            time(span, "/to", 1),
            bytes(span, "/bytes_to_peers"),
            bytes(span, "/bytes_to_clients"),
            cell(span, "/opened"),
            cell(span, "/refused"),
        ]
    };
    let header = ["FROM", "TO", "TO PEERS", "TO CLIENTS", "OPENED", "REFUSED"];
    Table::new(header).with(list(answer, "/spans").map(row))
}

pub(super) fn users(answer: &Json) -> Table {
    let row = |user: &Json| {
        let mut row = vec![cell(user, "/tenant"), cell(user, "/user")];
        row.extend(volumes(user));
        row.extend([
            cell(user, "/addresses"),
            cell(user, "/peers"),
            cell(user, "/peer_ports"),
        ]);
        row
    };
    let header = [
        "TENANT",
        "USER",
        "RELAYS",
        "RATE",
        "LAST MINUTE",
        "LAST HOUR",
        "ADDRESSES",
        "PEERS",
        "PEER PORTS",
    ];
    Table::new(header).with(list(answer, "/talkers").map(row))
}

fn networks(answer: &Json) -> Table {
    let row = |network: &Json| {
        let mut row = vec![cell(network, "/network")];
        row.extend(volumes(network));
        row
    };
    let header = ["NETWORK", "RELAYS", "RATE", "LAST MINUTE", "LAST HOUR"];
    Table::new(header).with(list(answer, "/talkers").map(row))
}

fn strangers(answer: &Json) -> Table {
    let row = |network: &Json| {
        vec![
            cell(network, "/network"),
            cell(network, "/nodes"),
            cell(network, "/failures"),
            cell(network, "/challenges"),
            cell(network, "/unanswered"),
        ]
    };
    let header = [
        "NETWORK",
        "RELAYS",
        "BAD CREDENTIALS",
        "CHALLENGES",
        "UNANSWERED",
    ];
    Table::new(header).with(list(answer, "/talkers").map(row))
}

fn volumes(talker: &Json) -> [String; 4] {
    let both = |span: &str| {
        let part = |way: &str| number(talker, &format!("{span}/{way}"));
        part("bytes_to_peers").saturating_add(part("bytes_to_clients"))
    };
    [
        cell(talker, "/nodes"),
        format!("{}bit/s", scaled(number(talker, "/bits_per_second"))),
        format!("{}B", scaled(both("/last_minute"))),
        format!("{}B", scaled(both("/last_hour"))),
    ]
}

fn bytes(value: &Json, pointer: &str) -> String {
    format!("{}B", scaled(number(value, pointer)))
}

fn number(value: &Json, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Json::as_u64).unwrap_or(0)
}

/// A number with the prefix of its size, and a space before it.
pub(super) fn scaled(number: u64) -> String {
    let prefixes = [
        (1_000_000_000_000, "T"),
        (1_000_000_000, "G"),
        (1_000_000, "M"),
        (1000, "k"),
    ];
    let fitting = prefixes.into_iter().find(|(size, _)| number >= *size);
    match fitting {
        None => format!("{number} "),
        Some((size, prefix)) => format!("{}.{} {prefix}", number / size, number % size * 10 / size),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_shown_in_a_unit_of_their_size() {
        assert_eq!(scaled(0), "0 ");
        assert_eq!(scaled(1999), "1.9 k");
        assert_eq!(scaled(10_000_000_000), "10.0 G");
    }

    #[test]
    fn a_sum_is_a_row_by_what_it_is_of() {
        let sum = json!({"tenant": null, "region": "north", "zone": "z1", "node": null,
            "bytes_to_peers": 1500, "bytes_to_clients": 2_000_000, "open": 3});
        let table = sums(&json!({"sums": [sum]})).to_string();
        let row = table.lines().nth(1).unwrap();
        assert!(row.starts_with("north/z1  1.5 kB    2.0 MB"), "{row}");
    }
}
