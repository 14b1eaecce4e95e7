//! The routes of the HTTP API, and what every answer has in common: JSON errors, `Cache-Control: no-store`, counters.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest as _, MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{RequestExt as _, Router};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Uri};
use serde::Serialize;

use super::auth::{Guard, bearer_token};
use super::cors::{Origins, cors};
use super::serve::Caller;
use super::status::ApiError;
use super::{capacity, dashboard, ice_servers, nodes, turn_rest};
use crate::fleet::record::Scope;
use crate::metrics::Metrics;
use crate::reconcile::Handle;

/// The largest body of a request.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// What a body may take to arrive.
const BODY_SECONDS: u64 = 10;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) handle: Handle,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) guard: Arc<Guard>,
    /// Seconds.
    pub(crate) default_ttl: u64,
    /// Whether `/metrics` needs no token, because only this machine reaches the listener.
    pub(crate) open_metrics: bool,
}

/// The whole API.
pub(crate) fn router(app: App, origins: Origins) -> Router {
    Router::new()
        .route("/", get(dashboard::page))
        .route("/turn", get(turn_rest::turn).post(turn_rest::turn))
        .route("/v1/ice-servers", post(ice_servers::ice_servers))
        .route("/v1/nodes", get(nodes::nodes))
        .route("/v1/capacity", get(capacity::capacity))
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(app.clone(), count))
        .layer(from_fn_with_state(Arc::new(origins), cors))
        .with_state(app)
}

/// 200 with `body` as JSON.
pub(super) fn answer_json(body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(text) => {
            let json = HeaderValue::from_static("application/json");
            ([(CONTENT_TYPE, json)], text).into_response()
        }
        Err(error) => ApiError::internal(&error).into_response(),
    }
}

/// The body of a request, within its bounds of size and time.
pub(super) async fn body_bytes(mut request: Request) -> Result<Bytes, ApiError> {
    axum::extract::DefaultBodyLimit::apply(
        axum::extract::DefaultBodyLimit::max(MAX_BODY_BYTES),
        &mut request,
    );
    let limited = request.with_limited_body();
    let arrived = Bytes::from_request(limited, &());
    match tokio::time::timeout(Duration::from_secs(BODY_SECONDS), arrived).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(rejection)) => Err(ApiError::unreadable_body(
            rejection.into_response().status(),
            MAX_BODY_BYTES,
        )),
        Err(_) => Err(ApiError::slow_body(BODY_SECONDS)),
    }
}

/// Where the request came from.
pub(super) fn caller(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<Caller>().map(|caller| caller.ip)
}

/// Counts the request by its route, and keeps answers out of caches: nearly all hold credentials or passing state.
async fn count(State(app): State<App>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    let route = route.as_ref().map_or("other", MatchedPath::as_str);
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
