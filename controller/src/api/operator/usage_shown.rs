//! The use of the fleet, in the gRPC service's own messages.

use serde_json::{Value, json};
use turnfleet_proto::operator as wire;

use super::given;
use crate::api::tenant_usage::{Answer, Use};
use crate::api::usage::{LegBody, Row, SpanBody, TalkerBody, TotalsBody, Volume};

pub(super) fn totals_asked(request: wire::UsageRequest) -> Value {
    json!({
        "by": given(request.by),
        "tenant": given(request.tenant),
        "region": given(request.region),
        "node": given(request.node_id),
    })
}

pub(super) fn history_asked(request: wire::UsageHistoryRequest) -> Value {
    json!({
        "resolution": given(request.resolution),
        "tenant": given(request.tenant),
        "region": given(request.region),
        "from": Some(request.from).filter(|from| *from != 0),
        "to": Some(request.to).filter(|to| *to != 0),
    })
}

pub(super) fn top_asked(request: wire::TopRequest) -> Value {
    json!({
        "of": given(request.of),
        "by": given(request.by),
        "limit": Some(request.limit).filter(|limit| *limit != 0),
    })
}

impl From<Row> for wire::UsageSum {
    fn from(row: Row) -> Self {
        Self {
            tenant: row.tenant.unwrap_or_default(),
            region: row.region.unwrap_or_default(),
            zone: row.zone.unwrap_or_default(),
            node_id: row.node.unwrap_or_default(),
            totals: Some(row.totals.into()),
            open: row.open,
            legs: row.legs.into_iter().map(wire::UsageLeg::from).collect(),
        }
    }
}

impl From<TotalsBody> for wire::UsageTotals {
    fn from(totals: TotalsBody) -> Self {
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

impl From<LegBody> for wire::UsageLeg {
    fn from(leg: LegBody) -> Self {
        Self {
            transport: leg.transport.to_owned(),
            family: leg.family.to_owned(),
            packets_to_peers: leg.packets_to_peers,
            bytes_to_peers: leg.bytes_to_peers,
            packets_to_clients: leg.packets_to_clients,
            bytes_to_clients: leg.bytes_to_clients,
        }
    }
}

impl From<SpanBody> for wire::UsageSpan {
    fn from(span: SpanBody) -> Self {
        Self {
            from: span.from,
            to: span.to,
            totals: Some(span.totals.into()),
        }
    }
}

impl From<TalkerBody> for wire::Talker {
    fn from(talker: TalkerBody) -> Self {
        Self {
            tenant: talker.tenant.unwrap_or_default(),
            user: talker.user.unwrap_or_default(),
            network: talker.network.unwrap_or_default(),
            nodes: talker.nodes,
            last_minute: Some(talker.last_minute.into()),
            last_hour: Some(talker.last_hour.into()),
            watched: Some(talker.watched.into()),
            bits_per_second: talker.bits_per_second,
            addresses: talker.addresses,
            peers: talker.peers,
            peer_ports: talker.peer_ports,
            permissions: talker.permissions,
            failures: talker.failures,
            challenges: talker.challenges,
            unanswered: talker.unanswered,
        }
    }
}

impl From<Volume> for wire::UsageVolume {
    fn from(volume: Volume) -> Self {
        Self {
            bytes_to_peers: volume.bytes_to_peers,
            bytes_to_clients: volume.bytes_to_clients,
        }
    }
}

impl From<Answer<'_>> for wire::TenantUsage {
    fn from(answer: Answer<'_>) -> Self {
        Self {
            tenant: answer.tenant.to_owned(),
            allocations: Some(answer.allocations.into()),
            bits_per_second: Some(answer.bits_per_second.into()),
            bytes_per_day: Some(answer.bytes_per_day.into()),
            day_began: answer.day_began,
        }
    }
}

impl From<Use> for wire::QuotaUsage {
    fn from(quota: Use) -> Self {
        Self {
            limit: quota.limit,
            used: quota.used,
            exceeded: quota.exceeded,
        }
    }
}
