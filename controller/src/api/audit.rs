//! `GET /v1/audit`: who changed what.

use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use super::app::answer_json;
use super::route::Call;
use super::status::ApiError;
use super::values::{Field, Kind, Values};
use crate::FleetError;
use crate::fleet::audit::AuditEntry;
use crate::reconcile::Handle;

/// Entries of an answer, where the request does not say how many.
const LIMIT: u64 = 100;
/// The most entries of an answer.
const MAX_LIMIT: u64 = 1000;

/// What the query may say.
pub(super) const QUERY: &[Field] = &[
    Field::new(
        "limit",
        Kind::Whole(1, MAX_LIMIT),
        "How many entries, the latest first; 100 where it is left out.",
    ),
    Field::new(
        "before",
        Kind::Whole(0, u64::MAX),
        "Only entries from before this time, in Unix milliseconds: that of the last entry goes on from there.",
    ),
];

/// Changes, the latest first.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Audit")]
pub(super) struct Answer {
    entries: Vec<Entry>,
}

/// A change that somebody asked for.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AuditEntry")]
struct Entry {
    /// Unix milliseconds.
    at_milliseconds: u64,
    /// The name of the API token.
    by: String,
    /// The address that the request came from; `null` where it is not known.
    from: Option<String>,
    /// What was done.
    action: String,
    /// What it was done to.
    target: String,
    /// With what.
    detail: String,
}

/// The entries that are `asked` for in the fields of [`QUERY`].
pub(super) async fn page(handle: &Handle, asked: &Values) -> Result<Vec<AuditEntry>, FleetError> {
    let limit = asked.whole("limit").unwrap_or(LIMIT);
    let before = asked.whole("before").unwrap_or(u64::MAX);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(handle.audit().page(before, limit).await?)
}

/// `GET /v1/audit`.
pub(crate) async fn audit(call: Call) -> Result<Response, ApiError> {
    let entries = page(&call.app.handle, &call.query).await?;
    Ok(answer_json(&Answer {
        entries: entries.into_iter().map(Entry::from).collect(),
    }))
}

impl From<AuditEntry> for Entry {
    fn from(entry: AuditEntry) -> Self {
        Self {
            at_milliseconds: entry.at_milliseconds,
            by: entry.by,
            from: entry.from.map(|from| from.to_string()),
            action: entry.action,
            target: entry.target,
            detail: entry.detail,
        }
    }
}
