//! `GET /v1/capacity/history`: how the use of the fleet, or of one region, has gone.

use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use super::app::answer_json;
use super::route::Call;
use super::status::ApiError;
use super::values::{Field, Kind};
use crate::fleet::{Pace, Use};

/// What the query may say.
pub(super) const QUERY: &[Field] = &[
    Field::new(
        "resolution",
        Kind::OneOf(&["moment", "minute"]),
        "Every five seconds of the last quarter of an hour, or every minute of a day; moments where it is left out.",
    ),
    Field::new(
        "region",
        Kind::Name,
        "This region alone; the whole fleet where it is left out.",
    ),
    Field::new(
        "from",
        Kind::Whole(0, u64::MAX),
        "Only what is not older, in Unix seconds; all that is kept where it is left out.",
    ),
];

/// The course of use.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CapacityHistory")]
pub(super) struct Answer {
    resolution: &'static str,
    /// Seconds from one to the next.
    seconds: u64,
    /// The oldest first. Of the first 64 regions by name alone; none of another one.
    moments: Vec<Moment>,
}

/// What was in use at one moment, or at most within one minute.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CapacityMoment")]
struct Moment {
    /// Unix seconds.
    at: u64,
    listed: usize,
    allocations: u64,
    /// `null` where it is not known.
    allocation_limit: Option<u64>,
    relayed_ports: u64,
    /// A second.
    bytes_from_clients: f64,
    /// A second.
    bytes_to_clients: f64,
    /// A second.
    packets_dropped: f64,
    /// From 0 to 1.
    saturation: f64,
}

/// `GET /v1/capacity/history`.
pub(crate) async fn history(call: Call) -> Result<Response, ApiError> {
    let asked = &call.query;
    let (pace, resolution) = match asked.text("resolution") {
        Some("minute") => (Pace::Minute, "minute"),
        Some(_) | None => (Pace::Moment, "moment"),
    };
    let from = asked.whole("from").unwrap_or(0);
    let course = call.view.course(asked.text("region"), pace, from);
    Ok(answer_json(&Answer {
        resolution,
        seconds: pace.seconds(),
        moments: course.into_iter().map(Moment::from).collect(),
    }))
}

impl From<Use> for Moment {
    fn from(seen: Use) -> Self {
        Self {
            at: seen.at,
            listed: seen.listed,
            allocations: seen.allocations,
            allocation_limit: Some(seen.allocation_limit).filter(|limit| *limit != 0),
            relayed_ports: seen.ports,
            bytes_from_clients: seen.bytes_from_clients,
            bytes_to_clients: seen.bytes_to_clients,
            packets_dropped: seen.packets_dropped,
            saturation: seen.saturation,
        }
    }
}
