//! `fleet nodes`, and what is done with one node: `drain`, `undrain`, `forget`.

use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use serde_json::{Value as Json, json};
use turnfleet_proto::NodeId;

use super::call::Call;
use super::console::{Console, pause, tell};
use super::table::{Table, cell, list as values, percent};
use crate::credentials;

/// How often `drain --wait` looks.
const WAIT_INTERVAL: Duration = Duration::from_secs(1);

/// Flags of `fleet drain`.
#[derive(Args, Debug)]
pub(super) struct Drain {
    /// The node
    node: NodeId,
    /// Ends allocations that still live after this time: seconds, or a number with s, m, h or d; none waits for them
    #[arg(long, default_value = "4h", value_parser = deadline)]
    deadline: Deadline,
    /// Returns when the node has no allocation left, and fails where the deadline had to end some
    #[arg(long)]
    wait: bool,
}

/// When live allocations end; `None` for never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Deadline(Option<Duration>);

fn deadline(text: &str) -> Result<Deadline, String> {
    match text {
        "none" | "0" => Ok(Deadline(None)),
        text => match credentials::duration(text) {
            Ok(duration) => Ok(Deadline(Some(duration))),
            Err(expected) => Err(format!("{expected}, or none")),
        },
    }
}

impl Drain {
    /// Drains the node, and waits where that is wanted.
    ///
    /// # Errors
    /// When the controller refuses, or allocations were left at the deadline.
    pub(super) fn run(&self, console: &Console) -> anyhow::Result<()> {
        let node = &self.node;
        let Deadline(deadline) = self.deadline;
        let seconds = deadline.map(|deadline| deadline.as_secs());
        let call = Call::post(path(node, "/drain")).with(json!({ "deadline_seconds": seconds }));
        console.act(&call, &format!("{node} is draining"))?;
        if self.wait {
            wait(
                console,
                node,
                deadline.map(|time| (time, Instant::now() + time)),
            )
        } else {
            Ok(())
        }
    }
}

/// Tells how many allocations live, whenever that changes, until there are none.
fn wait(
    console: &Console,
    node: &NodeId,
    deadline: Option<(Duration, Instant)>,
) -> anyhow::Result<()> {
    let mut told = String::new();
    let mut before = None;
    loop {
        let news = match console.ask(&Call::get("/v1/nodes")) {
            Ok(answer) => match live(&answer, node, &mut before) {
                Live::Empty => {
                    tell(&format!("{node} has no allocations"));
                    return Ok(());
                }
                Live::Allocations(0) => format!("{node} is asked how many allocations live"),
                Live::Allocations(count) => format!("{node} has {count} live allocations"),
                Live::Unknown => {
                    format!("{node} has no control session: its allocations are not known")
                }
            },
            // The node drains all the same, and the next try may reach a controller.
            Err(error) => format!("{error:#}"),
        };
        if news != told {
            tell(&news);
            told = news;
        }
        match deadline {
            Some((time, end)) if Instant::now() >= end => {
                bail!(
                    "the deadline of {} seconds has passed, and {told}",
                    time.as_secs()
                );
            }
            Some(_) | None => pause(WAIT_INTERVAL),
        }
    }
}

/// What is known of the allocations of a node that drains.
#[derive(Debug, PartialEq, Eq)]
enum Live {
    Empty,
    Allocations(u64),
    Unknown,
}

/// `before` keeps the first heartbeat that is seen: what the node had then may be older than the drain, so that none counts
/// only in a later one.
fn live(answer: &Json, node: &NodeId, before: &mut Option<u64>) -> Live {
    let Some(node) = values(answer, "/nodes").find(|known| cell(known, "/node") == node.as_str())
    else {
        return Live::Empty;
    };
    let is = |pointer| node.pointer(pointer) == Some(&Json::Bool(true));
    let allocations = node.pointer("/load/allocations").and_then(Json::as_u64);
    match allocations {
        _ if !is("/connected") && cell(node, "/health") == "gone" => Live::Empty,
        Some(0) if is("/connected") && is("/draining") => {
            let heartbeat = node.pointer("/last_heartbeat").and_then(Json::as_u64);
            let heartbeat = heartbeat.unwrap_or(0);
            if heartbeat > 1 + *before.get_or_insert(heartbeat) {
                Live::Empty
            } else {
                Live::Allocations(0)
            }
        }
        Some(count) if is("/connected") && is("/draining") => Live::Allocations(count),
        Some(_) | None => Live::Unknown,
    }
}

