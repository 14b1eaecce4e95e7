//! What happens in the fleet, as it is told: over sessions of nodes, by Server-Sent Events and by gRPC.

use std::io::{BufRead as _, BufReader};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tonic::Request;
use tonic::metadata::MetadataValue;
use tonic::transport::Endpoint;
use turnfleet_controller::events::{About, What};
use turnfleet_proto::fleet::controller_message::Message as Down;
use turnfleet_proto::fleet::event::What as Told;
use turnfleet_proto::fleet::listener::Transport;
use turnfleet_proto::fleet::node_message::Message as Up;
use turnfleet_proto::fleet::{
    AllocationClosed, AllocationOpened, Event, EventClient, Events, Hello, NetworkUsage, Usage,
    UserUsage, Volume,
};
use turnfleet_proto::operator::WatchEventsRequest;
use turnfleet_proto::operator::operator_client::OperatorClient;

use crate::stage::calls::ask;
use crate::stage::{Node, Stage, any_hello};

/// A stream of Server-Sent Events.
struct Stream(Box<dyn std::io::BufRead>);

impl Stream {
    fn open(stage: &Stage, query: &str, last: Option<&str>) -> Self {
        Self::with(stage, &stage.admin(), query, last)
    }

    fn with(stage: &Stage, bearer: &str, query: &str, last: Option<&str>) -> Self {
        let agent = ureq::Agent::config_builder()
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(20)))
            .build()
            .new_agent();
        let mut request = agent
            .get(stage.url(&format!("/v1/events?{query}")))
            .header("Authorization", bearer);
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let answer = request.call().unwrap();
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self(Box::new(BufReader::new(answer.into_body().into_reader())))
    }

    /// The next event, with its id; `None` at the end.
    fn next(&mut self) -> Option<(String, Json)> {
        let mut id = String::new();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(text) = line.strip_prefix("id:") {
                id = text.trim().to_owned();
            }
            if let Some(data) = line.strip_prefix("data:") {
                return Some((id, serde_json::from_str(data).unwrap()));
            }
        }
    }

    fn kinds(mut self) -> Vec<String> {
        let mut kinds = Vec::new();
        while let Some((_, event)) = self.next() {
            kinds.push(event["kind"].as_str().unwrap().to_owned());
        }
        kinds
    }
}

fn telling(id: &str) -> Hello {
    Hello {
        events: true,
        ..any_hello(id)
    }
}

fn client(allocation: u64) -> Option<EventClient> {
    Some(EventClient {
        shard: 1,
        allocation: Some(allocation),
        transport: Transport::Udp.into(),
        client: "192.0.2.77:5000".to_owned(),
        server: "192.0.2.1:3478".to_owned(),
        username: "1700000000:ann".to_owned(),
        tenant: String::new(),
    })
}

fn opened(number: u64) -> Event {
    Event {
        number,
        unix_millis: 1_700_000_000_000 + number,
        client: client(number),
        what: Some(Told::Opened(AllocationOpened {
            relayed_transport: Transport::Udp.into(),
            relayed: vec!["192.0.2.1:50000".to_owned()],
        })),
    }
}

fn closed(number: u64, allocation: u64) -> Event {
    Event {
        what: Some(Told::Closed(AllocationClosed {
            reason: "refreshed".to_owned(),
            seconds: 9,
            bytes_to_peers: 10,
            bytes_to_client: 20,
        })),
        client: client(allocation),
        ..opened(number)
    }
}

async fn tell(node: &Node, events: impl IntoIterator<Item = Event>) {
    let events = events.into_iter().collect();
    node.say(Up::Events(Events { events })).await;
}

/// The number up to which the controller says that it has them.
async fn taken(node: &mut Node) -> u64 {
    loop {
        if let Some(Down::EventsTaken(taken)) = node.hear().await.unwrap() {
            return taken.number;
        }
    }
}

#[test]
fn what_a_node_tells_is_taken_once_and_shown_with_its_fields() {
    let stage = Stage::new();
    let mut stream = Stream::open(&stage, "kinds=allocation", None);
    let mut node = stage.node(telling("relay-0"));
    stage.runtime.block_on(async {
        assert_eq!(taken(&mut node).await, 0);
        tell(&node, [opened(1), closed(2, 1)]).await;
        assert_eq!(taken(&mut node).await, 2);
        // It did not hear that, and says everything again.
        tell(&node, [opened(1), closed(2, 1), opened(3)]).await;
        assert_eq!(taken(&mut node).await, 3);
    });
    let (_, event) = stream.next().unwrap();
    assert_eq!(event["kind"], "allocation.opened");
    assert_eq!(event["node"], "relay-0");
    assert_eq!(event["tenant"], Json::Null);
    assert_eq!(event["at_milliseconds"], 1_700_000_000_001u64);
    assert_eq!(event["id"], "node/relay-0/07070707/1");
    let fields = &event["fields"];
    assert_eq!(fields["client"], "192.0.2.77:5000");
    assert_eq!(fields["username"], "1700000000:ann");
    assert_eq!(fields["relayed"][0], "192.0.2.1:50000");
    assert_eq!(fields["allocation"], 1);
    let (_, event) = stream.next().unwrap();
    assert_eq!(event["fields"]["bytes_to_client"], 20);
    assert_eq!(stream.next().unwrap().1["fields"]["allocation"], 3);
}

