//! gRPC `Operator`: what the HTTP API does for operators, by the same functions and with the same words.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use turnfleet_proto::NodeId;
use turnfleet_proto::operator as wire;
use wire::operator_server::{Operator, OperatorServer};

use super::actor::Actor;
use super::auth::Guard;
use super::fleet_service::bearer;
use super::serve::Caller;
use super::status::{ApiError, excerpt};
use super::values::Values;
use super::{audit, node_actions, tokens};
use crate::fleet::record::Scope;
use crate::fleet::{FleetView, Gauge, NodeView, Totals};
use crate::reconcile::Handle;

/// The largest request.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;
/// Between two answers of a watch.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The service of `turnfleet.api.v1`.
pub(crate) struct OperatorService {
    handle: Handle,
    guard: Arc<Guard>,
}

impl OperatorService {
    pub(crate) fn server(handle: Handle, guard: Arc<Guard>) -> OperatorServer<Self> {
        OperatorServer::new(Self { handle, guard }).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Who asks, where the token opens `scope` and is bound to no tenant.
    fn admit<T>(&self, request: &Request<T>, scope: Scope) -> Result<Actor, Status> {
        let token = bearer(request)?;
        let view = self.handle.view();
        let bearer = self.guard.admit_to_fleet(&view, Some(&token), scope)?;
        let caller = request.extensions().get::<Caller>();
        Ok(Actor {
            name: bearer.name,
            from: caller.map(|caller| caller.ip),
        })
    }
}

fn node_id(text: &str) -> Result<NodeId, ApiError> {
    text.parse()
        .map_err(|_| ApiError::unknown_node(excerpt(text)))
}

fn changed(node: &NodeId) -> Response<wire::NodeChanged> {
    let node_id = node.to_string();
    Response::new(wire::NodeChanged { node_id })
}

#[async_trait]
impl Operator for OperatorService {
    type WatchCapacityStream = ReceiverStream<Result<wire::Capacity, Status>>;

    async fn list_nodes(
        &self,
        request: Request<wire::ListNodesRequest>,
    ) -> Result<Response<wire::ListNodesResponse>, Status> {
        self.admit(&request, Scope::Viewer)?;
        let view = self.handle.view();
        Ok(Response::new(wire::ListNodesResponse {
            generation: view.generation,
            realm: view.realm.to_string(),
            nodes: view.nodes.iter().map(|it| node(it, &view)).collect(),
        }))
    }

    async fn show_node(
        &self,
        request: Request<wire::NodeRequest>,
    ) -> Result<Response<wire::Node>, Status> {
        self.admit(&request, Scope::Viewer)?;
        let id = node_id(&request.get_ref().node_id)?;
        let view = self.handle.view();
        let known = view.node(&id);
        let known = known.ok_or_else(|| ApiError::unknown_node(id.to_string()))?;
        Ok(Response::new(node(known, &view)))
    }

    async fn drain_node(
        &self,
        request: Request<wire::DrainNodeRequest>,
    ) -> Result<Response<wire::NodeChanged>, Status> {
        let actor = self.admit(&request, Scope::Operator)?;
        let request = request.into_inner();
        let node = node_id(&request.node_id)?;
        let asked = json!({ "deadline_seconds": request.deadline_seconds });
        let asked = Values::of_json(node_actions::DRAIN, &asked)?;
        node_actions::drain_node(&self.handle, &actor, &node, &asked).await?;
        Ok(changed(&node))
    }

    async fn undrain_node(
        &self,
        request: Request<wire::NodeRequest>,
    ) -> Result<Response<wire::NodeChanged>, Status> {
        let actor = self.admit(&request, Scope::Operator)?;
        let node = node_id(&request.get_ref().node_id)?;
        node_actions::undrain_node(&self.handle, &actor, &node).await?;
        Ok(changed(&node))
    }

    async fn forget_node(
        &self,
        request: Request<wire::NodeRequest>,
    ) -> Result<Response<wire::NodeChanged>, Status> {
        let actor = self.admit(&request, Scope::Operator)?;
        let node = node_id(&request.get_ref().node_id)?;
        node_actions::forget_node(&self.handle, &actor, &node).await?;
        Ok(changed(&node))
    }

