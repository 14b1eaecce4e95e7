//! The fleet's shared secrets.

use serde_json::json;
use tonic::Status;
use turnfleet_proto::operator as wire;

use super::{Call, given};
use crate::api::secrets;
use crate::api::values::Values;

pub(super) async fn list_secrets(
    call: Call<'_, wire::ListSecretsRequest>,
) -> Result<wire::ListSecretsResponse, Status> {
    let view = call.handle.view();
    Ok(wire::ListSecretsResponse {
        secrets: view.secrets.iter().map(wire::Secret::from).collect(),
    })
}

pub(super) async fn rotate_secret(
    call: Call<'_, wire::RotateSecretRequest>,
) -> Result<wire::SecretChanged, Status> {
    let asked = call.asked;
    let asked = json!({ "scope": given(asked.scope), "secret": given(asked.secret) });
    let asked = Values::of_json(secrets::ROTATE, &asked)?;
    let id = secrets::begin_rotation(call.handle, &call.actor, &asked).await?;
    Ok(wire::SecretChanged { id })
}

pub(super) async fn pin_secret(
    call: Call<'_, wire::PinSecretRequest>,
) -> Result<wire::SecretChanged, Status> {
    let asked = call.asked;
    let id = if asked.id == 0 {
        let asked = json!({ "scope": given(asked.scope), "secret": given(asked.secret) });
        let asked = Values::of_json(secrets::PIN, &asked)?;
        secrets::keep_given(call.handle, &call.actor, &asked).await?
    } else {
        secrets::keep(call.handle, &call.actor, asked.id).await?;
        asked.id
    };
    Ok(wire::SecretChanged { id })
}

pub(super) async fn unpin_secret(
    call: Call<'_, wire::SecretRequest>,
) -> Result<wire::SecretChanged, Status> {
    let id = call.asked.id;
    secrets::let_go(call.handle, &call.actor, id).await?;
    Ok(wire::SecretChanged { id })
}

pub(super) async fn revoke_secret(
    call: Call<'_, wire::RevokeSecretRequest>,
) -> Result<wire::RevokeSecretResponse, Status> {
    let wire::RevokeSecretRequest { id, cut, replace } = call.asked;
    let asked = Values::of_json(secrets::REVOKE, &json!({ "cut": cut, "replace": replace }))?;
    let replaced_by = secrets::forbid(call.handle, &call.actor, id, &asked).await?;
    Ok(wire::RevokeSecretResponse {
        replaced_by: replaced_by.unwrap_or(0),
    })
}
