//! `GET /v1/abuse`: who is suspected, by which rule, and what would be done.

use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use super::app::answer_json;
use super::route::Call;
use super::status::ApiError;
use super::values::{Field, Kind, Values};
use crate::abuse::{Act, Rule, Subject, Suspect};
use crate::fleet::FleetView;
use crate::reconcile::Handle;
use crate::wall_clock::since_epoch;

/// Suspects of an answer, where the request does not say how many.
const LIMIT: u64 = 100;

/// What the query may say.
pub(super) const QUERY: &[Field] = &[
    Field::new("rule", Kind::OneOf(&RULES), "Only what this rule found."),
    Field::new(
        "limit",
        Kind::Whole(1, 1000),
        "How many; 100 where it is left out.",
    ),
];

/// The names of all rules.
const RULES: [&str; Rule::ALL.len()] = [
    "authentication_failures",
    "failures_of_user",
    "unanswered_challenges",
    "peer_fan_out",
    "port_scan",
    "shared_credential",
    "quota_evasion",
    "reconnect_loop",
    "denied_peers",
];

/// Who is suspected, and by which rules.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Abuse")]
pub(super) struct Answer {
    pub(super) rules: Vec<RuleBody>,
    /// Whoever was found last first. Who was not found for ten minutes is not suspected any more.
    pub(super) suspects: Vec<SuspectBody>,
    /// How many there are, of whatever rule.
    pub(super) total: usize,
}

/// A rule, as the controller that answers is configured.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AbuseRule")]
pub(super) struct RuleBody {
    pub(super) rule: &'static str,
    pub(super) enabled: bool,
    pub(super) threshold: u64,
    pub(super) window_seconds: u64,
    /// `observe`, `throttle` or `ban`.
    pub(super) verdict: &'static str,
    pub(super) ban_seconds: u64,
}

/// Somebody whom a rule found.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Suspect")]
pub(super) struct SuspectBody {
    pub(super) rule: &'static str,
    /// Of a user that has proved who it is; `null` where requests name one without proof.
    pub(super) tenant: Option<String>,
    pub(super) user: Option<String>,
    /// Of clients, an IPv4 /24 or an IPv6 /48.
    pub(super) network: Option<String>,
    /// Unix seconds since when it was found without a pause.
    pub(super) since: u64,
    /// Unix seconds when it was found last.
    pub(super) last: u64,
    /// What was counted within the window of the rule, last.
    pub(super) count: u64,
    /// The most of it.
    pub(super) peak: u64,
    /// What was seen.
    pub(super) evidence: String,
    /// What the rule is wanted to do: `observe`, `throttle` or `ban`.
    pub(super) verdict: &'static str,
    /// What it does, or would do.
    pub(super) would: String,
    /// Whether a ban of it holds, whoever has placed it.
    pub(super) banned: bool,
    /// Whether relays hold the user to little because of this rule, as far as the controller that answers has led since.
    pub(super) throttled: bool,
}

/// `GET /v1/abuse`.
pub(crate) async fn show(call: Call) -> Result<Response, ApiError> {
    Ok(answer_json(&answer(
        &call.app.handle,
        &call.view,
        &call.query,
    )))
}

/// What is `asked` for in the fields of [`QUERY`].
pub(super) fn answer(handle: &Handle, view: &FleetView, asked: &Values) -> Answer {
    let rule = asked.text("rule");
    let limit = usize::try_from(asked.whole("limit").unwrap_or(LIMIT)).unwrap_or(usize::MAX);
    let suspects = handle.abuse().suspects();
    let total = suspects.len();
    let wanted = suspects
        .iter()
        .filter(|it| rule.is_none_or(|rule| it.rule.name() == rule));
    let rules = handle.abuse().rules().into_iter();
    Answer {
        rules: rules
            .map(|(rule, settings)| RuleBody {
                rule: rule.name(),
                enabled: settings.enabled,
                threshold: settings.threshold,
                window_seconds: settings.window.as_secs(),
                verdict: settings.verdict.name(),
                ban_seconds: settings.ban_for.as_secs(),
            })
            .collect(),
        suspects: wanted
            .take(limit)
            .map(|it| suspect(it, handle, view))
            .collect(),
        total,
    }
}

fn suspect(suspect: &Suspect, handle: &Handle, view: &FleetView) -> SuspectBody {
    let (subject, case, bus) = (&suspect.subject, &suspect.case, handle.events());
    let (mut tenant, mut user, mut network) = (None, None, None);
    match subject {
        Subject::User {
            tenant: id,
            user: name,
        } => {
            tenant = Some(view.tenants.label(*id));
            user = Some(bus.user(name));
        }
        // It comes from events, which have hidden it already.
        Subject::Claim(name) => user = Some(name.clone()),
        Subject::Network(of) => network = Some(bus.place(&of.to_string())),
    }
    let now = since_epoch().as_secs();
    let ban = subject.whom().and_then(|whom| view.bans.of(&whom).cloned());
    SuspectBody {
        rule: suspect.rule.name(),
        tenant,
        user,
        network,
        since: case.since / 1000,
        last: case.last / 1000,
        count: case.count,
        peak: case.peak,
        evidence: case.evidence.clone(),
        verdict: case.verdict.name(),
        would: would(&case.act, subject, bus.is_private()),
        banned: ban.is_some_and(|ban| !ban.has_ended(now)),
        throttled: case.is_throttled(handle.abuse().millis()),
    }
}

fn would(act: &Act, subject: &Subject, private: bool) -> String {
    match private {
        true => act.to_string(),
        false => act.about(subject),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_can_be_asked_for() {
        assert_eq!(Rule::ALL.map(Rule::name), RULES);
    }
}
