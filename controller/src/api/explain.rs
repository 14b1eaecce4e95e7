//! `GET /v1/explain` and `GET /v1/nodes/{node}/explain`: why relays are, or are not, in somebody's list.
//!
//! The query says whose: any of `user`, `room`, `tenant`, `region` and `client` (an IP address).

use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde::Serialize;
use turnfleet_proto::NodeId;

use super::app::{App, answer_json};
use super::auth::bearer_token;
use super::parameters::Parameters;
use super::status::ApiError;
use crate::error::FleetError;
use crate::fleet::record::Scope;
use crate::fleet::{Ask, Explanation, FleetView};

#[derive(Serialize)]
struct Answer<'v> {
    /// The region whose relays come first; `null` where no relay is listed.
    region: Option<&'v str>,
    /// The regions where so much fell silent at once that this controller is suspect.
    panics: &'v [String],
    /// The list itself.
    uris: &'v [&'v str],
    nodes: Vec<Node>,
}

#[derive(Serialize)]
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

#[derive(Serialize)]
struct Gate {
    gate: &'static str,
    open: bool,
    found: String,
}

/// `GET /v1/explain`.
pub(crate) async fn fleet(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let view = admit(&app, &request)?;
    let parameters = Parameters::parse(request.uri().query().unwrap_or(""), "query")?;
    let ask = ask(&parameters)?;
    let explained = view.nodes.iter().map(|node| view.explain(node, &ask));
    let mut explained: Vec<_> = explained.collect();
    let last = usize::MAX;
    explained.sort_by_key(|it| (it.place.unwrap_or(last), it.rank.unwrap_or(last)));
    let nodes = explained.into_iter().map(|it| body(&view, it)).collect();
    let uris = view.list(&ask);
    Ok(answer_json(&Answer {
        region: view.region_meant(ask.region),
        panics: &view.panics,
        uris: &uris,
        nodes,
    }))
}

/// `GET /v1/nodes/{node}/explain`.
pub(crate) async fn node(
    State(app): State<App>,
    Path(node): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let view = admit(&app, &request)?;
    let id: NodeId = node
        .parse()
        .map_err(|_| ApiError::bad_parameter("path", "that is no node id", "the id of a node"))?;
    let node = view.node(&id).ok_or(FleetError::UnknownNode(id))?;
    let parameters = Parameters::parse(request.uri().query().unwrap_or(""), "query")?;
    let ask = ask(&parameters)?;
    let uris = view.list(&ask);
    Ok(answer_json(&Answer {
        region: view.region_meant(ask.region),
        panics: &view.panics,
        uris: &uris,
        nodes: vec![body(&view, view.explain(node, &ask))],
    }))
}

fn admit(app: &App, request: &Request) -> Result<std::sync::Arc<FleetView>, ApiError> {
    let view = app.handle.view();
    app.guard
        .admit(&view, bearer_token(request.headers())?, Scope::Viewer)?;
    Ok(view)
}

fn ask(parameters: &Parameters) -> Result<Ask<'_>, ApiError> {
    let client = parameters.value("client")?.map(|text| {
        text.parse().map_err(|_| {
            let place = parameters.path("client");
            ApiError::bad_parameter(place, "that is no IP address", "an IP address")
        })
    });
    Ok(Ask {
        tenant: parameters.value("tenant")?.unwrap_or(""),
        user: parameters.value("user")?.unwrap_or(""),
        room: parameters.value("room")?,
        region: parameters.value("region")?,
        client: client.transpose()?,
        ..Ask::default()
    })
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
