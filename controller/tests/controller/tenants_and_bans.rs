//! Tenants and bans by the HTTP API: what an operator asks for, what relays hear, and what is there after a restart.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use turnfleet_proto::fleet::controller_message::Message as Down;
use turnfleet_proto::fleet::node_message::Message as Up;
use turnfleet_proto::fleet::{Delta, Hello, PolicyStatus};

use crate::stage::calls::{Answer, ask};
use crate::stage::{Node, Stage, any_hello};

/// A request with the controller's own token.
#[track_caller]
fn admin(stage: &Stage, method: &str, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let bearer = stage.admin();
    ask(stage, method, path, &[("authorization", &bearer)], &body)
}

#[track_caller]
fn get(stage: &Stage, path: &str) -> Value {
    let answer = admin(stage, "GET", path, &Value::Null);
    assert_eq!(answer.status, 200, "{path} {}", answer.body);
    answer.json()
}

#[track_caller]
fn ban(stage: &Stage, body: &Value) -> Value {
    let answer = admin(stage, "POST", "/v1/bans", body);
    assert_eq!(answer.status, 201, "{body} {}", answer.body);
    answer.json()
}

#[track_caller]
fn set(stage: &Stage, name: &str, body: &Value) -> Value {
    let answer = admin(stage, "PUT", &format!("/v1/tenants/{name}"), body);
    assert_eq!(answer.status, 200, "{body} {}", answer.body);
    answer.json()
}

/// What a relay that takes deltas hears next.
async fn delta(node: &mut Node) -> Delta {
    let heard = node.hear().await.unwrap();
    let Some(Down::Delta(delta)) = heard else {
        panic!("no delta: {heard:?}");
    };
    let status = PolicyStatus {
        generation: delta.generation,
        applied: true,
        ..PolicyStatus::default()
    };
    node.say(Up::PolicyStatus(status)).await;
    delta
}

/// Four relays that run what the fleet has.
fn four(stage: &Stage) -> Vec<Node> {
    let mut nodes = Vec::new();
    for number in 0..4 {
        let hello = Hello {
            protocol: 1,
            public_ips: vec![format!("192.0.2.{number}")],
            ..any_hello(&format!("relay-{number}"))
        };
        let credential = stage.enroll(&hello.node_id).unwrap();
        let mut node = stage.session(&credential, hello);
        stage.runtime.block_on(async {
            assert_eq!(delta(&mut node).await.base_generation, 0);
            // The ports of the one that came.
            for earlier in &mut nodes {
                assert_eq!(delta(earlier).await.sections.len(), 1);
            }
        });
        nodes.push(node);
    }
    nodes
}

