//! gRPC `Operator`: what the HTTP API does for operators, by the same functions and with the same words.
//!
//! This file owns the table of the methods, with what a token must open for each, and the streams. It never acts: each method
//! is a function of the module of its subject.

mod abuse_shown;
mod access;
mod asked;
mod nodes;
mod rollout;
mod secrets;
mod shown;
mod tenants;
mod usage;
mod usage_shown;

use std::sync::Arc;

use async_trait::async_trait;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use turnfleet_proto::operator as wire;
use wire::operator_server::{Operator, OperatorServer};

use super::actor::Actor;
use super::auth::Guard;
use super::events;
use super::fleet_service::bearer;
use super::serve::Caller;
use crate::fleet::record::Scope;
use crate::reconcile::Handle;
use crate::traces::Tracer;

/// The largest request.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;

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

/// What a text of a request says, where it says something.
fn given(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// A request of somebody who may ask it.
struct Call<'a, T> {
    handle: &'a Handle,
    tracer: &'a Tracer,
    actor: Actor,
    asked: T,
}

/// The service, of a table of its methods and of its streams. A row of the table gives what the token must open, the function
/// that answers, and its messages.
macro_rules! operator {
    (
        methods { $($scope:ident: $module:ident::$method:ident($request:ident) -> $answer:ident;)+ }
        streams { $($streams:tt)+ }
    ) => {
        #[async_trait]
        impl Operator for OperatorService {
            $(
                async fn $method(
                    &self,
                    request: Request<wire::$request>,
                ) -> Result<Response<wire::$answer>, Status> {
                    let actor = self.admit(&request, Scope::$scope)?;
                    let (handle, tracer) = (&self.handle, &self.tracer);
                    let asked = request.into_inner();
                    let answer = $module::$method(Call { handle, tracer, actor, asked });
                    Ok(Response::new(answer.await?))
                }
            )+

            $($streams)+
        }
    };
}

operator! {
    methods {
        Viewer: nodes::list_nodes(ListNodesRequest) -> ListNodesResponse;
        Viewer: nodes::show_node(NodeRequest) -> Node;
        Operator: nodes::drain_node(DrainNodeRequest) -> NodeChanged;
        Operator: nodes::undrain_node(NodeRequest) -> NodeChanged;
        Operator: nodes::forget_node(NodeRequest) -> NodeChanged;
        Operator: nodes::kill_node(NodeRequest) -> NodeChanged;
        Viewer: nodes::explain(ExplainRequest) -> Explanation;
        Viewer: nodes::show_capacity(CapacityRequest) -> Capacity;
        Viewer: rollout::show_rollout(ShowRolloutRequest) -> Rollout;
        Operator: rollout::force_rollout(ForceRolloutRequest) -> ForceRolloutResponse;
        Operator: rollout::confirm_restore(ConfirmRestoreRequest) -> ConfirmRestoreResponse;
        Viewer: secrets::list_secrets(ListSecretsRequest) -> ListSecretsResponse;
        Admin: secrets::rotate_secret(RotateSecretRequest) -> SecretChanged;
        Admin: secrets::pin_secret(PinSecretRequest) -> SecretChanged;
        Admin: secrets::unpin_secret(SecretRequest) -> SecretChanged;
        Admin: secrets::revoke_secret(RevokeSecretRequest) -> RevokeSecretResponse;
        Admin: access::list_join_tokens(ListJoinTokensRequest) -> ListJoinTokensResponse;
        Admin: access::create_join_token(CreateJoinTokenRequest) -> CreateJoinTokenResponse;
        Admin: access::revoke_join_token(RevokeJoinTokenRequest) -> RevokeJoinTokenResponse;
        Admin: access::list_tokens(ListTokensRequest) -> ListTokensResponse;
        Admin: access::create_token(CreateTokenRequest) -> CreateTokenResponse;
        Admin: access::revoke_token(RevokeTokenRequest) -> RevokeTokenResponse;
        Admin: access::list_audit(ListAuditRequest) -> ListAuditResponse;
        Viewer: usage::show_usage(UsageRequest) -> Usage;
        Viewer: usage::show_usage_history(UsageHistoryRequest) -> UsageHistory;
        Viewer: usage::show_top(TopRequest) -> Top;
        Viewer: usage::show_abuse(AbuseRequest) -> Abuse;
        Operator: usage::trace(TraceRequest) -> TraceResponse;
        Viewer: tenants::list_tenants(ListTenantsRequest) -> ListTenantsResponse;
        Viewer: tenants::show_tenant(TenantRequest) -> Tenant;
        Viewer: tenants::show_tenant_usage(TenantRequest) -> TenantUsage;
        Admin: tenants::set_tenant(SetTenantRequest) -> Tenant;
        Admin: tenants::remove_tenant(TenantRequest) -> RemoveTenantResponse;
        Viewer: tenants::list_bans(ListBansRequest) -> ListBansResponse;
        Operator: tenants::place_ban(PlaceBanRequest) -> Ban;
        Operator: tenants::lift_ban(LiftBanRequest) -> Ban;
    }
    streams {
        type WatchEventsStream = ReceiverStream<Result<wire::Event, Status>>;
        type WatchCapacityStream = ReceiverStream<Result<wire::Capacity, Status>>;

        async fn watch_capacity(
            &self,
            request: Request<wire::CapacityRequest>,
        ) -> Result<Response<Self::WatchCapacityStream>, Status> {
            self.admit(&request, Scope::Viewer)?;
            Ok(Response::new(nodes::watch_capacity(&self.handle)))
        }

        // A token that is bound to a tenant sees the events of that tenant.
        async fn watch_events(
            &self,
            request: Request<wire::WatchEventsRequest>,
        ) -> Result<Response<Self::WatchEventsStream>, Status> {
            let token = bearer(&request)?;
            let view = self.handle.view();
            let bearer = self.guard.admit(&view, Some(&token), Scope::Viewer)?;
            let (bus, tenant) = (self.handle.events(), bearer.tenant.as_deref());
            let stream = events::watch(bus, request.into_inner(), tenant)?;
            Ok(Response::new(stream))
        }
    }
}