/// Takes a drain back.
pub(super) fn undrain(console: &Console, node: &NodeId) -> anyhow::Result<()> {
    let done = format!("{node} is not drained by the controller");
    console.act(&Call::post(path(node, "/undrain")), &done)
}

/// Ends a node's process.
pub(super) fn kill(console: &Console, node: &NodeId) -> anyhow::Result<()> {
    let done = format!("{node} is told to end");
    console.act(&Call::post(path(node, "/kill")), &done)
}

/// Forgets a node that is gone.
pub(super) fn forget(console: &Console, node: &NodeId) -> anyhow::Result<()> {
    console.act(
        &Call::delete(path(node, "")),
        &format!("{node} is forgotten"),
    )
}

fn path(node: &NodeId, action: &str) -> String {
    format!("/v1/nodes/{node}{action}")
}

/// Shows every node.
pub(super) fn list(console: &Console) -> anyhow::Result<()> {
    console.show(&Call::get("/v1/nodes"), table)
}

fn table(answer: &Json) -> Table {
    let header = [
        "NODE",
        "REGION",
        "ZONE",
        "TENANT",
        "HEALTH",
        "LISTED",
        "ALLOCATIONS",
        "PORTS",
        "SATURATION",
        "REASON",
    ];
    let row = |node: &Json| {
        let range = |range: &Json| Some(format!("{}-{}", range.get("first")?, range.get("last")?));
        let mut ports: Vec<String> = values(node, "/ports").filter_map(range).collect();
        ports.dedup();
        vec![
            cell(node, "/node"),
            cell(node, "/region"),
            cell(node, "/zone"),
            cell(node, "/tenant"),
            cell(node, "/health"),
            cell(node, "/listed"),
            cell(node, "/load/allocations"),
            ports.join(" "),
            percent(node, "/saturation"),
            cell(node, "/reason"),
        ]
    };
    Table::new(header).with(values(answer, "/nodes").map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_a_row() {
        let answer = json!({"nodes": [{
            "node": "relay-0", "region": "local", "zone": "", "health": "healthy", "listed": true,
            "load": {"allocations": 7}, "ports": [{"first": 50000, "last": 50009}], "saturation": 0.125,
            "reason": null,
        }]});
        let table = table(&answer).to_string();
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
    fn a_deadline_may_be_none() {
        assert_eq!(deadline("none"), Ok(Deadline(None)));
        assert_eq!(deadline("0"), Ok(Deadline(None)));
        assert_eq!(
            deadline("4h"),
            Ok(Deadline(Some(Duration::from_secs(14_400))))
        );
        assert!(deadline("soon").is_err());
    }

    #[test]
    fn a_node_is_empty_when_it_says_so_after_the_drain_or_is_gone() {
        let relay = "relay-0".parse().unwrap();
        let known = |connected: bool, health: &str, allocations: u64, heartbeat: u64| {
            let answer = json!({"nodes": [{
                "node": "relay-0", "connected": connected, "draining": true, "health": health,
                "load": {"allocations": allocations}, "last_heartbeat": heartbeat,
            }]});
            live(&answer, &relay, &mut Some(100))
        };
        assert_eq!(known(true, "healthy", 3, 104), Live::Allocations(3));
        assert_eq!(known(true, "healthy", 0, 101), Live::Allocations(0));
        assert_eq!(known(true, "healthy", 0, 102), Live::Empty);
        assert_eq!(known(false, "gone", 3, 100), Live::Empty);
        assert_eq!(known(false, "unmanaged", 0, 104), Live::Unknown);
        let forgotten = json!({"nodes": []});
        assert_eq!(live(&forgotten, &relay, &mut None), Live::Empty);
    }
}
