//! The bytes of a rollout.

use turnfleet_proto::store as wire;
use wire::rollout_record::Stage as WireStage;

use super::encode_policy;
use crate::fleet::record::{Policy, Rollout, Stage};

pub(super) fn encode(rollout: &Rollout) -> wire::RolloutRecord {
    let (stage, node, reason) = match &rollout.stage {
        Stage::Pending => (WireStage::Pending, None, ""),
        Stage::Canary { node } => (WireStage::Canary, Some(node), ""),
        Stage::All => (WireStage::All, None, ""),
        Stage::Stopped { node, reason } => (WireStage::Stopped, Some(node), reason.as_str()),
    };
    wire::RolloutRecord {
        base: Some(encode_policy(&rollout.base)),
        stage: stage.into(),
        node_id: node.map_or_else(String::new, ToString::to_string),
        reason: reason.to_owned(),
        generation: rollout.generation,
        lost: rollout.lost,
    }
}

pub(super) fn decode(message: wire::RolloutRecord, base: Policy) -> Result<Rollout, ()> {
    let node = || message.node_id.parse().map_err(|_| ());
    let stage = match message.stage() {
        WireStage::Pending => Stage::Pending,
        WireStage::Canary => Stage::Canary { node: node()? },
        WireStage::All => Stage::All,
        WireStage::Stopped => Stage::Stopped {
            node: node()?,
            reason: message.reason.clone(),
        },
        WireStage::Unspecified => return Err(()),
    };
    Ok(Rollout {
        base,
        stage,
        generation: message.generation,
        lost: message.lost,
    })
}
