//! The operator's service by gRPC.

use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use turnfleet_proto::operator as wire;
use wire::operator_client::OperatorClient;

use crate::stage::{Stage, any_hello};

fn client(stage: &Stage) -> OperatorClient<Channel> {
    let address = stage.controller().grpc_address();
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    OperatorClient::new(stage.runtime.block_on(endpoint.connect()).unwrap())
}

fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let header: MetadataValue<_> = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", header);
    request
}

fn named(node: &str) -> wire::NodeRequest {
    wire::NodeRequest {
        node_id: node.to_owned(),
    }
}

fn token(name: &str, scope: &str) -> wire::CreateTokenRequest {
    wire::CreateTokenRequest {
        name: name.to_owned(),
        scopes: vec![scope.to_owned()],
        ..wire::CreateTokenRequest::default()
    }
}

#[test]
fn an_operator_does_by_grpc_what_http_does_and_it_is_written_down() {
    let stage = Stage::new();
    let _node = stage.node(any_hello("relay-0"));
    stage.wait_for("relay-0", |node| node.listed);
    let admin = stage.controller().api_token().to_owned();
    let mut client = client(&stage);
    stage.runtime.block_on(async {
        let made = client
            .create_token(with(&admin, token("night", "operator")))
            .await;
        let night = made.unwrap().into_inner().token;
        let nodes = client
            .list_nodes(with(&night, wire::ListNodesRequest {}))
            .await
            .unwrap();
        assert_eq!(nodes.into_inner().nodes[0].node_id, "relay-0");
        let drain = wire::DrainNodeRequest {
            node_id: "relay-0".to_owned(),
            deadline_seconds: Some(60),
        };
        client.drain_node(with(&night, drain)).await.unwrap();
        let node = client
            .show_node(with(&night, named("relay-0")))
            .await
            .unwrap();
        let node = node.into_inner();
        assert!(node.draining && node.drain_deadline > 0, "{node:?}");
        client
            .undrain_node(with(&night, named("relay-0")))
            .await
            .unwrap();
        let live = client
            .forget_node(with(&night, named("relay-0")))
            .await
            .unwrap_err();
        assert_eq!(live.code(), Code::FailedPrecondition);
        let audit = client
            .list_audit(with(&admin, wire::ListAuditRequest::default()))
            .await;
        let entries = audit.unwrap().into_inner().entries;
        let seen: Vec<_> = entries
            .iter()
            .map(|it| (it.by.as_str(), it.action.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                ("night", "undrain"),
                ("night", "drain"),
                ("turnfleet", "create token")
            ]
        );
        assert_eq!(
            (entries[1].detail.as_str(), entries[1].from.as_str()),
            ("deadline 60 s", "127.0.0.1")
        );
        let revoke = wire::RevokeTokenRequest {
            name: "night".to_owned(),
        };
        client.revoke_token(with(&admin, revoke)).await.unwrap();
        let refused = client
            .list_nodes(with(&night, wire::ListNodesRequest {}))
            .await;
        assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
    });
}

#[test]
fn a_call_without_the_scope_is_refused_and_a_bad_one_says_where() {
    let stage = Stage::new();
    let admin = stage.controller().api_token().to_owned();
    let mut client = client(&stage);
    stage.runtime.block_on(async {
        let viewer = client
            .create_token(with(&admin, token("viewer", "viewer")))
            .await;
        let viewer = viewer.unwrap().into_inner().token;
        let bound = wire::CreateTokenRequest {
            tenant: "acme".to_owned(),
            ..token("bound", "admin")
        };
        let bound = client
            .create_token(with(&admin, bound))
            .await
            .unwrap()
            .into_inner()
            .token;
        for (token, code) in [
            ("none", Code::Unauthenticated),
            (&viewer, Code::PermissionDenied),
            (&bound, Code::PermissionDenied),
        ] {
            let refused = [
                client
                    .undrain_node(with(token, named("relay-0")))
                    .await
                    .unwrap_err(),
                client
                    .forget_node(with(token, named("relay-0")))
                    .await
                    .unwrap_err(),
                client
                    .drain_node(with(token, wire::DrainNodeRequest::default()))
                    .await
                    .unwrap_err(),
                client
                    .create_token(with(token, self::token("x", "mint")))
                    .await
                    .unwrap_err(),
                client
                    .revoke_token(with(token, wire::RevokeTokenRequest::default()))
                    .await
                    .unwrap_err(),
                client
                    .list_tokens(with(token, wire::ListTokensRequest {}))
                    .await
                    .unwrap_err(),
                client
                    .list_audit(with(token, wire::ListAuditRequest::default()))
                    .await
                    .unwrap_err(),
            ];
            assert!(refused.iter().all(|it| it.code() == code), "{refused:?}");
        }
        let unknown = client
            .show_node(with(&viewer, named("relay-9")))
            .await
            .unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound);
        let root = client
            .create_token(with(&admin, token("x", "root")))
            .await
            .unwrap_err();
        assert_eq!(root.code(), Code::InvalidArgument);
        assert!(root.message().contains("request.scopes"), "{root}");
    });
}