    async fn show_capacity(
        &self,
        request: Request<wire::CapacityRequest>,
    ) -> Result<Response<wire::Capacity>, Status> {
        self.admit(&request, Scope::Viewer)?;
        Ok(Response::new(capacity(&self.handle.view())))
    }

    async fn watch_capacity(
        &self,
        request: Request<wire::CapacityRequest>,
    ) -> Result<Response<Self::WatchCapacityStream>, Status> {
        self.admit(&request, Scope::Viewer)?;
        let mut views = self.handle.changes();
        let (down, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut told = None;
            loop {
                let seen = capacity(&views.borrow_and_update());
                if told.as_ref() != Some(&seen) {
                    if down.send(Ok(seen.clone())).await.is_err() {
                        return;
                    }
                    told = Some(seen);
                }
                let paced = async {
                    tokio::time::sleep(WATCH_INTERVAL).await;
                    views.changed().await
                };
                tokio::select! {
                    changed = paced => if changed.is_err() {
                        return;
                    },
                    () = down.closed() => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn list_tokens(
        &self,
        request: Request<wire::ListTokensRequest>,
    ) -> Result<Response<wire::ListTokensResponse>, Status> {
        self.admit(&request, Scope::Admin)?;
        let view = self.handle.view();
        let tokens = tokens::described(&view).into_iter().map(wire::Token::from);
        Ok(Response::new(wire::ListTokensResponse {
            tokens: tokens.collect(),
        }))
    }

    async fn create_token(
        &self,
        request: Request<wire::CreateTokenRequest>,
    ) -> Result<Response<wire::CreateTokenResponse>, Status> {
        let actor = self.admit(&request, Scope::Admin)?;
        let asked = request.into_inner();
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let life = asked.expires_in_seconds;
        let asked: Value = json!({
            "name": asked.name,
            "scopes": asked.scopes,
            "tenant": given(asked.tenant),
            "expires_in_seconds": Some(life).filter(|life| *life != 0),
        });
        let asked = Values::of_json(tokens::CREATE, &asked)?;
        let (token, record) = tokens::make(&self.handle, &actor, &asked).await?;
        let described = Some(tokens::describe(&record).into());
        Ok(Response::new(wire::CreateTokenResponse {
            token,
            described,
        }))
    }

    async fn revoke_token(
        &self,
        request: Request<wire::RevokeTokenRequest>,
    ) -> Result<Response<wire::RevokeTokenResponse>, Status> {
        let actor = self.admit(&request, Scope::Admin)?;
        tokens::unmake(&self.handle, &actor, &request.get_ref().name).await?;
        Ok(Response::new(wire::RevokeTokenResponse {}))
    }

    async fn list_audit(
        &self,
        request: Request<wire::ListAuditRequest>,
    ) -> Result<Response<wire::ListAuditResponse>, Status> {
        self.admit(&request, Scope::Admin)?;
        let request = request.into_inner();
        let asked = json!({
            "limit": Some(request.limit).filter(|limit| *limit != 0),
            "before": Some(request.before_milliseconds).filter(|before| *before != 0),
        });
        let asked = Values::of_json(audit::QUERY, &asked)?;
        let page = audit::page(&self.handle, &asked).await;
        let entries = page.map_err(ApiError::from)?.into_iter();
        Ok(Response::new(wire::ListAuditResponse {
            entries: entries
                .map(|entry| wire::AuditEntry {
                    at_milliseconds: entry.at_milliseconds,
                    by: entry.by,
                    from: entry.from.map_or_else(String::new, |from| from.to_string()),
                    action: entry.action,
                    target: entry.target,
                    detail: entry.detail,
                })
                .collect(),
        }))
    }
}

fn node(node: &NodeView, view: &FleetView) -> wire::Node {
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
        version: identity.version.clone(),
        hostname: identity.hostname.clone().unwrap_or_default(),
        health: node.health.name().to_owned(),
        listed: node.listed,
        connected: node.connected,
        draining: node.draining,
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

fn capacity(view: &FleetView) -> wire::Capacity {
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

impl From<tokens::Token<'_>> for wire::Token {
    fn from(token: tokens::Token<'_>) -> Self {
        Self {
            name: token.name.to_owned(),
            scopes: token.scopes.into_iter().map(str::to_owned).collect(),
            tenant: token.tenant.unwrap_or_default().to_owned(),
            expires_at: token.expires_at.unwrap_or(0),
            configured: token.configured,
        }
    }
}
