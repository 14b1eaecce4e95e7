//! What HTTP callers hear while the controller starts: that it lives, and that it is not ready, because its store does not answer.
//!
//! The listener is open from the beginning, so that whoever supervises the process asks the same address before and after; gRPC
//! is not, for relays and balancers go on to a controller that is there.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use axum::response::{IntoResponse as _, Response};
use http::header::CACHE_CONTROL;
use http::{HeaderValue, Request};
use hyper::body::Incoming;
use tower::Service;

use super::app::answer_json;
use super::front::Front;
use super::http::Live;
use super::matrix;
use super::status::ApiError;

/// The path that is answered from the beginning.
pub(crate) const LIVENESS: &str = "/livez";

/// The API once it is there, and until then the word that it is not.
#[derive(Clone)]
pub(crate) struct Gate {
    opened: Arc<OnceLock<Front>>,
    front: Option<Front>,
}

impl Gate {
    /// One that is closed, and what opens it.
    pub(crate) fn closed() -> (Self, Arc<OnceLock<Front>>) {
        let opened = Arc::default();
        let gate = Self {
            opened: Arc::clone(&opened),
            front: None,
        };
        (gate, opened)
    }
}

impl Service<Request<Incoming>> for Gate {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        if self.front.is_none() {
            self.front = self.opened.get().cloned();
        }
        match &mut self.front {
            Some(front) => front.call(request),
            None => {
                let answer = closed(request.uri().path());
                Box::pin(std::future::ready(Ok(answer)))
            }
        }
    }
}

fn closed(path: &str) -> Response {
    let mut answer = match path {
        LIVENESS => answer_json(&Live { alive: true }),
        path if matrix::is_path(path) => matrix::starting(),
        _ => ApiError::starting().into_response(),
    };
    let no_store = HeaderValue::from_static("no-store");
    answer.headers_mut().insert(CACHE_CONTROL, no_store);
    answer
}
