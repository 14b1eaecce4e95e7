//! What was used and by whom: usage, the largest users, suspects of abuse, and who had a relayed address.

use serde_json::json;
use tonic::Status;
use turnfleet_proto::operator as wire;

use super::{Call, abuse_shown, given, usage_shown};
use crate::api::values::Values;
use crate::api::{trace, usage};

pub(super) async fn show_usage(call: Call<'_, wire::UsageRequest>) -> Result<wire::Usage, Status> {
    let asked = usage_shown::totals_asked(call.asked);
    let asked = Values::of_json(usage::TOTALS, &asked)?;
    let sums = usage::sums(call.handle, &call.handle.view(), &asked)?;
    let sums = sums.into_iter().map(wire::UsageSum::from).collect();
    Ok(wire::Usage { sums })
}

pub(super) async fn show_usage_history(
    call: Call<'_, wire::UsageHistoryRequest>,
) -> Result<wire::UsageHistory, Status> {
    let asked = usage_shown::history_asked(call.asked);
    let asked = Values::of_json(usage::HISTORY, &asked)?;
    let past = usage::past(call.handle, &call.handle.view(), &asked).await?;
    let spans = past.spans.into_iter().map(wire::UsageSpan::from).collect();
    Ok(wire::UsageHistory { spans })
}

pub(super) async fn show_top(call: Call<'_, wire::TopRequest>) -> Result<wire::Top, Status> {
    let asked = usage_shown::top_asked(call.asked);
    let asked = Values::of_json(usage::TOP, &asked)?;
    let talkers = usage::largest(call.handle, &call.handle.view(), &asked);
    let talkers = talkers.into_iter().map(wire::Talker::from).collect();
    Ok(wire::Top { talkers })
}

pub(super) async fn show_abuse(call: Call<'_, wire::AbuseRequest>) -> Result<wire::Abuse, Status> {
    Ok(abuse_shown::answer(call.handle, call.asked)?)
}

pub(super) async fn trace(
    call: Call<'_, wire::TraceRequest>,
) -> Result<wire::TraceResponse, Status> {
    let asked = call.asked;
    let asked = json!({
        "ip": asked.ip,
        "port": asked.port,
        "at": asked.at,
        "within_seconds": asked.within_seconds,
        "user": given(asked.user),
    });
    let asked = Values::of_json(trace::TRACE, &asked)?;
    let answer = trace::search(call.handle, call.tracer, &call.actor, &asked).await?;
    Ok(answer.into())
}
