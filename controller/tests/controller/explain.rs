//! What the HTTP API says of lists and of what is left, over real sockets.

use serde_json::{Value, json};
use turnfleet_controller::config::ProbeMode;
use turnfleet_proto::fleet::Hello;
use turnfleet_proto::fleet::listener::Transport;

use crate::stage::{Node, Stage, hello};

fn introduction(number: u8) -> Hello {
    let address = ([192, 0, 2, number], 3478).into();
    let mut hello = hello(&format!("relay-{number}"), &[Transport::Udp], address);
    hello.zone = format!("zone-{}", number % 2);
    hello.hostname = format!("relay-{number}.example.org");
    hello
}

/// A controller without a probe and three listed relays in two zones.
fn staged() -> (Stage, Vec<Node>) {
    let stage = Stage::with(|raw| raw.probe.mode = ProbeMode::Off);
    let nodes = (0..3).map(|number| stage.node(introduction(number)));
    let nodes: Vec<_> = nodes.collect();
    for number in 0..3 {
        stage.wait_for(&format!("relay-{number}"), |node| node.listed);
    }
    (stage, nodes)
}

#[track_caller]
fn get(stage: &Stage, path: &str) -> (u16, Value) {
    let config = ureq::Agent::config_builder()
        .proxy(None)
        .http_status_as_error(false);
    let agent: ureq::Agent = config.build().into();
    let request = agent.get(stage.url(path));
    let mut answer = request
        .header("authorization", stage.admin())
        .call()
        .unwrap();
    let status = answer.status().as_u16();
    (status, answer.body_mut().read_json().unwrap())
}

#[test]
fn a_list_is_explained_relay_by_relay() {
    let (stage, _nodes) = staged();
    let (status, body) = get(&stage, "/v1/explain?user=alice&region=nowhere");
    assert_eq!((status, &body["region"]), (200, &json!("local")));
    let nodes = body["nodes"].as_array().unwrap();
    let places: Vec<_> = nodes.iter().map(|node| &node["place"]).collect();
    assert_eq!(places, [&json!(1), &json!(2), &Value::Null]);
    let first = nodes[0]["node"]
        .as_str()
        .unwrap()
        .trim_start_matches("relay-");
    let uri = body["uris"][0].as_str().unwrap();
    assert_eq!(uri, format!("stun:192.0.2.{first}:3478"));
    let open = |node: &Value| {
        let gates = node["gates"].as_array().unwrap();
        gates.iter().all(|gate| gate["open"] == true)
    };
    assert!(nodes.iter().all(open), "{body}");

    let (status, one) = get(&stage, "/v1/nodes/relay-1/explain?user=alice");
    assert_eq!((status, &one["nodes"][0]["node"]), (200, &json!("relay-1")));
    assert_eq!(get(&stage, "/v1/nodes/relay-9/explain").0, 404);
    assert_eq!(get(&stage, "/v1/explain?client=x").0, 400);
}

#[test]
fn a_room_has_one_list_and_names_are_given_where_they_are_asked_for() {
    let (stage, _nodes) = staged();
    let uris = |query: &str| {
        let (status, body) = get(&stage, &format!("/turn?service=turn&{query}"));
        assert_eq!(status, 200, "{body}");
        body["uris"].clone()
    };
    let alice = uris("username=alice&room=attic&names=all");
    assert_eq!(alice, uris("username=bob&room=attic&names=all"));
    assert!(
        alice[0].as_str().unwrap().contains(".example.org:3478?"),
        "{alice}"
    );
    assert!(
        uris("username=bob")[0]
            .as_str()
            .unwrap()
            .starts_with("turn:192.0.2.")
    );
    assert_eq!(get(&stage, "/turn?service=turn&names=some").0, 400);
    let long = "x".repeat(256);
    assert_eq!(
        get(&stage, &format!("/turn?service=turn&room={long}")).0,
        400
    );
}

#[test]
fn capacity_is_told_for_every_scope() {
    let (stage, _nodes) = staged();
    let (_, body) = get(&stage, "/v1/capacity");
    let total = &body["total"];
    assert_eq!(total["allocations"]["limit"], 3000);
    assert_eq!(total["allocations"]["headroom"], 2400);
    assert_eq!(total["allocations"]["headroom_n1"], 800);
    assert_eq!(
        (&total["state"], &total["seconds_to_full"]),
        (&json!("ok"), &Value::Null)
    );
    assert_eq!(body["regions"][0]["relayed_ports"]["peak"], 0);
    assert_eq!(body["zones"].as_array().unwrap().len(), 2);
    assert_eq!(body["zones"][0]["allocations"]["headroom_n1"], Value::Null);
    assert_eq!(body["nodes"][2]["node"], "relay-2");
    assert_eq!(body["nodes"][2]["zone"], "zone-0");
    let (_, nodes) = get(&stage, "/v1/nodes");
    let node = &nodes["nodes"][0];
    assert_eq!(
        (&node["ramp"], &node["suspect"]),
        (&json!(100), &json!(false))
    );
    assert_eq!(
        (&node["weight"], &node["certificate"]),
        (&json!(1000.0), &json!("unknown"))
    );
}
