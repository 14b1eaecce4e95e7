//! Who had a relayed address: what an operator hears of the journals of the nodes, wherever their sessions are.

use std::sync::Arc;
use std::sync::Mutex;

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use turnfleet_proto::fleet::controller_message::Message as Down;
use turnfleet_proto::fleet::journal_gap::Reason;
use turnfleet_proto::fleet::listener::Transport;
use turnfleet_proto::fleet::node_message::Message as Up;
use turnfleet_proto::fleet::traced_allocation::Ending;
use turnfleet_proto::fleet::{Hello, JournalGap, TraceAnswer, TraceQuery, TracedAllocation};
use turnfleet_proto::user_hash::UserKey;

use crate::cluster::Cluster;
use crate::stage::calls::ask;
use crate::stage::{self, Node, Stage, any_hello};

const AT: u64 = 1_800_000_000;

/// What the fleet's nodes are asked.
type Asked = Arc<Mutex<Vec<TraceQuery>>>;

fn hello(id: &str) -> Hello {
    Hello {
        journal: true,
        ..any_hello(id)
    }
}

/// The same at another address.
fn hello_from(id: &str, address: &str) -> Hello {
    let transports = [Transport::Udp, Transport::Tcp];
    Hello {
        journal: true,
        ..stage::hello(id, &transports, address.parse().unwrap())
    }
}

/// Answers what the node is asked, for an allocation of ann's.
fn answering(stage: &Stage, mut node: Node) -> Asked {
    let asked = Asked::default();
    let noted = Arc::clone(&asked);
    stage.runtime.spawn(async move {
        let mut key = None;
        while let Ok(Some(heard)) = node.hear().await {
            match (heard, &key) {
                (Down::JournalKey(given), _) => key = UserKey::from_bytes(&given.key),
                (Down::TraceQuery(query), Some(key)) => {
                    let answer = answer(&query, key);
                    noted.lock().unwrap().push(query);
                    node.say(Up::TraceAnswer(answer)).await;
                }
                (_, _) => {}
            }
        }
    });
    asked
}

fn answer(query: &TraceQuery, key: &UserKey) -> TraceAnswer {
    TraceAnswer {
        id: query.id,
        allocations: vec![TracedAllocation {
            client: "198.51.100.7:1000".into(),
            transport: Transport::Tls.into(),
            relayed: vec!["192.0.2.1:50000".into()],
            relayed_transport: Transport::Udp.into(),
            tenant: 1,
            user_hash: key.hash("1800000600:ann").as_bytes().to_vec(),
            opened: AT - 5,
            ending: Ending::Closed.into(),
            ended: AT + 5,
            reason: "refreshed".into(),
        }],
        gaps: vec![JournalGap {
            from: AT,
            to: AT + 1,
            reason: Reason::Lost.into(),
        }],
        covers_since: AT - 100,
        has_more: false,
        refusal: String::new(),
    }
}

