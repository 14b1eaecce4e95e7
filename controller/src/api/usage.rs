//! `GET /v1/usage`, `/v1/usage/history` and `/v1/usage/top`: who uses the fleet, and how much.

use std::collections::BTreeMap;

use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;
use turnfleet_proto::NodeId;
use turnfleet_proto::fleet::listener::Transport;

use super::app::answer_json;
use super::route::Call;
use super::status::{ApiError, excerpt};
use super::values::{Field, Kind, Values};
use crate::FleetError;
use crate::fleet::FleetView;
use crate::reconcile::Handle;
use crate::usage::Totals;
use crate::usage::aggregate::{By, Filter, Scope, Sum};
use crate::usage::counters::Leg;
use crate::usage::history::{OTHER_REGIONS, OTHER_TENANTS, Resolution, Span};
use crate::usage::top::{self, Talker};
use crate::wall_clock;

const TENANT: Field = Field::new("tenant", Kind::TenantName, "This tenant alone.");
const REGION: Field = Field::new("region", Kind::Name, "This region alone.");

/// What a query for totals may say.
pub(super) const TOTALS: &[Field] = &[
    Field::new(
        "by",
        Kind::OneOf(&["fleet", "tenant", "region", "zone", "node"]),
        "What each sum is of; the whole fleet where it is left out.",
    ),
    TENANT,
    REGION,
    Field::new(
        "node",
        Kind::Name,
        "This node alone, which may be forgotten.",
    ),
];

/// What a query for the past may say.
pub(super) const HISTORY: &[Field] = &[
    Field::new(
        "resolution",
        Kind::OneOf(&["minute", "hour"]),
        "Minutes, of a day, or hours, of 31 days; minutes where it is left out.",
    ),
    TENANT,
    Field::new(
        "region",
        Kind::Name,
        "This region alone; not together with a tenant.",
    ),
    Field::new(
        "from",
        Kind::Whole(0, u64::MAX),
        "Unix seconds; an hour ago, or a day for hours, where it is left out.",
    ),
    Field::new(
        "to",
        Kind::Whole(0, u64::MAX),
        "Unix seconds; now where it is left out.",
    ),
];

/// What a query for the largest may say.
pub(super) const TOP: &[Field] = &[
    Field::new(
        "of",
        Kind::OneOf(top::Kind::NAMES),
        "Users, networks of clients or of peers, or networks of those who have proved nothing; users where it is left out.",
    ),
    Field::new(
        "by",
        Kind::OneOf(&["minute", "hour"]),
        "What they are ordered by; the last minute where it is left out.",
    ),
    Field::new(
        "limit",
        Kind::Whole(1, 200),
        "How many; 20 where it is left out.",
    ),
];

/// Sums since counting began.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Usage")]
pub(super) struct Answer {
    pub(super) sums: Vec<Row>,
}

/// One sum. What it is of is what it was asked by.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "UsageSum")]
pub(super) struct Row {
    pub(super) tenant: Option<String>,
    /// Empty for a node whose place was never known.
    pub(super) region: Option<String>,
    pub(super) zone: Option<String>,
    pub(super) node: Option<String>,
    #[serde(flatten)]
    pub(super) totals: TotalsBody,
    /// Allocations that live.
    pub(super) open: u64,
    /// By the transport and the address family of clients.
    pub(super) legs: Vec<LegBody>,
}

/// Application data, without the headers around it, and allocations.
#[derive(Clone, Copy, Serialize, JsonSchema)]
#[schemars(rename = "UsageTotals")]
pub(super) struct TotalsBody {
    pub(super) packets_to_peers: u64,
    pub(super) bytes_to_peers: u64,
    pub(super) packets_to_clients: u64,
    pub(super) bytes_to_clients: u64,
    /// Allocations granted.
    pub(super) opened: u64,
    /// Allocate requests of known users that were refused.
    pub(super) refused: u64,
}

/// Application data of one kind of clients.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "UsageLeg")]
pub(super) struct LegBody {
    /// `udp`, `tcp`, `tls` or `dtls`.
    pub(super) transport: &'static str,
    /// `ipv4` or `ipv6`.
    pub(super) family: &'static str,
    pub(super) packets_to_peers: u64,
    pub(super) bytes_to_peers: u64,
    pub(super) packets_to_clients: u64,
    pub(super) bytes_to_clients: u64,
}

/// Spans of time, the oldest first.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "UsageHistory")]
pub(super) struct Past {
    pub(super) resolution: &'static str,
    pub(super) spans: Vec<SpanBody>,
}

