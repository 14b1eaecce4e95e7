//! The secrets of the HTTP API, with nodes that acknowledge what they are sent.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use turnfleet_proto::fleet::controller_message::Message as Down;
use turnfleet_proto::fleet::node_message::Message as Up;
use turnfleet_proto::fleet::{Heartbeat, PolicyStatus, SecretUse, Snapshot};

use crate::stage::{Node, Stage, any_hello};

/// Longer than anything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(10);
const VIEWER: &str = "a token that may look at things";
const GIVEN: &str = "a secret that the operator has made";

fn staged() -> Stage {
    Stage::with(|raw| {
        raw.probe.mode = turnfleet_controller::config::ProbeMode::Off;
        raw.shared_secret = Some("the configured secret".into());
        raw.api_tokens = vec![turnfleet_controller::config::RawApiToken {
            name: "viewer".into(),
            token: Some(VIEWER.into()),
            token_file: None,
            scopes: vec!["viewer".into()],
            tenant: None,
        }];
    })
}

/// Status and body.
fn ask(stage: &Stage, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
    let agent = ureq::Agent::config_builder()
        .proxy(None)
        .http_status_as_error(false);
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let request = http::Request::builder()
        .method(method)
        .uri(stage.url(path))
        .header("Authorization", token)
        .body(body)
        .unwrap();
    let mut response = agent.build().new_agent().run(request).unwrap();
    let body = response.body_mut().read_to_string().unwrap();
    for secret in [GIVEN, "the configured secret"] {
        assert!(!body.contains(secret), "{body}");
    }
    let status = response.status().as_u16();
    (status, serde_json::from_str(&body).unwrap())
}

