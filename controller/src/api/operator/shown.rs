//! What the gRPC service shows, in its own messages.

use turnfleet_proto::operator as wire;

use crate::api::bans;
use crate::api::policy_actions::Progress;
use crate::api::secrets::end_of;
use crate::fleet::record::{JoinToken, Quotas};
use crate::fleet::{Ask, Explanation, FleetView, Gauge, NodeView, SecretView, Totals};

/// Some of the bans, of which there are `total`.
pub(super) fn bans(page: bans::Page<'_>, total: usize) -> wire::ListBansResponse {
    wire::ListBansResponse {
        bans: page.bans.into_iter().map(wire::Ban::from).collect(),
        next: page.next.unwrap_or_default(),
        total: u32::try_from(total).unwrap_or(u32::MAX),
    }
}

/// One node.
pub(super) fn node(node: &NodeView, view: &FleetView) -> wire::Node {
    let identity = &node.identity;
    let ports = node.grants.iter().map(|grant| wire::Ports {
        public_ip: grant.public_ip.to_string(),
        first: grant.range.first().into(),
        last: grant.range.last().into(),
    });
    wire::Node {
        node_id: node.id.to_string(),
        region: identity.region.clone(),
        zone: identity.zone.clone(),
        tenant: node.tenant.as_deref().unwrap_or_default().to_owned(),
        version: identity.version.clone(),
        hostname: identity.hostname.clone().unwrap_or_default(),
        health: node.health.name().to_owned(),
        listed: node.listed,
        connected: node.connected,
        draining: node.draining,
        drain_deadline: node.drain_deadline.unwrap_or(0),
        reason: view
            .reason(node)
            .map_or_else(String::new, |it| it.to_string()),
        public_ips: node.public_ips().iter().map(ToString::to_string).collect(),
        ports: ports.collect(),
        applied_generation: node.applied_generation,
        last_heartbeat: node.last_heartbeat.unwrap_or(0),
        allocations: node.load.allocations,
        saturation: node.saturation.instant,
    }
}

/// What the fleet can hold, and what it holds.
pub(super) fn capacity(view: &FleetView) -> wire::Capacity {
    let capacity = view.capacity();
    let regions = capacity.regions.into_iter();
    let zones = capacity.zones.into_iter();
    wire::Capacity {
        total: Some(capacity.total.into()),
        regions: regions
            .map(|(region, totals)| wire::RegionTotals {
                region,
                totals: Some(totals.into()),
            })
            .collect(),
        zones: zones
            .map(|(region, zone, totals)| wire::ZoneTotals {
                region,
                zone,
                totals: Some(totals.into()),
            })
            .collect(),
    }
}

impl From<Totals> for wire::Totals {
    fn from(totals: Totals) -> Self {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        Self {
            nodes: count(totals.nodes),
            listed: count(totals.listed),
            saturation: totals.saturation(),
            allocations: Some(totals.allocations.into()),
            relayed_ports: Some(totals.ports.into()),
            file_descriptors: Some(totals.file_descriptors.into()),
        }
    }
}

impl From<Gauge> for wire::Gauge {
    fn from(gauge: Gauge) -> Self {
        let known = gauge.limit != 0;
        Self {
            used: gauge.used,
            limit: known.then_some(gauge.limit),
            headroom: known.then(|| gauge.headroom()),
        }
    }
}

impl From<crate::api::tokens::Token<'_>> for wire::Token {
    fn from(token: crate::api::tokens::Token<'_>) -> Self {
        Self {
            name: token.name.to_owned(),
            scopes: token.scopes.into_iter().map(str::to_owned).collect(),
            tenant: token.tenant.unwrap_or_default().to_owned(),
            expires_at: token.expires_at.unwrap_or(0),
            configured: token.configured,
        }
    }
}