#[test]
fn a_watch_tells_the_capacity_at_once_and_when_it_changes() {
    let stage = Stage::new();
    let admin = stage.controller().api_token().to_owned();
    let mut client = client(&stage);
    let mut watch = stage.runtime.block_on(async {
        client
            .watch_capacity(with(&admin, wire::CapacityRequest {}))
            .await
            .unwrap()
            .into_inner()
    });
    let mut nodes = || {
        let next = async { tokio::time::timeout(Duration::from_secs(10), watch.message()).await };
        let told = stage.runtime.block_on(next).unwrap().unwrap().unwrap();
        told.total.unwrap().nodes
    };
    assert_eq!(nodes(), 0);
    let _node = stage.node(any_hello("relay-0"));
    while nodes() == 0 {}
}

#[test]
fn secrets_lists_and_rollouts_are_seen_and_changed_by_grpc_too() {
    let stage = Stage::new();
    let _node = stage.node(any_hello("relay-0"));
    stage.wait_for("relay-0", |node| node.listed);
    let admin = stage.controller().api_token().to_owned();
    let mut client = client(&stage);
    stage.runtime.block_on(async {
        let made = client
            .create_token(with(&admin, token("day", "viewer")))
            .await;
        let day = made.unwrap().into_inner().token;
        let rotate = wire::RotateSecretRequest::default();
        let refused = client.rotate_secret(with(&day, rotate.clone())).await;
        assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
        let changed = client.rotate_secret(with(&admin, rotate)).await.unwrap();
        let id = changed.into_inner().id;
        let pinned = wire::PinSecretRequest {
            secret: "a secret of a homeserver".to_owned(),
            ..wire::PinSecretRequest::default()
        };
        let pinned = client.pin_secret(with(&admin, pinned)).await.unwrap();
        let pinned = pinned.into_inner().id;
        let listed = client
            .list_secrets(with(&day, wire::ListSecretsRequest {}))
            .await;
        let secrets = listed.unwrap().into_inner().secrets;
        let state = |id| secrets.iter().find(|it| it.id == id).unwrap().state.clone();
        assert!(["staged", "active"].contains(&state(id).as_str()));
        assert_eq!(state(pinned), "pinned");
        let revoke = wire::RevokeSecretRequest {
            id: pinned,
            ..wire::RevokeSecretRequest::default()
        };
        client.revoke_secret(with(&admin, revoke)).await.unwrap();

        let ask = wire::ExplainRequest {
            user: "alice".to_owned(),
            ..wire::ExplainRequest::default()
        };
        let explained = client.explain(with(&day, ask)).await.unwrap().into_inner();
        assert_eq!(explained.nodes[0].node_id, "relay-0");
        assert!(explained.nodes[0].gates.iter().any(|gate| gate.open));
        let rollout = client
            .show_rollout(with(&day, wire::ShowRolloutRequest {}))
            .await;
        assert_eq!(rollout.unwrap().into_inner().stage, "all");
        let force = wire::ForceRolloutRequest {};
        let refused = client.force_rollout(with(&admin, force)).await.unwrap_err();
        assert!(refused.message().contains("rollout"), "{refused}");
        let confirm = wire::ConfirmRestoreRequest {};
        let refused = client.confirm_restore(with(&admin, confirm)).await;
        assert_eq!(refused.unwrap_err().code(), Code::FailedPrecondition);
    });
}