#[test]
fn a_session_that_breaks_in_the_middle_loses_nothing() {
    let stage = Stage::new();
    let credential = stage.enroll("relay-0").unwrap();
    let mut node = stage.session(&credential, telling("relay-0"));
    stage.runtime.block_on(async {
        node.settle().await;
        assert_eq!(taken(&mut node).await, 0);
        tell(&node, [opened(1), opened(2)]).await;
        assert_eq!(taken(&mut node).await, 2);
    });
    drop(node);
    let mut node = stage.session(&credential, telling("relay-0"));
    stage.runtime.block_on(async {
        node.settle().await;
        assert_eq!(taken(&mut node).await, 2, "it is told where it was");
        tell(&node, [opened(3)]).await;
        assert_eq!(taken(&mut node).await, 3);
    });
    let kinds = Stream::open(&stage, "once=true&after=start&kinds=allocation", None).kinds();
    assert_eq!(kinds, ["allocation.opened"; 3]);
}

#[test]
fn a_reader_goes_on_after_the_last_event_that_it_saw() {
    let stage = Stage::new();
    let mut node = stage.node(telling("relay-0"));
    stage.runtime.block_on(async {
        tell(&node, (1..=4).map(opened)).await;
        while taken(&mut node).await < 4 {}
    });
    let mut first = Stream::open(&stage, "after=start&kinds=allocation", None);
    first.next().unwrap();
    let (id, _) = first.next().unwrap();
    drop(first);
    let mut again = Stream::open(&stage, "kinds=allocation.opened", Some(&id));
    assert_eq!(again.next().unwrap().1["fields"]["allocation"], 3);
    assert_eq!(again.next().unwrap().1["fields"]["allocation"], 4);
}

#[test]
fn a_token_of_a_tenant_sees_what_concerns_that_tenant_alone() {
    let token = "0123456789abcdef-of-acme";
    let stage = Stage::with(|raw| {
        raw.probe.mode = turnfleet_controller::config::ProbeMode::Off;
        raw.api_tokens = vec![turnfleet_controller::config::RawApiToken {
            name: "acme".to_owned(),
            token: Some(token.to_owned()),
            token_file: None,
            scopes: vec!["viewer".to_owned()],
            tenant: Some("acme".to_owned()),
        }];
    });
    let bus = stage.controller().handle().events();
    let exceeded = |quota: &str| What::QuotaExceeded {
        quota: quota.to_owned(),
        limit: 1,
        username: None,
    };
    bus.publish(About::tenant("other"), exceeded("theirs"));
    bus.publish(About::default(), exceeded("everybodys"));
    bus.publish(About::tenant("acme"), exceeded("ours"));
    let bearer = format!("Bearer {token}");
    let mut stream = Stream::with(&stage, &bearer, "once=true&after=start", None);
    let (_, event) = stream.next().unwrap();
    assert_eq!(event["fields"]["quota"], "ours");
    assert!(stream.next().is_none());
    let other = ureq::get(stage.url("/v1/events?tenant=other"))
        .config()
        .proxy(None)
        .build()
        .header("Authorization", bearer)
        .config()
        .http_status_as_error(false)
        .build()
        .call();
    assert_eq!(other.unwrap().status(), 403);
}

