//! The router of the HTTP API, and what every answer has in common: JSON errors, `Cache-Control: no-store`, counters.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Uri};
use schemars::JsonSchema;
use serde::Serialize;
use tracing::{Instrument as _, Span};
use turnfleet_proto::spans::TARGET;

use super::app::{App, answer_json};
use super::auth::bearer_token;
use super::cors::{Origins, cors};
use super::matrix;
use super::openapi::document;
use super::route::Call;
use super::routes::routes;
use super::status::ApiError;
use crate::fleet::record::Scope;

/// The whole API.
pub(crate) fn router(app: App, origins: Origins) -> Router {
    routes()
        .into_iter()
        .fold(Router::new(), |router, route| {
            router.route(route.path, route.serve)
        })
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(app.clone(), count))
        .layer(from_fn_with_state(Arc::new(origins), cors))
        .with_state(app)
}

/// What every answer has in common: nearly all hold credentials or passing state.
async fn count(State(app): State<App>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("other", MatchedPath::as_str);
    let arrival = Arrival::of(route, request.method());
    let response = next.run(request).instrument(arrival.span.clone()).await;
    finish(&app, arrival, response)
}

/// A request that has come.
pub(super) struct Arrival<'r> {
    route: &'r str,
    at: Instant,
    pub(super) span: Span,
}

impl<'r> Arrival<'r> {
    /// One of `route`, at this moment.
    pub(super) fn of(route: &'r str, method: &Method) -> Self {
        let method = name_of(method);
        let span = tracing::info_span!(
            target: TARGET,
            parent: None,
            "request",
            otel.name = format!("{method} {route}"),
            otel.kind = "server",
            otel.status_code = tracing::field::Empty,
            http.route = route,
            http.request.method = method,
            http.response.status_code = tracing::field::Empty,
        );
        let at = Instant::now();
        Self { route, at, span }
    }

    /// Whether a good answer holds a credential.
    fn is_for_credential(&self) -> bool {
        matches!(self.route, "/turn" | "/v1/ice-servers") || matrix::is_path(self.route)
    }
}

/// The name of `method` in traces. Callers can make others up, as long as a request may be: those have one name.
fn name_of(method: &Method) -> &'static str {
    let known = [
        "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE",
    ];
    let mut known = known.into_iter();
    known
        .find(|name| *name == method.as_str())
        .unwrap_or("_OTHER")
}

/// Counts `response`, and keeps it out of caches.
pub(super) fn finish(app: &App, arrival: Arrival<'_>, mut response: Response) -> Response {
    let status = response.status();
    let (route, metrics) = (arrival.route, &app.metrics);
    let requests = &metrics.requests;
    requests.with_label_values(&[route, status.as_str()]).inc();
    if status.is_success() && arrival.is_for_credential() {
        let seconds = arrival.at.elapsed().as_secs_f64();
        metrics.credential_seconds.observe(seconds);
    }
    let code = i64::from(status.as_u16());
    arrival.span.record("http.response.status_code", code);
    if status.is_server_error() {
        arrival.span.record("otel.status_code", "ERROR");
    }
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    response
}

/// `GET /metrics`.
pub(super) async fn metrics(
    State(app): State<App>,
    request: Request,
) -> Result<Response, ApiError> {
    let view = app.handle.view();
    if !app.open_metrics {
        let token = bearer_token(request.headers())?;
        app.guard.admit_to_fleet(&view, token, Scope::Viewer)?;
    }
    let webhooks = app.handle.events().webhooks();
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok((
        [(CONTENT_TYPE, kind)],
        app.metrics.render(&view, &webhooks, app.handle.usage()),
    )
        .into_response())
}

/// The answer of `/livez`.
#[derive(Serialize, JsonSchema)]
pub(super) struct Live {
    pub(super) alive: bool,
}

/// The answer of `/readyz`.
#[derive(Serialize, JsonSchema)]
pub(super) struct Ready {
    ready: bool,
    /// How many relays are in lists.
    nodes_listed: usize,
}

/// `GET /livez`.
pub(super) async fn livez(_: Call) -> Result<Response, ApiError> {
    Ok(answer_json(&Live { alive: true }))
}

/// `GET /readyz`. Ready means that requests are answered.
pub(super) async fn readyz(call: Call) -> Result<Response, ApiError> {
    Ok(answer_json(&Ready {
        ready: true,
        nodes_listed: call.view.listed(),
    }))
}

/// `GET /openapi.json`.
pub(super) async fn openapi(_: Call) -> Result<Response, ApiError> {
    static DOCUMENT: LazyLock<serde_json::Value> = LazyLock::new(document);
    Ok(answer_json(&*DOCUMENT))
}

async fn unknown_path(uri: Uri) -> ApiError {
    ApiError::unknown_path(uri.path())
}

async fn wrong_method(uri: Uri) -> Response {
    if matrix::is_path(uri.path()) {
        return matrix::wrong_method();
    }
    ApiError::wrong_method(uri.path()).into_response()
}