#[track_caller]
fn trace(stage: &Stage, body: &Value) -> Value {
    let headers = [("authorization", &*stage.admin())];
    let answer = ask(stage, "POST", "/v1/trace", &headers, &body.to_string());
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

#[test]
fn an_operator_hears_who_had_the_address_where_nobody_knows_and_who_was_not_heard() {
    let stage = Stage::new();
    let asked = answering(&stage, stage.node(hello("relay-0")));
    // One of an earlier version, and one that is gone.
    let _old = stage.node(Hello {
        journal: false,
        ..hello_from("relay-1", "192.0.2.2:3478")
    });
    drop(stage.node(hello_from("relay-2", "192.0.2.3:3478")));
    stage.wait_for("relay-2", |node| !node.connected);
    // None of them has it today: all are asked.
    let body = json!({"ip": "198.18.0.1", "port": 50000, "at": AT, "user": "ann"});
    let answer = trace(&stage, &body);
    let found = &answer["traces"][0];
    assert_eq!(found["node"], "relay-0");
    assert_eq!(found["client"], "198.51.100.7:1000");
    assert_eq!(
        (&found["transport"], &found["ending"]),
        (&json!("tls"), &json!("closed"))
    );
    assert_eq!(found["tenant"], "#1");
    assert_eq!(
        (&found["opened"], &found["ended"]),
        (&json!(AT - 5), &json!(AT + 5))
    );
    assert_eq!(found["is_user"], true);
    assert_eq!(found["user_hash"].as_str().unwrap().len(), 32);
    let gap = json!({"node": "relay-0", "from": AT, "to": AT + 1, "reason": "lost"});
    assert_eq!(answer["gaps"], json!([gap]));
    assert_eq!(answer["heard"][0]["covers_since"], AT - 100);
    let unheard = |place: usize| answer["unheard"][place].to_string();
    assert!(
        unheard(0).contains("relay-1") && unheard(0).contains("no journal"),
        "{answer}"
    );
    // Its session is gone already, or ends before it answers.
    assert!(
        unheard(1).contains("relay-2") && unheard(1).contains("control session"),
        "{answer}"
    );
    let query = asked.lock().unwrap().remove(0);
    assert_eq!(
        (query.from, query.to, query.relayed_port),
        (AT - 30, AT + 30, 50000)
    );

    let body =
        json!({"ip": "192.0.2.1", "port": 50000, "at": AT, "user": "bob", "within_seconds": 0});
    assert_eq!(trace(&stage, &body)["traces"][0]["is_user"], false);
    let headers = [("authorization", &*stage.admin())];
    let acme = json!({"realm": "acme.example"}).to_string();
    let made = ask(&stage, "PUT", "/v1/tenants/acme", &headers, &acme);
    assert_eq!(made.status, 200, "{}", made.body);
    assert_eq!(trace(&stage, &body)["traces"][0]["tenant"], "acme");
    let audit = ask(&stage, "GET", "/v1/audit?limit=1", &headers, "").json();
    let entry = &audit["entries"][0];
    assert_eq!(
        (&entry["action"], &entry["target"]),
        (&json!("trace"), &json!("192.0.2.1:50000"))
    );
    assert!(entry["detail"].as_str().unwrap().contains("bob"), "{entry}");
}

#[test]
fn a_viewer_may_not_look_and_nonsense_is_refused() {
    let stage = Stage::new();
    let admin = stage.admin();
    let make = json!({"name": "viewer", "scopes": ["viewer"]}).to_string();
    let made = ask(
        &stage,
        "POST",
        "/v1/tokens",
        &[("authorization", &*admin)],
        &make,
    )
    .json();
    let viewer = format!("Bearer {}", made["token"].as_str().unwrap());
    let good = json!({"ip": "192.0.2.1", "port": 1, "at": AT}).to_string();
    let status = |token: &str, body: &str| {
        ask(
            &stage,
            "POST",
            "/v1/trace",
            &[("authorization", token)],
            body,
        )
        .status
    };
    assert_eq!(status(&viewer, &good), 403);
    assert_eq!(status(&admin, &good), 200);
    for wrong in [
        json!({"port": 1, "at": AT}),
        json!({"ip": "192.0.2.1", "port": 0, "at": AT}),
        json!({"ip": "north", "port": 1, "at": AT}),
        json!({"ip": "192.0.2.1", "port": 1, "at": AT, "within_seconds": 100_000}),
    ] {
        assert_eq!(status(&admin, &wrong.to_string()), 400, "{wrong}");
    }
}

#[test]
fn an_address_that_another_node_has_today_is_asked_for_everywhere() {
    let stage = Stage::new();
    let asked = answering(&stage, stage.node(hello("relay-0")));
    let body = json!({"ip": "::ffff:198.18.0.1", "port": 50000, "at": AT, "user": "ann"});
    let answer = trace(&stage, &body);
    assert_eq!(answer["traces"][0]["node"], "relay-0", "{answer}");
    assert_eq!(asked.lock().unwrap().remove(0).relayed_ip, "198.18.0.1");
}

#[test]
fn searches_are_let_through_at_a_rate() {
    let stage = Stage::new();
    let headers = [("authorization", &*stage.admin())];
    let body = json!({"ip": "192.0.2.1", "port": 50000, "at": AT}).to_string();
    let refused = (0..200)
        .map(|_| ask(&stage, "POST", "/v1/trace", &headers, &body))
        .find(|answer| answer.status != 200)
        .unwrap();
    assert_eq!(refused.status, 429, "{}", refused.body);
    let audit = ask(&stage, "GET", "/v1/audit?limit=200", &headers, "").json();
    let entries = audit["entries"].as_array().unwrap();
    let looks = entries.iter().filter(|it| it["action"] == "trace").count();
    assert!((8..50).contains(&looks), "{looks} looks");
}

#[test]
fn a_node_is_asked_by_the_controller_that_has_its_session() {
    let runtime = Runtime::new().unwrap();
    let Some(cluster) = runtime.block_on(Cluster::start()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let first = Stage::of_cluster(cluster.endpoints(), dir.path(), "first");
    let second = Stage::of_cluster(cluster.endpoints(), dir.path(), "second");
    let asked = answering(&first, first.node(hello("relay-0")));
    second.wait_for("relay-0", |node| node.connected);
    let body = json!({"ip": "192.0.2.1", "port": 50000, "at": AT, "user": "ann"});
    let answer = trace(&second, &body);
    assert_eq!(answer["traces"][0]["node"], "relay-0", "{answer}");
    assert_eq!(answer["traces"][0]["is_user"], true, "{answer}");
    assert_eq!(answer["unheard"], json!([]));
    assert_eq!(asked.lock().unwrap().len(), 1);
}
