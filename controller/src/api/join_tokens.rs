//! `GET` and `POST /v1/join-tokens`, `DELETE /v1/join-tokens/{name}`: what lets relays into the fleet, and what it binds them
//! to. A token is shown once, when it is made, and kept as its SHA-256.

use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::app::answer_json;
use super::route::Call;
use super::status::{ApiError, excerpt};
use super::values::{Field, Kind};
use crate::fleet::record::JoinToken;
use crate::wall_clock::since_epoch;

/// The longest life of a token that has an end: ten years.
const MAX_SECONDS: u64 = 10 * 366 * 86_400;

/// What the body of a request for a token may say.
pub(super) const CREATE: &[Field] = &[
    Field::required("name", Kind::Name, "What the operator calls it."),
    Field::new(
        "region",
        Kind::Name,
        "The region of its relays, whatever they say of themselves; without it they say it.",
    ),
    Field::new(
        "tenant",
        Kind::Name,
        "The tenant that its relays are kept as being for.",
    ),
    Field::new(
        "expires_in_seconds",
        Kind::Whole(1, MAX_SECONDS),
        "It enrols nobody after so many seconds; without it it has no end.",
    ),
];

/// What enrols relays.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "JoinTokens")]
pub(super) struct Answer<'v> {
    join_tokens: Vec<Token<'v>>,
}

/// A join token, without itself.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "JoinToken")]
pub(super) struct Token<'v> {
    name: &'v str,
    /// The region of its relays; `null` where they say it themselves.
    region: Option<&'v str>,
    /// The tenant of its relays.
    tenant: Option<&'v str>,
    /// Unix seconds; `null` where it has no end.
    expires_at: Option<u64>,
    /// Whether it is the configuration's, or was made at the first start; it cannot be revoked by this API then.
    configured: bool,
}

/// A join token that was made.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "MadeJoinToken")]
pub(super) struct Made<'v> {
    /// The token itself, which is not shown again.
    token: String,
    #[serde(flatten)]
    described: Token<'v>,
}

/// The join token that was revoked.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RevokedJoinToken")]
pub(super) struct Revoked<'v> {
    name: &'v str,
}

/// `GET /v1/join-tokens`.
pub(crate) async fn list(call: Call) -> Result<Response, ApiError> {
    let mut join_tokens: Vec<_> = call.view.join_tokens().map(describe).collect();
    join_tokens.sort_unstable_by_key(|token| token.name);
    Ok(answer_json(&Answer { join_tokens }))
}

/// `POST /v1/join-tokens`.
pub(crate) async fn create(call: Call) -> Result<Response, ApiError> {
    let asked = &call.body;
    let now = since_epoch().as_secs();
    let record = JoinToken {
        name: asked.text("name").unwrap_or_default().to_owned(),
        region: asked.text("region").map(str::to_owned),
        tenant: asked.text("tenant").map(str::to_owned),
        expires_at: asked.whole("expires_in_seconds").map(|life| now + life),
        by_operator: true,
    };
    let bounds = [
        record.region.as_ref().map(|it| format!("region {it}")),
        record.tenant.as_ref().map(|it| format!("tenant {it}")),
        record.expires_at.map(|end| format!("until {end}")),
    ];
    let detail: Vec<_> = bounds.into_iter().flatten().collect();
    let handle = call.actor.changing(
        &call.app.handle,
        "create join token",
        &record.name,
        detail.join(", "),
    )?;
    let token = handle.make_join_token(record.clone()).await?;
    let described = describe(&record);
    let made = Made { token, described };
    Ok((StatusCode::CREATED, answer_json(&made)).into_response())
}

/// `DELETE /v1/join-tokens/{name}`.
pub(crate) async fn revoke(call: Call) -> Result<Response, ApiError> {
    let name = call.part("name");
    let target = excerpt(name);
    let handle = &call.app.handle;
    let handle = call
        .actor
        .changing(handle, "revoke join token", &target, String::new())?;
    handle.revoke_join_token(name).await?;
    Ok(answer_json(&Revoked { name }))
}

fn describe(token: &JoinToken) -> Token<'_> {
    Token {
        name: &token.name,
        region: token.region.as_deref(),
        tenant: token.tenant.as_deref(),
        expires_at: token.expires_at,
        configured: !token.by_operator,
    }
}
