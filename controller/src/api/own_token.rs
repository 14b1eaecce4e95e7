//! `GET /v1/token`: whose token the request carries, and what it opens, so that a page can say what its reader may do.

use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use super::app::answer_json;
use super::route::Call;
use super::status::ApiError;

/// The bearer of a token. The token itself is in no answer.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Bearer")]
pub(super) struct Answer {
    name: String,
    /// Some of `mint`, `viewer`, `operator`, `admin`.
    scopes: Vec<&'static str>,
    /// The tenant that it is bound to.
    tenant: Option<String>,
    /// Unix seconds; `null` without an end.
    expires_at: Option<u64>,
}

/// `GET /v1/token`.
pub(crate) async fn show(call: Call) -> Result<Response, ApiError> {
    let mut tokens = call.view.api_tokens();
    // Two of one name may have come with the configuration, for different tenants.
    let known = tokens.find(|it| it.name == call.actor.name && it.tenant == call.tenant);
    let scopes = known.map_or_else(Vec::new, |it| {
        it.scopes.iter().map(|scope| scope.name()).collect()
    });
    Ok(answer_json(&Answer {
        scopes,
        expires_at: known.and_then(|it| it.expires_at),
        name: call.actor.name.clone(),
        tenant: call.tenant.clone(),
    }))
}
