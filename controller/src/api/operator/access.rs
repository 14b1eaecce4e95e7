//! Who may join and who may ask: join tokens, API tokens, and the audit log of what was changed.

use serde_json::json;
use tonic::Status;
use turnfleet_proto::operator as wire;

use super::{Call, given};
use crate::api::status::ApiError;
use crate::api::values::Values;
use crate::api::{audit, join_tokens, tokens};

pub(super) async fn list_join_tokens(
    call: Call<'_, wire::ListJoinTokensRequest>,
) -> Result<wire::ListJoinTokensResponse, Status> {
    let view = call.handle.view();
    let tokens = join_tokens::in_order(&view).into_iter();
    Ok(wire::ListJoinTokensResponse {
        tokens: tokens.map(wire::JoinToken::from).collect(),
    })
}

pub(super) async fn create_join_token(
    call: Call<'_, wire::CreateJoinTokenRequest>,
) -> Result<wire::CreateJoinTokenResponse, Status> {
    let asked = call.asked;
    let life = asked.expires_in_seconds;
    let asked = json!({
        "name": asked.name,
        "region": given(asked.region),
        "tenant": given(asked.tenant),
        "expires_in_seconds": Some(life).filter(|life| *life != 0),
    });
    let asked = Values::of_json(join_tokens::CREATE, &asked)?;
    let (token, record) = join_tokens::make(call.handle, &call.actor, &asked).await?;
    let described = Some((&record).into());
    Ok(wire::CreateJoinTokenResponse { token, described })
}

pub(super) async fn revoke_join_token(
    call: Call<'_, wire::RevokeJoinTokenRequest>,
) -> Result<wire::RevokeJoinTokenResponse, Status> {
    join_tokens::unmake(call.handle, &call.actor, &call.asked.name).await?;
    Ok(wire::RevokeJoinTokenResponse {})
}

pub(super) async fn list_tokens(
    call: Call<'_, wire::ListTokensRequest>,
) -> Result<wire::ListTokensResponse, Status> {
    let view = call.handle.view();
    let tokens = tokens::described(&view).into_iter().map(wire::Token::from);
    Ok(wire::ListTokensResponse {
        tokens: tokens.collect(),
    })
}

pub(super) async fn create_token(
    call: Call<'_, wire::CreateTokenRequest>,
) -> Result<wire::CreateTokenResponse, Status> {
    let asked = call.asked;
    let life = asked.expires_in_seconds;
    let asked = json!({
        "name": asked.name,
        "scopes": asked.scopes,
        "tenant": given(asked.tenant),
        "expires_in_seconds": Some(life).filter(|life| *life != 0),
    });
    let asked = Values::of_json(tokens::CREATE, &asked)?;
    let (token, record) = tokens::make(call.handle, &call.actor, &asked).await?;
    let described = Some(tokens::describe(&record).into());
    Ok(wire::CreateTokenResponse { token, described })
}

pub(super) async fn revoke_token(
    call: Call<'_, wire::RevokeTokenRequest>,
) -> Result<wire::RevokeTokenResponse, Status> {
    tokens::unmake(call.handle, &call.actor, &call.asked.name).await?;
    Ok(wire::RevokeTokenResponse {})
}

pub(super) async fn list_audit(
    call: Call<'_, wire::ListAuditRequest>,
) -> Result<wire::ListAuditResponse, Status> {
    let request = call.asked;
    let asked = json!({
        "limit": Some(request.limit).filter(|limit| *limit != 0),
        "before": Some(request.before_milliseconds).filter(|before| *before != 0),
    });
    let asked = Values::of_json(audit::QUERY, &asked)?;
    let page = audit::page(call.handle, &asked).await;
    let entries = page.map_err(ApiError::from)?.into_iter();
    Ok(wire::ListAuditResponse {
        entries: entries
            .map(|entry| wire::AuditEntry {
                at_milliseconds: entry.at_milliseconds,
                by: entry.by,
                from: entry.from.map_or_else(String::new, |from| from.to_string()),
                action: entry.action,
                target: entry.target,
                detail: entry.detail,
            })
            .collect(),
    })
}