/// What was counted within one span of time.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "UsageSpan")]
pub(super) struct SpanBody {
    /// Unix seconds. A span that begins before its own minute or hour also tells of the time in which no controller could write.
    pub(super) from: u64,
    /// Unix seconds.
    pub(super) to: u64,
    #[serde(flatten)]
    pub(super) totals: TotalsBody,
}

/// The largest, the first one being the largest of all.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "UsageTop")]
pub(super) struct Largest {
    pub(super) talkers: Vec<TalkerBody>,
}

/// A user or a network. Relays watch a bounded number of each, so that small ones may be missing.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Talker")]
pub(super) struct TalkerBody {
    /// Of a user.
    pub(super) tenant: Option<String>,
    /// Of a user; empty for credentials that name nobody.
    pub(super) user: Option<String>,
    /// An IPv4 /24 or an IPv6 /48.
    pub(super) network: Option<String>,
    /// Relays that watch it.
    pub(super) nodes: u32,
    pub(super) last_minute: Volume,
    pub(super) last_hour: Volume,
    /// Since relays watch it.
    pub(super) watched: Volume,
    /// Over the last minute, both directions.
    pub(super) bits_per_second: u64,
    /// Addresses, about, from which a user's allocations were made within the last five to ten minutes.
    pub(super) addresses: u32,
    /// IP addresses of peers, about, that a user asked for within that time.
    pub(super) peers: u32,
    /// The same with their ports.
    pub(super) peer_ports: u32,
    /// Permissions for peers that there was none for, within the last minute.
    pub(super) permissions: u64,
    /// Requests with bad credentials within the last minute.
    pub(super) failures: u64,
    /// Challenges within the last minute, by UDP.
    pub(super) challenges: u64,
    /// Those of them that led to no authentic request.
    pub(super) unanswered: u64,
}

/// Application bytes.
#[derive(Clone, Copy, Serialize, JsonSchema)]
#[schemars(rename = "UsageVolume")]
pub(super) struct Volume {
    pub(super) bytes_to_peers: u64,
    pub(super) bytes_to_clients: u64,
}

/// `GET /v1/usage`.
pub(crate) async fn totals(call: Call) -> Result<Response, ApiError> {
    let sums = sums(&call.app.handle, &call.view, &call.query)?;
    Ok(answer_json(&Answer { sums }))
}

/// The sums that are `asked` for in the fields of [`TOTALS`].
pub(super) fn sums(
    handle: &Handle,
    view: &FleetView,
    asked: &Values,
) -> Result<Vec<Row>, ApiError> {
    let by = match asked.text("by") {
        Some("tenant") => By::Tenant,
        Some("region") => By::Region,
        Some("zone") => By::Zone,
        Some("node") => By::Node,
        Some(_) | None => By::Fleet,
    };
    let node = asked.text("node").map(|text| {
        let id = text.parse::<NodeId>();
        id.map_err(|_| ApiError::unknown_node(excerpt(text)))
    });
    let filter = Filter {
        tenant: tenant_asked(view, asked)?,
        region: asked.text("region").map(str::to_owned),
        node: node.transpose()?,
    };
    let sums = handle
        .usage()
        .look(view, |aggregate| aggregate.sums(by, &filter));
    Ok(rows(view, sums))
}

fn rows(view: &FleetView, sums: BTreeMap<Scope, Sum>) -> Vec<Row> {
    let row = |(scope, sum): (Scope, Sum)| Row {
        tenant: scope.tenant.map(|id| tenant_name(view, id)),
        region: scope.region,
        zone: scope.zone,
        node: scope.node.map(|node| node.to_string()),
        totals: sum.totals.into(),
        open: sum.open,
        legs: sum.legs.into_iter().map(LegBody::from).collect(),
    };
    sums.into_iter().map(row).collect()
}

/// `GET /v1/usage/history`.
pub(crate) async fn history(call: Call) -> Result<Response, ApiError> {
    Ok(answer_json(
        &past(&call.app.handle, &call.view, &call.query).await?,
    ))
}

