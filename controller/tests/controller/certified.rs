//! Relays that are members by their certificates: real certificates, over TLS.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType, date_time_ymd};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};
use turnfleet_controller::config::{Config, ProbeMode, RawConfig, RawTls};
use turnfleet_controller::fleet::record::SecretScope;
use turnfleet_proto::credentials::SharedSecret;
use turnfleet_proto::fleet::EnrollRequest;
use turnfleet_proto::fleet::relay_control_client::RelayControlClient;
use turnfleet_proto::operator::ListNodesRequest;
use turnfleet_proto::operator::operator_client::OperatorClient;
use turnfleet_relay::config as relay;

use crate::authority::Authority;
use crate::stage::{Node, Stage, any_hello};

/// Longer than the longest pause between two attempts of a relay, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

fn named(node: &str) -> String {
    format!("spiffe://example.org/turnfleet/region/eu/relay/{node}")
}

fn as_made(_: &mut CertificateParams) {}

fn ended(params: &mut CertificateParams) {
    params.not_after = date_time_ymd(2020, 1, 1);
}

/// A controller whose relays are signed for by `authority`.
fn stage_with(authority: &Authority, change: impl FnOnce(&mut RawConfig)) -> Stage {
    authority.sign("localhost");
    Stage::with(|raw| {
        raw.probe.mode = ProbeMode::Off;
        raw.grpc.tls = Some(RawTls {
            certificate: authority.file("localhost.pem"),
            key: authority.file("localhost.key"),
        });
        raw.grpc.client_ca = Some(authority.file("ca.pem"));
        change(raw);
    })
}

/// A connection that shows the certificate `name` of `by`, or none.
fn connect(stage: &Stage, server: &Authority, shown: Option<(&Authority, &str)>) -> Channel {
    let read = |file: PathBuf| fs::read(file).unwrap();
    let ca = Certificate::from_pem(read(server.file("ca.pem")));
    let mut tls = ClientTlsConfig::new().ca_certificate(ca);
    if let Some((by, name)) = shown {
        let certificate = read(by.file(&format!("{name}.pem")));
        let key = read(by.file(&format!("{name}.key")));
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    let port = stage.controller().grpc_address().port();
    let endpoint = Endpoint::from_shared(format!("https://localhost:{port}")).unwrap();
    let connecting = async { endpoint.tls_config(tls).unwrap().connect().await };
    stage.runtime.block_on(connecting).unwrap()
}

fn enroll(stage: &Stage, by: &Channel, node: &str, join_token: &str) -> Result<String, Status> {
    let request = EnrollRequest {
        join_token: join_token.to_owned(),
        node_id: node.to_owned(),
    };
    let mut client = RelayControlClient::new(by.clone());
    let answer = stage.runtime.block_on(client.enroll(request))?;
    Ok(answer.into_inner().node_credential)
}

/// What the controller says to a session of `node` by this connection.
fn session(stage: &Stage, by: &Channel, credential: &str, node: &str) -> Result<Node, Status> {
    stage.runtime.block_on(async {
        let client = RelayControlClient::new(by.clone());
        let mut opened = Node::try_open(client, credential, any_hello(node)).await?;
        opened.try_settle().await?;
        Ok(opened)
    })
}

#[track_caller]
fn refused<T>(answer: Result<T, Status>, code: Code, reason: &str) {
    let status = answer.map(drop).unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(reason), "{status}");
}

#[test]
fn a_certificate_makes_a_member_of_its_region_and_nothing_else() {
    let authority = Authority::new();
    let stage = stage_with(&authority, |_| {});
    authority.sign_client("relay-1", &named("relay-1"), as_made);
    let by = connect(&stage, &authority, Some((&authority, "relay-1")));
    refused(
        enroll(&stage, &by, "relay-2", ""),
        Code::PermissionDenied,
        "relay-1",
    );
    let credential = enroll(&stage, &by, "relay-1", "").unwrap();
    assert_ne!(any_hello("relay-1").region, "eu");
    let node = session(&stage, &by, &credential, "relay-1").unwrap();
    let seen = stage.wait_for("relay-1", |node| node.connected);
    assert_eq!(seen.identity.region, "eu");

    // Nobody else's credential helps it.
    let plain = connect(&stage, &authority, None);
    let others = stage.controller().join_token().to_owned();
    let others = enroll(&stage, &plain, "relay-2", &others).unwrap();
    let stolen = session(&stage, &by, &others, "relay-2");
    refused(stolen, Code::PermissionDenied, "relay-1");

    let mut operator = OperatorClient::new(by);
    let asked = operator.list_nodes(ListNodesRequest {});
    refused(stage.runtime.block_on(asked), Code::Unauthenticated, "");

    // A later certificate of the same relay says where and whose it is from then on.
    drop(node);
    let scope = SecretScope::Tenant("acme".into());
    let secret = SharedSecret::new("a secret of acme's own");
    let rotation = stage.controller().handle().change(move |fleet, now| {
        let (_, plan) = fleet.plan_rotation(now.unix, &scope, &secret)?;
        Ok(plan)
    });
    stage.runtime.block_on(rotation).unwrap();
    let moved = "spiffe://example.org/turnfleet/region/us/tenant/acme/relay/relay-1";
    authority.sign_client("moved", moved, as_made);
    let by = connect(&stage, &authority, Some((&authority, "moved")));
    let node = session(&stage, &by, &credential, "relay-1").unwrap();
    assert_eq!(node.snapshot.as_ref().unwrap().secrets.len(), 2);
    let seen = stage.wait_for("relay-1", |node| {
        node.connected && node.identity.region == "us"
    });
    assert_eq!(seen.tenant.as_deref(), Some("acme"));
}

