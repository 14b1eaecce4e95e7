//! Lists for Matrix clients, whose access tokens a homeserver is asked about: a small one in this process, by real HTTP.

use std::net::{Ipv6Addr, SocketAddr};

use serde_json::{Value, json};
use turnfleet_controller::config::{ProbeMode, RawMatrix};
use turnfleet_proto::credentials::{EphemeralUsername, verify};
use turnfleet_proto::fleet::Listener;
use turnfleet_proto::fleet::listener::Transport;

use crate::authority::Authority;
use crate::small_homeserver::Homeserver;
use crate::stage::calls::{Answer, ask};
use crate::stage::{self, Node, Stage, any_hello};

const V3: &str = "/_matrix/client/v3/voip/turnServer";
const R0: &str = "/_matrix/client/r0/voip/turnServer";
const ALICE: &str = r#"{"user_id":"@alice:example.org","device_id":"PHONE"}"#;
const UNKNOWN: &str = r#"{"errcode":"M_UNKNOWN_TOKEN","error":"no such token","soft_logout":true}"#;

/// A controller with a relay, for the users of `homeserver`.
fn staged(homeserver: &Homeserver, change: impl FnOnce(&mut RawMatrix)) -> (Stage, Node) {
    let stage = Stage::with(|raw| {
        raw.probe.mode = ProbeMode::Off;
        raw.matrix.homeserver = Some(homeserver.url());
        change(&mut raw.matrix);
    });
    let node = stage.node(any_hello("relay-0"));
    stage.wait_for("relay-0", |node| node.listed);
    (stage, node)
}

#[track_caller]
fn with(stage: &Stage, token: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    ask(stage, "GET", V3, &[("authorization", &bearer)], "")
}

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, errcode: &str) -> Value {
    let body = answer.json();
    let told = (answer.status, body["errcode"].as_str());
    assert_eq!(told, (status, Some(errcode)), "{body}");
    assert!(body["error"].is_string(), "{body}");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    body
}

#[test]
fn a_user_of_the_homeserver_gets_a_credential_that_relays_accept() {
    let homeserver = Homeserver::new();
    homeserver.says("syt_alice", 200, ALICE);
    let (stage, _node) = staged(&homeserver, |_| {});
    let by_header = with(&stage, "syt_alice");
    let by_query = ask(
        &stage,
        "GET",
        &format!("{R0}?access_token=syt_alice"),
        &[],
        "",
    );
    for answer in [by_header, by_query] {
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        let body = answer.json();
        let text = |key: &str| body[key].as_str().unwrap().to_owned();
        let (username, password) = (text("username"), text("password"));
        let parsed = EphemeralUsername::parse(&username).unwrap();
        assert_eq!(parsed.user, Some("@alice:example.org"));
        assert_eq!(body["ttl"], 3600);
        let secret = stage.controller().shared_secret();
        let verified = verify(&secret, &username, &password, parsed.expires_at);
        assert_eq!(verified, Ok(()));
        let uris = body["uris"].as_array().unwrap();
        let udp = json!("turn:192.0.2.1:3478?transport=udp");
        assert!(uris.contains(&udp), "{uris:?}");
        let all = uris
            .iter()
            .all(|uri| uri.as_str().unwrap().starts_with("turn"));
        assert!(all, "{uris:?}");
        assert_eq!(body.as_object().unwrap().len(), 4, "{body}");
    }
    assert_eq!(homeserver.asked(), ["syt_alice"]);
}

#[test]
fn users_are_those_of_the_configured_tenant_for_the_configured_time() {
    let homeserver = Homeserver::new();
    homeserver.says("syt_alice", 200, ALICE);
    let (stage, _node) = staged(&homeserver, |matrix| {
        matrix.tenant = Some("acme".to_owned());
        matrix.ttl_seconds = 7200;
    });
    let body = with(&stage, "syt_alice").json();
    let username = body["username"].as_str().unwrap();
    let parsed = EphemeralUsername::parse(username).unwrap();
    assert_eq!(parsed.user, Some("acme/@alice:example.org"));
    assert_eq!(body["ttl"], 7200);
}

