//! The shared secrets: `GET /v1/secrets`, `POST /v1/secrets/rotate` and `/v1/secrets/pin`, and of one generation
//! `POST /v1/secrets/{id}/pin`, `/unpin` and `/revoke`.
//!
//! No answer holds a secret. A change answers when the store holds it, with the id of the generation.

use std::collections::BTreeSet;

use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use super::actor::Actor;
use super::app::answer_json;
use super::route::Call;
use super::status::{ApiError, excerpt};
use super::values::{Field, Kind, Values};
use crate::fleet::record::{SecretScope, SecretState};
use crate::fleet::{FleetView, Pin, SecretView, WEAK_SECRET_BYTES};
use crate::reconcile::Handle;

/// As many regions are named in the place of one that has no relay.
const MAX_REGIONS: usize = 16;

const SCOPE: Field = Field::new(
    "scope",
    Kind::SecretScope,
    "Whose relays accept it: `fleet`, `region:NAME` or `tenant:NAME`; `fleet` where it is left out.",
);

/// What the body of a rotation may say.
pub(super) const ROTATE: &[Field] = &[
    SCOPE,
    Field::new(
        "secret",
        Kind::Secret(WEAK_SECRET_BYTES),
        "The secret; a random one is made where it is left out.",
    ),
];

/// What the body says of an application's secret that is pinned.
pub(super) const PIN: &[Field] = &[
    SCOPE,
    Field::required(
        "secret",
        Kind::Secret(1),
        "The secret that the application has.",
    ),
];

/// What the body of a revocation may say.
pub(super) const REVOKE: &[Field] = &[
    Field::new(
        "cut",
        Kind::Flag,
        "Whether relays end the allocations that were made with its credentials.",
    ),
    Field::new(
        "replace",
        Kind::Flag,
        "Whether a random secret takes over at once where credentials are minted with it.",
    ),
];

/// The shared secrets, without themselves.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Secrets")]
pub(super) struct Answer {
    secrets: Vec<Secret>,
}

/// The generation that was made or changed.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ChangedSecret")]
pub(super) struct Changed {
    id: u32,
    /// What may be a mistake, such as a region that no relay is in; `null` where nothing is.
    warning: Option<String>,
}

/// The generation that was revoked.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RevokedSecret")]
pub(super) struct Revoked {
    id: u32,
    /// The generation that takes over minting; `null` where there is none.
    replaced_by: Option<u32>,
}

/// One generation of a secret.
#[derive(Serialize, JsonSchema)]
struct Secret {
    id: u32,
    scope: String,
    state: &'static str,
    /// Whether credentials are minted with it.
    minted: bool,
    /// Unix seconds.
    created_at: u64,
    /// Unix seconds; `null` without an end.
    accept_until: Option<u64>,
    /// Unix seconds; `null` where no relay has told this controller of any use.
    last_used: Option<u64>,
    /// Relays of the scope that serve, and know of it.
    acknowledged: usize,
    /// Relays of the scope that serve.
    of: usize,
    /// Whether relays end what was made with a revoked one.
    cut: bool,
}

/// `GET /v1/secrets`.
pub(crate) async fn secrets(call: Call) -> Result<Response, ApiError> {
    Ok(answer_json(&Answer {
        secrets: call.view.secrets.iter().map(shown).collect(),
    }))
}

/// When a generation ends or has ended, and whether relays end what was made with it.
pub(super) fn end_of(state: SecretState) -> (Option<u64>, bool) {
    match state {
        SecretState::Retiring { accept_until } => (Some(accept_until), false),
        SecretState::Revoked { at, cut } => (Some(at), cut),
        SecretState::Staged | SecretState::Active | SecretState::Pinned => (None, false),
    }
}

fn shown(secret: &SecretView) -> Secret {
    let (accept_until, cut) = end_of(secret.state);
    Secret {
        id: secret.id,
        scope: secret.scope.to_string(),
        state: secret.state.name(),
        minted: secret.minted,
        created_at: secret.created_at,
        accept_until,
        last_used: secret.last_used,
        acknowledged: secret.acknowledged,
        of: secret.of,
        cut,
    }
}

/// Begins a rotation, as `asked` in the fields of [`ROTATE`]. Gives the id.
pub(super) async fn begin_rotation(
    handle: &Handle,
    actor: &Actor,
    asked: &Values,
) -> Result<u32, ApiError> {
    let scope = scope(asked);
    let detail = origin(asked).to_owned();
    let handle = actor.changing(handle, "rotate secret", &scope.to_string(), detail)?;
    let secret = asked.secret("secret").cloned();
    Ok(handle.rotate_secret(scope, secret).await?)
}

