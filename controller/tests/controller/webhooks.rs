//! Webhooks against receivers that fail.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use ring::hmac;
use serde_json::Value as Json;
use turnfleet_controller::config::{ProbeMode, RawConfig, RawWebhook};
use turnfleet_controller::events::{About, What};
use turnfleet_proto::fleet::controller_message::Message as Down;
use turnfleet_proto::fleet::event::What as Told;
use turnfleet_proto::fleet::node_message::Message as Up;
use turnfleet_proto::fleet::{
    AllocationClosed, AllocationEvicting, AllocationOpened, Event, EventClient, Events, Hello,
};

use crate::stage::{Node, Stage, any_hello};

const SECRET: &str = "0123456789abcdef";

/// A receiver of webhooks.
#[derive(Clone)]
struct Receiver {
    address: SocketAddr,
    state: Arc<Received>,
}

struct Received {
    /// Every so many-th request succeeds; none with zero.
    every: u64,
    requests: AtomicU64,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
    /// The events of the requests that succeeded, in their order.
    events: Mutex<Vec<Json>>,
}

impl Receiver {
    fn start(stage_runtime: &tokio::runtime::Runtime, every: u64) -> Self {
        let state = Arc::new(Received {
            every,
            requests: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            most_under_way: AtomicUsize::new(0),
            events: Mutex::default(),
        });
        let router = Router::new()
            .route("/hook", post(receive))
            .with_state(Arc::clone(&state));
        let listener = stage_runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let address = listener.local_addr().unwrap();
        stage_runtime.spawn(async move { axum::serve(listener, router).await });
        Self { address, state }
    }

    fn hook(&self) -> RawWebhook {
        RawWebhook {
            name: "app".to_owned(),
            url: format!("http://{}/hook?key=hidden", self.address),
            secret: Some(SECRET.to_owned()),
            kinds: vec!["allocation".to_owned(), "ban".to_owned()],
            ..RawWebhook::default()
        }
    }

    fn len(&self) -> usize {
        self.state.events.lock().unwrap().len()
    }
}

async fn receive(
    State(state): State<Arc<Received>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let open = state.under_way.fetch_add(1, Ordering::SeqCst) + 1;
    state.most_under_way.fetch_max(open, Ordering::SeqCst);
    let number = state.requests.fetch_add(1, Ordering::SeqCst) + 1;
    tokio::task::yield_now().await;
    let taken = state.every != 0 && number.is_multiple_of(state.every);
    let status = if taken && is_signed(&headers, &body) {
        let told: Json = serde_json::from_slice(&body).unwrap();
        let events = told["events"].as_array().unwrap();
        state.events.lock().unwrap().extend(events.iter().cloned());
        StatusCode::NO_CONTENT
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    };
    state.under_way.fetch_sub(1, Ordering::SeqCst);
    status
}

fn is_signed(headers: &HeaderMap, body: &[u8]) -> bool {
    let signature = headers["turnfleet-signature"].to_str().unwrap();
    let (time, tag) = signature.split_once(",v1=").unwrap();
    let time = time.strip_prefix("t=").unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let mut signed = format!("{time}.").into_bytes();
    signed.extend_from_slice(body);
    let bytes = (0..tag.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&tag[at..at + 2], 16).unwrap());
    hmac::verify(&key, &signed, &bytes.collect::<Vec<_>>()).is_ok()
}

fn stage(hooks: Vec<RawWebhook>) -> Stage {
    Stage::with(|raw: &mut RawConfig| {
        raw.probe.mode = ProbeMode::Off;
        raw.webhooks = hooks;
    })
}

fn telling(id: &str) -> Hello {
    Hello {
        events: true,
        ..any_hello(id)
    }
}

/// Every allocation opens, is told of its eviction and closes.
fn story(allocations: u64) -> Vec<Event> {
    let mut events = Vec::new();
    for step in 0..3 {
        for allocation in 0..allocations {
            events.push(Event {
                number: events.len() as u64 + 1,
                unix_millis: 1_700_000_000_000,
                client: Some(EventClient {
                    allocation: Some(allocation),
                    client: "192.0.2.77:5000".to_owned(),
                    server: "192.0.2.1:3478".to_owned(),
                    username: "ann".to_owned(),
                    ..EventClient::default()
                }),
                what: Some(match step {
                    0 => Told::Opened(AllocationOpened::default()),
                    1 => Told::Evicting(AllocationEvicting { deadline: 7 }),
                    _ => Told::Closed(AllocationClosed::default()),
                }),
            });
        }
    }
    events
}

async fn tell(node: &mut Node, events: &[Event]) {
    for batch in events.chunks(300) {
        let events = batch.to_vec();
        node.say(Up::Events(Events { events })).await;
    }
    let last = events.last().unwrap().number;
    loop {
        if let Some(Down::EventsTaken(taken)) = node.hear().await.unwrap()
            && taken.number == last
        {
            return;
        }
    }
}

