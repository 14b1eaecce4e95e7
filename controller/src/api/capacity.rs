//! `GET /v1/capacity`: what the fleet, each region, each zone and each node can hold, and what they hold.

use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use super::app::answer_json;
use super::route::Call;
use super::status::ApiError;
use super::values::{Field, Kind};
use crate::fleet::{Gauge, Rates, Totals, rated};

/// What the query may say.
pub(super) const QUERY: &[Field] = &[Field::new(
    "summary",
    Kind::Flag,
    "Whether nodes are left out; each is told where this is.",
)];

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Capacity")]
pub(super) struct Answer {
    total: TotalsBody,
    regions: Vec<Region>,
    zones: Vec<Zone>,
    /// Empty in a summary.
    nodes: Vec<Node>,
}

#[derive(Serialize, JsonSchema)]
struct Region {
    region: String,
    #[serde(flatten)]
    totals: TotalsBody,
}

#[derive(Serialize, JsonSchema)]
struct Zone {
    region: String,
    zone: String,
    #[serde(flatten)]
    totals: TotalsBody,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "NodeCapacity")]
struct Node {
    node: String,
    region: String,
    zone: String,
    #[serde(flatten)]
    totals: TotalsBody,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Totals")]
struct TotalsBody {
    nodes: usize,
    listed: usize,
    allocations: GaugeBody,
    relayed_ports: GaugeBody,
    file_descriptors: GaugeBody,
    memory_bytes: GaugeBody,
    bits_per_second: RateBody,
    packets_per_second: RateBody,
    /// How busy the busiest shard is, from 0 to 1.
    cpu: f64,
    rates: RatesBody,
    /// The largest of the ratios of used to limit, from 0 to 1.
    saturation: f64,
    /// `ok`, `warn` from 0.7, `crit` from 0.85.
    state: &'static str,
    /// When allocations or ports are used up if use goes on as in the last fifteen minutes; `null` where it does not grow.
    seconds_to_full: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Rate")]
struct RateBody {
    used: f64,
    /// The highest since the controller started.
    peak: f64,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Gauge")]
struct GaugeBody {
    used: u64,
    /// `null` where it is not known.
    limit: Option<u64>,
    /// The highest use since the controller started.
    peak: u64,
    /// What is left below 80 % of the limit.
    headroom: Option<u64>,
    /// The same when the largest zone fails and its use goes to the others: below zero where so much is missing. `null` for
    /// a single zone or node.
    headroom_n1: Option<i64>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Rates")]
pub(super) struct RatesBody {
    bytes_from_clients: f64,
    bytes_to_clients: f64,
    packets_from_clients: f64,
    packets_to_clients: f64,
    packets_dropped: f64,
    allocations_opened: f64,
    requests_rejected: f64,
    authentication_failures: f64,
}

/// `GET /v1/capacity`.
pub(crate) async fn capacity(call: Call) -> Result<Response, ApiError> {
    let mut capacity = call.view.capacity();
    if call.query.flag("summary") {
        capacity.nodes.clear();
    }
    Ok(answer_json(&Answer {
        total: capacity.total.into(),
        regions: capacity
            .regions
            .into_iter()
            .map(|(region, totals)| Region {
                region,
                totals: totals.into(),
            })
            .collect(),
        zones: capacity
            .zones
            .into_iter()
            .map(|(region, zone, totals)| Zone {
                region,
                zone,
                totals: totals.into(),
            })
            .collect(),
        nodes: capacity
            .nodes
            .into_iter()
            .map(|(node, totals)| Node {
                node: node.id.to_string(),
                region: node.identity.region.clone(),
                zone: node.identity.zone.clone(),
                totals: totals.into(),
            })
            .collect(),
    }))
}

impl From<Totals> for TotalsBody {
    fn from(totals: Totals) -> Self {
        let saturation = totals.saturation();
        let (peaks, rates) = (totals.peaks, totals.rates);
        let [allocations_n1, ports_n1] = match totals.without_largest_zone {
            Some(left) => left.map(Some),
            None => [None; 2],
        };
        Self {
            nodes: totals.nodes,
            listed: totals.listed,
            allocations: gauge(totals.allocations, peaks.allocations, allocations_n1),
            relayed_ports: gauge(totals.ports, peaks.ports, ports_n1),
            file_descriptors: gauge(totals.file_descriptors, peaks.file_descriptors, None),
            memory_bytes: gauge(totals.memory, peaks.memory_bytes, None),
            bits_per_second: RateBody {
                used: rates.bits(),
                peak: peaks.bits,
            },
            packets_per_second: RateBody {
                used: rates.packets(),
                peak: peaks.packets,
            },
            cpu: totals.cpu,
            rates: rates.into(),
            saturation,
            state: rated(saturation),
            seconds_to_full: totals.seconds_to_full,
        }
    }
}

fn gauge(gauge: Gauge, peak: u64, headroom_n1: Option<i64>) -> GaugeBody {
    let known = gauge.limit != 0;
    GaugeBody {
        used: gauge.used,
        limit: known.then_some(gauge.limit),
        peak,
        headroom: known.then(|| gauge.headroom()),
        headroom_n1: headroom_n1.filter(|_| known),
    }
}

impl From<Rates> for RatesBody {
    fn from(rates: Rates) -> Self {
        Self {
            bytes_from_clients: rates.bytes_from_clients,
            bytes_to_clients: rates.bytes_to_clients,
            packets_from_clients: rates.packets_from_clients,
            packets_to_clients: rates.packets_to_clients,
            packets_dropped: rates.packets_dropped,
            allocations_opened: rates.allocations_opened,
            requests_rejected: rates.requests_rejected,
            authentication_failures: rates.authentication_failures,
        }
    }
}
