//! What an operator does with one node, by HTTP (`POST /v1/nodes/{node}/drain` and `/undrain`, `DELETE /v1/nodes/{node}`)
//! and by gRPC.
//!
//! Each answers when the store holds it, with the node's name.

use std::time::Duration;

use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;
use turnfleet_proto::NodeId;

use super::actor::Actor;
use super::app::answer_json;
use super::nodes::node_id;
use super::route::Call;
use super::status::ApiError;
use super::values::{Field, Kind, Values};
use crate::reconcile::Handle;

/// The longest deadline of a drain: a year.
const MAX_DEADLINE: u64 = 366 * 86_400;

/// What the body of a drain may say.
pub(super) const DRAIN: &[Field] = &[Field::new(
    "deadline_seconds",
    Kind::Whole(0, MAX_DEADLINE),
    "Live allocations end after so many seconds; without it they go on until they end by themselves.",
)];

/// The node that was changed.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ChangedNode")]
pub(super) struct Done<'v> {
    node: &'v str,
}

/// Drains a node, as `asked` in the fields of [`DRAIN`].
pub(super) async fn drain_node(
    handle: &Handle,
    actor: &Actor,
    node: &NodeId,
    asked: &Values,
) -> Result<(), ApiError> {
    let seconds = asked.whole("deadline_seconds");
    let detail = seconds.map_or_else(
        || "without a deadline".to_owned(),
        |seconds| format!("deadline {seconds} s"),
    );
    let handle = actor.changing(handle, "drain", node.as_str(), detail)?;
    Ok(handle.drain(node, seconds.map(Duration::from_secs)).await?)
}

/// Takes a drain back.
pub(super) async fn undrain_node(
    handle: &Handle,
    actor: &Actor,
    node: &NodeId,
) -> Result<(), ApiError> {
    let handle = actor.changing(handle, "undrain", node.as_str(), String::new())?;
    Ok(handle.undrain(node).await?)
}

/// Forgets a node.
pub(super) async fn forget_node(
    handle: &Handle,
    actor: &Actor,
    node: &NodeId,
) -> Result<(), ApiError> {
    let handle = actor.changing(handle, "forget", node.as_str(), String::new())?;
    Ok(handle.forget(node).await?)
}

/// `POST /v1/nodes/{node}/drain`.
pub(crate) async fn drain(call: Call) -> Result<Response, ApiError> {
    let node = node_id(&call)?;
    drain_node(&call.app.handle, &call.actor, &node, &call.body).await?;
    Ok(done(&node))
}

/// `POST /v1/nodes/{node}/undrain`.
pub(crate) async fn undrain(call: Call) -> Result<Response, ApiError> {
    let node = node_id(&call)?;
    undrain_node(&call.app.handle, &call.actor, &node).await?;
    Ok(done(&node))
}

/// `DELETE /v1/nodes/{node}`.
pub(crate) async fn forget(call: Call) -> Result<Response, ApiError> {
    let node = node_id(&call)?;
    forget_node(&call.app.handle, &call.actor, &node).await?;
    Ok(done(&node))
}

pub(super) fn done(node: &NodeId) -> Response {
    answer_json(&Done {
        node: node.as_str(),
    })
}