#[test]
fn a_member_by_its_certificate_is_nobody_without_it() {
    let authority = Authority::new();
    let stage = stage_with(&authority, |_| {});
    authority.sign_client("relay-1", &named("relay-1"), as_made);
    let by = connect(&stage, &authority, Some((&authority, "relay-1")));
    let credential = enroll(&stage, &by, "relay-1", "").unwrap();
    let plain = connect(&stage, &authority, None);
    let stolen = session(&stage, &plain, &credential, "relay-1");
    refused(stolen, Code::PermissionDenied, "shows none");
    let token = stage.controller().join_token().to_owned();
    let taken = enroll(&stage, &plain, "relay-1", &token);
    refused(taken, Code::PermissionDenied, "fleet forget relay-1");
    refused(
        enroll(&stage, &plain, "relay-3", ""),
        Code::Unauthenticated,
        "neither a join token",
    );

    // A relay that lost its folder comes back by its certificate, though the controller thinks that it is there.
    let _node = session(&stage, &by, &credential, "relay-1").unwrap();
    let another = enroll(&stage, &by, "relay-1", "").unwrap();
    session(&stage, &by, &another, "relay-1").unwrap();
}

#[test]
fn a_certificate_that_is_no_good_is_told_why() {
    let authority = Authority::new();
    let stage = stage_with(&authority, |_| {});
    let token = stage.controller().join_token().to_owned();
    let told = |by: &Authority, uri: &str, change: fn(&mut CertificateParams), reason: &str| {
        by.sign_client("bad", uri, change);
        let shown = connect(&stage, &authority, Some((by, "bad")));
        // No join token makes up for it.
        refused(
            enroll(&stage, &shown, "relay-1", &token),
            Code::Unauthenticated,
            reason,
        );
        refused(
            session(&stage, &shown, "credential", "relay-1"),
            Code::Unauthenticated,
            reason,
        );
    };
    let name = named("relay-1");
    told(&Authority::new(), &name, as_made, "grpc.client_ca");
    told(&authority, &name, ended, "it has expired");
    let early = |params: &mut CertificateParams| params.not_before = date_time_ymd(4000, 1, 1);
    told(&authority, &name, early, "not valid yet");
    let server = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    told(&authority, &name, server, "clientAuth");
    told(
        &authority,
        "spiffe://example.org/relay-1",
        as_made,
        "region/REGION/relay/NODE_ID",
    );
    let no_uri = |params: &mut CertificateParams| {
        params.subject_alt_names = vec![SanType::DnsName("relay-1".try_into().unwrap())];
    };
    told(&authority, &name, no_uri, "it holds no URI");
    let two = |params: &mut CertificateParams| {
        let uri = named("relay-2").as_str().try_into().unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
    };
    told(&authority, &name, two, "more than one URI");
}

#[test]
fn a_controller_may_take_nobody_without_a_certificate() {
    let authority = Authority::new();
    let stage = stage_with(&authority, |raw| raw.grpc.require_relay_certificate = true);
    let token = stage.controller().join_token().to_owned();
    let plain = connect(&stage, &authority, None);
    let key = "grpc.require_relay_certificate";
    refused(
        enroll(&stage, &plain, "relay-1", &token),
        Code::Unauthenticated,
        key,
    );
    refused(
        session(&stage, &plain, "credential", "relay-1"),
        Code::Unauthenticated,
        key,
    );
    authority.sign_client("relay-1", &named("relay-1"), as_made);
    let by = connect(&stage, &authority, Some((&authority, "relay-1")));
    enroll(&stage, &by, "relay-1", "").unwrap();
}

