//! `GET` and `POST /v1/join-tokens`, `DELETE /v1/join-tokens/{name}`: what lets relays into the fleet, and what it binds them
//! to. A token is shown once, when it is made, and kept as its SHA-256.

use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::actor::Actor;
use super::app::answer_json;
use super::route::Call;
use super::status::{ApiError, excerpt};
use super::values::{Field, Kind, Values};
use crate::fleet::FleetView;
use crate::fleet::record::JoinToken;
use crate::reconcile::Handle;
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
        "The tenant whose users its relays are for alone.",
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

/// Makes a token, as `asked` in the fields of [`CREATE`], and gives it with its record.
pub(super) async fn make(
    handle: &Handle,
    actor: &Actor,
    asked: &Values,
) -> Result<(String, JoinToken), ApiError> {
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
    let detail = detail.join(", ");
    let handle = actor.changing(handle, "create join token", &record.name, detail)?;
    let token = handle.make_join_token(record.clone()).await?;
    Ok((token, record))
}

/// Revokes a token that was made.
pub(super) async fn unmake(handle: &Handle, actor: &Actor, name: &str) -> Result<(), ApiError> {
    let target = excerpt(name);
    let handle = actor.changing(handle, "revoke join token", &target, String::new())?;
    Ok(handle.revoke_join_token(name).await?)
}

/// Every token, by name.
pub(super) fn in_order(view: &FleetView) -> Vec<&JoinToken> {
    let mut tokens: Vec<_> = view.join_tokens().collect();
    tokens.sort_unstable_by_key(|token| &token.name);
    tokens
}

/// `GET /v1/join-tokens`.
pub(crate) async fn list(call: Call) -> Result<Response, ApiError> {
    let join_tokens = in_order(&call.view).into_iter().map(describe).collect();
    Ok(answer_json(&Answer { join_tokens }))
}

/// `POST /v1/join-tokens`.
pub(crate) async fn create(call: Call) -> Result<Response, ApiError> {
    let (token, record) = make(&call.app.handle, &call.actor, &call.body).await?;
    let described = describe(&record);
    let made = Made { token, described };
    Ok((StatusCode::CREATED, answer_json(&made)).into_response())
}

/// `DELETE /v1/join-tokens/{name}`.
pub(crate) async fn revoke(call: Call) -> Result<Response, ApiError> {
    let name = call.part("name");
    unmake(&call.app.handle, &call.actor, name).await?;
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
