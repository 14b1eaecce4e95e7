//! `GET /v1/explain` and `GET /v1/nodes/{node}/explain`: why relays are, or are not, in somebody's list.
//!
//! The query says whose: any of `user`, `room`, `tenant`, `region` and `client` (an IP address).

use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use super::app::answer_json;
use super::nodes::node_id;
use super::route::Call;
use super::status::ApiError;
use super::values::{Field, Kind, Values};
use crate::error::FleetError;
use crate::fleet::{Ask, Explanation, FleetView};

/// Whose list it is.
pub(super) const QUERY: &[Field] = &[
    Field::new("user", Kind::Text(497), "Whose list it is."),
    Field::new("room", Kind::Text(255), "The room whose list it is."),
    Field::new("tenant", Kind::Name, "Whose user it is."),
    Field::new("region", Kind::Name, "The region to prefer."),
    Field::new(
        "client",
        Kind::Address,
        "Where the user's client is, for lists without a user.",
    ),
];

/// A list, and the nodes with their part in it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Explanation")]
pub(super) struct Answer<'v> {
    /// The region whose relays come first; `null` where no relay is listed.
    region: Option<&'v str>,
    /// The regions where so much fell silent at once that this controller is suspect.
    panics: &'v [String],
    /// The list itself.
    uris: &'v [&'v str],
    nodes: Vec<Node>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ExplainedNode")]
struct Node {
    node: String,
    region: String,
    zone: String,
    health: &'static str,
    listed: bool,
    suspect: bool,
    /// Why it is not in lists, or only in part; `null` where all is well.
    reason: Option<String>,
    weight: f64,
    score: Option<f64>,
    /// Among the listed relays of its region.
    rank: Option<usize>,
    /// Its place in the list.
    place: Option<usize>,
    gates: Vec<Gate>,
}

#[derive(Serialize, JsonSchema)]
struct Gate {
    gate: &'static str,
    open: bool,
    found: String,
}

/// `GET /v1/explain`.
pub(crate) async fn fleet(call: Call) -> Result<Response, ApiError> {
    let view = &call.view;
    let ask = ask(&call.query);
    let nodes = in_order(view, &ask).into_iter().map(|it| body(view, it));
    Ok(answer(view, &ask, nodes.collect()))
}

/// Every node, in the order of the list.
pub(super) fn in_order(view: &FleetView, ask: &Ask<'_>) -> Vec<Explanation> {
    let explained = view.nodes.iter().map(|node| view.explain(node, ask));
    let mut explained: Vec<_> = explained.collect();
    let last = usize::MAX;
    explained.sort_by_key(|it| (it.place.unwrap_or(last), it.rank.unwrap_or(last)));
    explained
}

/// `GET /v1/nodes/{node}/explain`.
pub(crate) async fn node(call: Call) -> Result<Response, ApiError> {
    let view = &call.view;
    let id = node_id(&call)?;
    let node = view.node(&id).ok_or(FleetError::UnknownNode(id))?;
    let ask = ask(&call.query);
    Ok(answer(
        view,
        &ask,
        vec![body(view, view.explain(node, &ask))],
    ))
}

fn answer(view: &FleetView, ask: &Ask<'_>, nodes: Vec<Node>) -> Response {
    answer_json(&Answer {
        region: view.region_meant(ask.region),
        panics: &view.panics,
        uris: &view.list(ask),
        nodes,
    })
}

/// Who asks, by the fields of [`QUERY`].
pub(super) fn ask(query: &Values) -> Ask<'_> {
    Ask {
        tenant: query.text("tenant").unwrap_or(""),
        user: query.text("user").unwrap_or(""),
        room: query.text("room"),
        region: query.text("region"),
        client: query.text("client").and_then(|text| text.parse().ok()),
        ..Ask::default()
    }
}

fn body(view: &FleetView, explanation: Explanation) -> Node {
    let node = &explanation.node;
    let gate = |gate: crate::fleet::Gate| Gate {
        gate: gate.name,
        open: gate.open,
        found: gate.found,
    };
    Node {
        node: node.id.to_string(),
        region: node.identity.region.clone(),
        zone: node.identity.zone.clone(),
        health: node.health.name(),
        listed: node.listed,
        suspect: node.suspect,
        reason: view.reason(node).map(|reason| reason.to_string()),
        weight: node.weight,
        score: explanation.score,
        rank: explanation.rank,
        place: explanation.place,
        gates: explanation.gates.into_iter().map(gate).collect(),
    }
}