/// A list, with the nodes that are `explained` to who asks for it.
pub(super) fn explanation(
    view: &FleetView,
    ask: &Ask<'_>,
    explained: Vec<Explanation>,
) -> wire::Explanation {
    let place = |place: Option<usize>| place.and_then(|place| u32::try_from(place).ok());
    let nodes = explained.into_iter().map(|explained| wire::ExplainedNode {
        node_id: explained.node.id.to_string(),
        health: explained.node.health.name().to_owned(),
        listed: explained.node.listed,
        reason: view
            .reason(&explained.node)
            .map_or_else(String::new, |it| it.to_string()),
        weight: explained.node.weight,
        rank: place(explained.rank),
        place: place(explained.place),
        gates: explained
            .gates
            .into_iter()
            .map(|gate| wire::Gate {
                gate: gate.name.to_owned(),
                open: gate.open,
                found: gate.found,
            })
            .collect(),
    });
    wire::Explanation {
        region: view.region_meant(ask.region).unwrap_or_default().to_owned(),
        uris: view.list(ask).iter().map(ToString::to_string).collect(),
        nodes: nodes.collect(),
    }
}

impl From<Progress<'_>> for wire::Rollout {
    fn from(progress: Progress<'_>) -> Self {
        Self {
            stage: progress.stage.to_owned(),
            generation: progress.generation,
            node_id: progress.node.unwrap_or_default().to_owned(),
            reason: progress.reason.unwrap_or_default().to_owned(),
            restored: progress.restored.is_some(),
        }
    }
}

impl From<&SecretView> for wire::Secret {
    fn from(secret: &SecretView) -> Self {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            id: secret.id,
            scope: secret.scope.to_string(),
            state: secret.state.name().to_owned(),
            minted: secret.minted,
            created_at: secret.created_at,
            accept_until: end_of(secret.state).0,
            last_used: secret.last_used,
            acknowledged: count(secret.acknowledged),
            relays: count(secret.of),
        }
    }
}

impl From<&JoinToken> for wire::JoinToken {
    fn from(token: &JoinToken) -> Self {
        Self {
            name: token.name.clone(),
            region: token.region.clone().unwrap_or_default(),
            tenant: token.tenant.clone().unwrap_or_default(),
            expires_at: token.expires_at.unwrap_or(0),
            configured: !token.by_operator,
        }
    }
}

impl From<crate::api::tenants::Shown<'_>> for wire::Tenant {
    fn from(tenant: crate::api::tenants::Shown<'_>) -> Self {
        Self {
            id: tenant.id,
            name: tenant.name.to_owned(),
            realm: tenant.realm.unwrap_or_default().to_owned(),
            tls_names: tenant.tls_names.to_vec(),
            allow_peers: tenant.allow_peers,
            deny_peers: tenant.deny_peers,
            tcp_relaying: tenant.tcp_relaying,
            suspended: tenant.suspended,
            quotas: Some(tenant.quotas.into()),
            created_at: tenant.created_at,
            configured: tenant.configured,
            has_secret: tenant.has_secret,
        }
    }
}

impl From<Quotas> for wire::Quotas {
    fn from(quotas: Quotas) -> Self {
        Self {
            allocations: quotas.allocations,
            allocations_per_user: quotas.allocations_per_user,
            bits_per_second: quotas.bits_per_second,
            user_bits_per_second: quotas.user_bits_per_second,
            bytes_per_day: quotas.bytes_per_day,
            user_bytes_per_day: quotas.user_bytes_per_day,
            credentials_per_minute: quotas.credentials_per_minute,
        }
    }
}

impl From<bans::Shown<'_>> for wire::Ban {
    fn from(ban: bans::Shown<'_>) -> Self {
        Self {
            id: ban.id,
            kind: ban.kind.to_owned(),
            tenant: ban.tenant.unwrap_or_default().to_owned(),
            user: ban.user.unwrap_or_default().to_owned(),
            network: ban.network.unwrap_or_default(),
            reason: ban.reason.to_owned(),
            by: ban.by.to_owned(),
            since: ban.since,
            until: ban.until.unwrap_or(0),
            automatic: ban.automatic,
        }
    }
}
