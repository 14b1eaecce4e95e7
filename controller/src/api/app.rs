//! What the handlers of the HTTP API share: the controller's parts, and how a body is read and an answer written.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::RequestExt as _;
use axum::body::Bytes;
use axum::extract::{FromRequest as _, Request};
use axum::response::{IntoResponse as _, Response};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde::Serialize;

use super::auth::Guard;
use super::forwarded::Proxies;
use super::matrix::Matrix;
use super::minting::Minting;
use super::serve::Caller;
use super::status::ApiError;
use crate::metrics::Metrics;
use crate::reconcile::Handle;
use crate::traces::Tracer;

/// The largest body of a request.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// Room for a credential with its URIs, without growing.
const ANSWER_BYTES: usize = 1024;
/// What a body may take to arrive.
const BODY_SECONDS: u64 = 10;

/// What the handlers share; cheap to clone.
pub(crate) type App = Arc<Parts>;

/// The controller's parts, as the handlers need them.
pub(crate) struct Parts {
    pub(crate) handle: Handle,
    pub(crate) tracer: Tracer,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) guard: Arc<Guard>,
    pub(crate) minting: Minting,
    /// The homeserver whose users are answered, where there is one.
    pub(crate) matrix: Option<Matrix>,
    /// Who is believed about the addresses of clients.
    pub(crate) proxies: Proxies,
    /// Seconds.
    pub(crate) default_ttl: u64,
    /// Whether `/metrics` needs no token, because only this machine reaches the listener.
    pub(crate) open_metrics: bool,
}

/// 200 with `body` as JSON.
pub(super) fn answer_json(body: &impl Serialize) -> Response {
    let mut text = Vec::with_capacity(ANSWER_BYTES);
    match serde_json::to_writer(&mut text, body) {
        Ok(()) => {
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

/// Whose list it is going to be: the caller, or whom it speaks for.
pub(super) fn client(app: &Parts, request: &Request) -> Option<IpAddr> {
    app.proxies.client(caller(request)?, request.headers())
}
