//! Who is suspected of abuse, in the gRPC service's own messages.

use serde_json::json;
use turnfleet_proto::operator as wire;

use super::given;
use crate::api::abuse::{self, Answer, RuleBody, SuspectBody};
use crate::api::status::ApiError;
use crate::api::values::Values;
use crate::reconcile::Handle;

/// What is asked for, by the rules of the HTTP API.
pub(super) fn answer(
    handle: &Handle,
    request: wire::AbuseRequest,
) -> Result<wire::Abuse, ApiError> {
    let asked = json!({
        "rule": given(request.rule),
        "limit": Some(request.limit).filter(|limit| *limit != 0),
    });
    let asked = Values::of_json(abuse::QUERY, &asked)?;
    Ok(abuse::answer(handle, &handle.view(), &asked).into())
}

impl From<Answer> for wire::Abuse {
    fn from(answer: Answer) -> Self {
        Self {
            rules: answer
                .rules
                .into_iter()
                .map(wire::AbuseRule::from)
                .collect(),
            suspects: answer
                .suspects
                .into_iter()
                .map(wire::Suspect::from)
                .collect(),
            total: u32::try_from(answer.total).unwrap_or(u32::MAX),
        }
    }
}

impl From<RuleBody> for wire::AbuseRule {
    fn from(rule: RuleBody) -> Self {
        Self {
            rule: rule.rule.to_owned(),
            enabled: rule.enabled,
            threshold: rule.threshold,
            window_seconds: rule.window_seconds,
            verdict: rule.verdict.to_owned(),
            ban_seconds: rule.ban_seconds,
        }
    }
}

impl From<SuspectBody> for wire::Suspect {
    fn from(suspect: SuspectBody) -> Self {
        Self {
            rule: suspect.rule.to_owned(),
            tenant: suspect.tenant.unwrap_or_default(),
            user: suspect.user.unwrap_or_default(),
            network: suspect.network.unwrap_or_default(),
            since: suspect.since,
            last: suspect.last,
            count: suspect.count,
            peak: suspect.peak,
            evidence: suspect.evidence,
            verdict: suspect.verdict.to_owned(),
            would: suspect.would,
            banned: suspect.banned,
            throttled: suspect.throttled,
        }
    }
}
