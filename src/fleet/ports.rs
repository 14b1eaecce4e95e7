//! `fleet ports`: who holds which ports of which public address, and an operator's word that nobody uses some.

use std::net::IpAddr;

use clap::{Args, Subcommand};
use serde_json::Value as Json;
use turnfleet_proto::PortRange;

use super::call::Call;
use super::console::Console;
use super::table::{Table, cell, list as values, time};

/// Flags of `fleet ports`.
#[derive(Args, Debug)]
pub(super) struct Ports {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Says that nobody uses these ports: a holder whose process has ended for good loses them to a quarantine of ten
    /// minutes, and a quarantine ends at once
    Release {
        /// The public address
        ip: IpAddr,
        /// The ports of one grant, FIRST-LAST
        range: PortRange,
    },
}

impl Ports {
    /// Shows ports, or releases some.
    ///
    /// # Errors
    /// When the controller refuses.
    pub(super) fn run(&self, console: &Console) -> anyhow::Result<()> {
        match &self.action {
            None => console.show(&Call::get("/v1/ports"), table),
            Some(Action::Release { ip, range }) => {
                let call = Call::delete(format!("/v1/ports/{ip}/{range}"));
                console.act(&call, &format!("{range} of {ip} is released"))
            }
        }
    }
}

fn table(answer: &Json) -> Table {
    let header = ["ADDRESS", "PORTS", "NODE", "STATE", "GIVES UP", "UNTIL"];
    let row = |grant: &Json| {
        let (first, last) = (cell(grant, "/first"), cell(grant, "/last"));
        let ceded = match cell(grant, "/ceded_from") {
            from if from.is_empty() => from,
            from => format!("{from}-{last} {}", cell(grant, "/ceded_to")),
        };
        let until = match time(grant, "/quarantined_until", 1) {
            until if until.is_empty() => time(grant, "/not_after", 1),
            until => until,
        };
        vec![
            cell(grant, "/public_ip"),
            format!("{first}-{last}"),
            cell(grant, "/node"),
            cell(grant, "/state"),
            ceded.trim_end().to_owned(),
            until,
        ]
    };
    Table::new(header).with(values(answer, "/ports").map(row))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_grant_is_a_row() {
        let answer = json!({"ports": [{
            "public_ip": "192.0.2.1", "first": 50000, "last": 50099, "node": "relay-0", "state": "ceding",
            "ceded_from": 50050, "ceded_to": "relay-1", "not_after": null, "quarantined_until": null,
        }]});
        let table = table(&answer).to_string();
        assert_eq!(
            table.lines().nth(1).unwrap(),
            "192.0.2.1  50000-50099  relay-0  ceding  50050-50099 relay-1"
        );
    }
}
