//! What callers hear when something goes wrong: one error body for HTTP, and the one place where inside errors become HTTP
//! and gRPC statuses.
//!
//! The outside text says what was wrong with the request and what was expected. It never holds the inside cause, which is
//! logged instead, nor a token.

use std::borrow::Cow;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::Serialize;
use tonic::{Code, Status};

use crate::FleetError;
use crate::fleet::SecretError;
use crate::fleet::bans::BanError;
use crate::fleet::tenants::TenantError;
use crate::fleet::tokens::TokenError;
use crate::store::StoreError;

type Text = Cow<'static, str>;

/// An HTTP error: `{"error":{"code","what","where","expected"}}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: Body,
    retry_after_seconds: Option<u64>,
}

/// What was wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Error")]
struct Body {
    /// A word that stays the same.
    code: &'static str,
    /// What was wrong.
    what: Text,
    /// Where in the request, or in the fleet.
    r#where: Text,
    /// What would have been right.
    expected: Text,
}

impl ApiError {
    fn new(
        status: StatusCode,
        code: &'static str,
        place: impl Into<Text>,
        what: impl Into<Text>,
        expected: impl Into<Text>,
    ) -> Self {
        Self {
            status,
            body: Body {
                code,
                what: what.into(),
                r#where: place.into(),
                expected: expected.into(),
            },
            retry_after_seconds: None,
        }
    }

