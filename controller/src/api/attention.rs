//! `GET /v1/attention`: what somebody should look at, in words, with what is to be done. The page and the terminal show it
//! first; whatever else they show says how things are, and not whether that is well.
//!
//! It is made of the view alone, and of how webhooks stand. Alerts by Prometheus are made of metrics, and stay when no page is
//! open.

use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use super::app::answer_json;
use super::route::Call;
use super::status::ApiError;
use crate::fleet::record::Stage;
use crate::fleet::{FleetView, Health, NodeView, Totals, rated};

/// The most that one answer tells.
const LIMIT: usize = 200;
/// Full within an hour is critical, within a day a warning.
const HOUR: u64 = 3600;
const DAY: u64 = 86_400;
/// How long requests of a webhook fail before it is told.
const WEBHOOK_SECONDS: u64 = 60;

/// What somebody should look at, the worst first.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Attention")]
pub(super) struct Answer {
    items: Vec<Item>,
    /// How many there are; an answer tells at most 200.
    total: usize,
}

/// One thing.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AttentionItem")]
struct Item {
    /// `critical` or `warning`.
    severity: Severity,
    /// What it is about: `store`, `policy`, `region`, `node`, `capacity`, `webhook` or `controllers`.
    about: &'static str,
    /// Which region, node or webhook; empty for the fleet.
    subject: String,
    /// What is the matter.
    what: String,
    /// What to do, or where to look.
    remedy: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Critical,
    Warning,
}

/// `GET /v1/attention`.
pub(crate) async fn attention(call: Call) -> Result<Response, ApiError> {
    let mut items = of_fleet(&call.view);
    let webhooks = call.app.handle.events().webhooks().into_iter();
    items.extend(webhooks.filter_map(|webhook| {
        let (since, error) = webhook.failing?;
        (since.as_secs() >= WEBHOOK_SECONDS).then(|| Item {
            severity: Severity::Warning,
            about: "webhook",
            subject: webhook.name,
            what: format!("takes no events since {} s: {error}", since.as_secs()),
            remedy: "Look at the receiver; what waits for it too long is given up.",
        })
    }));
    // Of one severity they stay in the order in which they were found.
    items.sort_by_key(|item| item.severity);
    let total = items.len();
    items.truncate(LIMIT);
    Ok(answer_json(&Answer { items, total }))
}

/// What the view shows.
fn of_fleet(view: &FleetView) -> Vec<Item> {
    let mut items = of_store(view);
    items.extend(of_policy(view));
    items.extend(view.panics.iter().map(|region| Item {
        severity: Severity::Critical,
        about: "region",
        subject: region.clone(),
        what: "fell silent at once, or nearly so; its relays are listed last".to_owned(),
        remedy: "See whether this controller is cut off from the region before anything is done to its relays.",
    }));
    let capacity = view.capacity();
    items.extend(of_totals("", &capacity.total, capacity.zones.len()));
    // A fleet of one region has been told of already.
    if capacity.regions.len() > 1 {
        for (region, totals) in &capacity.regions {
            let zones = capacity.zones.iter().filter(|(of, _, _)| of == region);
            items.extend(of_totals(region, totals, zones.count()));
        }
    }
    items.extend(view.nodes.iter().filter_map(|node| of_node(view, node)));
    items
}

fn of_store(view: &FleetView) -> Vec<Item> {
    let mut items = Vec::new();
    let mut add = |severity, about, what: String, remedy| {
        items.push(Item {
            severity,
            about,
            subject: String::new(),
            what,
            remedy,
        });
    };
    if view.store_stale {
        add(
            Severity::Critical,
            "store",
            "the store does not answer: what is shown may be old, and nothing can be changed"
                .to_owned(),
            "Look at etcd. Relays and lists go on meanwhile.",
        );
    }
    if let Some(restored) = &view.restored {
        let (runs, store) = (restored.runs, restored.store);
        add(
            Severity::Critical,
            "store",
            format!(
                "the store is older than what relays run: generation {store}, and {runs} was there"
            ),
            "Nothing is pushed until `turnfleet fleet confirm-restore`.",
        );
    }
    if view.refused > 0 {
        add(
            Severity::Critical,
            "store",
            format!("{} values of the store are not believed", view.refused),
            "They were damaged, or somebody else wrote them: the controller's log names them.",
        );
    }
    if view.controllers.len() > 1 && view.leader.is_none() {
        add(
            Severity::Warning,
            "controllers",
            "no controller leads".to_owned(),
            "One does within twelve seconds; otherwise look at etcd and the clocks.",
        );
    }
    items
}

fn of_policy(view: &FleetView) -> Option<Item> {
    match view.rollout.as_ref().map(|rollout| &rollout.stage)? {
        Stage::Stopped { node, reason } => Some(Item {
            severity: Severity::Critical,
            about: "policy",
            subject: node.to_string(),
            what: format!("the changed policy was stopped: {reason}"),
            remedy: "Give another policy, or `turnfleet fleet rollout --force`.",
        }),
        Stage::Pending | Stage::Canary { .. } | Stage::All => None,
    }
}

