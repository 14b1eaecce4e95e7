//! `GET /v1/capacity`: what the fleet, each region and each zone can hold, and what they hold.

use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use super::app::answer_json;
use super::route::Call;
use super::status::ApiError;
use crate::fleet::{Gauge, Rates, Totals};

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Capacity")]
pub(super) struct Answer {
    total: TotalsBody,
    regions: Vec<Region>,
    zones: Vec<Zone>,
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
#[schemars(rename = "Totals")]
struct TotalsBody {
    nodes: usize,
    listed: usize,
    allocations: GaugeBody,
    relayed_ports: GaugeBody,
    file_descriptors: GaugeBody,
    rates: RatesBody,
    /// The largest of the ratios of used to limit, from 0 to 1.
    saturation: f64,
    /// `ok`, `warn` from 0.7, `critical` from 0.85.
    state: &'static str,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Gauge")]
struct GaugeBody {
    used: u64,
    /// `null` where it is not known.
    limit: Option<u64>,
    /// What is left below 80 % of the limit.
    headroom: Option<u64>,
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
    let capacity = call.view.capacity();
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
    }))
}

impl From<Totals> for TotalsBody {
    fn from(totals: Totals) -> Self {
        let saturation = totals.saturation();
        Self {
            nodes: totals.nodes,
            listed: totals.listed,
            allocations: totals.allocations.into(),
            relayed_ports: totals.ports.into(),
            file_descriptors: totals.file_descriptors.into(),
            rates: totals.rates.into(),
            saturation,
            state: match saturation {
                ratio if ratio < 0.7 => "ok",
                ratio if ratio < 0.85 => "warn",
                _ => "critical",
            },
        }
    }
}

impl From<Gauge> for GaugeBody {
    fn from(gauge: Gauge) -> Self {
        let known = gauge.limit != 0;
        Self {
            used: gauge.used,
            limit: known.then_some(gauge.limit),
            headroom: known.then(|| gauge.headroom()),
        }
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
