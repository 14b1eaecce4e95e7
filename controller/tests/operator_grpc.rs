//! The operator's service by gRPC.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod stage;

use std::time::Duration;

use stage::{Stage, any_hello};
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use turnfleet_proto::operator as wire;
use wire::operator_client::OperatorClient;

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
        assert!(node.into_inner().draining);
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
