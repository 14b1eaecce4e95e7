//! etcd with TLS, client certificates, users and a role of one prefix: the controller starts with what is right, and says which
//! key of the configuration is wrong. While etcd is away it says that it lives and waits.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use turnfleet_controller::Controller;
use turnfleet_controller::config::{Config, ProbeMode, RawConfig, RawEtcd};

use crate::authority::Authority;
use crate::cluster::Cluster;

/// Longer than a start takes on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// The arguments of a member that speaks TLS.
fn arguments(authority: &Authority) -> Vec<String> {
    authority.sign("member");
    let (certificate, key) = (authority.text("member.pem"), authority.text("member.key"));
    ["--cert-file", &certificate, "--key-file", &key]
        .map(str::to_owned)
        .to_vec()
}

fn by_tls(authority: &Authority, cluster: &Cluster) -> RawEtcd {
    RawEtcd {
        ca: Some(authority.file("ca.pem")),
        ..plain(cluster)
    }
}

fn plain(cluster: &Cluster) -> RawEtcd {
    RawEtcd {
        endpoints: cluster.endpoints().to_vec(),
        ..RawEtcd::default()
    }
}

fn config(dir: &Path, etcd: RawEtcd) -> Config {
    let mut raw = RawConfig {
        id: Some("first".into()),
        state_dir: dir.to_owned(),
        ..RawConfig::default()
    };
    raw.http.address = "127.0.0.1:0".to_owned();
    raw.grpc.address = "127.0.0.1:0".to_owned();
    raw.probe.mode = ProbeMode::Off;
    raw.store.key_file = Some(dir.join("store.key"));
    raw.store.etcd = Some(etcd);
    Config::try_from(raw).unwrap()
}

async fn start(etcd: RawEtcd) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let starting = Controller::start(config(dir.path(), etcd));
    let started = tokio::time::timeout(PATIENCE, starting).await;
    let started = started.expect("it starts, or says why not");
    let controller = started.map_err(|error| {
        let mut text = error.to_string();
        let mut next = std::error::Error::source(&error);
        while let Some(error) = next {
            text = format!("{text}: {error}");
            next = error.source();
        }
        text
    })?;
    assert!(!controller.api_token().is_empty());
    controller.stop().await;
    Ok(())
}

async fn starts(etcd: RawEtcd) {
    start(etcd).await.unwrap();
}