#[test]
fn a_ban_and_a_tenant_reach_every_relay_as_a_small_delta_and_without_a_rollout() {
    let stage = Stage::new();
    let mut nodes = four(&stage);
    let asked = Instant::now();
    for (change, numbers) in [
        (
            json!({ "user": "alice", "seconds": 60, "reason": "spam" }),
            200..=263,
        ),
        (json!({ "source": "198.51.100.7" }), 200..=263),
        (json!(null), 101..=101),
    ] {
        if change.is_null() {
            set(&stage, "acme", &json!({ "realm": "acme.example" }));
        } else {
            ban(&stage, &change);
        }
        for node in &mut nodes {
            let heard = stage.runtime.block_on(delta(node));
            let [section] = heard.sections.as_slice() else {
                panic!("{:?}", heard.sections);
            };
            assert!(numbers.contains(&section.number), "{}", section.number);
            assert!(section.content.len() < 100, "{}", section.content.len());
        }
    }
    assert!(asked.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_ban_says_whom_it_concerns_and_one_of_the_same_takes_its_place() {
    let stage = Stage::new();
    set(&stage, "acme", &json!({}));
    let alice = ban(
        &stage,
        &json!({ "user": "alice", "tenant": "acme", "reason": "spam" }),
    );
    assert_eq!(
        (
            &alice["kind"],
            &alice["tenant"],
            &alice["user"],
            &alice["by"]
        ),
        (
            &json!("user"),
            &json!("acme"),
            &json!("alice"),
            &json!("turnfleet")
        )
    );
    assert_eq!(
        (&alice["until"], &alice["automatic"]),
        (&json!(null), &json!(false))
    );
    // The same by its whole name.
    let again = ban(&stage, &json!({ "user": "acme/alice", "seconds": 60 }));
    assert_eq!(again["id"], alice["id"]);
    assert_eq!(again["until"], json!(again["since"].as_u64().unwrap() + 60));
    ban(&stage, &json!({ "tenant": "acme" }));
    let source = ban(&stage, &json!({ "source": "198.51.100.77/24" }));
    assert_eq!(source["network"], "198.51.100.0/24");
    ban(&stage, &json!({ "peer": "2001:db8::1" }));
    let peers = get(&stage, "/v1/bans?kind=peer");
    assert_eq!(peers["bans"][0]["network"], "2001:db8::1/128");
}

/// One ban of each kind; gives that of a user.
fn one_of_each(stage: &Stage) -> Value {
    set(stage, "acme", &json!({}));
    ban(stage, &json!({ "tenant": "acme" }));
    ban(stage, &json!({ "source": "198.51.100.0/24" }));
    ban(stage, &json!({ "peer": "2001:db8::1" }));
    ban(stage, &json!({ "user": "acme/alice" }))
}

#[test]
fn bans_are_listed_in_pages() {
    let stage = Stage::new();
    one_of_each(&stage);
    let mut seen = Vec::new();
    let mut path = "/v1/bans?limit=3".to_owned();
    loop {
        let page = get(&stage, &path);
        assert_eq!(page["total"], 4);
        let bans = page["bans"].as_array().unwrap();
        seen.extend(
            bans.iter()
                .map(|it| it["kind"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/v1/bans?limit=3&after={next}");
    }
    seen.sort();
    assert_eq!(seen, ["peer", "source", "tenant", "user"]);
}

#[test]
fn a_ban_is_lifted_by_its_id_or_by_what_is_banned() {
    let stage = Stage::new();
    let alice = one_of_each(&stage);
    let short = &alice["id"].as_str().unwrap()[..12];
    for path in [
        format!("/v1/bans/{short}"),
        "/v1/bans?source=198.51.100.0/24".to_owned(),
        "/v1/bans?peer=2001:db8::1".to_owned(),
        "/v1/bans?tenant=acme".to_owned(),
    ] {
        assert_eq!(
            admin(&stage, "DELETE", &path, &Value::Null).status,
            200,
            "{path}"
        );
        let gone = admin(&stage, "DELETE", &path, &Value::Null);
        assert_eq!(
            (gone.status, &gone.json()["error"]["code"]),
            (404, &json!("unknown_ban"))
        );
    }
    assert_eq!(get(&stage, "/v1/bans")["total"], 0);
    let audit = get(&stage, "/v1/audit");
    let entries = audit["entries"].as_array().unwrap().iter();
    let told: Vec<_> = entries
        .map(|it| {
            format!(
                "{} {}",
                it["action"].as_str().unwrap(),
                it["target"].as_str().unwrap()
            )
        })
        .collect();
    assert!(
        told.contains(&"ban user alice of acme".to_owned()),
        "{told:?}"
    );
    assert!(
        told.contains(&"lift ban tenant acme".to_owned()),
        "{told:?}"
    );
}

#[test]
fn a_ban_that_may_be_a_mistake_or_says_nothing_is_refused() {
    let stage = Stage::new();
    let _node = stage.node(any_hello("relay-0"));
    set(&stage, "beta", &json!({}));
    for (body, status) in [
        (json!({}), 409),
        (json!({ "user": "" }), 409),
        (json!({ "user": "a", "source": "192.0.2.1" }), 409),
        (json!({ "source": "192.0.2.1", "tenant": "acme" }), 409),
        (json!({ "source": "example.org" }), 400),
        (json!({ "source": "192.0.2.1/33" }), 400),
        (json!({ "user": "a", "seconds": 0 }), 400),
        (json!({ "tenant": "Acme" }), 400),
        (json!({ "tenant": "acme" }), 404),
        (json!({ "user": "a", "tenant": "acme" }), 404),
        (json!({ "user": "beta/" }), 400),
        (json!({ "source": "0.0.0.0/0" }), 409),
        // Who asks, and a relay.
        (json!({ "source": "127.0.0.0/8" }), 409),
        (json!({ "peer": "192.0.2.1" }), 409),
        (json!({ "tenant": "default" }), 409),
        (json!({ "tenant": "default", "force": true }), 201),
    ] {
        let answer = admin(&stage, "POST", "/v1/bans", &body);
        assert_eq!(answer.status, status, "{body} {}", answer.body);
    }
    let cursor = admin(&stage, "GET", "/v1/bans?after=x", &Value::Null);
    assert_eq!(cursor.json()["error"]["where"], "query.after");
}

#[test]
fn a_tenant_is_made_changed_and_removed() {
    let stage = Stage::new();
    let wanted = json!({
        "realm": "acme.example", "tls_names": ["turn.acme.example"], "deny_peers": ["198.51.100.0/24"],
        "allow_peers": ["10.0.0.1"], "tcp_relaying": true, "quotas": { "allocations": 100, "bits_per_second": 10_000_000 },
    });
    let made = set(&stage, "acme", &wanted);
    assert_eq!(
        (&made["id"], &made["configured"]),
        (&json!(1), &json!(false))
    );
    assert_eq!(made["allow_peers"], json!(["10.0.0.1/32"]));
    assert_eq!(made["quotas"]["allocations"], 100);
    assert_eq!(made["quotas"]["bytes_per_day"], 0);
    assert_eq!(get(&stage, "/v1/tenants/acme"), made);
    // What is left out is as at first.
    let changed = set(&stage, "acme", &json!({ "suspended": true }));
    assert_eq!(
        (&changed["realm"], &changed["suspended"]),
        (&json!(null), &json!(true))
    );
    for (name, body, status) in [
        ("acme", json!({ "quotas": { "other": 1 } }), 400),
        ("acme", json!({ "realm": 7 }), 400),
        ("acme", json!({ "deny_peers": ["x"] }), 400),
        ("acme", json!({ "tls_names": ["a..b"] }), 400),
        ("Acme", json!({}), 400),
        ("default", json!({ "suspended": true }), 400),
        ("default", json!({ "quotas": { "allocations": 9 } }), 200),
        ("beta", json!({ "realm": "turnfleet.local" }), 409),
    ] {
        let answer = admin(&stage, "PUT", &format!("/v1/tenants/{name}"), &body);
        assert_eq!(answer.status, status, "{name} {body} {}", answer.body);
    }
    let secret = json!({ "scope": "tenant:acme", "secret": "the secret that acme has" });
    assert_eq!(
        admin(&stage, "POST", "/v1/secrets/pin", &secret).status,
        200
    );
    assert_eq!(get(&stage, "/v1/tenants/acme")["has_secret"], true);
    assert_eq!(
        admin(&stage, "DELETE", "/v1/tenants/acme", &Value::Null).status,
        200
    );
    assert_eq!(
        admin(&stage, "GET", "/v1/tenants/acme", &Value::Null).status,
        404
    );
    assert_eq!(
        get(&stage, "/v1/secrets")["secrets"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(set(&stage, "acme", &json!({}))["id"], 2);
}

#[test]
fn a_name_needs_no_tenant_until_there_are_some() {
    let stage = Stage::new();
    let _node = stage.node(any_hello("relay-0"));
    stage.wait_for("relay-0", |node| node.listed);
    let token = |name: &str, tenant: &str| {
        let body = json!({ "name": name, "scopes": ["mint"], "tenant": tenant });
        admin(&stage, "POST", "/v1/tokens", &body)
    };
    assert_eq!(token("first", "acme").status, 201);
    assert_eq!(get(&stage, "/v1/tenants")["unrecorded"], json!(["acme"]));
    set(&stage, "beta", &json!({}));
    assert_eq!(token("second", "acme").status, 201);
    let minting = token("third", "beta");
    assert_eq!(minting.status, 201);
    let slip = token("fourth", "bata");
    assert_eq!(
        (slip.status, &slip.json()["error"]["code"]),
        (404, &json!("unknown_tenant"))
    );
    for (path, body) in [
        ("/v1/secrets/rotate", json!({ "scope": "tenant:bata" })),
        (
            "/v1/join-tokens",
            json!({ "name": "fifth", "tenant": "bata" }),
        ),
    ] {
        assert_eq!(admin(&stage, "POST", path, &body).status, 404, "{path}");
    }
    // A token keeps its tenant from being removed, and mints nothing for one that is suspended.
    assert_eq!(
        admin(&stage, "DELETE", "/v1/tenants/beta", &Value::Null).status,
        409
    );
    let bearer = format!("Bearer {}", minting.json()["token"].as_str().unwrap());
    let mint = || {
        ask(
            &stage,
            "POST",
            "/v1/ice-servers",
            &[("authorization", &bearer)],
            "",
        )
    };
    assert_eq!(mint().status, 201);
    set(&stage, "beta", &json!({ "suspended": true }));
    assert_eq!(mint().json()["error"]["code"], "suspended");
}

#[test]
fn what_was_asked_for_is_there_after_a_restart() {
    let mut stage = Stage::new();
    set(
        &stage,
        "acme",
        &json!({ "realm": "acme.example", "quotas": { "bytes_per_day": 7 } }),
    );
    ban(
        &stage,
        &json!({ "user": "alice", "tenant": "acme", "seconds": 3600, "reason": "spam" }),
    );
    ban(&stage, &json!({ "peer": "203.0.113.0/24" }));
    let both = |stage: &Stage| (get(stage, "/v1/tenants"), get(stage, "/v1/bans"));
    let before = both(&stage);
    stage.restart();
    assert_eq!(both(&stage), before);
    let node = stage.node(any_hello("relay-0"));
    let snapshot = node.snapshot.unwrap();
    assert_eq!((snapshot.tenants.len(), snapshot.bans.len()), (1, 2));
}

#[test]
fn a_ban_ends_by_itself() {
    let stage = Stage::new();
    ban(&stage, &json!({ "user": "alice", "seconds": 1 }));
    stage.within("the ban ends", || get(&stage, "/v1/bans")["total"] == 0);
}
