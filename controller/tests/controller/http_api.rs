//! The HTTP API over real sockets.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};
use turnfleet_controller::config::{ProbeMode, RawApiToken};
use turnfleet_proto::credentials::{EphemeralUsername, verify};

use crate::stage::calls::{Answer, ask};
use crate::stage::{self, Stage, any_hello};

#[track_caller]
pub(crate) fn get(stage: &Stage, path: &str) -> Answer {
    ask(stage, "GET", path, &[("authorization", &stage.admin())], "")
}

#[track_caller]
pub(crate) fn post(stage: &Stage, path: &str, body: &str) -> Answer {
    ask(
        stage,
        "POST",
        path,
        &[("authorization", &stage.admin())],
        body,
    )
}

/// A controller with one listed node.
pub(crate) fn staged() -> (Stage, stage::Node) {
    staged_with(|_| {})
}

fn staged_with(
    change: impl FnOnce(&mut turnfleet_controller::config::RawConfig),
) -> (Stage, stage::Node) {
    let stage = Stage::with(|raw| {
        raw.probe.mode = ProbeMode::Off;
        change(raw);
    });
    let node = stage.node(any_hello("relay-0"));
    stage.wait_for("relay-0", |node| node.listed);
    (stage, node)
}

#[test]
fn the_turn_rest_api_hands_out_a_credential_that_relays_accept() {
    let (stage, _node) = staged();
    let answer = get(&stage, "/turn?service=turn&username=%40alice%3Aexample.org");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let body = answer.json();
    let (username, password) = (
        body["username"].as_str().unwrap(),
        body["password"].as_str().unwrap(),
    );
    let parsed = EphemeralUsername::parse(username).unwrap();
    assert_eq!(parsed.user, Some("@alice:example.org"));
    assert_eq!(body["ttl"], 3600);
    let secret = stage.controller().shared_secret();
    assert_eq!(
        verify(&secret, username, password, parsed.expires_at),
        Ok(())
    );
    let uris: Vec<_> = body["uris"]
        .as_array()
        .unwrap()
        .iter()
        .map(|uri| uri.as_str().unwrap())
        .collect();
    assert!(
        uris.contains(&"turn:192.0.2.1:3478?transport=udp"),
        "{uris:?}"
    );
    assert!(uris.iter().all(|uri| uri.starts_with("turn")), "{uris:?}");
}

#[test]
fn the_token_of_the_turn_rest_api_may_stand_in_the_query_or_a_form() {
    let (stage, _node) = staged();
    let token = stage.controller().api_token().to_owned();
    let query = format!("/turn?service=turn&key={token}");
    assert_eq!(ask(&stage, "GET", &query, &[], "").status, 200);
    let form = format!("service=turn&username=bob&key={token}");
    let kind = ("content-type", "application/x-www-form-urlencoded");
    let answer = ask(&stage, "POST", "/turn", &[kind], &form);
    assert_eq!(answer.status, 200);
    assert!(
        answer.json()["username"]
            .as_str()
            .unwrap()
            .ends_with(":bob")
    );
}

#[test]
fn ice_servers_have_the_form_that_browsers_take() {
    let (stage, _node) = staged();
    let answer = post(&stage, "/v1/ice-servers", "");
    assert_eq!(answer.status, 201);
    let server = &answer.json()["iceServers"][0];
    let urls = server["urls"].as_array().unwrap();
    assert!(urls[0].as_str().unwrap().starts_with("stun:"), "{urls:?}");
    assert!((2..=4).contains(&urls.len()), "{urls:?}");
    assert!(server["username"].is_string() && server["credential"].is_string());
    let answer = ask(
        &stage,
        "POST",
        "/v1/ice-servers",
        &[("authorization", &stage.admin())],
        "{\"username\":\"ann\"}",
    );
    let username = answer.json()["iceServers"][0]["username"].clone();
    assert!(username.as_str().unwrap().ends_with(":ann"), "{username}");
    let wish = json!({ "user": "bob", "ttl": 999_999_999u64, "transports": ["tcp"], "count": 1 });
    let body = post(&stage, "/v1/ice-servers", &wish.to_string()).json();
    assert_eq!(
        body["iceServers"][0]["urls"],
        json!(["turn:192.0.2.1:3478?transport=tcp"])
    );
    assert_eq!(body["ttl"], 86_400);
}

