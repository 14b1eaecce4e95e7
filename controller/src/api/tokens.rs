//! `GET` and `POST /v1/tokens`, `DELETE /v1/tokens/{name}`: who may use this API. A token is shown once, when it is made, and
//! kept as its SHA-256.

use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use ring::rand::SystemRandom;
use schemars::JsonSchema;
use serde::Serialize;

use super::actor::Actor;
use super::app::answer_json;
use super::route::Call;
use super::status::{ApiError, excerpt};
use super::values::{Field, Kind, Values};
use crate::fleet::FleetView;
use crate::fleet::record::{ApiToken, token_hash};
use crate::reconcile::{Handle, random_text};
use crate::wall_clock::since_epoch;

/// The longest life of a token that has an end: ten years.
const MAX_SECONDS: u64 = 10 * 366 * 86_400;

/// What the body of a request for a token may say.
pub(super) const CREATE: &[Field] = &[
    Field::required("name", Kind::Name, "What the operator calls the bearer."),
    Field::required(
        "scopes",
        Kind::Some(&["mint", "viewer", "operator", "admin"]),
        "What it opens. `operator` also sees what `viewer` does, and `admin` opens everything.",
    ),
    Field::new(
        "tenant",
        Kind::Name,
        "The tenant that it is bound to: it then mints for that tenant's users, and opens nothing else.",
    ),
    Field::new(
        "expires_in_seconds",
        Kind::Whole(1, MAX_SECONDS),
        "It opens nothing after so many seconds; without it it has no end.",
    ),
];

/// Who may use the API.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Tokens")]
pub(super) struct Answer<'v> {
    tokens: Vec<Token<'v>>,
}

/// An API token, without itself.
#[derive(Serialize, JsonSchema)]
pub(super) struct Token<'v> {
    pub(super) name: &'v str,
    pub(super) scopes: Vec<&'static str>,
    /// The tenant that it is bound to.
    pub(super) tenant: Option<&'v str>,
    /// Unix seconds; `null` where it has no end.
    pub(super) expires_at: Option<u64>,
    /// Whether the configuration names it; it cannot be revoked by this API then.
    pub(super) configured: bool,
}

/// An API token that was made.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "MadeToken")]
pub(super) struct Made<'v> {
    /// The token itself, which is not shown again.
    token: String,
    #[serde(flatten)]
    described: Token<'v>,
}

/// The token that was revoked.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RevokedToken")]
pub(super) struct Revoked<'v> {
    name: &'v str,
}

/// Makes a token, as `asked` in the fields of [`CREATE`], and gives it with its record.
pub(super) async fn make(
    handle: &Handle,
    actor: &Actor,
    asked: &Values,
) -> Result<(String, ApiToken), ApiError> {
    let names = asked.some("scopes");
    let now = since_epoch().as_secs();
    let record = ApiToken {
        name: asked.text("name").unwrap_or_default().to_owned(),
        scopes: names.iter().flat_map(|name| name.parse()).collect(),
        tenant: asked.text("tenant").map(str::to_owned),
        expires_at: asked.whole("expires_in_seconds").map(|life| now + life),
        by_operator: true,
    };
    let mut detail = format!("scopes {}", names.join(" "));
    if let Some(tenant) = &record.tenant {
        detail += &format!(", tenant {tenant}");
    }
    if let Some(end) = record.expires_at {
        detail += &format!(", until {end}");
    }
    let token = random_text(&SystemRandom::new())?;
    let handle = actor.changing(handle, "create token", &record.name, detail)?;
    handle
        .add_api_token(token_hash(&token), record.clone())
        .await?;
    Ok((token, record))
}

/// Revokes a token that was made.
pub(super) async fn unmake(handle: &Handle, actor: &Actor, name: &str) -> Result<(), ApiError> {
    let target = excerpt(name);
    let handle = actor.changing(handle, "revoke token", &target, String::new())?;
    Ok(handle.revoke_api_token(name).await?)
}

/// Every token, by name.
pub(super) fn described(view: &FleetView) -> Vec<Token<'_>> {
    let mut tokens: Vec<_> = view.api_tokens().map(describe).collect();
    tokens.sort_unstable_by_key(|token| token.name);
    tokens
}

/// `GET /v1/tokens`.
pub(crate) async fn list(call: Call) -> Result<Response, ApiError> {
    let tokens = described(&call.view);
    Ok(answer_json(&Answer { tokens }))
}

/// `POST /v1/tokens`.
pub(crate) async fn create(call: Call) -> Result<Response, ApiError> {
    let (token, record) = make(&call.app.handle, &call.actor, &call.body).await?;
    let described = describe(&record);
    let made = Made { token, described };
    Ok((StatusCode::CREATED, answer_json(&made)).into_response())
}

/// `DELETE /v1/tokens/{name}`.
pub(crate) async fn revoke(call: Call) -> Result<Response, ApiError> {
    let name = call.part("name");
    unmake(&call.app.handle, &call.actor, name).await?;
    Ok(answer_json(&Revoked { name }))
}

pub(super) fn describe(token: &ApiToken) -> Token<'_> {
    Token {
        name: &token.name,
        scopes: token.scopes.iter().map(|scope| scope.name()).collect(),
        tenant: token.tenant.as_deref(),
        expires_at: token.expires_at,
        configured: !token.by_operator,
    }
}
