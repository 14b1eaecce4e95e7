//! `POST /v1/ice-servers`: a credential and URIs in the form that `RTCPeerConnection` takes.
//!
//! The body is empty or a JSON object with any of `user` (or `username`, as `/turn` has it), `ttl`, `transports`, `count`,
//! `region`, `room` and `names`. The answer is
//! `{"iceServers":[{"urls":[…],"username":"…","credential":"…"}],"ttl":…}`.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::app::{App, answer_json, body_bytes, client};
use super::auth::bearer_token;
use super::credentials::CredentialRequest;
use super::status::ApiError;
use super::status::excerpt;
use super::values::whole;
use crate::fleet::record::Scope;

/// What `RTCPeerConnection` takes as its configuration.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "IceServers")]
pub(super) struct Answer<'v> {
    ice_servers: [IceServer<'v>; 1],
    ttl: u64,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "IceServer")]
struct IceServer<'v> {
    urls: &'v [&'v str],
    username: String,
    credential: String,
}

/// `POST /v1/ice-servers`.
pub(crate) async fn ice_servers(
    State(app): State<App>,
    request: Request,
) -> Result<Response, ApiError> {
    let client = client(&app, &request);
    let view = app.handle.view();
    let token = bearer_token(request.headers())?;
    let bearer = app.guard.admit(&view, token, Scope::Mint)?;
    let mut asked = credential_request(&body_bytes(request).await?)?;
    asked.of_tenant(bearer.tenant.as_deref())?;
    let minted = asked.mint(&view, &app.minting, app.default_ttl, client)?;
    app.metrics.credentials_minted.inc();
    let server = IceServer {
        urls: &minted.uris,
        username: minted.credential.username,
        credential: minted.credential.password,
    };
    let answer = Answer {
        ice_servers: [server],
        ttl: minted.ttl,
    };
    Ok((StatusCode::CREATED, answer_json(&answer)).into_response())
}

fn credential_request(body: &[u8]) -> Result<CredentialRequest, ApiError> {
    let mut asked = CredentialRequest::default();
    if body.trim_ascii().is_empty() {
        return Ok(asked);
    }
    let fields: Map<String, Value> =
        serde_json::from_slice(body).map_err(|error| ApiError::bad_json(&error))?;
    for (name, value) in &fields {
        let place = format!("body.{}", excerpt(name));
        match (name.as_str(), value) {
            (
                "user" | "username" | "ttl" | "transports" | "count" | "region" | "room" | "names",
                Value::Null,
            ) => {}
            ("user" | "username", value) => asked.user(text(value, &place)?, &place)?,
            ("ttl", value) => asked.ttl(whole(value), &place)?,
            ("transports", value) => {
                let names = value
                    .as_array()
                    .and_then(|all| all.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
                let names = names.ok_or_else(|| asked.bad_transports(&place))?;
                asked.transports(names.into_iter(), &place)?;
            }
            ("count", value) => asked.count(whole(value), &place)?,
            ("region", value) => asked.region(text(value, &place)?, &place)?,
            ("room", value) => asked.room(text(value, &place)?, &place)?,
            ("names", value) => asked.names(text(value, &place)?, &place)?,
            (_, _) => {
                let expected = "user, ttl, transports, count, region, room or names";
                return Err(ApiError::bad_parameter(
                    place,
                    "there is no such field",
                    expected,
                ));
            }
        }
    }
    Ok(asked)
}

fn text<'v>(value: &'v Value, place: &str) -> Result<&'v str, ApiError> {
    value.as_str().ok_or_else(|| {
        ApiError::bad_parameter(place.to_owned(), "the value is not a text", "a JSON string")
    })
}