/// What is the matter with the capacity of a region, or of the fleet where it is none, in so many zones.
fn of_totals(region: &str, totals: &Totals, zones: usize) -> Vec<Item> {
    const ROOM: &str = "Add relays, or take back drains.";
    let mut items = Vec::new();
    let mut add = |severity, what: String, remedy| {
        items.push(Item {
            severity,
            about: "capacity",
            subject: region.to_owned(),
            what,
            remedy,
        });
    };
    if totals.listed == 0 {
        let what = match totals.nodes {
            0 => "there are no relays".to_owned(),
            nodes => format!("none of {nodes} relays is in lists"),
        };
        add(
            Severity::Critical,
            what,
            "Clients get no relay here: `turnfleet fleet nodes` says why.",
        );
        return items;
    }
    let saturation = totals.saturation();
    let full = match rated(saturation) {
        "crit" => Some(Severity::Critical),
        "warn" => Some(Severity::Warning),
        _ => None,
    };
    if let Some(severity) = full {
        add(severity, format!("{:.0} % full", saturation * 100.0), ROOM);
    }
    match totals.seconds_to_full {
        Some(left) if left < HOUR => {
            let what = format!(
                "full within {} min, if use goes on like this",
                left / 60 + 1
            );
            add(Severity::Critical, what, ROOM);
        }
        Some(left) if left < DAY => {
            let what = format!(
                "full within {} h, if use goes on like this",
                left / HOUR + 1
            );
            add(Severity::Warning, what, ROOM);
        }
        Some(_) | None => {}
    }
    let left = totals
        .without_largest_zone
        .map(|[allocations, _]| allocations);
    if let Some(left) = left.filter(|left| *left < 0 && zones > 1) {
        let what = format!(
            "when its largest zone fails, {} allocations find no room",
            left.unsigned_abs()
        );
        add(Severity::Warning, what, "Add relays to other zones.");
    }
    items
}

fn of_node(view: &FleetView, node: &NodeView) -> Option<Item> {
    let reason = view.reason(node)?;
    // What an operator wants is no fault.
    if node.draining && node.health != Health::Gone {
        return None;
    }
    let (severity, remedy) = match (node.listed, node.health) {
        (true, _) => (
            Severity::Warning,
            "Lists name it all the same, behind others or in part.",
        ),
        (false, Health::Gone) => (
            Severity::Critical,
            "Start it again, or `turnfleet fleet forget` it where it is gone for good.",
        ),
        (false, Health::Starting) => (
            Severity::Warning,
            "It is in lists once a probe has succeeded: about ten seconds.",
        ),
        (false, Health::Healthy | Health::Unmanaged | Health::Unhealthy) => (
            Severity::Critical,
            "`turnfleet fleet explain NODE` tells what lists ask for.",
        ),
    };
    Some(Item {
        severity,
        about: "node",
        subject: node.id.to_string(),
        what: reason.to_string(),
        remedy,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Gauge;

    fn totals(used: u64) -> Totals {
        Totals {
            nodes: 2,
            listed: 2,
            allocations: Gauge { used, limit: 100 },
            without_largest_zone: Some([40 - i64::try_from(used).unwrap(), 0]),
            ..Totals::default()
        }
    }

    fn told(totals: &Totals, zones: usize) -> Vec<(Severity, String)> {
        let items = of_totals("north", totals, zones).into_iter();
        items.map(|item| (item.severity, item.what)).collect()
    }

    #[test]
    fn room_is_no_matter_and_the_loss_of_a_zone_counts_where_there_are_several() {
        assert!(told(&totals(30), 2).is_empty());
        assert!(told(&totals(50), 1).is_empty());
        let what = "when its largest zone fails, 10 allocations find no room".to_owned();
        assert_eq!(told(&totals(50), 2), [(Severity::Warning, what)]);
    }

    #[test]
    fn what_fills_up_is_told_by_how_soon_that_is() {
        let full = |severity, percent: u64| (severity, format!("{percent} % full"));
        assert_eq!(told(&totals(75), 1), [full(Severity::Warning, 75)]);
        assert_eq!(told(&totals(90), 1), [full(Severity::Critical, 90)]);
        let within = |seconds| {
            let fills = Totals {
                seconds_to_full: Some(seconds),
                ..totals(10)
            };
            told(&fills, 1).pop()
        };
        let soon = "full within 31 min, if use goes on like this".to_owned();
        assert_eq!(within(1800), Some((Severity::Critical, soon)));
        let later = "full within 3 h, if use goes on like this".to_owned();
        assert_eq!(within(9000), Some((Severity::Warning, later)));
        assert_eq!(within(DAY), None);
    }

    #[test]
    fn a_place_without_a_listed_relay_is_critical_and_nothing_else_is_said_of_it() {
        let none = Totals {
            listed: 0,
            ..totals(90)
        };
        let what = "none of 2 relays is in lists".to_owned();
        assert_eq!(told(&none, 2), [(Severity::Critical, what)]);
    }
}
