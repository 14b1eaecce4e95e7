//! The routes of the HTTP API, and what every answer has in common: JSON errors, `Cache-Control: no-store`, counters.

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Uri};

use super::app::{App, answer_json};
use super::auth::bearer_token;
use super::cors::{Origins, cors};
use super::status::ApiError;
use super::{
    capacity, dashboard, explain, ice_servers, node_actions, nodes, ports, secrets, turn_rest,
};
use crate::fleet::record::Scope;

/// The whole API.
pub(crate) fn router(app: App, origins: Origins) -> Router {
    Router::new()
        .route("/", get(dashboard::page))
        .route("/turn", get(turn_rest::turn).post(turn_rest::turn))
        .route("/v1/ice-servers", post(ice_servers::ice_servers))
        .route("/v1/nodes", get(nodes::nodes))
        .route("/v1/nodes/{node}", delete(node_actions::forget))
        .route("/v1/nodes/{node}/drain", post(node_actions::drain))
        .route("/v1/nodes/{node}/undrain", post(node_actions::undrain))
        .route("/v1/ports", get(ports::ports))
        .route("/v1/ports/{public_ip}/{range}", delete(ports::release))
        .route("/v1/nodes/{node}/explain", get(explain::node))
        .route("/v1/explain", get(explain::fleet))
        .route("/v1/capacity", get(capacity::capacity))
        .route("/v1/secrets", get(secrets::secrets))
        .route("/v1/secrets/rotate", post(secrets::rotate))
        .route("/v1/secrets/pin", post(secrets::pin_given))
        .route("/v1/secrets/{id}/pin", post(secrets::pin))
        .route("/v1/secrets/{id}/unpin", post(secrets::unpin))
        .route("/v1/secrets/{id}/revoke", post(secrets::revoke))
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(app.clone(), count))
        .layer(from_fn_with_state(Arc::new(origins), cors))
        .with_state(app)
}

/// What every answer has in common: nearly all hold credentials or passing state.
async fn count(State(app): State<App>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = route.as_ref().map_or("other", MatchedPath::as_str);
    finish(&app, route, response)
}

/// Counts `response` to a request of `route`, and keeps it out of caches.
pub(super) fn finish(app: &App, route: &str, mut response: Response) -> Response {
    app.metrics
        .requests
        .with_label_values(&[route, response.status().as_str()])
        .inc();
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    response
}

async fn metrics(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let view = app.handle.view();
    if !app.open_metrics {
        app.guard
            .admit(&view, bearer_token(request.headers())?, Scope::Viewer)?;
    }
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(CONTENT_TYPE, kind)], app.metrics.render(&view)).into_response())
}

async fn livez() -> Response {
    answer_json(&serde_json::json!({ "alive": true }))
}

/// Ready means that requests are answered. It does not wait for a relay: relays reach the controller through a balancer
/// that asks here first.
async fn readyz(State(app): State<App>) -> Response {
    let listed = app.handle.view().listed();
    answer_json(&serde_json::json!({ "ready": true, "nodes_listed": listed }))
}

async fn unknown_path(uri: Uri) -> ApiError {
    ApiError::unknown_path(uri.path())
}

async fn wrong_method(uri: Uri) -> ApiError {
    ApiError::wrong_method(uri.path())
}