/// Pins an application's secret, as `asked` in the fields of [`PIN`]. Gives the id.
pub(super) async fn keep_given(
    handle: &Handle,
    actor: &Actor,
    asked: &Values,
) -> Result<u32, ApiError> {
    let scope = scope(asked);
    let detail = origin(asked).to_owned();
    let handle = actor.changing(handle, "pin secret", &scope.to_string(), detail)?;
    let secret = asked.secret("secret").cloned();
    let secret = secret.expect("a request without the secret was refused");
    Ok(handle.pin_secret(Pin::Secret(scope, secret)).await?)
}

/// Pins a generation.
pub(super) async fn keep(handle: &Handle, actor: &Actor, id: u32) -> Result<(), ApiError> {
    let handle = actor.changing(handle, "pin secret", &id.to_string(), String::new())?;
    handle.pin_secret(Pin::Generation(id)).await?;
    Ok(())
}

/// Lets a pinned generation retire.
pub(super) async fn let_go(handle: &Handle, actor: &Actor, id: u32) -> Result<(), ApiError> {
    let handle = actor.changing(handle, "unpin secret", &id.to_string(), String::new())?;
    Ok(handle.unpin_secret(id).await?)
}

/// Revokes a generation, as `asked` in the fields of [`REVOKE`]. Gives the one that takes over minting.
pub(super) async fn forbid(
    handle: &Handle,
    actor: &Actor,
    id: u32,
    asked: &Values,
) -> Result<Option<u32>, ApiError> {
    let (cut, replace) = (asked.flag("cut"), asked.flag("replace"));
    let wanted = [(cut, "cut"), (replace, "replace")];
    let wanted = wanted.into_iter().filter(|(is_wanted, _)| *is_wanted);
    let detail = wanted.map(|(_, name)| name).collect::<Vec<_>>().join(" ");
    let handle = actor.changing(handle, "revoke secret", &id.to_string(), detail)?;
    Ok(handle.revoke_secret(id, cut, replace).await?)
}

/// `POST /v1/secrets/rotate`.
pub(crate) async fn rotate(call: Call) -> Result<Response, ApiError> {
    let warning = doubt(&call.view, &call.body);
    let id = begin_rotation(&call.app.handle, &call.actor, &call.body).await?;
    Ok(answer_json(&Changed { id, warning }))
}

/// `POST /v1/secrets/pin`: a secret that an application has.
pub(crate) async fn pin_given(call: Call) -> Result<Response, ApiError> {
    let warning = doubt(&call.view, &call.body);
    let id = keep_given(&call.app.handle, &call.actor, &call.body).await?;
    Ok(answer_json(&Changed { id, warning }))
}

/// `POST /v1/secrets/{id}/pin`.
pub(crate) async fn pin(call: Call) -> Result<Response, ApiError> {
    let id = generation(&call)?;
    keep(&call.app.handle, &call.actor, id).await?;
    let warning = None;
    Ok(answer_json(&Changed { id, warning }))
}

/// `POST /v1/secrets/{id}/unpin`.
pub(crate) async fn unpin(call: Call) -> Result<Response, ApiError> {
    let id = generation(&call)?;
    let_go(&call.app.handle, &call.actor, id).await?;
    let warning = None;
    Ok(answer_json(&Changed { id, warning }))
}

/// `POST /v1/secrets/{id}/revoke`.
pub(crate) async fn revoke(call: Call) -> Result<Response, ApiError> {
    let id = generation(&call)?;
    let replaced_by = forbid(&call.app.handle, &call.actor, id, &call.body).await?;
    Ok(answer_json(&Revoked { id, replaced_by }))
}

fn generation(call: &Call) -> Result<u32, ApiError> {
    let id = call.part("id");
    id.parse()
        .map_err(|_| ApiError::unknown_secret(excerpt(id)))
}

/// The scope that a body names, which is of a form that secrets have.
fn scope(body: &Values) -> SecretScope {
    let named = body.text("scope").and_then(|text| text.parse().ok());
    named.unwrap_or(SecretScope::Fleet)
}

/// A region without relays may be one to come, and may be misspelt.
fn doubt(view: &FleetView, asked: &Values) -> Option<String> {
    let SecretScope::Region(region) = scope(asked) else {
        return None;
    };
    let nodes = view.nodes.iter();
    let regions: BTreeSet<&str> = nodes.map(|node| &*node.identity.region).collect();
    if regions.contains(&*region) {
        return None;
    }
    let mut warning = format!("no relay is in the region {region}");
    if !regions.is_empty() {
        let regions: Vec<&str> = regions.into_iter().take(MAX_REGIONS).collect();
        warning = format!("{warning}; there are relays in {}", regions.join(", "));
    }
    Some(warning)
}

fn origin(body: &Values) -> &'static str {
    match body.secret("secret") {
        Some(_) => "given",
        None => "random",
    }
}