    /// The word that stays the same.
    pub(crate) fn code(&self) -> &'static str {
        self.body.code
    }

    /// Whether the same may be asked for later, because it was too much at once.
    pub(crate) fn is_rate_limit(&self) -> bool {
        self.status == StatusCode::TOO_MANY_REQUESTS
    }

    /// After which time it may be asked for again, where that is known.
    pub(crate) fn later(&self) -> Option<Duration> {
        self.retry_after_seconds.map(Duration::from_secs)
    }

    fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds.max(1));
        self
    }

    /// 400 for the parameter, header or field at `place`.
    pub(crate) fn bad_parameter(
        place: impl Into<Text>,
        what: impl Into<Text>,
        expected: impl Into<Text>,
    ) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "bad_parameter",
            place,
            what,
            expected,
        )
    }

    /// 400 for a body that is no JSON at all.
    pub(crate) fn bad_json(error: &serde_json::Error) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "bad_json",
            format!("body, line {} column {}", error.line(), error.column()),
            "the body cannot be read as the JSON object that this path takes",
            "a JSON object, or an empty body",
        )
    }

    /// 400 or 413 for a body that could not be received.
    pub(crate) fn unreadable_body(status: StatusCode, limit: usize) -> Self {
        if status == StatusCode::PAYLOAD_TOO_LARGE {
            let expected = format!("at most {limit} bytes");
            Self::new(
                status,
                "body_too_large",
                "body",
                "the body is too large",
                expected,
            )
        } else {
            Self::new(
                StatusCode::BAD_REQUEST,
                "bad_body",
                "body",
                "the body ended early",
                "as many bytes as the header announces",
            )
        }
    }

    /// 408.
    pub(crate) fn slow_body(seconds: u64) -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "request_timeout",
            "body",
            "the body did not arrive in time",
            format!("the whole body within {seconds} seconds"),
        )
    }

    /// 401: no token, or an unknown one.
    pub(crate) fn unauthenticated(what: &'static str) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthenticated",
            "header authorization",
            what,
            "Authorization: Bearer followed by an API token; /turn also takes it as the parameter key",
        )
    }

    /// 403: a known token without the scope.
    pub(crate) fn forbidden(scope: &'static str) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "header authorization",
            "the API token may not do this",
            format!("a token with the scope {scope}"),
        )
    }

    /// 403: a token that is bound to a tenant, for what concerns the whole fleet.
    pub(crate) fn bound_to_tenant() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "bound_to_tenant",
            "header authorization",
            "the API token is bound to a tenant, for whose users alone it mints",
            "a token that is bound to no tenant",
        )
    }

    /// 403: no relay would let the tenant's users in.
    pub(crate) fn suspended() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "suspended",
            "header authorization",
            "the tenant of the API token is suspended",
            "a tenant that the operator lets in",
        )
    }

    /// 404.
    pub(crate) fn unknown_path(path: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown_path",
            excerpt(path),
            "there is nothing at this path",
            "a path of /openapi.json",
        )
    }

    /// 404 for what no record is kept of.
    pub(crate) fn nothing_kept(
        place: &'static str,
        what: &'static str,
        expected: &'static str,
    ) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_kept", place, what, expected)
    }

    /// 404 for a node that is none.
    pub(crate) fn unknown_node(node: impl Into<Text>) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown_node",
            node,
            "there is no such node",
            "a node that /v1/nodes names",
        )
    }

    /// 409 for what the state of the fleet forbids; `place` is what stands in the way.
    pub(crate) fn conflict(place: &'static str, what: String, expected: &'static str) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", place, what, expected)
    }

    fn token(error: &TokenError) -> Self {
        let expected = match error {
            TokenError::Unknown(name) => {
                return Self::new(
                    StatusCode::NOT_FOUND,
                    "unknown_token",
                    name.clone(),
                    "there is no such token",
                    "a token that the list of tokens names",
                );
            }
            TokenError::Taken(_) => "a name that no token has",
            TokenError::Configured(_) => "a token that was made by the API",
            TokenError::TooMany { .. } => "fewer tokens: revoke those that are not used",
        };
        Self::conflict("token", error.to_string(), expected)
    }

    fn tenant(error: &TenantError) -> Self {
        let expected = match error {
            TenantError::Unknown(name) => {
                return Self::new(
                    StatusCode::NOT_FOUND,
                    "unknown_tenant",
                    excerpt(name),
                    error.to_string(),
                    "a tenant that /v1/tenants names",
                );
            }
            TenantError::Unfit { what, expected, .. } => {
                return Self::bad_parameter("tenant", *what, *expected);
            }
            TenantError::Taken { .. } => "a realm and TLS names that no other tenant has",
            TenantError::Configured(_) => "a tenant that was made by the API",
            TenantError::InUse { .. } => "a tenant that no token is bound to",
            TenantError::TooMany { .. } => "fewer tenants: remove those that are not used",
        };
        Self::conflict("tenant", error.to_string(), expected)
    }

    fn ban(error: &BanError) -> Self {
        let conflict = |expected| Self::conflict("ban", error.to_string(), expected);
        match error {
            BanError::Unknown => Self::new(
                StatusCode::NOT_FOUND,
                "unknown_ban",
                "ban",
                "there is no such ban",
                "a ban that /v1/bans names",
            ),
            BanError::Nobody => {
                Self::bad_parameter("user", error.to_string(), "a username without its time")
            }
            BanError::Ambiguous => conflict("more digits of the id"),
            BanError::Wide(_) => conflict("a smaller part, or force"),
            BanError::Own { .. } => conflict("what is not the fleet's own, or force"),
            BanError::Username { .. } => conflict("the user alone, or force"),
            BanError::TooMany { .. } => conflict("fewer bans: lift those that are not needed"),
        }
    }

    /// 404 for a secret that is none.
    pub(crate) fn unknown_secret(id: impl Into<Text>) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown_secret",
            id,
            "there is no such secret",
            "an id that /v1/secrets names",
        )
    }

    pub(crate) fn unknown_ports(place: impl Into<Text>) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown_ports",
            place,
            "nobody holds exactly these ports",
            "an address and ports that /v1/ports names, such as 192.0.2.1/49152-65535",
        )
    }

    /// What an operator hears of a step in a secret's life that is refused.
    fn secret(error: &SecretError) -> Self {
        let conflict = |expected| Self::conflict("secret", error.to_string(), expected);
        match error {
            SecretError::Unknown(id) => Self::unknown_secret(id.to_string()),
            SecretError::Rotating { .. } => {
                conflict("a scope without a staged secret: wait, or revoke the staged one")
            }
            SecretError::TooMany { .. } => conflict("a scope with room: revoke one that retires"),
            SecretError::TooManyPinned { .. } => conflict("a scope with room: unpin one"),
            SecretError::Minting(_) => {
                conflict("another active secret: rotate before, or revoke it with replace")
            }
            SecretError::Tenant(error) => Self::tenant(error),
            SecretError::Known(_) => conflict("a secret that was not used before"),
            SecretError::State { .. } => {
                conflict("a pinned secret to unpin, or one that is not revoked to pin or revoke")
            }
        }
    }

    /// 503 for a change that may go through later.
    fn unavailable(what: String) -> Self {
        let expected = "another try after the seconds in the Retry-After header";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "unavailable", "controller", what, expected).retry_after(1)
    }

    /// 429 while the journals are searched as much as they may be.
    pub(crate) fn searches_run(wait: Duration) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_requests",
            "path",
            "the journals of the relays are searched as often as they may be: once a second, and eight times at once after a rest",
            "another try after the seconds in the Retry-After header",
        )
        .retry_after(wait.as_secs().saturating_add(1))
    }

    /// 503 while the controller starts.
    pub(crate) fn starting() -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let what = "the controller is starting, and waits until its store answers; its log says why it does not";
        let expected = "an etcd that answers (store.etcd), and another try";
        Self::new(status, "starting", "controller", what, expected).retry_after(1)
    }

    /// 405; the `Allow` header is the router's.
    pub(crate) fn wrong_method(path: &str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "wrong_method",
            excerpt(path),
            "this path does not take the request's method",
            "one of the methods in the Allow header",
        )
    }

    /// 415.
    pub(crate) fn unsupported_media_type(expected: &'static str) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "header content-type",
            "the body has a type that this path does not take",
            expected,
        )
    }

    /// 429.
    pub(crate) fn too_many_requests(wait: Duration) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_requests",
            "header authorization",
            "the API token has made too many requests",
            "another try after the seconds in the Retry-After header",
        )
        .retry_after(wait.as_secs().saturating_add(1))
    }

    /// 429: the tenant has had as many credentials as it may.
    pub(crate) fn too_many_credentials(wait: Duration) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "quota_exceeded",
            "tenant",
            "the tenant has had as many credentials within a minute as it may (credentials_per_minute)",
            "another try after the seconds in the Retry-After header",
        )
        .retry_after(wait.as_secs().saturating_add(1))
    }

    /// 503: no relay can be named.
    pub(crate) fn no_relay(what: impl Into<Text>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "no_healthy_relay",
            "fleet",
            what,
            "another try after the seconds in the Retry-After header",
        )
        .retry_after(2)
    }

    /// 500. `cause` goes to the log only.
    pub(crate) fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "controller",
            "the controller could not do this",
            "nothing that the caller can change; the controller's log has the cause",
        )
    }
}