#[test]
fn answers_name_the_relays_of_the_moment_while_the_word_on_a_user_is_kept() {
    let homeserver = Homeserver::new();
    homeserver.says("syt_alice", 200, ALICE);
    let (stage, _node) = staged(&homeserver, |_| {});
    let second = SocketAddr::from(([192, 0, 2, 2], 3478));
    let names_it = || with(&stage, "syt_alice").body.contains("192.0.2.2");
    assert!(!names_it());
    let other = stage.node(stage::hello("relay-1", &[Transport::Udp], second));
    stage.wait_for("relay-1", |node| node.listed);
    assert!(names_it());
    drop(other);
    stage.wait_for("relay-1", |node| !node.listed);
    assert!(!names_it());
    assert_eq!(homeserver.asked().len(), 1);
}

#[test]
fn a_token_that_the_homeserver_refuses_is_refused_in_its_words() {
    let homeserver = Homeserver::new();
    homeserver.says("syt_gone", 401, UNKNOWN);
    let (stage, _node) = staged(&homeserver, |_| {});
    for _ in 0..3 {
        let body = assert_refused(&with(&stage, "syt_gone"), 401, "M_UNKNOWN_TOKEN");
        let expected = serde_json::from_str::<Value>(UNKNOWN).unwrap();
        assert_eq!(body, expected);
    }
    assert_eq!(homeserver.asked().len(), 1);
}

#[test]
fn what_is_no_token_is_refused_without_asking() {
    let homeserver = Homeserver::new();
    let (stage, _node) = staged(&homeserver, |_| {});
    let none = ask(&stage, "GET", V3, &[], "");
    assert_refused(&none, 401, "M_MISSING_TOKEN");
    let other = ask(&stage, "GET", V3, &[("authorization", "Basic YTpi")], "");
    assert_refused(&other, 401, "M_MISSING_TOKEN");
    let spaced = ask(&stage, "GET", &format!("{V3}?access_token=a%20b"), &[], "");
    assert_refused(&spaced, 401, "M_UNKNOWN_TOKEN");
    let long = "a".repeat(5000);
    assert_refused(&with(&stage, &long), 401, "M_UNKNOWN_TOKEN");
    assert_eq!(homeserver.asked(), [""; 0]);
}

