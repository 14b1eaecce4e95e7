//! The shared secrets: `GET /v1/secrets`, `POST /v1/secrets/rotate` and `/v1/secrets/pin`, and of one generation
//! `POST /v1/secrets/{id}/pin`, `/unpin` and `/revoke`.
//!
//! No answer holds a secret. A change answers when the store holds it, with the id of the generation.

use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value, json};
use turnfleet_proto::credentials::SharedSecret;

use super::app::{App, answer_json, body_bytes};
use super::auth::bearer_token;
use super::status::{ApiError, excerpt};
use crate::fleet::record::{Scope, SecretScope, SecretState};
use crate::fleet::{Pin, SecretView, WEAK_SECRET_BYTES};

/// The longest secret that an operator gives.
const MAX_SECRET_BYTES: usize = 512;

#[derive(Serialize)]
struct Answer {
    secrets: Vec<Secret>,
}

#[derive(Serialize)]
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
pub(crate) async fn secrets(
    State(app): State<App>,
    request: Request,
) -> Result<Response, ApiError> {
    let view = app.handle.view();
    app.guard
        .admit(&view, bearer_token(request.headers())?, Scope::Viewer)?;
    Ok(answer_json(&Answer {
        secrets: view.secrets.iter().map(shown).collect(),
    }))
}

fn shown(secret: &SecretView) -> Secret {
    let (accept_until, cut) = match secret.state {
        SecretState::Retiring { accept_until } => (Some(accept_until), false),
        SecretState::Revoked { at, cut } => (Some(at), cut),
        SecretState::Staged | SecretState::Active | SecretState::Pinned => (None, false),
    };
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

/// `POST /v1/secrets/rotate`: the body is empty or a JSON object with `scope` and `secret`; without a secret one is made.
pub(crate) async fn rotate(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    admit(&app, &request)?;
    let fields = Fields::of(request, &["scope", "secret"]).await?;
    let (scope, secret) = (fields.scope()?, fields.secret(WEAK_SECRET_BYTES)?);
    let id = app.handle.rotate_secret(scope, secret).await?;
    Ok(answer_json(&json!({ "id": id })))
}

/// `POST /v1/secrets/pin`: a secret that an application has; the body is a JSON object with `secret` and perhaps `scope`.
pub(crate) async fn pin_given(
    State(app): State<App>,
    request: Request,
) -> Result<Response, ApiError> {
    admit(&app, &request)?;
    let fields = Fields::of(request, &["scope", "secret"]).await?;
    let secret = fields.secret(1)?;
    let secret = secret.ok_or_else(|| bad_secret("there is no secret", 1))?;
    let pin = Pin::Secret(fields.scope()?, secret);
    let id = app.handle.pin_secret(pin).await?;
    Ok(answer_json(&json!({ "id": id })))
}

/// `POST /v1/secrets/{id}/pin`.
pub(crate) async fn pin(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    admit(&app, &request)?;
    let id = generation(&id)?;
    Fields::of(request, &[]).await?;
    app.handle.pin_secret(Pin::Generation(id)).await?;
    Ok(answer_json(&json!({ "id": id })))
}

/// `POST /v1/secrets/{id}/unpin`.
pub(crate) async fn unpin(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    admit(&app, &request)?;
    let id = generation(&id)?;
    Fields::of(request, &[]).await?;
    app.handle.unpin_secret(id).await?;
    Ok(answer_json(&json!({ "id": id })))
}

/// `POST /v1/secrets/{id}/revoke`: the body is empty or a JSON object with `cut` and `replace`, each true or false.
pub(crate) async fn revoke(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    admit(&app, &request)?;
    let id = generation(&id)?;
    let fields = Fields::of(request, &["cut", "replace"]).await?;
    let (cut, replace) = (fields.flag("cut")?, fields.flag("replace")?);
    let replaced_by = app.handle.revoke_secret(id, cut, replace).await?;
    Ok(answer_json(
        &json!({ "id": id, "replaced_by": replaced_by }),
    ))
}

fn admit(app: &App, request: &Request) -> Result<(), ApiError> {
    let token = bearer_token(request.headers())?;
    app.guard.admit(&app.handle.view(), token, Scope::Admin)
}

fn generation(id: &str) -> Result<u32, ApiError> {
    id.parse()
        .map_err(|_| ApiError::unknown_secret(excerpt(id)))
}

fn bad_secret(what: &'static str, least: usize) -> ApiError {
    let expected = format!("a JSON string of {least} to {MAX_SECRET_BYTES} bytes");
    ApiError::bad_parameter("body.secret", what, expected)
}

/// The fields of a body.
struct Fields(Map<String, Value>);

impl Fields {
    async fn of(request: Request, known: &[&str]) -> Result<Self, ApiError> {
        let body = body_bytes(request).await?;
        if body.trim_ascii().is_empty() {
            return Ok(Self(Map::new()));
        }
        let fields: Map<String, Value> =
            serde_json::from_slice(&body).map_err(|error| ApiError::bad_json(&error))?;
        match fields.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(Self(fields)),
            Some(name) => {
                let expected = match known {
                    [] => "an empty object".to_owned(),
                    known => known.join(" or "),
                };
                let place = format!("body.{}", excerpt(name));
                let what = "there is no such field";
                Err(ApiError::bad_parameter(place, what, expected))
            }
        }
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn scope(&self) -> Result<SecretScope, ApiError> {
        let Some(value) = self.value("scope") else {
            return Ok(SecretScope::Fleet);
        };
        let scope = value.as_str().and_then(|text| text.parse().ok());
        scope.ok_or_else(|| {
            let what = "the scope is not one that secrets have";
            ApiError::bad_parameter("body.scope", what, "fleet or region:NAME")
        })
    }

    /// A secret of `least` bytes at least.
    fn secret(&self, least: usize) -> Result<Option<SharedSecret>, ApiError> {
        let Some(value) = self.value("secret") else {
            return Ok(None);
        };
        let fits = |text: &&str| (least..=MAX_SECRET_BYTES).contains(&text.len());
        let secret = value.as_str().filter(fits).map(SharedSecret::new);
        let secret = secret.ok_or_else(|| bad_secret("the secret is too short or too long", least));
        secret.map(Some)
    }

    fn flag(&self, name: &'static str) -> Result<bool, ApiError> {
        match self.value(name) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| {
                let what = "the value is neither true nor false";
                ApiError::bad_parameter(format!("body.{name}"), what, "true or false")
            }),
        }
    }
}