#[test]
fn a_user_may_be_called_as_the_probe_is() {
    let (stage, _node) = staged();
    let answer = post(&stage, "/v1/ice-servers", r#"{"user":"turnfleet-probe"}"#);
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert!(
        answer.body.contains(":turnfleet-probe\""),
        "{}",
        answer.body
    );
}

#[test]
fn a_path_or_method_that_the_api_does_not_have_is_refused() {
    let (stage, _node) = staged();
    for (method, path, status, code) in [
        ("GET", "/nowhere", 404, "unknown_path"),
        ("GET", "/v1/ice-servers", 405, "wrong_method"),
        ("DELETE", "/turn", 405, "wrong_method"),
    ] {
        assert_refused(&stage, (method, path, ""), (status, code, path));
    }
    let refused = ask(&stage, "DELETE", "/turn", &[], "");
    assert_eq!(refused.header("allow"), Some("GET,HEAD,POST"));
}

#[test]
fn every_bad_query_is_answered_with_what_where_and_what_was_expected() {
    let (stage, _node) = staged();
    let long = format!("service=turn&username={}", "x".repeat(600));
    for (query, place) in [
        ("", "query.service"),
        ("service=stun", "query.service"),
        (&long, "query.username"),
        ("service=turn&username=a%0Ab", "query.username"),
        ("service=turn&username=%ff", "query.username"),
        ("service=turn&ttl=-1", "query.ttl"),
        ("service=turn&ttl=NaN", "query.ttl"),
        ("service=turn&ttl=1&ttl=2", "query.ttl"),
        ("service=turn&transports=sctp", "query.transports"),
    ] {
        let path = format!("/turn?{query}");
        assert_refused(&stage, ("GET", &path, ""), (400, "bad_parameter", place));
    }
}

#[test]
fn every_bad_body_is_answered_with_what_where_and_what_was_expected() {
    let (stage, _node) = staged();
    let large = format!("{{\"user\":\"{}\"}}", "x".repeat(20_000));
    let form = ("POST", "/turn", "service=turn");
    assert_refused(
        &stage,
        form,
        (415, "unsupported_media_type", "header content-type"),
    );
    for (body, status, code, place) in [
        ("{\n\"user\":", 400, "bad_json", "body, line 2 column 7"),
        ("[]", 400, "bad_json", "body, line 1 column 0"),
        (&large, 413, "body_too_large", "body"),
        (r#"{"ttl":"soon"}"#, 400, "bad_parameter", "body.ttl"),
        (r#"{"ttl":-5}"#, 400, "bad_parameter", "body.ttl"),
        (r#"{"user":7}"#, 400, "bad_parameter", "body.user"),
        (
            r#"{"transports":"udp"}"#,
            400,
            "bad_parameter",
            "body.transports",
        ),
        (r#"{"count":0}"#, 400, "bad_parameter", "body.count"),
        (r#"{"wish":1}"#, 400, "bad_parameter", "body.wish"),
    ] {
        let request = ("POST", "/v1/ice-servers", body);
        assert_refused(&stage, request, (status, code, place));
    }
}

/// Asserts that the request of method, path and body is refused with that status, error code and place.
#[track_caller]
pub(crate) fn assert_refused(
    stage: &Stage,
    request: (&str, &str, &str),
    expected: (u16, &str, &str),
) {
    let (method, path, body) = request;
    let answer = ask(
        stage,
        method,
        path,
        &[("authorization", &stage.admin())],
        body,
    );
    let error = answer.json()["error"].clone();
    let (status, code, place) = expected;
    assert_eq!(
        (answer.status, &error["code"], &error["where"]),
        (status, &json!(code), &json!(place)),
        "{request:?}"
    );
    assert!(
        error["what"].is_string() && error["expected"].is_string(),
        "{error}"
    );
}

#[test]
fn a_token_opens_what_its_scopes_say() {
    let token = |name: &str, scope: &str| RawApiToken {
        name: name.to_owned(),
        token: Some(format!("{name}-0123456789abcdef")),
        token_file: None,
        scopes: vec![scope.to_owned()],
        tenant: None,
    };
    let (stage, _node) = staged_with(|raw| {
        raw.api_tokens = [
            ("minter", "mint"),
            ("viewer", "viewer"),
            ("operator", "operator"),
        ]
        .map(|(name, scope)| token(name, scope))
        .to_vec();
    });
    let status = |name: &str, method: &str, path: &str| {
        let bearer = format!("Bearer {name}-0123456789abcdef");
        ask(&stage, method, path, &[("authorization", &bearer)], "").status
    };
    assert_eq!(status("minter", "POST", "/v1/ice-servers"), 201);
    assert_eq!(status("minter", "GET", "/v1/nodes"), 403);
    assert_eq!(status("viewer", "POST", "/v1/ice-servers"), 403);
    assert_eq!(status("viewer", "GET", "/v1/nodes"), 200);
    assert_eq!(status("viewer", "GET", "/v1/capacity"), 200);
    assert_eq!(status("nobody", "GET", "/v1/capacity"), 401);
    assert_eq!(status("viewer", "POST", "/v1/nodes/relay-0/drain"), 403);
    assert_eq!(status("viewer", "DELETE", "/v1/nodes/relay-0"), 403);
    assert_eq!(status("viewer", "GET", "/v1/ports"), 200);
    let release = "/v1/ports/192.0.2.1/50000-50009";
    assert_eq!(status("viewer", "DELETE", release), 403);
    assert_eq!(status("operator", "POST", "/v1/nodes/relay-0/drain"), 200);
    assert_eq!(status("operator", "POST", "/v1/ice-servers"), 403);
    let without = ask(&stage, "GET", "/v1/nodes", &[], "");
    assert_eq!(
        (without.status, without.header("www-authenticate")),
        (401, Some("Bearer"))
    );
    let basic = ask(
        &stage,
        "GET",
        "/v1/nodes",
        &[("authorization", "Basic abc")],
        "",
    );
    assert_eq!(basic.status, 401);
}

#[test]
fn the_turn_rest_api_counts_and_names_turn_uris_alone() {
    let (stage, _node) = staged();
    let uris = |query: &str| {
        let answer = get(&stage, &format!("/turn?service=turn&{query}")).json();
        answer["uris"].as_array().unwrap().len()
    };
    assert_eq!(
        [uris("count=1"), uris("count=2"), uris("count=3")],
        [1, 2, 3]
    );
    let stun = ("GET", "/turn?service=turn&transports=stun", "");
    assert_refused(&stage, stun, (400, "bad_parameter", "query.transports"));
}

#[test]
fn tokens_are_in_files_of_their_owner() {
    use std::os::unix::fs::PermissionsExt as _;
    let stage = Stage::new();
    let controller = stage.controller();
    for (file, token) in [
        (controller.api_token_file(), controller.api_token()),
        (controller.join_token_file(), controller.join_token()),
    ] {
        assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), token);
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
}

#[test]
fn without_a_healthy_relay_there_is_no_credential_but_a_time_to_come_back() {
    let stage = Stage::new();
    let answer = post(&stage, "/v1/ice-servers", "");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["error"]["code"], "no_healthy_relay");
    assert!(
        answer
            .header("retry-after")
            .unwrap()
            .parse::<u32>()
            .unwrap()
            >= 1
    );
}

#[test]
fn metrics_name_no_user_no_node_and_no_token() {
    let (stage, _node) = staged();
    get(&stage, "/turn?service=turn&username=carol");
    let text = ask(&stage, "GET", "/metrics", &[], "").body;
    for line in [
        "turnfleet_controller_credentials_minted_total 1",
        "turnfleet_controller_nodes_listed 1",
        "turnfleet_controller_sessions 1",
        "turnfleet_controller_http_requests_total{route=\"/turn\",status=\"200\"} 1",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    for secret in [
        "carol",
        "relay-0",
        "192.0.2.1",
        stage.controller().api_token(),
    ] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[test]
fn pages_of_configured_origins_may_read_answers() {
    let meet = "https://meet.example.org";
    let (stage, _node) = staged_with(|raw| raw.http.cors_origins = vec![meet.to_owned()]);
    let preflight = [("origin", meet), ("access-control-request-method", "POST")];
    let answer = ask(&stage, "OPTIONS", "/v1/ice-servers", &preflight, "");
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some(meet));
    let refused = ask(&stage, "POST", "/v1/ice-servers", &[("origin", meet)], "");
    assert_eq!(refused.status, 401);
    assert_eq!(refused.header("access-control-allow-origin"), Some(meet));
    let other = ask(
        &stage,
        "GET",
        "/livez",
        &[("origin", "https://evil.test")],
        "",
    );
    assert_eq!(
        (other.status, other.header("access-control-allow-origin")),
        (200, None)
    );
}

#[test]
fn health_checks_and_the_dashboard_need_no_token() {
    let stage = Stage::new();
    for path in ["/livez", "/readyz"] {
        assert_eq!(ask(&stage, "GET", path, &[], "").status, 200, "{path}");
    }
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/dashboard", "text/html; charset=utf-8"),
        ("/dashboard/style.css", "text/css; charset=utf-8"),
        ("/dashboard/icon.svg", "image/svg+xml"),
        ("/dashboard/app.js", "text/javascript; charset=utf-8"),
    ] {
        let file = ask(&stage, "GET", path, &[], "");
        assert_eq!(
            (file.status, file.header("content-type")),
            (200, Some(kind))
        );
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
        let policy = file.header("content-security-policy").unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "form-action 'none'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
    }
    for path in [
        "/dashboard/other.js",
        "/dashboard/",
        "/dashboard/..%2fapp.js",
    ] {
        assert_eq!(ask(&stage, "GET", path, &[], "").status, 404, "{path}");
    }
}

#[test]
fn the_api_says_how_use_has_gone_what_needs_a_look_and_whose_token_it_is() {
    let (stage, node) = staged();
    let looks = || get(&stage, "/v1/attention").json();
    assert_eq!(looks(), json!({ "items": [], "total": 0 }));
    let summary = get(&stage, "/v1/capacity?summary=true").json();
    assert_eq!(
        (&summary["total"]["nodes"], &summary["nodes"]),
        (&json!(1), &json!([]))
    );
    assert_eq!(
        get(&stage, "/v1/capacity").json()["nodes"][0]["node"],
        "relay-0"
    );

    let region = summary["regions"][0]["region"].as_str().unwrap().to_owned();
    for query in ["?resolution=minute".to_owned(), format!("?region={region}")] {
        stage.within("something is noted", || {
            let history = get(&stage, &format!("/v1/capacity/history{query}")).json();
            history["moments"][0]["listed"].is_u64()
        });
    }
    let elsewhere = get(&stage, "/v1/capacity/history?region=elsewhere").json();
    assert_eq!(
        (&elsewhere["seconds"], &elsewhere["moments"]),
        (&json!(5), &json!([]))
    );

    drop(node);
    stage.wait_for("relay-0", |node| !node.listed);
    let looks = looks();
    let about: Vec<_> = looks["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["about"])
        .collect();
    assert_eq!(about, ["capacity", "node"], "{looks}");
    assert!(
        looks["items"][0]["what"]
            .as_str()
            .unwrap()
            .contains("none of 1 relays")
    );
    assert_eq!(looks["items"][0]["severity"], "critical");

    let made = post(
        &stage,
        "/v1/tokens",
        "{\"name\":\"wall\",\"scopes\":[\"viewer\"],\"expires_in_seconds\":600}",
    )
    .json();
    let bearer = format!("Bearer {}", made["token"].as_str().unwrap());
    let mine = ask(
        &stage,
        "GET",
        "/v1/token",
        &[("authorization", &bearer)],
        "",
    )
    .json();
    assert_eq!(
        (&mine["name"], &mine["scopes"], &mine["tenant"]),
        (&json!("wall"), &json!(["viewer"]), &Value::Null)
    );
    assert!(mine["expires_at"].is_u64(), "{mine}");
}

#[test]
fn what_is_no_http_at_all_ends_its_own_connection_only() {
    let stage = Stage::new();
    let noise: [&[u8]; 4] = [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\r\n\r\n\0\0",
        b"GET\r\n\r\n",
        &[b'a'; 70_000],
    ];
    for bytes in noise {
        let mut stream = TcpStream::connect(stage.controller().http_address()).unwrap();
        drop(stream.write_all(bytes));
        drop(stream.shutdown(std::net::Shutdown::Write));
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    }
    assert_eq!(ask(&stage, "GET", "/livez", &[], "").status, 200);
}

#[test]
fn the_api_is_served_by_https() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = tempfile::tempdir().unwrap();
    let (certificate, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let stage = Stage::with(|raw| {
        raw.probe.mode = ProbeMode::Off;
        raw.http.tls = Some(turnfleet_controller::config::RawTls { certificate, key });
    });
    let root = ureq::tls::Certificate::from_der(made.cert.der()).to_owned();
    let roots = ureq::tls::RootCerts::new_with_certs(&[root]);
    let tls = ureq::tls::TlsConfig::builder().root_certs(roots).build();
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .proxy(None)
        .tls_config(tls)
        .build()
        .into();
    let port = stage.controller().http_address().port();
    let answer = agent
        .get(format!("https://localhost:{port}/livez"))
        .call()
        .unwrap();
    assert_eq!(answer.status(), 200);
}
