//! `GET /v1/webhooks`: how the receivers of events stand, as this controller sees it.

use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use super::app::answer_json;
use super::route::Call;
use super::status::ApiError;
use crate::events::WebhookStanding;

/// The receivers of the configuration, in its order.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Webhooks")]
pub(super) struct Answer {
    webhooks: Vec<Webhook>,
}

/// A receiver, and what this controller has for it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Webhook")]
struct Webhook {
    name: String,
    /// Without its query.
    url: String,
    /// Events that wait.
    queued: usize,
    /// The bytes that they take, about.
    queued_bytes: usize,
    /// Events that the receiver has taken since the controller started.
    delivered: u64,
    /// Requests that failed since then.
    failed_requests: u64,
    /// How long requests have been failing; `null` where the last ones did not.
    failing_seconds: Option<u64>,
    /// Why the last one failed, while they do.
    last_error: Option<String>,
    /// Events that were given up since the controller started.
    dead: u64,
    /// The last of them.
    dead_letters: Vec<Dead>,
}

/// An event that was given up.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DeadLetter")]
struct Dead {
    /// The id of the event.
    id: String,
    kind: String,
    /// Unix milliseconds.
    at_milliseconds: u64,
    /// `age`, or `room`.
    reason: &'static str,
}

/// `GET /v1/webhooks`.
pub(super) async fn webhooks(call: Call) -> Result<Response, ApiError> {
    let standings = call.app.handle.events().webhooks().into_iter();
    Ok(answer_json(&Answer {
        webhooks: standings.map(Webhook::from).collect(),
    }))
}

impl From<WebhookStanding> for Webhook {
    fn from(standing: WebhookStanding) -> Self {
        let (since, last_error) = standing.failing.unzip();
        let dead = standing.dead_letters.into_iter().map(|letter| Dead {
            id: letter.event.id.to_string(),
            kind: letter.event.kind.to_string(),
            at_milliseconds: letter.event.at_milliseconds,
            reason: letter.reason,
        });
        Self {
            name: standing.name,
            url: standing.url,
            queued: standing.queued,
            queued_bytes: standing.bytes,
            delivered: standing.delivered,
            failed_requests: standing.failures,
            failing_seconds: since.map(|since| since.as_secs()),
            last_error,
            dead: standing.dead,
            dead_letters: dead.collect(),
        }
    }
}
