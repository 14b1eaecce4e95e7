//! How far a changed policy has come (`GET /v1/rollout`), and what an operator says where it, or the store, waits for a word:
//! `POST /v1/rollout/force`, `POST /v1/restore/confirm` and `POST /v1/nodes/{node}/kill`.

use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::app::{App, answer_json};
use super::auth::bearer_token;
use super::node_actions;
use super::status::ApiError;
use crate::fleet::FleetView;
use crate::fleet::record::{Scope, Stage};

/// `GET /v1/rollout`: the stage, the generation, and the relay that tries the policy or refused it.
pub(crate) async fn rollout(
    State(app): State<App>,
    request: Request,
) -> Result<Response, ApiError> {
    let view = app.handle.view();
    let token = bearer_token(request.headers())?;
    app.guard.admit(&view, token, Scope::Viewer)?;
    Ok(answer_json(&describe(&view)))
}

/// `POST /v1/rollout/force`: every relay gets the policy.
pub(crate) async fn force(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    admit(&app, &request)?;
    app.handle.force_rollout().await?;
    Ok(answer_json(&json!({ "forced": true })))
}

/// `POST /v1/restore/confirm`: a store that was restored from an older backup is followed, as another epoch.
pub(crate) async fn confirm_restore(
    State(app): State<App>,
    request: Request,
) -> Result<Response, ApiError> {
    admit(&app, &request)?;
    app.handle.confirm_restore().await?;
    Ok(answer_json(&json!({ "confirmed": true })))
}

/// `POST /v1/nodes/{node}/kill`: the node's process ends, and its allocations with it.
pub(crate) async fn kill(
    State(app): State<App>,
    Path(node): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let node = node_actions::admit(&app, &node, &request)?;
    app.handle.kill(&node).await?;
    Ok(answer_json(&json!({ "node": node.as_str() })))
}

fn admit(app: &App, request: &Request) -> Result<(), ApiError> {
    let token = bearer_token(request.headers())?;
    app.guard.admit(&app.handle.view(), token, Scope::Operator)
}

fn describe(view: &FleetView) -> Value {
    let stage = view.rollout.as_ref().map(|rollout| &rollout.stage);
    let (node, reason) = match stage {
        Some(Stage::Canary { node }) => (Some(node.as_str()), None),
        Some(Stage::Stopped { node, reason }) => (Some(node.as_str()), Some(reason.as_str())),
        Some(Stage::Pending | Stage::All) | None => (None, None),
    };
    let restored = view.restored.as_ref();
    json!({
        "stage": stage.map_or("all", Stage::name),
        "generation": view.generation,
        "node": node,
        "reason": reason,
        "restored": restored.map(|it| json!({
            "node": it.node.as_str(),
            "runs": it.runs,
            "store": it.store,
        })),
    })
}
