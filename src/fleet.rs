//! `turnfleet fleet`: what a running controller knows of its relay nodes, as a table or as the API's own JSON, and what an
//! operator does with one of them.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};
use turnfleet_proto::NodeId;
use ureq::http::{Method, Request};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::credentials;

/// How long the controller may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Which controller to ask, and for what.
#[derive(Args, Debug)]
pub(crate) struct FleetArgs {
    #[command(subcommand)]
    action: Action,
    /// The controller's HTTP API
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "TURNFLEET_CONTROLLER_URL",
        default_value = "http://127.0.0.1:8080"
    )]
    controller: String,
    /// An API token with the scope viewer, or operator for what changes something
    #[arg(
        long,
        global = true,
        env = "TURNFLEET_API_TOKEN",
        hide_env_values = true,
        default_value = ""
    )]
    token: String,
    /// The certificate authority, PEM, that an https controller is checked against instead of the public ones
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Prints the JSON of the API
    #[arg(long, global = true)]
    json: bool,
}

/// What to show or to do.
#[derive(Debug, Subcommand)]
enum Action {
    /// Every relay node: whether lists name it, or why not, and what it does
    Nodes,
    /// What the fleet, its regions and zones can hold, and what they hold
    Capacity,
    /// Takes a relay node out of the lists; it opens no more allocations, and live ones go on
    Drain {
        /// The node
        node: NodeId,
        /// Ends allocations that still live after this time: seconds, or a number with s, m, h or d
        #[arg(long, value_parser = credentials::duration)]
        deadline: Option<Duration>,
    },
    /// Takes a drain back
    Undrain {
        /// The node
        node: NodeId,
    },
    /// Forgets a relay node that is gone for good, and frees its ports for others
    Forget {
        /// The node
        node: NodeId,
    },
}

/// What the HTTP API is asked.
struct Call {
    method: Method,
    path: String,
    body: Option<Json>,
}

