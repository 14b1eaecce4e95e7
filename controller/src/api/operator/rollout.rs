//! How far a changed policy has come, and what an operator says where it, or the store, waits for a word.

use tonic::Status;
use turnfleet_proto::operator as wire;

use super::Call;
use crate::api::policy_actions;

pub(super) async fn show_rollout(
    call: Call<'_, wire::ShowRolloutRequest>,
) -> Result<wire::Rollout, Status> {
    let view = call.handle.view();
    Ok(policy_actions::progress(&view).into())
}

pub(super) async fn force_rollout(
    call: Call<'_, wire::ForceRolloutRequest>,
) -> Result<wire::ForceRolloutResponse, Status> {
    policy_actions::force_rollout(call.handle, &call.actor).await?;
    Ok(wire::ForceRolloutResponse {})
}

pub(super) async fn confirm_restore(
    call: Call<'_, wire::ConfirmRestoreRequest>,
) -> Result<wire::ConfirmRestoreResponse, Status> {
    policy_actions::follow_restored(call.handle, &call.actor).await?;
    Ok(wire::ConfirmRestoreResponse {})
}
