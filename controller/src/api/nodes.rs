//! `GET /v1/nodes` and `/v1/nodes/{node}`: the enrolled nodes, with why each is or is not in lists.

use std::cmp::Reverse;
use std::sync::Arc;

use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;
use turnfleet_proto::NodeId;

use super::app::answer_json;
use super::capacity::RatesBody;
use super::route::Call;
use super::status::{ApiError, excerpt};
use super::values::{Field, Kind, Values};
use crate::fleet::{FleetView, Load, NodeView};

/// What the query may say.
pub(super) const QUERY: &[Field] = &[
    Field::new("region", Kind::Name, "Only nodes of this region."),
    Field::new(
        "state",
        Kind::OneOf(&["listed", "unlisted", "draining"]),
        "Only nodes that lists name, that they do not name, or that drain.",
    ),
    Field::new(
        "name",
        Kind::Text(64),
        "Only nodes whose name has this in it, in upper or lower case.",
    ),
    Field::new(
        "sort",
        Kind::OneOf(&["node", "region", "allocations", "traffic", "saturation"]),
        "The order: names as they come, figures from the largest; by name where it is left out.",
    ),
    Field::new(
        "skip",
        Kind::Whole(0, u64::MAX),
        "How many of that order are left out first.",
    ),
    Field::new(
        "limit",
        Kind::Whole(1, 10_000),
        "How many; all where it is left out.",
    ),
];

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Nodes")]
pub(super) struct Answer<'v> {
    generation: u64,
    realm: &'v str,
    nodes: Vec<Node<'v>>,
    /// How many there are of those that were asked for, on this page or not.
    total: usize,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Node")]
pub(super) struct Node<'v> {
    node: &'v str,
    region: &'v str,
    zone: &'v str,
    /// The tenant whose users it is for alone; `null` for everybody.
    tenant: Option<&'v str>,
    version: &'v str,
    hostname: Option<&'v str>,
    health: &'static str,
    listed: bool,
    connected: bool,
    draining: bool,
    /// Unix seconds at which what lives may be cut; `null` where no operator has set a deadline.
    drain_deadline: Option<u64>,
    /// Whether it is listed behind all others because much of its region fell silent at once.
    suspect: bool,
    /// Why it is not in lists, or only in part; `null` where all is well.
    reason: Option<String>,
    listeners: Vec<Listener>,
    public_ips: Vec<String>,
    ports: Vec<Ports>,
    applied_generation: u64,
    /// Unix seconds.
    last_heartbeat: Option<u64>,
    load: LoadBody,
    rates: RatesBody,
    saturation: f64,
    /// Its share of users, in proportion to the others of its region.
    weight: f64,
    /// Percent of its weight that it has after a fault.
    ramp: u8,
    /// Milliseconds that its wall clock is ahead of the controller's.
    clock_skew_milliseconds: Option<i64>,
    /// How its certificate stands: `good`, `ending`, `withheld` where lists leave `turns:` out, or `unknown`.
    certificate: &'static str,
    /// Unix seconds.
    certificate_not_after: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
struct Listener {
    transport: &'static str,
    address: String,
    /// Whether the last probe found it working.
    works: bool,
}

