//! The operator's part of the HTTP API: who may do what, tokens, the audit log, and the document of it all.

use serde_json::{Value, json};

use crate::stage::calls::{Answer, ask};
use crate::stage::{Stage, any_hello};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// A request with the controller's own token.
#[track_caller]
fn admin(stage: &Stage, method: &str, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    ask(
        stage,
        method,
        path,
        &[("authorization", &stage.admin())],
        &body,
    )
}

/// One operation of the document.
struct Operation {
    method: String,
    path: String,
    scope: Option<String>,
    /// Whether nobody needs a token of any kind.
    is_open: bool,
    /// Whether it may be asked without a token on this machine.
    is_optional: bool,
    mints: bool,
}

impl Operation {
    fn ask(&self, stage: &Stage, token: Option<&str>) -> Answer {
        let path = self
            .path
            .replace("{node}", "relay-0")
            .replace("{id}", "1")
            .replace("{name}", "someone")
            .replace("{module}", "app.js");
        let path = if path == "/turn" {
            "/turn?service=turn".to_owned()
        } else {
            path
        };
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer
            .iter()
            .map(|it| ("authorization", it.as_str()))
            .collect();
        ask(stage, &self.method, &path, &headers, "")
    }
}

fn document(stage: &Stage) -> Value {
    let answer = ask(stage, "GET", "/openapi.json", &[], "");
    assert_eq!(answer.status, 200);
    answer.json()
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let security = operation["security"].as_array().unwrap();
            let scope = security.iter().find_map(|it| it["bearer"][0].as_str());
            operations.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                scope: scope.map(str::to_owned),
                is_open: security.is_empty(),
                is_optional: security.contains(&json!({})),
                mints: scope == Some("mint"),
            });
        }
    }
    operations
}

/// A token that was made with these scopes.
#[track_caller]
fn made(stage: &Stage, name: &str, scopes: &[&str], tenant: Option<&str>) -> String {
    let body = json!({ "name": name, "scopes": scopes, "tenant": tenant });
    let answer = admin(stage, "POST", "/v1/tokens", &body);
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.json()["token"].as_str().unwrap().to_owned()
}

#[test]
fn every_operation_refuses_who_has_no_token_or_another_scope_or_is_bound_to_a_tenant() {
    let stage = Stage::new();
    let scopes = ["mint", "viewer", "operator", "admin"];
    let tokens = scopes.map(|scope| made(&stage, scope, &[scope], None));
    let bound = made(&stage, "bound", &["mint"], Some("acme"));
    let opens = |held: &str, wanted: &str| {
        held == wanted || held == "admin" || (held == "operator" && wanted == "viewer")
    };
    let mut refused = 0;
    for operation in operations(&document(&stage)) {
        let name = format!("{} {}", operation.method, operation.path);
        let Some(scope) = &operation.scope else {
            let expected = if operation.is_open { 200 } else { 401 };
            assert_eq!(operation.ask(&stage, None).status, expected, "{name}");
            continue;
        };
        if operation.is_optional {
            continue;
        }
        assert_eq!(
            operation.ask(&stage, None).status,
            401,
            "{name} without a token"
        );
        assert_eq!(
            operation.ask(&stage, Some("unknown")).status,
            401,
            "{name}, unknown token"
        );
        for (held, token) in scopes.iter().zip(&tokens) {
            if !opens(held, scope) {
                let answer = operation.ask(&stage, Some(token));
                assert_eq!(
                    answer.status, 403,
                    "{name} with the scope {held}: {}",
                    answer.body
                );
                assert_eq!(answer.json()["error"]["code"], "forbidden");
                refused += 1;
            }
        }
        let status = operation.ask(&stage, Some(&bound)).status;
        assert_eq!(
            status == 403,
            !operation.mints,
            "{name}, bound to a tenant: {status}"
        );
    }
    assert!(refused > 20, "{refused}");
}

#[test]
fn the_document_has_every_path_and_method_that_is_served_and_no_other() {
    let stage = Stage::new();
    let operations = operations(&document(&stage));
    let paths: std::collections::BTreeSet<_> =
        operations.iter().map(|it| it.path.clone()).collect();
    for path in paths {
        for method in METHODS.map(str::to_uppercase) {
            let documented = operations
                .iter()
                .any(|it| it.path == path && it.method == method);
            let probe = Operation {
                method: method.clone(),
                path: path.clone(),
                scope: None,
                is_open: false,
                is_optional: false,
                mints: false,
            };
            let status = probe.ask(&stage, None).status;
            assert_eq!(status != 405, documented, "{method} {path}: {status}");
            assert_ne!(status, 404, "{method} {path}");
        }
    }
}