#[test]
fn many_requests_with_one_token_ask_once_and_each_token_for_itself() {
    let homeserver = Homeserver::new();
    homeserver.says("syt_alice", 200, ALICE);
    homeserver.says("syt_bob", 200, r#"{"user_id":"@bob:example.org"}"#);
    let (stage, _node) = staged(&homeserver, |_| {});
    let held = homeserver.hold();
    let url = stage.url(V3);
    let username = |token: &str| {
        let request = ureq::get(&url)
            .config()
            .proxy(None)
            .build()
            .header("Authorization", format!("Bearer {token}"));
        let body: Value = request.call().unwrap().body_mut().read_json().unwrap();
        body["username"].as_str().unwrap().to_owned()
    };
    std::thread::scope(|scope| {
        let tokens = ["syt_alice"; 8].into_iter().chain(["syt_bob"; 8]);
        let requests: Vec<_> = tokens
            .map(|token| (token, scope.spawn(|| username(token))))
            .collect();
        stage.within("the homeserver is asked", || homeserver.asked().len() >= 2);
        drop(held);
        for (token, request) in requests {
            let user = token.replace("syt_", ":@");
            let username = request.join().unwrap();
            assert!(username.contains(&user), "{username}");
        }
    });
    let mut asked = homeserver.asked();
    asked.sort_unstable();
    assert_eq!(asked, ["syt_alice", "syt_bob"]);
}

#[test]
fn guests_are_let_in_or_not_as_the_operator_has_it() {
    let guest = r#"{"user_id":"@7:example.org","is_guest":true}"#;
    let homeserver = Homeserver::new();
    homeserver.says("syt_guest", 200, guest);
    homeserver.says("syt_alice", 200, ALICE);
    let (stage, _node) = staged(&homeserver, |_| {});
    assert_eq!(with(&stage, "syt_guest").status, 200);
    let (stage, _node) = staged(&homeserver, |matrix| matrix.allow_guests = false);
    let refused = with(&stage, "syt_guest");
    assert_refused(&refused, 403, "M_GUEST_ACCESS_FORBIDDEN");
    assert_eq!(with(&stage, "syt_alice").status, 200);
}

#[test]
fn a_homeserver_that_is_no_help_ends_no_session_and_is_asked_again() {
    let homeserver = Homeserver::new();
    let (stage, _node) = staged(&homeserver, |_| {});
    for (status, body) in [
        (500, "oh"),
        (502, "<html>"),
        (401, "<html>"),
        (401, "{}"),
        (200, "{}"),
    ] {
        homeserver.says("syt_alice", status, body);
        let answer = with(&stage, "syt_alice");
        assert_refused(&answer, 502, "M_UNKNOWN");
        assert!(answer.header("retry-after").is_some());
    }
    homeserver.says(
        "syt_alice",
        429,
        r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":1500}"#,
    );
    let limited = with(&stage, "syt_alice");
    let body = assert_refused(&limited, 429, "M_LIMIT_EXCEEDED");
    assert_eq!(body["retry_after_ms"], 1500);
    assert_eq!(limited.header("retry-after"), Some("2"));
    homeserver.says("syt_alice", 200, ALICE);
    assert_eq!(with(&stage, "syt_alice").status, 200);
}

#[test]
fn users_that_are_known_have_lists_while_the_homeserver_is_gone() {
    let homeserver = Homeserver::new();
    homeserver.says("syt_alice", 200, ALICE);
    let (stage, _node) = staged(&homeserver, |_| {});
    assert_eq!(with(&stage, "syt_alice").status, 200);
    drop(homeserver);
    assert_refused(&with(&stage, "syt_bob"), 503, "M_UNKNOWN");
    assert_eq!(with(&stage, "syt_alice").status, 200);
}

#[test]
fn one_token_has_a_rate() {
    let homeserver = Homeserver::new();
    homeserver.says("syt_alice", 200, ALICE);
    homeserver.says("syt_bob", 200, r#"{"user_id":"@bob:example.org"}"#);
    let (stage, _node) = staged(&homeserver, |_| {});
    let limited = (0..10_000)
        .map(|_| with(&stage, "syt_alice"))
        .find(|answer| answer.status != 200);
    let body = assert_refused(&limited.unwrap(), 429, "M_LIMIT_EXCEEDED");
    assert!(body["retry_after_ms"].as_u64().unwrap() >= 1, "{body}");
    assert_eq!(with(&stage, "syt_bob").status, 200);
}

#[test]
fn a_fleet_without_relays_says_so() {
    let homeserver = Homeserver::new();
    homeserver.says("syt_alice", 200, ALICE);
    let stage = Stage::with(|raw| raw.matrix.homeserver = Some(homeserver.url()));
    assert_refused(&with(&stage, "syt_alice"), 503, "M_UNKNOWN");
}

#[test]
fn any_web_page_may_ask() {
    let homeserver = Homeserver::new();
    let (stage, _node) = staged(&homeserver, |_| {});
    let origin = ("origin", "https://app.example.org");
    let method = ("access-control-request-method", "GET");
    for path in [V3, R0] {
        let answer = ask(&stage, "OPTIONS", path, &[origin, method], "");
        assert_eq!(answer.status, 204);
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        let allowed = answer.header("access-control-allow-headers").unwrap();
        assert!(allowed.contains("Authorization"), "{allowed}");
        let methods = answer.header("access-control-allow-methods").unwrap();
        assert!(methods.contains("GET"), "{methods}");
    }
    let answer = ask(&stage, "GET", V3, &[origin], "");
    assert_refused(&answer, 401, "M_MISSING_TOKEN");
    let answer = ask(&stage, "POST", V3, &[origin], "");
    assert_refused(&answer, 405, "M_UNRECOGNIZED");
    assert_eq!(homeserver.asked(), [""; 0]);
}

#[test]
fn a_client_is_known_by_the_word_of_a_trusted_proxy() {
    let homeserver = Homeserver::new();
    for trusted in [&["127.0.0.0/8"][..], &[]] {
        homeserver.says("syt_alice", 200, ALICE);
        let stage = Stage::with(|raw| {
            raw.probe.mode = ProbeMode::Off;
            raw.http.trusted_proxies = trusted.iter().map(ToString::to_string).collect();
            raw.matrix.homeserver = Some(homeserver.url());
        });
        let mut hello = any_hello("relay-0");
        let v6 = SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 3478));
        hello.public_ips.push(v6.ip().to_string());
        hello.listeners.push(Listener {
            transport: Transport::Udp.into(),
            address: v6.to_string(),
            ..Listener::default()
        });
        let _node = stage.node(hello);
        stage.wait_for("relay-0", |node| node.listed);
        let headers = [
            ("authorization", "Bearer syt_alice"),
            ("user-agent", "a phone"),
            ("x-forwarded-for", "127.0.0.1, 2001:db8::7"),
        ];
        let body = ask(&stage, "GET", V3, &headers, "").json();
        let first = body["uris"][0].as_str().unwrap();
        let is_believed = !trusted.is_empty();
        assert_eq!(first.contains("2001:db8::1"), is_believed, "{body}");
        assert_eq!(homeserver.shown_by("user-agent").unwrap(), "a phone");
        let shown = is_believed.then(|| "2001:db8::7".to_owned());
        assert_eq!(homeserver.shown_by("x-forwarded-for"), shown);
    }
}