async fn is_told(etcd: RawEtcd, key: &str) {
    let told = start(etcd).await.unwrap_err();
    assert!(told.contains(key), "{key}: {told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_with_tls_is_held_to_its_authority() {
    let authority = Authority::new();
    let launched = Cluster::launch("https", 1, &arguments(&authority)).await;
    let Some(cluster) = launched else {
        return;
    };
    let right = by_tls(&authority, &cluster);
    cluster
        .ready(
            &config(authority.dir.path(), right.clone())
                .store
                .etcd
                .unwrap(),
        )
        .await;
    starts(right.clone()).await;
    let other = RawEtcd {
        ca: Some(Authority::new().dir.keep().join("ca.pem")),
        ..right.clone()
    };
    is_told(other, "(store.etcd.ca)").await;
    let unnamed = right
        .endpoints
        .iter()
        .map(|url| url.replace("127.0.0.1", "localhost"));
    let unnamed = RawEtcd {
        endpoints: unnamed.collect(),
        ..right
    };
    is_told(unnamed, "(store.etcd.endpoints)").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_asks_for_client_certificates_gets_the_right_one() {
    let authority = Authority::new();
    let mut asking = arguments(&authority);
    let trusted = authority.text("ca.pem");
    asking.extend(["--client-cert-auth", "--trusted-ca-file", &trusted].map(str::to_owned));
    let Some(cluster) = Cluster::launch("https", 1, &asking).await else {
        return;
    };
    let shown = |by: &Authority| {
        by.sign("controller");
        RawEtcd {
            certificate: Some(by.file("controller.pem")),
            key: Some(by.file("controller.key")),
            ..by_tls(&authority, &cluster)
        }
    };
    let right = shown(&authority);
    cluster
        .ready(
            &config(authority.dir.path(), right.clone())
                .store
                .etcd
                .unwrap(),
        )
        .await;
    starts(right).await;
    is_told(by_tls(&authority, &cluster), "(store.etcd.certificate)").await;
    is_told(shown(&Authority::new()), "(store.etcd.certificate)").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_with_users_asks_for_the_prefix_and_nothing_else() {
    let cheap = ["--bcrypt-cost", "4"].map(str::to_owned);
    let Some(mut cluster) = Cluster::launch("http", 1, &cheap).await else {
        return;
    };
    cluster.ready(&cluster.config()).await;
    let as_user = |user: &str, password: &str| RawEtcd {
        user: Some(user.into()),
        password: Some(password.into()),
        ..plain(&cluster)
    };
    let [right, wrong, reader, stranger] = [
        as_user("turnfleet", "word"),
        as_user("turnfleet", "guess"),
        as_user("reader", "word"),
        as_user("stranger", "word"),
    ];
    is_told(right.clone(), "(store.etcd.user)").await;
    for command in [
        "user add root:word",
        "user grant-role root root",
        "role add turnfleet",
        "role grant-permission turnfleet readwrite --prefix=true /tf/",
        "user add turnfleet:word",
        "user grant-role turnfleet turnfleet",
        "role add reader",
        "role grant-permission reader read --prefix=true /tf/",
        "user add reader:word",
        "user grant-role reader reader",
        "user add stranger:word",
        "auth enable",
    ] {
        cluster.ctl(&command.split(' ').collect::<Vec<_>>());
    }
    is_told(plain(&cluster), "(store.etcd.user)").await;
    is_told(wrong, "(store.etcd.password)").await;
    is_told(stranger, "readwrite --prefix=true /tf/").await;
    is_told(reader, "readwrite --prefix=true /tf/").await;
    starts(right).await;
    // Nothing was written beside the prefix.
    cluster.client_arguments = vec!["--user".into(), "root:word".into()];
    let keys = cluster.ctl(&["get", "", "--prefix", "--keys-only"]);
    let keys: Vec<_> = keys.lines().filter(|key| !key.is_empty()).collect();
    assert!(keys.len() > 5, "{keys:?}");
    assert!(keys.iter().all(|key| key.starts_with("/tf/")), "{keys:?}");
}

/// Status and body of an HTTP request; `None` where nobody answers.
async fn ask(port: u16, path: &str) -> Option<(u16, String)> {
    let url = format!("http://127.0.0.1:{port}{path}");
    let asking = tokio::task::spawn_blocking(move || {
        let agent = ureq::Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false);
        let mut response = agent.build().new_agent().get(url).call().ok()?;
        let body = response.body_mut().read_to_string().ok()?;
        Some((response.status().as_u16(), body))
    });
    asking.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_waits_for_etcd_says_that_it_lives_and_is_not_ready() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    cluster.kill_all();
    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = held.local_addr().unwrap().port();
    drop(held);
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), plain(&cluster));
    config.http.address.set_port(port);
    let starting = tokio::time::timeout(PATIENCE, Controller::start(config));
    let asking = async {
        let begun = Instant::now();
        let live = loop {
            if let Some(answer) = ask(port, "/livez").await {
                break answer;
            }
            assert!(begun.elapsed() < PATIENCE, "nobody answers");
        };
        assert_eq!(live, (200, r#"{"alive":true}"#.to_owned()));
        for path in ["/readyz", "/v1/nodes"] {
            let (status, body) = ask(port, path).await.unwrap();
            assert_eq!(status, 503, "{body}");
            assert!(body.contains("waits until its store answers"), "{body}");
        }
        cluster.restart_all();
    };
    let (started, ()) = tokio::join!(starting, asking);
    let controller = started.unwrap().unwrap();
    let ready = ask(port, "/readyz").await.unwrap();
    assert_eq!(
        ready,
        (200, r#"{"ready":true,"nodes_listed":0}"#.to_owned())
    );
    controller.stop().await;
}