#[track_caller]
fn post(stage: &Stage, path: &str, body: &Value) -> Value {
    let (status, answer) = ask(stage, "POST", path, &stage.admin(), body);
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

#[track_caller]
fn refused(stage: &Stage, path: &str, body: &Value) -> (u16, String) {
    let (status, answer) = ask(stage, "POST", path, &stage.admin(), body);
    let place = answer["error"]["where"].as_str().unwrap().to_owned();
    (status, place)
}

fn list(stage: &Stage) -> Vec<Value> {
    let (status, answer) = ask(
        stage,
        "GET",
        "/v1/secrets",
        &format!("Bearer {VIEWER}"),
        &Value::Null,
    );
    assert_eq!(status, 200);
    answer["secrets"].as_array().unwrap().clone()
}

/// Waits until the secret `id` is in this state.
#[track_caller]
fn wait_for(stage: &Stage, id: u64, state: &str) {
    let deadline = Instant::now() + PATIENCE;
    let is_there = || {
        list(stage)
            .iter()
            .any(|it| it["id"] == id && it["state"] == state)
    };
    while !is_there() {
        assert!(Instant::now() < deadline, "{:?}", list(stage));
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Hears the next snapshot, and says that it is applied.
async fn acknowledge(node: &mut Node) -> Snapshot {
    loop {
        if let Some(Down::Snapshot(snapshot)) = node.hear().await.unwrap() {
            let generation = snapshot.generation;
            node.say(Up::PolicyStatus(PolicyStatus {
                generation,
                applied: true,
                error: String::new(),
                running_generation: generation,
                ..PolicyStatus::default()
            }))
            .await;
            return snapshot;
        }
    }
}

#[test]
fn a_rotation_is_through_when_the_relay_has_said_so() {
    let stage = staged();
    let mut node = stage.node(any_hello("relay-0"));
    stage.wait_for("relay-0", |node| node.listed);
    let staged = post(&stage, "/v1/secrets/rotate", &json!({ "secret": GIVEN }));
    assert_eq!(staged["id"], 2);
    wait_for(&stage, 2, "staged");
    assert_eq!(
        stage.controller().shared_secret().as_bytes(),
        b"the configured secret"
    );
    assert_eq!(
        refused(&stage, "/v1/secrets/rotate", &Value::Null),
        (409, "secret".to_owned())
    );
    let snapshot = stage.runtime.block_on(acknowledge(&mut node));
    let ids: Vec<_> = snapshot.secrets.iter().map(|it| it.id).collect();
    assert_eq!(ids, [1, 2]);
    wait_for(&stage, 2, "active");
    assert_eq!(
        stage.controller().shared_secret().as_bytes(),
        GIVEN.as_bytes()
    );
    let snapshot = stage.runtime.block_on(acknowledge(&mut node));
    let ids: Vec<_> = snapshot.secrets.iter().map(|it| it.id).collect();
    assert_eq!(ids, [2, 1]);
    let retiring = &list(&stage)[0];
    assert_eq!(
        (&retiring["state"], &retiring["minted"]),
        (&json!("retiring"), &json!(false))
    );
}

#[test]
fn a_region_without_relays_is_warned_of() {
    let stage = staged();
    let node = stage.node(any_hello("relay-0"));
    stage.wait_for("relay-0", |node| node.listed);
    let region = stage.controller().view().nodes[0].identity.region.clone();
    for (id, path) in [(2, "/v1/secrets/rotate"), (4, "/v1/secrets/pin")] {
        let body = |region: &str| json!({ "scope": format!("region:{region}"), "secret": format!("{GIVEN}, {id}") });
        let there = post(&stage, path, &body(&region));
        assert_eq!(there, json!({ "id": id, "warning": null }));
        let misspelt = format!("{region}x-{id}");
        let warned = post(&stage, path, &body(&misspelt));
        let warning = format!("no relay is in the region {misspelt}; there are relays in {region}");
        assert_eq!(warned, json!({ "id": id + 1, "warning": warning }));
    }
    drop(node);
}

#[test]
fn what_is_minted_with_is_revoked_with_a_replacement_only() {
    let stage = staged();
    let mut node = stage.node(any_hello("relay-0"));
    assert_eq!(
        refused(&stage, "/v1/secrets/1/revoke", &Value::Null),
        (409, "secret".to_owned())
    );
    let revoked = post(
        &stage,
        "/v1/secrets/1/revoke",
        &json!({ "cut": true, "replace": true }),
    );
    assert_eq!(revoked, json!({ "id": 1, "replaced_by": 2 }));
    let snapshot = stage.runtime.block_on(acknowledge(&mut node));
    assert_eq!(snapshot.secrets[0].id, 2);
    assert!(snapshot.revoked_secrets[0].cut);
    wait_for(&stage, 1, "revoked");
    let again = refused(&stage, "/v1/secrets/1/revoke", &Value::Null);
    assert_eq!(again, (409, "secret".to_owned()));
}

#[test]
fn a_pinned_secret_shows_when_a_relay_saw_it_last() {
    let stage = staged();
    let node = stage.node(any_hello("relay-0"));
    let pinned = post(&stage, "/v1/secrets/pin", &json!({ "secret": GIVEN }));
    assert_eq!(pinned["id"], 2);
    wait_for(&stage, 2, "pinned");
    assert_eq!(list(&stage)[1]["last_used"], Value::Null);
    let last_used = 1_700_000_000;
    stage.runtime.block_on(node.say(Up::Heartbeat(Heartbeat {
        secret_uses: vec![SecretUse { id: 2, last_used }],
        ..Heartbeat::default()
    })));
    let deadline = Instant::now() + PATIENCE;
    while list(&stage)[1]["last_used"] != last_used {
        assert!(Instant::now() < deadline, "{:?}", list(&stage));
    }
    post(&stage, "/v1/secrets/2/unpin", &Value::Null);
    wait_for(&stage, 2, "retiring");
    post(&stage, "/v1/secrets/2/pin", &Value::Null);
    wait_for(&stage, 2, "pinned");
}

#[test]
fn a_secret_that_cannot_be_is_refused_and_so_is_who_may_only_look() {
    let stage = staged();
    for (path, body, expected) in [
        ("rotate", json!({ "secret": "short" }), (400, "body.secret")),
        ("rotate", json!({ "secret": 7 }), (400, "body.secret")),
        ("rotate", json!({ "scope": "zone:a" }), (400, "body.scope")),
        ("rotate", json!({ "secrets": "x" }), (400, "body.secrets")),
        ("pin", json!({}), (400, "body.secret")),
        ("pin", json!({ "secret": "" }), (400, "body.secret")),
        ("9/pin", Value::Null, (404, "9")),
        ("x/unpin", Value::Null, (404, "x")),
        ("1/unpin", Value::Null, (409, "secret")),
        ("1/revoke", json!({ "cut": "yes" }), (400, "body.cut")),
    ] {
        let (status, place) = refused(&stage, &format!("/v1/secrets/{path}"), &body);
        assert_eq!((status, place.as_str()), expected, "{path} {body}");
    }
    for path in ["rotate", "pin", "1/pin", "1/unpin", "1/revoke"] {
        let path = format!("/v1/secrets/{path}");
        let viewer = format!("Bearer {VIEWER}");
        assert_eq!(ask(&stage, "POST", &path, &viewer, &Value::Null).0, 403);
        assert_eq!(ask(&stage, "POST", &path, "", &Value::Null).0, 401);
    }
}
