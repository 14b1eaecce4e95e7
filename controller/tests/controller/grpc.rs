//! `RelayControl` over real sockets.

use std::time::Duration;

use tonic::Code;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use turnfleet_controller::config::{ProbeMode, RawTls};
use turnfleet_proto::fleet::controller_message::Message as Down;
use turnfleet_proto::fleet::node_message::Message as Up;
use turnfleet_proto::fleet::relay_control_client::RelayControlClient;
use turnfleet_proto::fleet::{Goodbye, Heartbeat, Hello};

use crate::stage::{Node, Stage, any_hello};

#[track_caller]
fn refused(stage: &Stage, node: &mut Node) -> Code {
    loop {
        match stage.runtime.block_on(node.hear()) {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the session ended without a status"),
            Err(status) => return status.code(),
        }
    }
}

#[test]
fn a_join_token_opens_the_fleet_and_nothing_else_does() {
    let stage = Stage::new();
    assert!(stage.enroll("relay-0").is_ok());
    let wrong = stage.enroll_with("relay-1", "not-the-join-token-of-this-fleet");
    assert_eq!(wrong.unwrap_err().code(), Code::Unauthenticated);
    let empty = stage.enroll_with("relay-1", "");
    assert_eq!(empty.unwrap_err().code(), Code::Unauthenticated);
    let misnamed = stage.enroll("Relay 0/..");
    assert_eq!(misnamed.unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn a_session_begins_with_the_whole_policy() {
    let stage = Stage::new();
    let node = stage.node(any_hello("relay-0"));
    let snapshot = node.snapshot.unwrap();
    assert_eq!(snapshot.realm, "turnfleet.local");
    assert!(!snapshot.secrets.is_empty() && !snapshot.nonce_keys.is_empty());
    assert_eq!(snapshot.port_grants[0].public_ip, "192.0.2.1");
}

#[test]
fn one_connection_carries_the_sessions_of_many_nodes() {
    let stage = Stage::new();
    let client = stage.client();
    let mut nodes = Vec::new();
    for number in 0..20 {
        let mut hello = any_hello(&format!("relay-{number}"));
        hello.public_ips = vec![format!("192.0.2.{number}")];
        let credential = stage.enroll(&hello.node_id).unwrap();
        let opened = Node::open(client.clone(), &credential, hello);
        let opened = async { tokio::time::timeout(Duration::from_secs(10), opened).await };
        let mut node = stage.runtime.block_on(opened).expect("a session in time");
        stage.runtime.block_on(node.settle());
        nodes.push(node);
    }
    stage.wait_for("relay-19", |node| node.connected);
    assert_eq!(stage.controller().view().nodes.len(), nodes.len());
}

#[test]
fn a_stranger_has_no_session() {
    let stage = Stage::new();
    let mut stranger = stage.session("made-up", any_hello("relay-0"));
    assert_eq!(refused(&stage, &mut stranger), Code::Unauthenticated);
}

#[test]
fn a_credential_is_good_for_its_own_node_only() {
    let stage = Stage::new();
    let credential = stage.enroll("relay-0").unwrap();
    stage.enroll("relay-1").unwrap();
    let mut other = stage.session(&credential, any_hello("relay-1"));
    assert_eq!(refused(&stage, &mut other), Code::PermissionDenied);
}

#[test]
fn a_hello_that_cannot_be_used_is_refused() {
    let stage = Stage::new();
    let credential = stage.enroll("relay-0").unwrap();
    let hello = Hello {
        incarnation: vec![1; 3],
        ..any_hello("relay-0")
    };
    let mut node = stage.session(&credential, hello);
    assert_eq!(refused(&stage, &mut node), Code::InvalidArgument);
}

#[test]
fn a_broken_session_takes_the_node_out_of_lists() {
    let stage = Stage::new();
    let node = stage.node(any_hello("relay-0"));
    stage.wait_for("relay-0", |node| node.listed);
    drop(node);
    stage.wait_for("relay-0", |node| !node.listed && !node.connected);
}

#[test]
fn a_goodbye_ends_the_session() {
    let stage = Stage::new();
    let mut node = stage.node(any_hello("relay-0"));
    stage.wait_for("relay-0", |node| node.listed);
    stage.runtime.block_on(async {
        let goodbye = Goodbye {
            reason: "stopping".to_owned(),
        };
        node.say(Up::Goodbye(goodbye)).await;
        while let Ok(Some(_)) = node.hear().await {}
    });
    stage.wait_for("relay-0", |node| !node.listed);
}

#[test]
fn a_later_session_of_the_same_node_replaces_the_earlier() {
    let stage = Stage::new();
    let credential = stage.enroll("relay-0").unwrap();
    let mut earlier = stage.session(&credential, any_hello("relay-0"));
    stage.runtime.block_on(earlier.settle());
    let restarted = Hello {
        incarnation: vec![8; 16],
        ..any_hello("relay-0")
    };
    let mut later = stage.session(&credential, restarted);
    stage.runtime.block_on(later.settle());
    assert_eq!(refused(&stage, &mut earlier), Code::Aborted);
    stage.wait_for("relay-0", |node| {
        node.listed && node.incarnation == Some([8; 16])
    });
}

#[test]
fn a_flood_of_messages_ends_the_session() {
    let stage = Stage::new();
    let mut node = stage.node(any_hello("relay-0"));
    stage
        .runtime
        .block_on(async { while node.is_heard(Up::Heartbeat(Heartbeat::default())).await {} });
    assert_eq!(refused(&stage, &mut node), Code::ResourceExhausted);
}

#[test]
fn sessions_run_over_tls_and_not_beside_it() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = tempfile::tempdir().unwrap();
    let (certificate, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let stage = Stage::with(|raw| {
        raw.probe.mode = ProbeMode::Off;
        raw.grpc.tls = Some(RawTls { certificate, key });
    });
    let port = stage.controller().grpc_address().port();
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(made.cert.pem()));
    stage.runtime.block_on(async {
        let endpoint = Endpoint::from_shared(format!("https://localhost:{port}")).unwrap();
        let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
        let mut client = RelayControlClient::new(channel);
        let enrolment = turnfleet_proto::fleet::EnrollRequest {
            join_token: stage.controller().join_token().to_owned(),
            node_id: "relay-0".to_owned(),
        };
        let credential = client.enroll(enrolment).await.unwrap().into_inner();
        let credential = credential.node_credential;
        let mut node = Node::open(client, &credential, any_hello("relay-0")).await;
        assert!(matches!(node.hear().await, Ok(Some(Down::Snapshot(_)))));
    });
    let plain = Endpoint::from_shared(format!("http://localhost:{port}")).unwrap();
    let call = stage.runtime.block_on(async {
        let mut client = RelayControlClient::new(plain.connect_lazy());
        client
            .enroll(turnfleet_proto::fleet::EnrollRequest::default())
            .await
    });
    assert!(call.is_err());
}
