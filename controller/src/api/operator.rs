//! gRPC `Operator`: what the HTTP API does for operators, by the same functions and with the same words.

mod abuse_shown;
mod asked;
mod shown;
mod usage_shown;

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
use super::{
    audit, bans, events, explain, join_tokens, node_actions, policy_actions, secrets, tenant_usage,
    tenants, tokens, trace, usage,
};
use crate::fleet::record::Scope;
use crate::reconcile::Handle;
use crate::traces::Tracer;
use shown::{capacity, node};

/// The largest request.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;
/// Between two answers of a watch.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The service of `turnfleet.api.v1`.
pub(crate) struct OperatorService {
    handle: Handle,
    tracer: Tracer,
    guard: Arc<Guard>,
}

impl OperatorService {
    pub(crate) fn server(
        handle: Handle,
        tracer: Tracer,
        guard: Arc<Guard>,
    ) -> OperatorServer<Self> {
        let service = Self {
            handle,
            tracer,
            guard,
        };
        OperatorServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES)
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

/// What a text of a request says, where it says something.
fn given(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn changed(node: &NodeId) -> Response<wire::NodeChanged> {
    let node_id = node.to_string();
    Response::new(wire::NodeChanged { node_id })
}

#[async_trait]
impl Operator for OperatorService {
    type WatchEventsStream = ReceiverStream<Result<wire::Event, Status>>;
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

    async fn kill_node(
        &self,
        request: Request<wire::NodeRequest>,
    ) -> Result<Response<wire::NodeChanged>, Status> {
        let actor = self.admit(&request, Scope::Operator)?;
        let node = node_id(&request.get_ref().node_id)?;
        policy_actions::kill_node(&self.handle, &actor, &node).await?;
        Ok(changed(&node))
    }

    async fn explain(
        &self,
        request: Request<wire::ExplainRequest>,
    ) -> Result<Response<wire::Explanation>, Status> {
        self.admit(&request, Scope::Viewer)?;
        let asked = request.into_inner();
        let whose = json!({
            "user": given(asked.user),
            "room": given(asked.room),
            "tenant": given(asked.tenant),
            "region": given(asked.region),
            "client": given(asked.client),
        });
        let whose = Values::of_json(explain::QUERY, &whose)?;
        let ask = explain::ask(&whose);
        let view = self.handle.view();
        let explained = match given(asked.node_id) {
            None => explain::in_order(&view, &ask),
            Some(id) => {
                let id = node_id(&id)?;
                let known = view.node(&id);
                let known = known.ok_or_else(|| ApiError::unknown_node(id.to_string()))?;
                vec![view.explain(known, &ask)]
            }
        };
        Ok(Response::new(shown::explanation(&view, &ask, explained)))
    }

    async fn show_rollout(
        &self,
        request: Request<wire::ShowRolloutRequest>,
    ) -> Result<Response<wire::Rollout>, Status> {
        self.admit(&request, Scope::Viewer)?;
        let view = self.handle.view();
        Ok(Response::new(policy_actions::progress(&view).into()))
    }

    async fn force_rollout(
        &self,
        request: Request<wire::ForceRolloutRequest>,
    ) -> Result<Response<wire::ForceRolloutResponse>, Status> {
        let actor = self.admit(&request, Scope::Operator)?;
        policy_actions::force_rollout(&self.handle, &actor).await?;
        Ok(Response::new(wire::ForceRolloutResponse {}))
    }

    async fn confirm_restore(
        &self,
        request: Request<wire::ConfirmRestoreRequest>,
    ) -> Result<Response<wire::ConfirmRestoreResponse>, Status> {
        let actor = self.admit(&request, Scope::Operator)?;
        policy_actions::follow_restored(&self.handle, &actor).await?;
        Ok(Response::new(wire::ConfirmRestoreResponse {}))
    }

    async fn list_secrets(
        &self,
        request: Request<wire::ListSecretsRequest>,
    ) -> Result<Response<wire::ListSecretsResponse>, Status> {
        self.admit(&request, Scope::Viewer)?;
        let view = self.handle.view();
        Ok(Response::new(wire::ListSecretsResponse {
            secrets: view.secrets.iter().map(wire::Secret::from).collect(),
        }))
    }

    async fn rotate_secret(
        &self,
        request: Request<wire::RotateSecretRequest>,
    ) -> Result<Response<wire::SecretChanged>, Status> {
        let actor = self.admit(&request, Scope::Admin)?;
        let asked = request.into_inner();
        let asked = json!({ "scope": given(asked.scope), "secret": given(asked.secret) });
        let asked = Values::of_json(secrets::ROTATE, &asked)?;
        let id = secrets::begin_rotation(&self.handle, &actor, &asked).await?;
        Ok(Response::new(wire::SecretChanged { id }))
    }

    async fn pin_secret(
        &self,
        request: Request<wire::PinSecretRequest>,
    ) -> Result<Response<wire::SecretChanged>, Status> {
        let actor = self.admit(&request, Scope::Admin)?;
        let asked = request.into_inner();
        let id = if asked.id == 0 {
            let asked = json!({ "scope": given(asked.scope), "secret": given(asked.secret) });
            let asked = Values::of_json(secrets::PIN, &asked)?;
            secrets::keep_given(&self.handle, &actor, &asked).await?
        } else {
            secrets::keep(&self.handle, &actor, asked.id).await?;
            asked.id
        };
        Ok(Response::new(wire::SecretChanged { id }))
    }

    async fn unpin_secret(
        &self,
        request: Request<wire::SecretRequest>,
    ) -> Result<Response<wire::SecretChanged>, Status> {
        let actor = self.admit(&request, Scope::Admin)?;
        let id = request.get_ref().id;
        secrets::let_go(&self.handle, &actor, id).await?;
        Ok(Response::new(wire::SecretChanged { id }))
    }

    async fn revoke_secret(
        &self,
        request: Request<wire::RevokeSecretRequest>,
    ) -> Result<Response<wire::RevokeSecretResponse>, Status> {
        let actor = self.admit(&request, Scope::Admin)?;
        let wire::RevokeSecretRequest { id, cut, replace } = request.into_inner();
        let asked = Values::of_json(secrets::REVOKE, &json!({ "cut": cut, "replace": replace }))?;
        let replaced_by = secrets::forbid(&self.handle, &actor, id, &asked).await?;
        Ok(Response::new(wire::RevokeSecretResponse {
            replaced_by: replaced_by.unwrap_or(0),
        }))
    }

    async fn list_join_tokens(
        &self,
        request: Request<wire::ListJoinTokensRequest>,
    ) -> Result<Response<wire::ListJoinTokensResponse>, Status> {
        self.admit(&request, Scope::Admin)?;
        let view = self.handle.view();
        let tokens = join_tokens::in_order(&view).into_iter();
        Ok(Response::new(wire::ListJoinTokensResponse {
            tokens: tokens.map(wire::JoinToken::from).collect(),
        }))
    }

    async fn create_join_token(
        &self,
        request: Request<wire::CreateJoinTokenRequest>,
    ) -> Result<Response<wire::CreateJoinTokenResponse>, Status> {
        let actor = self.admit(&request, Scope::Admin)?;
        let asked = request.into_inner();
        let life = asked.expires_in_seconds;
        let asked = json!({
            "name": asked.name,
            "region": given(asked.region),
            "tenant": given(asked.tenant),
            "expires_in_seconds": Some(life).filter(|life| *life != 0),
        });
        let asked = Values::of_json(join_tokens::CREATE, &asked)?;
        let (token, record) = join_tokens::make(&self.handle, &actor, &asked).await?;
        let described = Some((&record).into());
        Ok(Response::new(wire::CreateJoinTokenResponse {
            token,
            described,
        }))
    }

    async fn revoke_join_token(
        &self,
        request: Request<wire::RevokeJoinTokenRequest>,
    ) -> Result<Response<wire::RevokeJoinTokenResponse>, Status> {
        let actor = self.admit(&request, Scope::Admin)?;
        join_tokens::unmake(&self.handle, &actor, &request.get_ref().name).await?;
        Ok(Response::new(wire::RevokeJoinTokenResponse {}))
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

    async fn show_usage(
        &self,
        request: Request<wire::UsageRequest>,
    ) -> Result<Response<wire::Usage>, Status> {
        self.admit(&request, Scope::Viewer)?;
        let asked = usage_shown::totals_asked(request.into_inner());
        let asked = Values::of_json(usage::TOTALS, &asked)?;
        let sums = usage::sums(&self.handle, &self.handle.view(), &asked)?;
        let sums = sums.into_iter().map(wire::UsageSum::from).collect();
        Ok(Response::new(wire::Usage { sums }))
    }

    async fn show_usage_history(
        &self,
        request: Request<wire::UsageHistoryRequest>,
    ) -> Result<Response<wire::UsageHistory>, Status> {
        self.admit(&request, Scope::Viewer)?;
        let asked = usage_shown::history_asked(request.into_inner());
        let asked = Values::of_json(usage::HISTORY, &asked)?;
        let past = usage::past(&self.handle, &self.handle.view(), &asked).await?;
        let spans = past.spans.into_iter().map(wire::UsageSpan::from).collect();
        Ok(Response::new(wire::UsageHistory { spans }))
    }

    async fn show_top(
        &self,
        request: Request<wire::TopRequest>,
    ) -> Result<Response<wire::Top>, Status> {
        self.admit(&request, Scope::Viewer)?;
        let asked = usage_shown::top_asked(request.into_inner());
        let asked = Values::of_json(usage::TOP, &asked)?;
        let talkers = usage::largest(&self.handle, &self.handle.view(), &asked);
        let talkers = talkers.into_iter().map(wire::Talker::from).collect();
        Ok(Response::new(wire::Top { talkers }))
    }

    async fn show_abuse(
        &self,
        request: Request<wire::AbuseRequest>,
    ) -> Result<Response<wire::Abuse>, Status> {
        self.admit(&request, Scope::Viewer)?;
        let answer = abuse_shown::answer(&self.handle, request.into_inner())?;
        Ok(Response::new(answer))
    }

    async fn watch_events(
        &self,
        request: Request<wire::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let token = bearer(&request)?;
        let bearer = self
            .guard
            .admit(&self.handle.view(), Some(&token), Scope::Viewer)?;
        let (bus, tenant) = (self.handle.events(), bearer.tenant.as_deref());
        let stream = events::watch(bus, request.into_inner(), tenant)?;
        Ok(Response::new(stream))
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

    async fn trace(
        &self,
        request: Request<wire::TraceRequest>,
    ) -> Result<Response<wire::TraceResponse>, Status> {
        let actor = self.admit(&request, Scope::Operator)?;
        let asked = request.into_inner();
        let asked = json!({
            "ip": asked.ip,
            "port": asked.port,
            "at": asked.at,
            "within_seconds": asked.within_seconds,
            "user": given(asked.user),
        });
        let asked = Values::of_json(trace::TRACE, &asked)?;
        let answer = trace::search(&self.handle, &self.tracer, &actor, &asked).await?;
        Ok(Response::new(answer.into()))
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

    async fn list_tenants(
        &self,
        request: Request<wire::ListTenantsRequest>,
    ) -> Result<Response<wire::ListTenantsResponse>, Status> {
        self.admit(&request, Scope::Viewer)?;
        let view = self.handle.view();
        let tenants = tenants::in_order(&view).into_iter().map(wire::Tenant::from);
        Ok(Response::new(wire::ListTenantsResponse {
            tenants: tenants.collect(),
        }))
    }

    async fn show_tenant(
        &self,
        request: Request<wire::TenantRequest>,
    ) -> Result<Response<wire::Tenant>, Status> {
        self.admit(&request, Scope::Viewer)?;
        let view = self.handle.view();
        let found = tenants::found(&view, &request.get_ref().name)?;
        Ok(Response::new(found.into()))
    }

    async fn show_tenant_usage(
        &self,
        request: Request<wire::TenantRequest>,
    ) -> Result<Response<wire::TenantUsage>, Status> {
        self.admit(&request, Scope::Viewer)?;
        let view = self.handle.view();
        let usage = tenant_usage::of(&self.handle, &view, &request.get_ref().name)?;
        Ok(Response::new(usage.into()))
    }

    async fn set_tenant(
        &self,
        request: Request<wire::SetTenantRequest>,
    ) -> Result<Response<wire::Tenant>, Status> {
        let actor = self.admit(&request, Scope::Admin)?;
        let asked = request.into_inner();
        let name = asked.name.clone();
        let asked = Values::of_json(tenants::SET, &asked::tenant(asked))?;
        tenants::put(&self.handle, &actor, &name, &asked).await?;
        let view = self.handle.view();
        Ok(Response::new(tenants::found(&view, &name)?.into()))
    }

    async fn remove_tenant(
        &self,
        request: Request<wire::TenantRequest>,
    ) -> Result<Response<wire::RemoveTenantResponse>, Status> {
        let actor = self.admit(&request, Scope::Admin)?;
        tenants::take_away(&self.handle, &actor, &request.get_ref().name).await?;
        Ok(Response::new(wire::RemoveTenantResponse {}))
    }

    async fn list_bans(
        &self,
        request: Request<wire::ListBansRequest>,
    ) -> Result<Response<wire::ListBansResponse>, Status> {
        self.admit(&request, Scope::Viewer)?;
        let asked = Values::of_json(bans::QUERY, &asked::bans(request.into_inner()))?;
        let view = self.handle.view();
        let page = bans::page(&view, &asked);
        Ok(Response::new(shown::bans(page, view.bans.len())))
    }

    async fn place_ban(
        &self,
        request: Request<wire::PlaceBanRequest>,
    ) -> Result<Response<wire::Ban>, Status> {
        let actor = self.admit(&request, Scope::Operator)?;
        let asked = Values::of_json(bans::PLACE, &asked::ban(request.into_inner()))?;
        let ban = bans::put(&self.handle, &actor, &asked).await?;
        let view = self.handle.view();
        Ok(Response::new(bans::shown(&ban, &view.tenants).into()))
    }

    async fn lift_ban(
        &self,
        request: Request<wire::LiftBanRequest>,
    ) -> Result<Response<wire::Ban>, Status> {
        let actor = self.admit(&request, Scope::Operator)?;
        let asked = request.into_inner();
        let ban = if asked.id.is_empty() {
            let whom = Values::of_json(bans::WHOM, &asked::whom(asked))?;
            bans::lift_of(&self.handle, &actor, &whom).await?
        } else {
            bans::lift_by_id(&self.handle, &actor, &asked.id).await?
        };
        let view = self.handle.view();
        Ok(Response::new(bans::shown(&ban, &view.tenants).into()))
    }
}