/// The state of the only webhook.
fn standing(stage: &Stage) -> Json {
    let answer = ureq::get(stage.url("/v1/webhooks"))
        .config()
        .proxy(None)
        .build()
        .header("Authorization", stage.admin())
        .call();
    let told: Json = answer.unwrap().body_mut().read_json().unwrap();
    told["webhooks"][0].clone()
}

#[test]
fn a_receiver_that_fails_half_of_the_time_gets_every_event_in_order_per_allocation() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let receiver = Receiver::start(&runtime, 2);
    let stage = stage(vec![receiver.hook()]);
    let mut node = stage.node(telling("relay-0"));
    let events = story(1000);
    stage.runtime.block_on(tell(&mut node, &events));
    stage.within("every event", || receiver.len() >= events.len());

    let mut stories: HashMap<u64, Vec<String>> = HashMap::new();
    for event in receiver.state.events.lock().unwrap().iter() {
        let allocation = event["fields"]["allocation"].as_u64().unwrap();
        let kind = event["kind"].as_str().unwrap().to_owned();
        stories.entry(allocation).or_default().push(kind);
    }
    assert_eq!(stories.len(), 1000);
    for (allocation, told) in stories {
        let expected = [
            "allocation.opened",
            "allocation.evicting",
            "allocation.closed",
        ];
        assert_eq!(told, expected, "{allocation}");
    }
    assert!(receiver.state.most_under_way.load(Ordering::SeqCst) <= 8);
    let requests = receiver.state.requests.load(Ordering::SeqCst);
    stage.within("the word on them", || standing(&stage)["delivered"] == 3000);
    let standing = standing(&stage);
    assert_eq!(
        (&standing["queued"], &standing["dead"]),
        (&0.into(), &0.into())
    );
    let failed = standing["failed_requests"].as_u64().unwrap();
    assert!(
        failed >= requests / 2 - 8 && failed > 0,
        "{failed} of {requests}"
    );
    let url = format!("http://{}/hook", receiver.address);
    assert_eq!(standing["url"], url);
}

#[test]
fn a_receiver_that_is_down_holds_nobody_up_and_what_it_misses_is_counted() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (down, up) = (Receiver::start(&runtime, 0), Receiver::start(&runtime, 1));
    let failing = RawWebhook {
        max_age_seconds: 10,
        ..down.hook()
    };
    let working = RawWebhook {
        name: "other".to_owned(),
        ..up.hook()
    };
    let stage = stage(vec![failing, working]);
    let mut node = stage.node(telling("relay-0"));
    // More than fits its queue.
    let events = story(8000);
    for (place, batch) in events.chunks(300).enumerate() {
        // One that is slow would lose what its queue has no room for, and this is about the other.
        let said = 300 * place;
        stage.within("the other keeps up", || up.len() + 10_000 >= said);
        let events = batch.to_vec();
        let batch = Up::Events(Events { events });
        stage.runtime.block_on(node.say(batch));
    }
    // What is held back for the receiver is held for a while only.
    stage.runtime.block_on(async {
        loop {
            if let Some(Down::EventsTaken(taken)) = node.hear().await.unwrap()
                && taken.number == 24_000
            {
                break;
            }
        }
    });
    stage.within("the other has all", || up.len() == 24_000);
    let standing = standing(&stage);
    assert_eq!(standing["delivered"], 0);
    assert!(standing["queued"].as_u64().unwrap() <= 20_000);
    assert!(standing["dead"].as_u64().unwrap() >= 4000);
    assert_eq!(standing["dead_letters"].as_array().unwrap().len(), 10);
    let error = standing["last_error"].as_str().unwrap();
    assert!(error.contains("500"), "{error}");
}

#[test]
fn what_a_controller_publishes_is_delivered_as_its_webhook_wants_it() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let receiver = Receiver::start(&runtime, 1);
    let hook = RawWebhook {
        tenant: Some("acme".to_owned()),
        ..receiver.hook()
    };
    let stage = stage(vec![hook]);
    let bus = stage.controller().handle().events();
    let lifted = |ban: &str| What::BanLifted {
        ban: ban.to_owned(),
        whom: "user".to_owned(),
        ended: true,
    };
    bus.publish(About::tenant("other"), lifted("theirs"));
    bus.publish(About::tenant("acme"), What::TenantRemoved {});
    bus.publish(About::tenant("acme"), lifted("ours"));
    stage.within("the event", || receiver.len() == 1);
    let events = receiver.state.events.lock().unwrap();
    assert_eq!(events[0]["fields"]["ban"], "ours");
    assert_eq!(events[0]["tenant"], "acme");
}