#[test]
fn nodes_that_come_drain_and_go_are_told() {
    let stage = Stage::new();
    let mut stream = Stream::open(&stage, "kinds=node", None);
    let node = stage.node(telling("relay-0"));
    stage.wait_for("relay-0", |node| node.listed);
    let id = "relay-0".parse().unwrap();
    let handle = stage.controller().handle();
    stage.runtime.block_on(handle.drain(&id, None)).unwrap();
    stage.wait_for("relay-0", |node| node.draining);
    stage.runtime.block_on(handle.undrain(&id)).unwrap();
    stage.wait_for("relay-0", |node| !node.draining);
    drop(node);
    let mut kinds = Vec::new();
    while kinds.last().is_none_or(|kind| kind != "node.lost") {
        let (_, event) = stream.next().unwrap();
        assert_eq!(event["node"], "relay-0");
        kinds.push(event["kind"].as_str().unwrap().to_owned());
    }
    let expected = [
        "node.joined",
        "node.draining",
        "node.drained",
        "node.undrained",
        "node.lost",
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn a_rotation_is_told_step_by_step() {
    let stage = Stage::new();
    let mut stream = Stream::open(&stage, "kinds=secret", None);
    let answer = ureq::post(stage.url("/v1/secrets/rotate"))
        .config()
        .proxy(None)
        .build()
        .header("Authorization", stage.admin())
        .send_json(serde_json::json!({}));
    assert_eq!(answer.unwrap().status(), 200);
    // Without a relay there is nobody to wait for.
    let mut kinds = Vec::new();
    while !kinds.contains(&"secret.promoted".to_owned()) {
        let (_, event) = stream.next().unwrap();
        kinds.push(event["kind"].as_str().unwrap().to_owned());
    }
    assert!(kinds.contains(&"secret.retiring".to_owned()), "{kinds:?}");
}

#[test]
fn tenants_and_bans_are_told_by_the_controller_that_leads() {
    let stage = Stage::new();
    let mut stream = Stream::open(&stage, "kinds=tenant,ban&after=start", None);
    let admin = [("authorization", &*stage.admin())];
    let mut said = |method: &str, path: &str, body: &Json, kind: &str| {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let answer = ask(&stage, method, path, &admin, &body);
        assert!(answer.status < 300, "{method} {path}: {}", answer.body);
        let (_, event) = stream.next().unwrap();
        assert_eq!(
            (&event["kind"], &event["tenant"]),
            (&json!(kind), &json!("acme"))
        );
        event["fields"].clone()
    };
    let acme = json!({"suspended": true});
    let changed = said("PUT", "/v1/tenants/acme", &acme, "tenant.changed");
    assert_eq!(changed, acme);
    let ban = json!({"user": "acme/eve", "reason": "floods"});
    let placed = said("POST", "/v1/bans", &ban, "ban.placed");
    assert_eq!(
        (&placed["whom"], &placed["username"], &placed["by"]),
        (&json!("user"), &json!("eve"), &json!("turnfleet"))
    );
    let path = "/v1/bans?user=acme/eve";
    let lifted = said("DELETE", path, &Json::Null, "ban.lifted");
    assert_eq!(lifted["ended"], false);
    said("DELETE", "/v1/tenants/acme", &Json::Null, "tenant.removed");
}

#[test]
fn under_privacy_nobody_is_told_who_or_where_a_user_is() {
    let stage = Stage::with(|raw| {
        raw.probe.mode = turnfleet_controller::config::ProbeMode::Off;
        raw.privacy = true;
    });
    let mut node = stage.node(telling("relay-0"));
    stage.runtime.block_on(async {
        tell(&node, [opened(1), closed(2, 1)]).await;
        while taken(&mut node).await < 2 {}
    });
    let mut stream = Stream::open(&stage, "once=true&after=start&kinds=allocation", None);
    let (first, second) = (stream.next().unwrap().1, stream.next().unwrap().1);
    let text = first.to_string();
    assert!(
        !text.contains("ann") && !text.contains("192.0.2.77"),
        "{text}"
    );
    assert!(text.contains("192.0.2.1:3478"), "{text}");
    assert_eq!(first["fields"]["username"], second["fields"]["username"]);
    let volume = Some(Volume {
        minute_to_peers: 1000,
        ..Volume::default()
    });
    let usage = Usage {
        epoch: vec![7; 16],
        begun_millis: 1,
        number: 1,
        users: vec![UserUsage {
            user: "ann".to_owned(),
            volume,
            ..UserUsage::default()
        }],
        sources: vec![NetworkUsage {
            network: "192.0.2.0/24".to_owned(),
            volume,
        }],
        ..Usage::default()
    };
    stage.runtime.block_on(node.say(Up::Usage(usage)));
    let admin = [("authorization", &*stage.admin())];
    for of in ["users", "sources"] {
        let path = format!("/v1/usage/top?of={of}");
        let largest = || ask(&stage, "GET", &path, &admin, "").body;
        stage.within("the largest is told", || largest().contains("1000"));
        let told = largest();
        assert!(!told.contains("ann") && !told.contains("192.0.2"), "{told}");
    }
}

#[test]
fn grpc_tells_the_same() {
    let stage = Stage::new();
    let address = stage.controller().grpc_address();
    let bus = stage.controller().handle().events();
    stage.runtime.block_on(async {
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let mut client = OperatorClient::new(channel.connect().await.unwrap());
        let mut request = Request::new(WatchEventsRequest {
            kinds: vec!["ban".to_owned()],
            ..WatchEventsRequest::default()
        });
        let bearer: MetadataValue<_> = stage.admin().parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        let mut told = client.watch_events(request).await.unwrap().into_inner();
        let lifted = What::BanLifted {
            ban: "b1".to_owned(),
            whom: "user".to_owned(),
            ended: true,
        };
        bus.publish(About::tenant("acme"), lifted);
        let event = told.message().await.unwrap().unwrap();
        assert_eq!(
            (event.kind.as_str(), event.tenant.as_str()),
            ("ban.lifted", "acme")
        );
        assert_eq!(event.fields.len(), 3);
        assert!(event.id.starts_with("controller/"));
    });
}