impl Call {
    fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            body: None,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When the controller cannot be reached or refuses.
pub(crate) fn run(args: &FleetArgs) -> anyhow::Result<()> {
    let node_path = |node: &NodeId, action: &str| format!("/v1/nodes/{node}{action}");
    let call = match &args.action {
        Action::Nodes => Call::new(Method::GET, "/v1/nodes"),
        Action::Capacity => Call::new(Method::GET, "/v1/capacity"),
        Action::Drain { node, deadline } => Call {
            body: deadline.map(|deadline| json!({ "deadline_seconds": deadline.as_secs() })),
            ..Call::new(Method::POST, node_path(node, "/drain"))
        },
        Action::Undrain { node } => Call::new(Method::POST, node_path(node, "/undrain")),
        Action::Forget { node } => Call::new(Method::DELETE, node_path(node, "")),
    };
    let answer = ask(args, &call)?;
    let text = match &args.action {
        _ if args.json => format!("{answer}\n"),
        Action::Nodes => aligned(&nodes(&answer)),
        Action::Capacity => aligned(&capacity(&answer)),
        Action::Drain { node, .. } => format!("{node} is draining\n"),
        Action::Undrain { node } => format!("{node} is not drained by the controller\n"),
        Action::Forget { node } => format!("{node} is forgotten\n"),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn ask(args: &FleetArgs, call: &Call) -> anyhow::Result<Json> {
    let mut config = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false);
    if let Some(ca) = &args.ca {
        let pem =
            std::fs::read(ca).with_context(|| format!("cannot read {} (--ca)", ca.display()))?;
        let certificate = Certificate::from_pem(&pem).context("--ca holds no certificate")?;
        let roots = RootCerts::new_with_certs(&[certificate]);
        config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
    }
    let url = format!("{}{}", args.controller.trim_end_matches('/'), call.path);
    let mut request = Request::builder().method(call.method.clone()).uri(&url);
    if !args.token.is_empty() {
        request = request.header("Authorization", format!("Bearer {}", args.token));
    }
    let body = call.body.as_ref().map_or_else(String::new, Json::to_string);
    let request = request.body(body);
    let request = request.with_context(|| format!("{url} is no URL (--controller)"))?;
    let response = config.build().new_agent().run(request);
    let mut response = response.with_context(|| {
        format!(
            "cannot reach the controller at {} (--controller)",
            args.controller
        )
    })?;
    let status = response.status();
    let answer: Result<Json, _> = response.body_mut().read_json();
    if !status.is_success() {
        let message = answer.ok().map(|answer| cell(&answer, "/error/what"));
        let token = if status == 401 {
            "; give an API token with --token"
        } else {
            ""
        };
        bail!(
            "the controller refused with {status}: {}{token}",
            message.unwrap_or_default()
        );
    }
    answer.with_context(|| format!("{url} is not the API of a controller"))
}

fn nodes(answer: &Json) -> Vec<Vec<String>> {
    let header = [
        "NODE",
        "REGION",
        "ZONE",
        "HEALTH",
        "LISTED",
        "ALLOCATIONS",
        "PORTS",
        "SATURATION",
        "REASON",
    ];
    let nodes = answer.pointer("/nodes").and_then(Json::as_array);
    let row = |node: &Json| {
        let ports = node.pointer("/ports").and_then(Json::as_array);
        let range = |range: &Json| Some(format!("{}-{}", range.get("first")?, range.get("last")?));
        let mut ports: Vec<String> = ports.into_iter().flatten().filter_map(range).collect();
        ports.dedup();
        vec![
            cell(node, "/node"),
            cell(node, "/region"),
            cell(node, "/zone"),
            cell(node, "/health"),
            cell(node, "/listed"),
            cell(node, "/load/allocations"),
            ports.join(" "),
            percent(node, "/saturation"),
            cell(node, "/reason"),
        ]
    };
    let rows = nodes.into_iter().flatten().map(row);
    std::iter::once(header.map(str::to_owned).to_vec())
        .chain(rows)
        .collect()
}

fn capacity(answer: &Json) -> Vec<Vec<String>> {
    let header = [
        "SCOPE",
        "NODES",
        "LISTED",
        "ALLOCATIONS",
        "PORTS",
        "DESCRIPTORS",
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
            percent(totals, "/saturation"),
            cell(totals, "/state"),
        ]
    };
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(
        answer
            .get("total")
            .map(|total| row("fleet".to_owned(), total)),
    );
    let list = |name| {
        answer
            .get(name)
            .and_then(Json::as_array)
            .into_iter()
            .flatten()
    };
    rows.extend(list("regions").map(|region| row(cell(region, "/region"), region)));
    let zones = list("zones").filter(|zone| !cell(zone, "/zone").is_empty());
    rows.extend(zones.map(|zone| {
        row(
            format!("{}/{}", cell(zone, "/region"), cell(zone, "/zone")),
            zone,
        )
    }));
    rows
}

/// A value as text; nothing where it is missing or null.
fn cell(value: &Json, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Json::Null) => String::new(),
        Some(Json::String(text)) => text.clone(),
        Some(Json::Bool(yes)) => if *yes { "yes" } else { "no" }.to_owned(),
        Some(other) => other.to_string(),
    }
}

fn gauge(totals: &Json, pointer: &str) -> String {
    let (used, limit) = (
        cell(totals, &format!("{pointer}/used")),
        cell(totals, &format!("{pointer}/limit")),
    );
    if limit.is_empty() {
        used
    } else {
        format!("{used} of {limit}")
    }
}

fn percent(value: &Json, pointer: &str) -> String {
    let ratio = value.pointer(pointer).and_then(Json::as_f64);
    ratio.map_or_else(String::new, |ratio| format!("{:.0} %", ratio * 100.0))
}

/// Rows with their columns two spaces apart.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column| {
        let cells = rows.iter().filter_map(|row: &Vec<String>| row.get(column));
        cells
            .map(|cell: &String| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_a_row() {
        let answer = json!({"nodes": [{
            "node": "relay-0", "region": "local", "zone": "", "health": "healthy", "listed": true,
            "load": {"allocations": 7}, "ports": [{"first": 50000, "last": 50009}], "saturation": 0.125,
            "reason": null,
        }]});
        let table = aligned(&nodes(&answer));
        let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            row,
            [
                "relay-0",
                "local",
                "healthy",
                "yes",
                "7",
                "50000-50009",
                "12",
                "%"
            ]
        );
    }

    #[test]
    fn a_limit_that_is_not_known_is_left_out() {
        let totals = json!({"nodes": 2, "listed": 2, "allocations": {"used": 3, "limit": null},
            "relayed_ports": {"used": 3, "limit": 16384}, "saturation": 0.0, "state": "ok"});
        let table = aligned(&capacity(
            &json!({"total": totals, "regions": [], "zones": []}),
        ));
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
