//! Nodes and their capacity: what the service shows of them, and what an operator does with one.

use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use turnfleet_proto::NodeId;
use turnfleet_proto::operator as wire;

use super::shown::{capacity, node};
use super::{Call, given, shown};
use crate::api::status::{ApiError, excerpt};
use crate::api::values::Values;
use crate::api::{explain, node_actions, policy_actions};
use crate::reconcile::Handle;

/// Between two answers of a watch.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

fn changed(node: &NodeId) -> wire::NodeChanged {
    let node_id = node.to_string();
    wire::NodeChanged { node_id }
}

fn node_id(text: &str) -> Result<NodeId, ApiError> {
    text.parse()
        .map_err(|_| ApiError::unknown_node(excerpt(text)))
}

pub(super) async fn list_nodes(
    call: Call<'_, wire::ListNodesRequest>,
) -> Result<wire::ListNodesResponse, Status> {
    let view = call.handle.view();
    Ok(wire::ListNodesResponse {
        generation: view.generation,
        realm: view.realm.to_string(),
        nodes: view.nodes.iter().map(|it| node(it, &view)).collect(),
    })
}

pub(super) async fn show_node(call: Call<'_, wire::NodeRequest>) -> Result<wire::Node, Status> {
    let id = node_id(&call.asked.node_id)?;
    let view = call.handle.view();
    let known = view.node(&id);
    let known = known.ok_or_else(|| ApiError::unknown_node(id.to_string()))?;
    Ok(node(known, &view))
}

pub(super) async fn drain_node(
    call: Call<'_, wire::DrainNodeRequest>,
) -> Result<wire::NodeChanged, Status> {
    let request = call.asked;
    let node = node_id(&request.node_id)?;
    let asked = json!({ "deadline_seconds": request.deadline_seconds });
    let asked = Values::of_json(node_actions::DRAIN, &asked)?;
    node_actions::drain_node(call.handle, &call.actor, &node, &asked).await?;
    Ok(changed(&node))
}

pub(super) async fn undrain_node(
    call: Call<'_, wire::NodeRequest>,
) -> Result<wire::NodeChanged, Status> {
    let node = node_id(&call.asked.node_id)?;
    node_actions::undrain_node(call.handle, &call.actor, &node).await?;
    Ok(changed(&node))
}

pub(super) async fn forget_node(
    call: Call<'_, wire::NodeRequest>,
) -> Result<wire::NodeChanged, Status> {
    let node = node_id(&call.asked.node_id)?;
    node_actions::forget_node(call.handle, &call.actor, &node).await?;
    Ok(changed(&node))
}

pub(super) async fn kill_node(
    call: Call<'_, wire::NodeRequest>,
) -> Result<wire::NodeChanged, Status> {
    let node = node_id(&call.asked.node_id)?;
    policy_actions::kill_node(call.handle, &call.actor, &node).await?;
    Ok(changed(&node))
}

pub(super) async fn explain(
    call: Call<'_, wire::ExplainRequest>,
) -> Result<wire::Explanation, Status> {
    let asked = call.asked;
    let whose = json!({
        "user": given(asked.user),
        "room": given(asked.room),
        "tenant": given(asked.tenant),
        "region": given(asked.region),
        "client": given(asked.client),
    });
    let whose = Values::of_json(explain::QUERY, &whose)?;
    let ask = explain::ask(&whose);
    let view = call.handle.view();
    let explained = match given(asked.node_id) {
        None => explain::in_order(&view, &ask),
        Some(id) => {
            let id = node_id(&id)?;
            let known = view.node(&id);
            let known = known.ok_or_else(|| ApiError::unknown_node(id.to_string()))?;
            vec![view.explain(known, &ask)]
        }
    };
    Ok(shown::explanation(&view, &ask, explained))
}

pub(super) async fn show_capacity(
    call: Call<'_, wire::CapacityRequest>,
) -> Result<wire::Capacity, Status> {
    Ok(capacity(&call.handle.view()))
}

/// What there is at once, and then each time that it has changed.
pub(super) fn watch_capacity(handle: &Handle) -> ReceiverStream<Result<wire::Capacity, Status>> {
    let mut views = handle.changes();
    let (down, stream) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut told = None;
        loop {
            let seen = capacity(&views.borrow_and_update());
            if told.as_ref() != Some(&seen) {
                if down.send(Ok(seen.clone())).await.is_err() {
                    return;
                }
                told = Some(seen);
            }
            let paced = async {
                tokio::time::sleep(WATCH_INTERVAL).await;
                views.changed().await
            };
            tokio::select! {
                changed = paced => if changed.is_err() {
                    return;
                },
                () = down.closed() => return,
            }
        }
    });
    ReceiverStream::new(stream)
}