#[test]
fn a_token_is_made_lasts_over_a_restart_and_opens_nothing_once_it_is_revoked() {
    let mut stage = Stage::new();
    let token = made(&stage, "console", &["viewer"], None);
    let nodes = |stage: &Stage| {
        let bearer = format!("Bearer {token}");
        ask(stage, "GET", "/v1/nodes", &[("authorization", &bearer)], "").status
    };
    assert_eq!(nodes(&stage), 200);
    stage.restart();
    assert_eq!(nodes(&stage), 200);
    let listed = admin(&stage, "GET", "/v1/tokens", &Value::Null);
    assert!(!listed.body.contains(&token), "{}", listed.body);
    let names: Vec<_> = listed.json()["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].clone())
        .collect();
    assert_eq!(names, ["console", "turnfleet"]);
    let again = json!({ "name": "console", "scopes": ["mint"] });
    assert_eq!(admin(&stage, "POST", "/v1/tokens", &again).status, 409);
    let revoke = |name: &str| {
        admin(
            &stage,
            "DELETE",
            &format!("/v1/tokens/{name}"),
            &Value::Null,
        )
        .status
    };
    assert_eq!(
        [revoke("console"), revoke("console"), revoke("turnfleet")],
        [200, 404, 409]
    );
    assert_eq!(nodes(&stage), 401);
}

#[test]
fn a_join_token_is_made_lets_a_relay_in_and_is_revoked() {
    let stage = Stage::new();
    let body = json!({ "name": "south", "region": "south", "expires_in_seconds": 3600 });
    let made = admin(&stage, "POST", "/v1/join-tokens", &body);
    assert_eq!(made.status, 201);
    let made = made.json();
    assert_eq!(made["region"], "south");
    let token = made["token"].as_str().unwrap();
    let again = admin(&stage, "POST", "/v1/join-tokens", &body);
    assert_eq!(again.status, 409);
    stage.enroll_with("relay-0", token).unwrap();

    let listed = admin(&stage, "GET", "/v1/join-tokens", &Value::Null).json();
    let listed = listed["join_tokens"].as_array().unwrap().clone();
    let south = listed.iter().find(|it| it["name"] == "south").unwrap();
    assert_eq!(south["configured"], false);
    assert!(south["expires_at"].is_u64() && south.get("token").is_none());
    assert!(listed.iter().any(|it| it["configured"] == true));

    let revoke = || admin(&stage, "DELETE", "/v1/join-tokens/south", &Value::Null);
    assert_eq!([revoke().status, revoke().status], [200, 404]);
    assert!(stage.enroll_with("relay-1", token).is_err());
    let audit = admin(&stage, "GET", "/v1/audit", &Value::Null).json();
    let actions = audit["entries"].as_array().unwrap().iter();
    let actions: Vec<_> = actions.filter_map(|it| it["action"].as_str()).collect();
    assert_eq!(actions, ["revoke join token", "create join token"]);
}

#[test]
fn a_token_that_has_come_to_its_end_opens_nothing() {
    let stage = Stage::new();
    let body = json!({ "name": "short", "scopes": ["viewer"], "expires_in_seconds": 1 });
    let answer = admin(&stage, "POST", "/v1/tokens", &body).json();
    let bearer = format!("Bearer {}", answer["token"].as_str().unwrap());
    stage.within("the token ends", || {
        ask(
            &stage,
            "GET",
            "/v1/nodes",
            &[("authorization", &bearer)],
            "",
        )
        .status
            == 401
    });
}

#[test]
fn a_token_of_a_tenant_mints_for_the_users_of_the_tenant() {
    let stage = Stage::new();
    let _node = stage.node(any_hello("relay-0"));
    stage.wait_for("relay-0", |node| node.listed);
    let token = made(&stage, "acme-app", &["mint"], Some("acme"));
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let answer = ask(
        &stage,
        "POST",
        "/v1/ice-servers",
        &headers,
        r#"{"user":"ann"}"#,
    )
    .json();
    let username = answer["iceServers"][0]["username"].clone();
    assert!(
        username.as_str().unwrap().ends_with(":acme/ann"),
        "{username}"
    );
    let answer = ask(
        &stage,
        "GET",
        &format!("/turn?service=turn&key={token}"),
        &[],
        "",
    )
    .json();
    assert!(
        answer["username"].as_str().unwrap().ends_with(":acme/"),
        "{answer}"
    );
    let wide = made(&stage, "wide", &["mint", "admin"], Some("acme"));
    let bearer = format!("Bearer {wide}");
    let refused = ask(
        &stage,
        "GET",
        "/v1/nodes",
        &[("authorization", &bearer)],
        "",
    );
    assert_eq!(refused.json()["error"]["code"], "bound_to_tenant");
}

#[test]
fn every_change_is_in_the_audit_log_and_what_changes_nothing_is_not() {
    let stage = Stage::new();
    let node = stage.node(any_hello("relay-0"));
    let token = made(&stage, "night", &["operator"], None);
    let bearer = format!("Bearer {token}");
    let night = |method: &str, path: &str, body: &str| {
        ask(&stage, method, path, &[("authorization", &bearer)], body).status
    };
    assert_eq!(
        night(
            "POST",
            "/v1/nodes/relay-0/drain",
            r#"{"deadline_seconds":60}"#
        ),
        200
    );
    assert_eq!(night("POST", "/v1/nodes/relay-0/undrain", ""), 200);
    assert_eq!(night("POST", "/v1/nodes/relay-0/undrain", ""), 200);
    assert_eq!(night("DELETE", "/v1/nodes/relay-0", ""), 409);
    assert_eq!(night("DELETE", "/v1/tokens/night", ""), 403);
    drop(node);
    stage.wait_for("relay-0", |node| !node.connected);
    assert_eq!(night("DELETE", "/v1/nodes/relay-0", ""), 200);
    let audit = admin(&stage, "GET", "/v1/audit", &Value::Null).json();
    let entries = audit["entries"].as_array().unwrap();
    let seen: Vec<_> = entries
        .iter()
        .map(|it| {
            let text = |name: &str| it[name].as_str().unwrap_or("?").to_owned();
            [text("by"), text("from"), text("action"), text("target")].join(" ")
        })
        .collect();
    assert_eq!(
        seen,
        [
            "night 127.0.0.1 forget relay-0",
            "night 127.0.0.1 undrain relay-0",
            "night 127.0.0.1 drain relay-0",
            "turnfleet 127.0.0.1 create token night",
        ]
    );
    assert_eq!(entries[2]["detail"], "deadline 60 s");
    assert!(!audit.to_string().contains(&token));
    // Two of them may be of one millisecond.
    let at = |entry: &Value| entry["at_milliseconds"].as_u64().unwrap();
    let last = at(&entries[1]);
    let earlier = entries.iter().find(|&it| at(it) < last).unwrap();
    let page = admin(
        &stage,
        "GET",
        &format!("/v1/audit?limit=1&before={last}"),
        &Value::Null,
    )
    .json();
    assert_eq!(page["entries"][0], *earlier);
}

#[test]
fn the_audit_log_says_what_was_done_with_secrets_and_never_holds_one() {
    let stage = Stage::new();
    let given = "a secret that the operator has made";
    for (path, body) in [
        ("rotate", json!({ "scope": "region:eu", "secret": given })),
        ("pin", json!({ "secret": format!("another, {given}") })),
        ("1/revoke", json!({ "cut": true, "replace": true })),
    ] {
        let answer = admin(&stage, "POST", &format!("/v1/secrets/{path}"), &body);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
    let audit = admin(&stage, "GET", "/v1/audit", &Value::Null).json();
    let entries = audit["entries"].as_array().unwrap();
    let text = |entry: &Value| {
        let text = |name: &str| entry[name].as_str().unwrap().to_owned();
        [text("by"), text("action"), text("target"), text("detail")].join(", ")
    };
    assert_eq!(
        entries.iter().map(text).collect::<Vec<_>>(),
        [
            "turnfleet, revoke secret, 1, cut replace",
            "turnfleet, pin secret, fleet, given",
            "turnfleet, rotate secret, region:eu, given",
        ]
    );
    assert!(!audit.to_string().contains(given));
}

#[test]
fn what_a_query_or_a_body_may_not_hold_is_named() {
    let stage = Stage::new();
    for (method, path, body, place) in [
        ("GET", "/v1/nodes?x=1", json!(null), "query.x"),
        ("GET", "/v1/audit?limit=0", json!(null), "query.limit"),
        (
            "GET",
            "/v1/audit?limit=1&limit=2",
            json!(null),
            "query.limit",
        ),
        ("GET", "/livez?x", json!(null), "query.x"),
        ("POST", "/v1/tokens", json!({}), "body.name"),
        (
            "POST",
            "/v1/tokens",
            json!({ "name": "a b", "scopes": ["mint"] }),
            "body.name",
        ),
        (
            "POST",
            "/v1/tokens",
            json!({ "name": "a", "scopes": ["root"] }),
            "body.scopes",
        ),
        (
            "POST",
            "/v1/tokens",
            json!({ "name": "a", "scopes": [] }),
            "body.scopes",
        ),
        (
            "POST",
            "/v1/tokens",
            json!({ "name": "a", "scopes": ["mint"], "x": 1 }),
            "body.x",
        ),
        (
            "POST",
            "/v1/nodes/relay-0/drain",
            json!({ "deadline_seconds": -1 }),
            "body.deadline_seconds",
        ),
    ] {
        let answer = admin(&stage, method, path, &body);
        assert_eq!(
            (answer.status, &answer.json()["error"]["where"]),
            (400, &json!(place)),
            "{path} {body}"
        );
    }
}
