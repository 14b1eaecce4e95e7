//! `GET` and `POST /turn`: the TURN REST API (draft-uberti-behave-turn-rest), which conferencing servers and clients speak.
//!
//! The parameters `service`, `username`, `key`, `ttl`, `transports`, `count`, `region`, `room` and `names` stand in the query, or in the form
//! of a POST. Parameters of other names are left alone, as the draft's callers add their own. The answer's `uris` are TURN
//! URIs (RFC 7065) and hold no `stun:` one.

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};
use schemars::JsonSchema;
use serde::Serialize;

use super::app::{App, answer_json, body_bytes, client};
use super::auth::bearer_token;
use super::credentials::{CredentialRequest, whole_number};
use super::parameters::Parameters;
use super::status::ApiError;
use crate::fleet::record::Scope;

/// The answer of the TURN REST API, and of Matrix homeservers, which have it from there.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TurnCredential")]
pub(super) struct Answer<'v> {
    pub(super) username: String,
    pub(super) password: String,
    /// Seconds.
    pub(super) ttl: u64,
    pub(super) uris: &'v [&'v str],
}

/// `GET /turn` and `POST /turn`.
pub(crate) async fn turn(
    State(app): State<App>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let client = client(&app, &request);
    let mut parameters = Parameters::parse(request.uri().query().unwrap_or(""), "query")?;
    let headers = std::mem::take(request.headers_mut());
    if request.method() == Method::POST {
        let body = body_bytes(request).await?;
        parameters.append(form(&headers, &body)?);
    }
    let token = match bearer_token(&headers)? {
        Some(token) => Some(token),
        None => parameters.value("key")?,
    };
    let view = app.handle.view();
    let bearer = app.guard.admit(&view, token, Scope::Mint)?;
    let mut asked = credential_request(&parameters)?;
    asked.of_tenant(bearer.tenant.as_deref())?;
    let minted = asked.mint(&view, &app.minting, app.default_ttl, client)?;
    app.metrics.credentials_minted.inc();
    Ok(answer_json(&Answer {
        username: minted.credential.username,
        password: minted.credential.password,
        ttl: minted.ttl,
        uris: &minted.uris,
    })
    .into_response())
}

fn form(headers: &HeaderMap, body: &Bytes) -> Result<Parameters, ApiError> {
    let kind = headers
        .get(CONTENT_TYPE)
        .map_or("", |kind| kind.to_str().unwrap_or("?"));
    let kind = kind.split(';').next().unwrap_or("").trim();
    if body.is_empty() {
        return Ok(Parameters::default());
    }
    if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let expected = "application/x-www-form-urlencoded, or the parameters in the query";
        return Err(ApiError::unsupported_media_type(expected));
    }
    let text = std::str::from_utf8(body).map_err(|_| {
        ApiError::bad_parameter("body", "the form is not UTF-8", "percent-encoded UTF-8")
    })?;
    Parameters::parse(text, "body")
}

fn credential_request(parameters: &Parameters) -> Result<CredentialRequest, ApiError> {
    let mut asked = CredentialRequest::turn_only();
    match parameters.value("service")? {
        Some("turn") => {}
        Some(_) | None => {
            let what = "the service is missing or not known";
            return Err(ApiError::bad_parameter(
                parameters.path("service"),
                what,
                "service=turn",
            ));
        }
    }
    if let Some(user) = parameters.value("username")? {
        asked.user(user, &parameters.path("username"))?;
    }
    if let Some(ttl) = parameters.value("ttl")? {
        asked.ttl(whole_number(ttl), &parameters.path("ttl"))?;
    }
    if let Some(names) = parameters.value("transports")? {
        asked.transports(names.split(','), &parameters.path("transports"))?;
    }
    if let Some(count) = parameters.value("count")? {
        asked.count(whole_number(count), &parameters.path("count"))?;
    }
    if let Some(region) = parameters.value("region")? {
        asked.region(region, &parameters.path("region"))?;
    }
    if let Some(room) = parameters.value("room")? {
        asked.room(room, &parameters.path("room"))?;
    }
    if let Some(names) = parameters.value("names")? {
        asked.names(names, &parameters.path("names"))?;
    }
    Ok(asked)
}