#[test]
fn another_authority_is_taken_without_a_restart() {
    let (first, second) = (Authority::new(), Authority::new());
    fs::copy(first.file("ca.pem"), first.file("relays.pem")).unwrap();
    let stage = stage_with(&first, |raw| {
        raw.grpc.client_ca = Some(first.file("relays.pem"))
    });
    second.sign_client("relay-1", &named("relay-1"), as_made);
    let enrolled = || {
        let by = connect(&stage, &first, Some((&second, "relay-1")));
        enroll(&stage, &by, "relay-1", "")
    };
    refused(enrolled(), Code::Unauthenticated, "no known authority");
    let both =
        [first.file("ca.pem"), second.file("ca.pem")].map(|file| fs::read_to_string(file).unwrap());
    fs::write(first.file("relays.pem"), "no authority").unwrap();
    fs::write(first.file("relays.next"), both.concat()).unwrap();
    fs::rename(first.file("relays.next"), first.file("relays.pem")).unwrap();
    stage.within("the second authority", || enrolled().is_ok());
}

#[test]
fn the_authority_of_relays_is_checked_before_the_start() {
    let authority = Authority::new();
    let mut raw = RawConfig::default();
    raw.grpc.client_ca = Some(authority.file("ca.pem"));
    let expected = |raw: &RawConfig| Config::try_from(raw.clone()).unwrap_err().to_string();
    assert!(expected(&raw).contains("grpc.tls"), "{}", expected(&raw));
    raw.grpc.client_ca = None;
    raw.grpc.require_relay_certificate = true;
    assert!(
        expected(&raw).contains("grpc.client_ca"),
        "{}",
        expected(&raw)
    );
}

/// The configuration of a relay that shows `shown.pem`, with as many listeners.
fn relay_config(dir: &Path, authority: &Authority, port: u16, listeners: usize) -> relay::Config {
    let listener = relay::RawListener {
        transport: "udp".into(),
        address: "127.0.0.1:0".into(),
        ..relay::RawListener::default()
    };
    let mut raw = relay::RawConfig {
        node_id: "relay-1".into(),
        region: "elsewhere".into(),
        state_dir: dir.to_str().unwrap().into(),
        listeners: vec![listener; listeners],
        shards: 1,
        ..relay::RawConfig::default()
    };
    raw.metrics.address.clear();
    raw.controller.endpoints = vec![format!("https://localhost:{port}")];
    raw.controller.ca = authority.text("ca.pem");
    raw.controller.certificate = authority.text("shown.pem");
    raw.controller.key = authority.text("shown.key");
    relay::Config::try_from(raw).unwrap()
}

fn answers_a_binding_request(server: SocketAddr) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut request = [0; 20];
    request[1] = 0x01;
    request[4..8].copy_from_slice(&[0x21, 0x12, 0xA4, 0x42]);
    socket.send_to(&request, server).unwrap();
    let mut answer = [0; 100];
    let received = socket.recv(&mut answer);
    received.is_ok_and(|_| answer[..2] == [0x01, 0x01])
}

#[test]
fn a_relay_takes_its_renewed_certificate_without_a_restart_and_serves_meanwhile() {
    let authority = Authority::new();
    let stage = stage_with(&authority, |_| {});
    let port = stage.controller().grpc_address().port();
    let dir = tempfile::tempdir().unwrap();
    let config = |listeners| relay_config(dir.path(), &authority, port, listeners);
    authority.sign_client("shown", &named("relay-1"), as_made);
    let node = turnfleet_relay::Node::start(config(1));
    let node = stage.runtime.block_on(node).unwrap();
    let until = |what: &str, holds: &dyn Fn() -> bool| {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "never came: {what}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    };
    until("a session by certificate", &|| {
        node.status().connected && node.is_ready()
    });
    let seen = stage.wait_for("relay-1", |node| node.connected);
    assert_eq!(seen.identity.region, "eu");

    authority.sign_client("shown", &named("relay-1"), ended);
    let runtime = stage.runtime.enter();
    // A node that listens elsewhere opens another session.
    node.reload(&config(2)).unwrap();
    let refused = "turnfleet_relay_control_state{state=\"refused\"} 1";
    until("a refusal", &|| node.render_metrics().contains(refused));
    assert!(answers_a_binding_request(node.listeners()[0].address));

    authority.sign_client("shown", &named("relay-1"), as_made);
    until("a session by the renewed one", &|| node.status().connected);
    drop(runtime);
    stage.runtime.block_on(node.stop());
}
