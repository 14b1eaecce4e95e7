//! Cross-origin requests (the Fetch standard's CORS protocol): which web pages may read the API's answers.
//!
//! Tokens travel in a header and never in cookies, so an origin is all there is to decide on. The paths of Matrix clients have a
//! rule of their own, which is the specification's.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
    VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use std::sync::Arc;

use super::matrix;

/// The origins of `http.cors_origins`; `*` stands for any.
#[derive(Debug, Default)]
pub(crate) struct Origins {
    any: bool,
    exact: Vec<String>,
}

impl Origins {
    pub(crate) fn new(origins: &[String]) -> Self {
        Self {
            any: origins.iter().any(|origin| origin == "*"),
            exact: origins.to_vec(),
        }
    }

    /// What `Access-Control-Allow-Origin` says to the request with these headers; `None` where nothing is to be said.
    fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        if self.any {
            return Some(HeaderValue::from_static("*"));
        }
        let known = |exact: &String| exact.as_bytes() == origin.as_bytes();
        self.exact.iter().any(known).then(|| origin.clone())
    }
}

/// Answers preflights of allowed origins, and marks every other answer to them as readable, errors too.
pub(crate) async fn cors(
    State(origins): State<Arc<Origins>>,
    request: Request,
    next: Next,
) -> Response {
    if matrix::is_path(request.uri().path()) {
        return matrix::cors(request, next).await;
    }
    let Some(allowed) = origins.allowed(request.headers()) else {
        return next.run(request).await;
    };
    let preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight {
        let headers = [
            (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, DELETE"),
            (ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type"),
            (ACCESS_CONTROL_MAX_AGE, "600"),
        ];
        (StatusCode::NO_CONTENT, headers).into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("retry-after"),
    );
    headers.append(VARY, HeaderValue::from_static("Origin"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(origins: &[&str], from: Option<&'static str>, expected: Option<&str>) {
        let origins = Origins::new(&origins.iter().map(|&o| o.to_owned()).collect::<Vec<_>>());
        let mut headers = HeaderMap::new();
        if let Some(from) = from {
            headers.insert(ORIGIN, HeaderValue::from_static(from));
        }
        let allowed = origins.allowed(&headers);
        assert_eq!(
            allowed.as_ref().map(HeaderValue::as_bytes),
            expected.map(str::as_bytes)
        );
    }

    #[test]
    fn only_configured_origins_are_allowed() {
        let meet = "https://meet.example.org";
        check(&[meet], Some(meet), Some(meet));
        check(&[meet], Some("https://meet.example.org.evil.test"), None);
        check(&[meet], Some("null"), None);
        check(&[meet], None, None);
        check(&["*"], Some("https://any.test"), Some("*"));
        check(&[], Some(meet), None);
    }
}