/// The spans that are `asked` for in the fields of [`HISTORY`].
pub(super) async fn past(
    handle: &Handle,
    view: &FleetView,
    asked: &Values,
) -> Result<Past, ApiError> {
    let (resolution, name, back) = match asked.text("resolution") {
        Some("hour") => (Resolution::Hour, "hour", 86_400),
        Some(_) | None => (Resolution::Minute, "minute", 3600),
    };
    let now = wall_clock::since_epoch().as_secs();
    let to = asked.whole("to").unwrap_or_else(|| now.saturating_add(1));
    let from = asked
        .whole("from")
        .unwrap_or_else(|| to.saturating_sub(back));
    let tenant = tenant_asked(view, asked)?;
    let region = asked.text("region");
    if tenant.is_some() && region.is_some() {
        return Err(ApiError::nothing_kept(
            "query.region",
            "the past is kept by tenant and by region, not by both",
            "one of the two",
        ));
    }
    let spans = handle.usage().history().spans(resolution, from, to).await;
    let spans = spans.map_err(FleetError::from)?;
    let body = |span: Span| SpanBody {
        from: span.from,
        to: span.to,
        totals: match (tenant, region) {
            (Some(tenant), _) => span.tenants.get(&tenant).copied().unwrap_or_default(),
            (None, Some(region)) => span.regions.get(region).copied().unwrap_or_default(),
            (None, None) => span.totals(),
        }
        .into(),
    };
    Ok(Past {
        resolution: name,
        spans: spans.into_iter().map(body).collect(),
    })
}

/// `GET /v1/usage/top`.
pub(crate) async fn top(call: Call) -> Result<Response, ApiError> {
    let talkers = largest(&call.app.handle, &call.view, &call.query);
    Ok(answer_json(&Largest { talkers }))
}

/// Those that are `asked` for in the fields of [`TOP`].
pub(super) fn largest(handle: &Handle, view: &FleetView, asked: &Values) -> Vec<TalkerBody> {
    let of = asked.text("of").and_then(top::Kind::named);
    let of = of.unwrap_or(top::Kind::Users);
    let by = match asked.text("by") {
        Some("hour") => top::Span::Hour,
        Some(_) | None => top::Span::Minute,
    };
    let limit = usize::try_from(asked.whole("limit").unwrap_or(20)).unwrap_or(usize::MAX);
    let talkers = handle.usage().top(of, by, limit);
    let (is_user, bus) = (of == top::Kind::Users, handle.events());
    let body = |talker: Talker| {
        let [addresses, peers, peer_ports] = talker.spreads.map(|seen| seen.estimate());
        let [failures, challenges, unanswered] = talker.strangers;
        let (user, network) = match is_user {
            true => (Some(bus.user(&talker.name)), None),
            false => (None, Some(bus.place(&talker.name))),
        };
        TalkerBody {
            tenant: is_user.then(|| tenant_name(view, talker.tenant)),
            user,
            network,
            nodes: talker.nodes,
            last_minute: volume(talker.minute),
            last_hour: volume(talker.hour),
            watched: volume(talker.total),
            bits_per_second: talker.minute[0]
                .saturating_add(talker.minute[1])
                .saturating_mul(8)
                / 60,
            addresses,
            peers,
            peer_ports,
            permissions: talker.permissions,
            failures,
            challenges,
            unanswered,
        }
    };
    talkers.into_iter().map(body).collect()
}

fn volume([bytes_to_peers, bytes_to_clients]: [u64; 2]) -> Volume {
    Volume {
        bytes_to_peers,
        bytes_to_clients,
    }
}

impl From<Totals> for TotalsBody {
    fn from(totals: Totals) -> Self {
        Self {
            packets_to_peers: totals.packets_to_peers,
            bytes_to_peers: totals.bytes_to_peers,
            packets_to_clients: totals.packets_to_clients,
            bytes_to_clients: totals.bytes_to_clients,
            opened: totals.opened,
            refused: totals.refused,
        }
    }
}

impl From<(Leg, Totals)> for LegBody {
    fn from(((transport, ipv6), totals): (Leg, Totals)) -> Self {
        let transport = match Transport::try_from(transport) {
            Ok(Transport::Udp) => "udp",
            Ok(Transport::Tcp) => "tcp",
            Ok(Transport::Tls) => "tls",
            Ok(Transport::Dtls) => "dtls",
            Ok(Transport::Unspecified) | Err(_) => "",
        };
        Self {
            transport,
            family: if ipv6 { "ipv6" } else { "ipv4" },
            packets_to_peers: totals.packets_to_peers,
            bytes_to_peers: totals.bytes_to_peers,
            packets_to_clients: totals.packets_to_clients,
            bytes_to_clients: totals.bytes_to_clients,
        }
    }
}

/// What a tenant is called; all beyond the bound of a span are one.
pub(crate) fn tenant_name(view: &FleetView, id: u32) -> String {
    match id {
        OTHER_TENANTS => OTHER_REGIONS.to_owned(),
        id => view.tenants.label(id),
    }
}

/// The tenant that is asked for, by its name.
fn tenant_asked(view: &FleetView, asked: &Values) -> Result<Option<u32>, ApiError> {
    let Some(name) = asked.text("tenant") else {
        return Ok(None);
    };
    let id = view.tenants.known(name).map_err(FleetError::from)?;
    Ok(Some(id))
}
