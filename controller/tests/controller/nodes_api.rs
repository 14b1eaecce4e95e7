//! Relay nodes over the HTTP API: how they are listed and shown, and how an operator drains and forgets them.

use serde_json::{Value, json};
use turnfleet_controller::config::ProbeMode;

use crate::http_api::{assert_refused, get, post, staged};
use crate::stage::calls::ask;
use crate::stage::{Stage, any_hello};

#[test]
fn an_operator_drains_a_node_takes_that_back_and_forgets_it_when_it_is_gone() {
    let (stage, node) = staged();
    let admin = stage.admin();
    let call = |method: &str, path: &str, body: &str| {
        ask(&stage, method, path, &[("authorization", &admin)], body)
    };
    let drain = call(
        "POST",
        "/v1/nodes/relay-0/drain",
        r#"{"deadline_seconds":60}"#,
    );
    assert_eq!(
        (drain.status, drain.json()),
        (200, json!({ "node": "relay-0" }))
    );
    stage.wait_for("relay-0", |node| node.draining && !node.listed);
    assert_eq!(call("POST", "/v1/nodes/relay-0/undrain", "").status, 200);
    stage.wait_for("relay-0", |node| node.listed);
    let live = ("DELETE", "/v1/nodes/relay-0", "");
    assert_refused(&stage, live, (409, "conflict", "node"));
    drop(node);
    stage.wait_for("relay-0", |node| !node.connected);
    assert_eq!(call("DELETE", "/v1/nodes/relay-0", "").status, 200);
    assert_refused(&stage, live, (404, "unknown_node", "relay-0"));
    assert_eq!(stage.controller().view().nodes.len(), 0);
    let bad = (
        "POST",
        "/v1/nodes/relay-0/drain",
        r#"{"deadline_seconds":"soon"}"#,
    );
    assert_refused(&stage, bad, (400, "bad_parameter", "body.deadline_seconds"));
}

#[test]
fn a_place_of_a_node_that_is_gone_is_free_for_its_successor_when_an_operator_says_so() {
    let (stage, node) = staged();
    drop(node);
    stage.wait_for("relay-0", |node| !node.connected);
    let open = || {
        let credential = stage.enroll("relay-1").unwrap();
        let mut next = stage.session(&credential, any_hello("relay-1"));
        let heard = stage.runtime.block_on(next.hear());
        heard.map(|_| next)
    };
    let refused = open().map(drop).unwrap_err();
    assert!(
        refused.message().contains("turnfleet fleet forget NODE"),
        "{refused:?}"
    );
    let admin = stage.admin();
    let call = |method, path: &str| ask(&stage, method, path, &[("authorization", &admin)], "");
    assert_eq!(call("DELETE", "/v1/nodes/relay-0").status, 200);
    assert!(open().is_err(), "its ports are quarantined");
    let ports = || call("GET", "/v1/ports").json();
    // What is read follows what was changed within moments.
    let is = |state: &str| ports()["ports"][0]["state"] == state;
    stage.within("a quarantine", || is("quarantined"));
    let ports = ports();
    let grant = &ports["ports"][0];
    assert_eq!(grant["node"], "relay-0");
    assert_eq!(ports["regions"][0]["quarantined"], 16_384);
    let path = format!(
        "/v1/ports/{}/{}-{}",
        grant["public_ip"].as_str().unwrap(),
        grant["first"],
        grant["last"]
    );
    assert_eq!(call("DELETE", &path).status, 200);
    assert_refused(
        &stage,
        ("DELETE", &path, ""),
        (404, "unknown_ports", "path"),
    );
    let bad = ("DELETE", "/v1/ports/192.0.2.1/all", "");
    assert_refused(&stage, bad, (404, "unknown_ports", "all"));
    open().unwrap();
    stage.within("its successor", || is("held"));
}

#[test]
fn the_fleet_is_shown_to_viewers() {
    let (stage, _node) = staged();
    let nodes = get(&stage, "/v1/nodes").json();
    let node = &nodes["nodes"][0];
    assert_eq!(node["node"], "relay-0");
    assert_eq!(
        (&node["listed"], &node["reason"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(node["listeners"][0]["address"], "192.0.2.1:3478");
    assert_eq!(node["ports"][0]["public_ip"], "192.0.2.1");
    let capacity = get(&stage, "/v1/capacity").json();
    assert_eq!(
        (&capacity["total"]["nodes"], &capacity["total"]["listed"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(capacity["regions"][0]["region"], "local");
}

#[test]
fn relays_come_by_pages_in_the_order_that_is_asked_for() {
    let stage = Stage::with(|raw| raw.probe.mode = ProbeMode::Off);
    let nodes: Vec<_> = (0..5)
        .map(|number| {
            let mut hello = any_hello(&format!("relay-{number}"));
            hello.public_ips = vec![format!("192.0.2.{}", number + 1)];
            stage.node(hello)
        })
        .collect();
    for number in 0..5 {
        stage.wait_for(&format!("relay-{number}"), |node| node.listed);
    }
    let names = |query: &str| {
        let answer = get(&stage, &format!("/v1/nodes{query}")).json();
        let nodes = answer["nodes"].as_array().unwrap().clone();
        let names = nodes
            .iter()
            .map(|it| it["node"].as_str().unwrap().to_owned());
        (names.collect::<Vec<_>>(), answer["total"].clone())
    };
    assert_eq!(names("").0.len(), 5);
    let page = names("?sort=allocations&skip=3&limit=5");
    assert_eq!(
        page,
        (vec!["relay-3".to_owned(), "relay-4".to_owned()], json!(5))
    );
    assert_eq!(names("?name=Y-2"), (vec!["relay-2".to_owned()], json!(1)));
    assert_eq!(names("?region=elsewhere").1, 0);
    let soon = "{\"deadline_seconds\":600}";
    assert_eq!(post(&stage, "/v1/nodes/relay-1/drain", soon).status, 200);
    stage.wait_for("relay-1", |node| node.drain_deadline.is_some());
    let drained = get(&stage, "/v1/nodes?state=draining").json();
    assert_eq!(drained["total"], 1);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let deadline = drained["nodes"][0]["drain_deadline"].as_u64().unwrap();
    assert!((now + 590..=now + 601).contains(&deadline), "{deadline}");
    assert_eq!(names("?state=listed").1, 4);
    assert_eq!(names("?state=unlisted").1, 1);
    assert_eq!(get(&stage, "/v1/nodes?limit=0").status, 400);
    assert_eq!(get(&stage, "/v1/nodes?sort=age").status, 400);
    assert_eq!(post(&stage, "/v1/nodes/relay-1/undrain", "").status, 200);
    stage.wait_for("relay-1", |node| node.drain_deadline.is_none());
    drop(nodes);
}