#[test]
fn join_tokens_and_the_end_of_a_node_go_by_grpc_too() {
    let stage = Stage::new();
    let node = stage.node(any_hello("relay-0"));
    stage.wait_for("relay-0", |node| node.connected);
    let admin = stage.controller().api_token().to_owned();
    let mut client = client(&stage);
    let asked = wire::CreateJoinTokenRequest {
        name: "south".to_owned(),
        region: "south".to_owned(),
        ..wire::CreateJoinTokenRequest::default()
    };
    let made = client.create_join_token(with(&admin, asked));
    let made = stage.runtime.block_on(made).unwrap().into_inner();
    assert_eq!(made.described.unwrap().region, "south");
    stage.enroll_with("relay-1", &made.token).unwrap();
    stage.runtime.block_on(async {
        let listed = client
            .list_join_tokens(with(&admin, wire::ListJoinTokensRequest {}))
            .await;
        let tokens = listed.unwrap().into_inner().tokens;
        assert!(tokens.iter().any(|token| token.name == "south"));
        let revoke = || wire::RevokeJoinTokenRequest {
            name: "south".to_owned(),
        };
        client
            .revoke_join_token(with(&admin, revoke()))
            .await
            .unwrap();
        let again = client.revoke_join_token(with(&admin, revoke())).await;
        assert_eq!(again.unwrap_err().code(), Code::NotFound);
        client
            .kill_node(with(&admin, named("relay-0")))
            .await
            .unwrap();
        let unknown = client.kill_node(with(&admin, named("relay-9"))).await;
        assert_eq!(unknown.unwrap_err().code(), Code::NotFound);
    });
    drop(node);
    assert!(stage.enroll_with("relay-2", &made.token).is_err());
}

#[test]
fn tenants_are_by_grpc_what_they_are_by_http() {
    let stage = Stage::new();
    let admin = stage.controller().api_token().to_owned();
    let mut client = client(&stage);
    stage.runtime.block_on(async {
        let acme = wire::SetTenantRequest {
            name: "acme".to_owned(),
            realm: "acme.example".to_owned(),
            deny_peers: vec!["198.51.100.0/24".to_owned()],
            quotas: Some(wire::Quotas {
                allocations: 7,
                ..wire::Quotas::default()
            }),
            ..wire::SetTenantRequest::default()
        };
        let made = client.set_tenant(with(&admin, acme)).await.unwrap();
        let made = made.into_inner();
        assert_eq!((made.id, made.realm.as_str()), (1, "acme.example"));
        assert_eq!(made.quotas.unwrap().allocations, 7);
        let named = || wire::TenantRequest {
            name: "acme".to_owned(),
        };
        let shown = client.show_tenant(with(&admin, named())).await.unwrap();
        assert_eq!(shown.into_inner(), made);
        let all = client.list_tenants(with(&admin, wire::ListTenantsRequest {}));
        assert_eq!(all.await.unwrap().into_inner().tenants, [made]);

        client.remove_tenant(with(&admin, named())).await.unwrap();
        let gone = client.show_tenant(with(&admin, named())).await.unwrap_err();
        assert_eq!(gone.code(), Code::NotFound);
    });
}

#[test]
fn bans_are_by_grpc_what_they_are_by_http() {
    let stage = Stage::new();
    let admin = stage.controller().api_token().to_owned();
    let mut client = client(&stage);
    stage.runtime.block_on(async {
        let alice = wire::PlaceBanRequest {
            user: "alice".to_owned(),
            seconds: 60,
            ..wire::PlaceBanRequest::default()
        };
        let placed = client.place_ban(with(&admin, alice)).await.unwrap();
        let placed = placed.into_inner();
        assert_eq!(placed.until, placed.since + 60);
        let source = wire::PlaceBanRequest {
            source: "198.51.100.7".to_owned(),
            ..wire::PlaceBanRequest::default()
        };
        client.place_ban(with(&admin, source)).await.unwrap();
        let users = wire::ListBansRequest {
            kind: "user".to_owned(),
            ..wire::ListBansRequest::default()
        };
        let users = client.list_bans(with(&admin, users)).await.unwrap();
        let users = users.into_inner();
        assert_eq!(
            (users.bans.as_slice(), users.total),
            (&[placed.clone()][..], 2)
        );
        let by_id = wire::LiftBanRequest {
            id: placed.id[..8].to_owned(),
            ..wire::LiftBanRequest::default()
        };
        let lifted = client.lift_ban(with(&admin, by_id)).await.unwrap();
        assert_eq!(lifted.into_inner(), placed);
        let by_source = || wire::LiftBanRequest {
            source: "198.51.100.7".to_owned(),
            ..wire::LiftBanRequest::default()
        };
        client.lift_ban(with(&admin, by_source())).await.unwrap();
        let gone = client
            .lift_ban(with(&admin, by_source()))
            .await
            .unwrap_err();
        assert_eq!(gone.code(), Code::NotFound);
        let wide = wire::PlaceBanRequest {
            source: "0.0.0.0/0".to_owned(),
            ..wire::PlaceBanRequest::default()
        };
        let refused = client.place_ban(with(&admin, wide)).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
    });
}