/// The body of every answer that is no success.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Refusal")]
pub(crate) struct Envelope<'a> {
    error: &'a Body,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let text = serde_json::to_vec(&Envelope { error: &self.body })
            .expect("a struct of texts can be written as JSON");
        let mut response = (self.status, text).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// What an operator hears of `error`.
impl From<FleetError> for ApiError {
    fn from(error: FleetError) -> Self {
        match &error {
            FleetError::UnknownNode(node) => Self::unknown_node(node.to_string()),
            FleetError::Restored(_) => Self::conflict(
                "store",
                error.to_string(),
                "a store that knows what its relays run",
            ),
            FleetError::NoSession(_) => {
                Self::conflict("node", error.to_string(), "a node with a control session")
            }
            FleetError::NoRollout => {
                Self::conflict("rollout", error.to_string(), "a rollout under way")
            }
            FleetError::NotRestored => {
                Self::conflict("store", error.to_string(), "a restored store")
            }
            FleetError::Secret(error) => Self::secret(error),
            FleetError::Live(_) => Self::conflict(
                "node",
                error.to_string(),
                "a node without a control session: stop its process first",
            ),
            FleetError::UnknownGrant { range, .. } => Self::new(
                StatusCode::NOT_FOUND,
                "unknown_ports",
                "path",
                error.to_string(),
                format!("the ports of one grant, and not {range}"),
            ),
            FleetError::Token(token) => Self::token(token),
            FleetError::Tenant(tenant) => Self::tenant(tenant),
            FleetError::Ban(ban) => Self::ban(ban),
            FleetError::Contended { .. } | FleetError::NotLeader | FleetError::Stopping => {
                Self::unavailable(error.to_string())
            }
            FleetError::Store(StoreError::Full) => {
                tracing::error!(error = %StoreError::Full, "a change was refused");
                Self::unavailable(StoreError::Full.to_string())
            }
            FleetError::Store(cause) if cause.is_retryable() => {
                tracing::warn!(%cause, "the store failed");
                Self::unavailable(error.to_string())
            }
            FleetError::Store(_)
            | FleetError::JoinToken
            | FleetError::JoinTokenEnded
            | FleetError::Credential
            | FleetError::NotYours { .. }
            | FleetError::NotCertified { .. }
            | FleetError::CertificateNeeded(_)
            | FleetError::SessionReplaced
            | FleetError::Registration(_)
            | FleetError::PortsExhausted { .. }
            | FleetError::PortsAwaited { .. }
            | FleetError::TooManyNodes { .. } => Self::internal(&error),
        }
    }
}

