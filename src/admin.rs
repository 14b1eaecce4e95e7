//! The small HTTP listener of a relay: `/metrics` for Prometheus, `/livez` and `/readyz` for whoever supervises it.
//!
//! It never holds a stopping node back: it looks at the node while it lives, and answers 503 afterwards.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use turnfleet_relay::Node;

/// Opens the listener.
///
/// # Errors
/// When the address is taken or not this machine's; `key` names where it was configured.
pub(crate) async fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("cannot listen on {address} for metrics ({key})"))
}

/// Answers for `node` until the process ends.
pub(crate) fn serve(listener: TcpListener, node: &Arc<Node>) {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "live\n" }))
        .route("/readyz", get(readiness))
        .with_state(Arc::downgrade(node));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::warn!(%error, "the metrics listener has ended");
        }
    });
}

async fn metrics(State(node): State<Weak<Node>>) -> Response {
    match node.upgrade() {
        Some(node) => {
            let kind = [(
                header::CONTENT_TYPE,
                "text/plain; version=0.0.4; charset=utf-8",
            )];
            (kind, node.render_metrics()).into_response()
        }
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn readiness(State(node): State<Weak<Node>>) -> Response {
    if node.upgrade().is_some_and(|node| node.is_ready()) {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }
}
