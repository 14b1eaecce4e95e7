//! What a Matrix client hears instead of a list: the standard error response of the client-server API, with the one
//! word that matters most kept as the homeserver said it. A client that reads `M_UNKNOWN_TOKEN` without `soft_logout` throws
//! its keys away, so that only the homeserver's own word ends a session.

use std::borrow::Cow;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::Serialize;

type Text = Cow<'static, str>;

/// When to come again where nothing says it.
const SOON: Duration = Duration::from_secs(2);

/// Why there is no list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::api) struct Refusal {
    status: StatusCode,
    errcode: Text,
    error: Text,
    soft_logout: Option<bool>,
    retry_after: Option<Duration>,
}

/// A Matrix error.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "MatrixRefusal")]
pub(in crate::api) struct Body<'a> {
    /// A word that stays the same, such as `M_UNKNOWN_TOKEN`.
    errcode: &'a str,
    /// The same for people.
    error: &'a str,
    /// Whether the client may keep its keys, and only needs another token.
    #[serde(skip_serializing_if = "Option::is_none")]
    soft_logout: Option<bool>,
    /// When to come again, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl Refusal {
    fn new(status: StatusCode, errcode: impl Into<Text>, error: impl Into<Text>) -> Self {
        Self {
            status,
            errcode: errcode.into(),
            error: error.into(),
            soft_logout: None,
            retry_after: None,
        }
    }

    fn later(self, wait: Duration) -> Self {
        Self {
            retry_after: Some(wait),
            ..self
        }
    }

    /// Whether it is the token that is at fault.
    pub(super) fn is_of_token(&self) -> bool {
        [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&self.status)
    }

    /// What the homeserver itself said to the bearer of a token.
    pub(super) fn of_homeserver(
        status: StatusCode,
        errcode: String,
        error: String,
        soft_logout: Option<bool>,
    ) -> Self {
        Self {
            soft_logout,
            ..Self::new(status, errcode, error)
        }
    }

    /// 401 without a token.
    pub(super) fn missing_token(error: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN", error)
    }

    /// 401 for what no homeserver gives out as a token.
    pub(super) fn unknown_token() -> Self {
        let error = "this cannot be an access token";
        Self::new(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", error)
    }

    /// 403.
    pub(super) fn guest() -> Self {
        let error = "guests may not make calls by these servers";
        Self::new(StatusCode::FORBIDDEN, "M_GUEST_ACCESS_FORBIDDEN", error)
    }

    /// 404 where no homeserver is configured.
    pub(super) fn unrecognized() -> Self {
        let error = "this controller serves no homeserver (matrix.homeserver)";
        Self::new(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", error)
    }

    /// 405.
    pub(super) fn wrong_method() -> Self {
        let error = "this path is asked by GET";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED", error)
    }

    /// 429.
    pub(super) fn too_many(wait: Duration) -> Self {
        let error = "too many requests";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", error).later(wait)
    }

    /// 502 for a homeserver whose answer says nothing of the token.
    pub(super) fn strange() -> Self {
        let error = "the homeserver gave an answer that says nothing of the access token";
        Self::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", error).later(SOON)
    }

    /// 503 for a homeserver that does not answer.
    pub(super) fn unreachable() -> Self {
        Self::unavailable("the homeserver does not answer")
    }

    /// 503: no relay can be named.
    pub(super) fn no_relay() -> Self {
        Self::unavailable("there is no healthy relay")
    }

    /// 503 while the controller starts.
    pub(super) fn starting() -> Self {
        Self::unavailable("the controller is starting")
    }

    fn unavailable(error: &'static str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN", error).later(SOON)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let milliseconds = |wait: Duration| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let body = Body {
            errcode: &self.errcode,
            error: &self.error,
            soft_logout: self.soft_logout,
            // Zero would have a client come at once.
            retry_after_ms: self.retry_after.map(|wait| milliseconds(wait).max(1)),
        };
        let text = serde_json::to_vec(&body).expect("a struct of texts can be written as JSON");
        let mut response = (self.status, text).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}