/// What a program that speaks gRPC hears of a refusal: the same words.
impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let code = match error.status.as_u16() {
            400 | 408 | 413 | 415 => Code::InvalidArgument,
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            404 => Code::NotFound,
            409 => Code::FailedPrecondition,
            429 => Code::ResourceExhausted,
            503 => Code::Unavailable,
            _ => Code::Internal,
        };
        let Body {
            what,
            r#where: place,
            expected,
            ..
        } = error.body;
        Self::new(code, format!("{what} ({place}); expected {expected}"))
    }
}

/// The beginning of what a caller gave, safe to show in an error.
pub(crate) fn excerpt(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_debug).collect()
}

/// What a relay node hears of `error`. The texts of [`FleetError`] are meant for outside; what stands behind a failure of the
/// store goes to the log only.
pub(crate) fn grpc_status(error: &FleetError) -> Status {
    let code = match error {
        FleetError::JoinToken | FleetError::JoinTokenEnded | FleetError::Credential => {
            Code::Unauthenticated
        }
        FleetError::NotYours { .. }
        | FleetError::NotCertified { .. }
        | FleetError::CertificateNeeded(_) => Code::PermissionDenied,
        FleetError::Live(_)
        | FleetError::Secret(_)
        | FleetError::NotRestored
        | FleetError::NoSession(_)
        | FleetError::NoRollout => Code::FailedPrecondition,
        FleetError::UnknownNode(_) => Code::NotFound,
        FleetError::SessionReplaced => Code::Aborted,
        FleetError::Registration(_) => Code::InvalidArgument,
        FleetError::Token(TokenError::Unknown(_)) => Code::NotFound,
        FleetError::Token(TokenError::Taken(_)) => Code::AlreadyExists,
        FleetError::Token(TokenError::Configured(_)) => Code::FailedPrecondition,
        FleetError::Tenant(_) | FleetError::Ban(_) => Code::FailedPrecondition,
        FleetError::PortsExhausted { .. }
        | FleetError::TooManyNodes { .. }
        | FleetError::Token(TokenError::TooMany { .. }) => Code::ResourceExhausted,
        FleetError::UnknownGrant { .. } => Code::NotFound,
        FleetError::PortsAwaited { .. }
        | FleetError::Contended { .. }
        | FleetError::NotLeader
        | FleetError::Stopping
        | FleetError::Restored(_) => Code::Unavailable,
        FleetError::Store(cause) => {
            tracing::warn!(%cause, "the store failed");
            if cause.is_retryable() {
                Code::Unavailable
            } else {
                Code::Internal
            }
        }
    };
    Status::new(code, error.to_string())
}
