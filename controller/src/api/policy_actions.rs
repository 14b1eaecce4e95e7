//! How far a changed policy has come (`GET /v1/rollout`), and what an operator says where it, or the store, waits for a word:
//! `POST /v1/rollout/force`, `POST /v1/restore/confirm` and `POST /v1/nodes/{node}/kill`.

use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;
use turnfleet_proto::NodeId;

use super::actor::Actor;
use super::app::answer_json;
use super::node_actions;
use super::nodes::node_id;
use super::route::Call;
use super::status::ApiError;
use crate::fleet::record::Stage;
use crate::fleet::{FleetView, Restored};
use crate::reconcile::Handle;

/// How far the policy has come.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Rollout")]
pub(super) struct Progress<'v> {
    /// `pending`, `canary`, `all` or `stopped`.
    pub(super) stage: &'v str,
    /// The fleet's generation.
    pub(super) generation: u64,
    /// The relay that tries the policy, or refused it.
    pub(super) node: Option<&'v str>,
    /// Why it was refused.
    pub(super) reason: Option<&'v str>,
    /// What shows that the store is an old one.
    pub(super) restored: Option<Older<'v>>,
}

/// What shows that the store knew more before.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RestoredStore")]
pub(super) struct Older<'v> {
    /// A relay that runs more than the store knows; none where this controller has seen more there itself.
    node: Option<&'v str>,
    /// The generation that was there.
    runs: u64,
    /// The generation of the store when that was noticed.
    store: u64,
}

impl<'v> Older<'v> {
    fn of(restored: &'v Restored) -> Self {
        Self {
            node: restored.node.as_ref().map(NodeId::as_str),
            runs: restored.runs,
            store: restored.store,
        }
    }
}

/// A word that was taken.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "WordTaken")]
pub(super) struct Taken {
    done: bool,
}

/// `GET /v1/rollout`.
pub(crate) async fn rollout(call: Call) -> Result<Response, ApiError> {
    Ok(answer_json(&progress(&call.app.handle.view())))
}

/// Gives every relay the policy.
pub(super) async fn force_rollout(handle: &Handle, actor: &Actor) -> Result<(), ApiError> {
    let handle = actor.changing(handle, "rollout.force", "policy", String::new())?;
    Ok(handle.force_rollout().await?)
}

/// Follows a store that was restored from an older backup, as another epoch.
pub(super) async fn follow_restored(handle: &Handle, actor: &Actor) -> Result<(), ApiError> {
    let handle = actor.changing(handle, "restore.confirm", "store", String::new())?;
    Ok(handle.confirm_restore().await?)
}

/// Ends the process of a node.
pub(super) async fn kill_node(
    handle: &Handle,
    actor: &Actor,
    node: &NodeId,
) -> Result<(), ApiError> {
    let handle = actor.changing(handle, "kill", node.as_str(), String::new())?;
    Ok(handle.kill(node).await?)
}

/// `POST /v1/rollout/force`: every relay gets the policy.
pub(crate) async fn force(call: Call) -> Result<Response, ApiError> {
    force_rollout(&call.app.handle, &call.actor).await?;
    Ok(answer_json(&Taken { done: true }))
}

/// `POST /v1/restore/confirm`: a store that was restored from an older backup is followed, as another epoch.
pub(crate) async fn confirm_restore(call: Call) -> Result<Response, ApiError> {
    follow_restored(&call.app.handle, &call.actor).await?;
    Ok(answer_json(&Taken { done: true }))
}

/// `POST /v1/nodes/{node}/kill`: the node's process ends, and its allocations with it.
pub(crate) async fn kill(call: Call) -> Result<Response, ApiError> {
    let node = node_id(&call)?;
    kill_node(&call.app.handle, &call.actor, &node).await?;
    Ok(node_actions::done(&node))
}

/// How far the policy has come, by `view`.
pub(super) fn progress(view: &FleetView) -> Progress<'_> {
    let stage = view.rollout.as_ref().map(|rollout| &rollout.stage);
    let (node, reason) = match stage {
        Some(Stage::Canary { node }) => (Some(node.as_str()), None),
        Some(Stage::Stopped { node, reason }) => (Some(node.as_str()), Some(reason.as_str())),
        Some(Stage::Pending | Stage::All) | None => (None, None),
    };
    Progress {
        stage: stage.map_or("all", Stage::name),
        generation: view.generation,
        node,
        reason,
        restored: view.restored.as_ref().map(Older::of),
    }
}