#[test]
fn without_a_homeserver_there_is_nothing_for_matrix_clients() {
    let stage = Stage::new();
    assert_refused(&with(&stage, "syt_alice"), 404, "M_UNRECOGNIZED");
}

#[test]
fn a_homeserver_is_asked_by_https_when_its_authority_is_known() {
    let authority = Authority::new();
    authority.sign("localhost");
    let homeserver = Homeserver::with_tls(
        &authority.file("localhost.pem"),
        &authority.file("localhost.key"),
    );
    homeserver.says("syt_alice", 200, ALICE);
    let (stage, _node) = staged(&homeserver, |matrix| {
        matrix.ca = Some(authority.file("ca.pem"));
    });
    assert_eq!(with(&stage, "syt_alice").status, 200);

    let stranger = Authority::new();
    for ca in [Some(stranger.file("ca.pem")), None] {
        let (stage, _node) = staged(&homeserver, |matrix| matrix.ca = ca);
        assert_refused(&with(&stage, "syt_alice"), 503, "M_UNKNOWN");
    }
    assert_eq!(homeserver.asked(), ["syt_alice"]);
}

#[test]
fn what_became_of_tokens_is_counted() {
    let homeserver = Homeserver::new();
    homeserver.says("syt_alice", 200, ALICE);
    homeserver.says("syt_gone", 401, UNKNOWN);
    let (stage, _node) = staged(&homeserver, |_| {});
    for token in ["syt_alice", "syt_alice", "syt_gone", "syt_odd"] {
        with(&stage, token);
    }
    let metrics = ask(&stage, "GET", "/metrics", &[], "").body;
    for (outcome, times) in [("user", 1), ("refused", 1), ("strange", 1)] {
        let line = format!(
            "turnfleet_controller_homeserver_answers_total{{outcome=\"{outcome}\"}} {times}\n"
        );
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
    for secret in ["syt_", "@alice"] {
        assert!(!metrics.contains(secret), "{metrics}");
    }
}

#[test]
fn a_tenant_with_as_many_credentials_as_it_may_have_is_told_when_to_come_again() {
    let homeserver = Homeserver::new();
    homeserver.says("syt_alice", 200, ALICE);
    let (stage, _node) = staged(&homeserver, |_| {});
    let quotas = json!({ "quotas": { "credentials_per_minute": 1 } }).to_string();
    let admin = stage.admin();
    let header = ("authorization", admin.as_str());
    let made = ask(&stage, "PUT", "/v1/tenants/default", &[header], &quotas);
    assert_eq!(made.status, 200, "{}", made.body);
    assert_eq!(with(&stage, "syt_alice").status, 200);
    let refused = with(&stage, "syt_alice");
    let body = assert_refused(&refused, 429, "M_LIMIT_EXCEEDED");
    let wait = body["retry_after_ms"].as_u64().unwrap();
    assert!((1000..=61_000).contains(&wait), "{body}");
}
