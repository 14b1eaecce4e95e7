//! `GET /v1/ports`: who holds which ports of which public address. `DELETE /v1/ports/{public_ip}/{range}`: an operator's word
//! that nobody uses these.

use std::net::IpAddr;

use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;
use turnfleet_proto::PortRange;

use super::app::answer_json;
use super::route::Call;
use super::status::{ApiError, excerpt};
use crate::fleet::record::PortGrant;
use crate::fleet::{FleetView, RegionPorts};

/// Who holds which ports.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Ports")]
pub(super) struct Answer<'v> {
    regions: Vec<Region<'v>>,
    ports: Vec<Grant<'v>>,
}

/// The ports of a region; those of a forgotten node count for the region without a name.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RegionPorts")]
struct Region<'v> {
    region: &'v str,
    granted: u64,
    used: u64,
    quarantined: u64,
}

/// Ports of one address.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PortGrant")]
struct Grant<'v> {
    public_ip: String,
    first: u16,
    last: u16,
    node: &'v str,
    /// `held`, `ceding` while the node still uses ports that it gives up, or `quarantined`.
    state: &'static str,
    /// The first port that the node gives up.
    ceded_from: Option<u16>,
    /// Who gets what the node gives up.
    ceded_to: Option<&'v str>,
    /// Unix seconds at which the grant ends; `null` for never.
    not_after: Option<u64>,
    /// Unix seconds at which the ports become free.
    quarantined_until: Option<u64>,
}

/// The ports that were released.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ReleasedPorts")]
pub(super) struct Released {
    public_ip: String,
    first: u16,
    last: u16,
}

/// `GET /v1/ports`.
pub(crate) async fn ports(call: Call) -> Result<Response, ApiError> {
    let view = &call.view;
    let held = view.nodes.iter().flat_map(|node| node.grants.iter());
    let mut grants: Vec<_> = held.chain(&view.quarantined).collect();
    grants.sort_by_key(|grant| (grant.public_ip, grant.range));
    Ok(answer_json(&Answer {
        regions: regions(view),
        ports: grants.into_iter().map(body).collect(),
    }))
}

/// `DELETE /v1/ports/{public_ip}/{range}`: whoever holds these ports loses them to a quarantine, and a quarantine ends. For a
/// node whose process has ended for good.
pub(crate) async fn release(call: Call) -> Result<Response, ApiError> {
    let (address, ports) = (call.part("public_ip"), call.part("range"));
    let unknown = |text| ApiError::unknown_ports(excerpt(text));
    let public_ip: IpAddr = address.parse().map_err(|_| unknown(address))?;
    let range: PortRange = ports.parse().map_err(|_| unknown(ports))?;
    let target = format!("{public_ip} {range}");
    let handle = &call.app.handle;
    let handle = call
        .actor
        .changing(handle, "release ports", &target, String::new())?;
    handle.release_ports(public_ip, range).await?;
    Ok(answer_json(&Released {
        public_ip: public_ip.to_string(),
        first: range.first(),
        last: range.last(),
    }))
}

fn body(grant: &PortGrant) -> Grant<'_> {
    let ceded = grant.ceded.as_ref();
    Grant {
        public_ip: grant.public_ip.to_string(),
        first: grant.range.first(),
        last: grant.range.last(),
        node: grant.node.as_str(),
        state: match (grant.quarantined_until, ceded) {
            (Some(_), _) => "quarantined",
            (None, Some(_)) => "ceding",
            (None, None) => "held",
        },
        ceded_from: ceded.map(|ceded| ceded.from),
        ceded_to: ceded
            .and_then(|ceded| ceded.to.as_ref())
            .map(|to| to.as_str()),
        not_after: grant.not_after,
        quarantined_until: grant.quarantined_until,
    }
}

fn regions(view: &FleetView) -> Vec<Region<'_>> {
    let regions = view.ports_by_region().into_iter();
    let of = |(region, ports): (_, RegionPorts)| Region {
        region,
        granted: ports.granted,
        used: ports.used,
        quarantined: ports.quarantined,
    };
    regions.map(of).collect()
}
