//! What an operator does with one node: `POST /v1/nodes/{node}/drain` and `/undrain`, and `DELETE /v1/nodes/{node}`.
//!
//! Each answers when the store holds it, with the node's name.

use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde_json::{Map, Value, json};
use turnfleet_proto::NodeId;

use super::app::{App, answer_json, body_bytes};
use super::auth::bearer_token;
use super::status::{ApiError, excerpt};
use crate::fleet::record::Scope;

/// `POST /v1/nodes/{node}/drain`: out of the lists, and no more allocations. The body is empty or a JSON object with
/// `deadline_seconds`: live allocations end then, and otherwise go on until they end by themselves.
pub(crate) async fn drain(
    State(app): State<App>,
    Path(node): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let node = admit(&app, &node, &request)?;
    let deadline = deadline(&body_bytes(request).await?)?;
    app.handle.drain(&node, deadline).await?;
    Ok(done(&node))
}

/// `POST /v1/nodes/{node}/undrain`.
pub(crate) async fn undrain(
    State(app): State<App>,
    Path(node): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let node = admit(&app, &node, &request)?;
    app.handle.undrain(&node).await?;
    Ok(done(&node))
}

/// `DELETE /v1/nodes/{node}`: for a node that is gone for good. Its ports are free for others; it may enrol again.
pub(crate) async fn forget(
    State(app): State<App>,
    Path(node): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let node = admit(&app, &node, &request)?;
    app.handle.forget(&node).await?;
    Ok(done(&node))
}

pub(super) fn admit(app: &App, node: &str, request: &Request) -> Result<NodeId, ApiError> {
    let token = bearer_token(request.headers())?;
    app.guard
        .admit(&app.handle.view(), token, Scope::Operator)?;
    node.parse()
        .map_err(|_| ApiError::unknown_node(excerpt(node)))
}

fn done(node: &NodeId) -> Response {
    answer_json(&json!({ "node": node.as_str() }))
}

fn deadline(body: &[u8]) -> Result<Option<Duration>, ApiError> {
    const FIELD: &str = "deadline_seconds";
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let fields: Map<String, Value> =
        serde_json::from_slice(body).map_err(|error| ApiError::bad_json(&error))?;
    if let Some(name) = fields.keys().find(|name| *name != FIELD) {
        let place = format!("body.{}", excerpt(name));
        return Err(ApiError::bad_parameter(
            place,
            "there is no such field",
            FIELD,
        ));
    }
    match fields.get(FIELD) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(seconds) => Ok(Some(Duration::from_secs(seconds))),
            None => Err(ApiError::bad_parameter(
                format!("body.{FIELD}"),
                "the deadline is not a whole number",
                "a whole number of seconds from now",
            )),
        },
    }
}