#[derive(Serialize, JsonSchema)]
struct Ports {
    public_ip: String,
    first: u16,
    last: u16,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Load")]
struct LoadBody {
    allocations: u64,
    relayed_ports_used: u64,
    relayed_ports_total: u64,
    file_descriptors_used: u64,
    memory_bytes: u64,
    cpu_permille: u64,
    bytes_from_clients: u64,
    bytes_to_clients: u64,
    packets_from_clients: u64,
    packets_to_clients: u64,
    packets_dropped: u64,
    allocations_opened: u64,
    requests_rejected: u64,
    authentication_failures: u64,
}

/// `GET /v1/nodes`.
pub(crate) async fn nodes(call: Call) -> Result<Response, ApiError> {
    let view = &call.view;
    let wanted = wanted(&view.nodes, &call.query);
    let count = |name, otherwise| {
        let count = call.query.whole(name).unwrap_or(otherwise);
        usize::try_from(count).unwrap_or(usize::MAX)
    };
    let page = wanted.iter().skip(count("skip", 0));
    let page = page.take(count("limit", u64::MAX));
    Ok(answer_json(&Answer {
        generation: view.generation,
        realm: &view.realm,
        nodes: page.map(|node| body(node, view)).collect(),
        total: wanted.len(),
    }))
}

/// The nodes that are `asked` for in the fields of [`QUERY`], in the order that is asked for.
fn wanted<'v>(nodes: &'v [Arc<NodeView>], asked: &Values) -> Vec<&'v Arc<NodeView>> {
    let (region, state) = (asked.text("region"), asked.text("state"));
    let name = asked.text("name").map(str::to_lowercase);
    let mut wanted: Vec<_> = nodes
        .iter()
        .filter(|node| region.is_none_or(|region| node.identity.region == region))
        .filter(|node| match state {
            Some("listed") => node.listed,
            Some("unlisted") => !node.listed,
            Some(_) => node.draining,
            None => true,
        })
        .filter(|node| {
            let name = name.as_deref();
            name.is_none_or(|name| node.id.as_str().to_lowercase().contains(name))
        })
        .collect();
    // What is equal stays in the order of names.
    match asked.text("sort") {
        Some("region") => wanted.sort_by(|a, b| {
            let zones = a.identity.zone.cmp(&b.identity.zone);
            a.identity.region.cmp(&b.identity.region).then(zones)
        }),
        Some("allocations") => wanted.sort_by_key(|node| Reverse(node.load.allocations)),
        Some("traffic") => wanted.sort_by(|a, b| b.rates.bits().total_cmp(&a.rates.bits())),
        Some("saturation") => {
            wanted.sort_by(|a, b| b.saturation.instant.total_cmp(&a.saturation.instant));
        }
        Some(_) | None => {}
    }
    wanted
}

/// `GET /v1/nodes/{node}`.
pub(crate) async fn node(call: Call) -> Result<Response, ApiError> {
    let id = node_id(&call)?;
    let node = call.view.node(&id);
    let node = node.ok_or_else(|| ApiError::unknown_node(id.to_string()))?;
    Ok(answer_json(&body(node, &call.view)))
}

/// The node that the path names.
pub(super) fn node_id(call: &Call) -> Result<NodeId, ApiError> {
    let text = call.part("node");
    let unknown = |_| ApiError::unknown_node(excerpt(text));
    text.parse().map_err(unknown)
}

fn body<'v>(node: &'v NodeView, view: &FleetView) -> Node<'v> {
    let identity = &node.identity;
    Node {
        node: node.id.as_str(),
        region: &identity.region,
        zone: &identity.zone,
        tenant: node.tenant.as_deref(),
        version: &identity.version,
        hostname: identity.hostname.as_deref(),
        health: node.health.name(),
        listed: node.listed,
        connected: node.connected,
        draining: node.draining,
        drain_deadline: node.drain_deadline,
        suspect: node.suspect,
        reason: view.reason(node).map(|reason| reason.to_string()),
        listeners: identity
            .listeners
            .iter()
            .map(|listener| Listener {
                transport: listener.transport.name(),
                address: listener.address.to_string(),
                works: !node.broken.contains(&listener.transport),
            })
            .collect(),
        public_ips: identity
            .public_ips
            .iter()
            .map(ToString::to_string)
            .collect(),
        ports: node
            .grants
            .iter()
            .map(|grant| Ports {
                public_ip: grant.public_ip.to_string(),
                first: grant.range.first(),
                last: grant.range.last(),
            })
            .collect(),
        applied_generation: node.applied_generation,
        last_heartbeat: node.last_heartbeat,
        load: load(&node.load),
        rates: RatesBody::from(node.rates),
        saturation: node.saturation.instant,
        weight: node.weight,
        ramp: node.ramp,
        clock_skew_milliseconds: node.clock_skew_millis,
        certificate: node.certificate.name(),
        certificate_not_after: node.validity.map(|validity| validity.not_after),
    }
}

fn load(load: &Load) -> LoadBody {
    let counters = load.counters;
    LoadBody {
        allocations: load.allocations,
        relayed_ports_used: load.relayed_ports_used,
        relayed_ports_total: load.relayed_ports_total,
        file_descriptors_used: load.file_descriptors_used,
        memory_bytes: load.memory_bytes,
        cpu_permille: load.cpu_permille,
        bytes_from_clients: counters.bytes_from_clients,
        bytes_to_clients: counters.bytes_to_clients,
        packets_from_clients: counters.packets_from_clients,
        packets_to_clients: counters.packets_to_clients,
        packets_dropped: counters.packets_dropped,
        allocations_opened: counters.allocations_opened,
        requests_rejected: counters.requests_rejected,
        authentication_failures: counters.authentication_failures,
    }
}
