//! What a controller orders beside policy: the end, another controller, another credential.

use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use tokio::time::timeout;
use turnfleet_proto::fleet::controller_message::Message as FromController;
use turnfleet_proto::fleet::{Credential, Kill, Redirect, Time};
use turnfleet_relay::Node;
use turnfleet_turn::client::{Event, Failure};
use turnfleet_turn::wire::ErrorCode;

use crate::client::Holder;
use crate::double::{Double, Heard};
use crate::{TOKEN, answers_a_binding_request, config, running, take, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_says_why_and_says_goodbye() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let node = running(root.path(), &mut double, 1).await;
    let reason = "stolen".to_owned();
    double.say(FromController::Kill(Kill { reason })).await;
    let killed = timeout(PATIENCE, node.killed()).await;
    assert_eq!(killed.unwrap(), "stolen");
    node.stop().await;
    double.hear_goodbye().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_goes_to_the_controller_that_it_is_sent_to_and_to_no_stranger() {
    let root = tempfile::tempdir().unwrap();
    let mut doubles = [Double::start(TOKEN).await, Double::start(TOKEN).await];
    let endpoints = doubles.each_ref().map(Double::endpoint);
    let node = Node::start(config(root.path(), &endpoints)).await.unwrap();
    // Which one comes first is drawn.
    let [zero, one] = &mut doubles;
    let here = tokio::select! {
        _ = zero.hear_hello() => 0,
        _ = one.hear_hello() => 1,
    };
    let there = 1 - here;
    take(&mut doubles[here], 1).await;
    let send = |endpoint: &str| {
        FromController::Redirect(Redirect {
            endpoint: endpoint.to_owned(),
        })
    };
    doubles[here].say(send("http://192.0.2.1:1")).await;
    take(&mut doubles[here], 2).await;
    doubles[here].say(send(&endpoints[there])).await;
    // The other one knows nothing of the node, and takes it as a member.
    doubles[there].hear_hello().await;
    assert!(node.is_ready() && answers_a_binding_request(&node));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_credential_is_used_by_the_next_session_and_opens_the_cache() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let node = running(root.path(), &mut double, 4).await;
    let node_credential = "the next one".replace(' ', "-");
    double.accept(&node_credential);
    let renewed = Credential { node_credential };
    double.say(FromController::Credential(renewed)).await;
    let path = root.path().join("node.credential");
    wait_for(|| {
        let kept = std::fs::read_to_string(&path).unwrap();
        kept.contains("the-next-one").then_some(())
    })
    .await;
    double.forget_nodes();
    double.accept("the-next-one");
    double.end_session();
    let opened = double.hear(|heard| match heard {
        Heard::Opened => Some(true),
        Heard::CredentialRefused | Heard::Enrolled => Some(false),
        Heard::EnrolmentRefused | Heard::Said(_) | Heard::Ended => None,
    });
    assert!(opened.await, "the renewed credential opens the session");
    node.stop().await;
    let endpoint = double.endpoint();
    drop(double);

    let node = Node::start(config(root.path(), &[endpoint])).await.unwrap();
    assert!(node.is_ready() && answers_a_binding_request(&node));
    assert_eq!(node.status().applied_generation, 4);
    node.stop().await;
}

/// What an allocation comes to, which is given back: the word on the time may take many of them.
fn tried(server: SocketAddr) -> Event {
    let mut holder = Holder::new(server, "north");
    let event = holder.allocate();
    if matches!(event, Event::Allocated(_)) {
        holder.refresh(0);
    }
    event
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_clock_is_behind_judges_credentials_by_the_controllers_time() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let node = running(root.path(), &mut double, 1).await;
    let server = node.listeners()[0].address;
    let own = || UNIX_EPOCH.elapsed().unwrap().as_secs();
    let hour = 3600;
    let is_such = |refused: bool, event: &Event| {
        let unauthenticated = Failure::Refused(ErrorCode::UNAUTHENTICATED);
        let is_refused = matches!(event, Event::Failed { why, .. } if *why == unauthenticated);
        is_refused == refused && (refused || matches!(event, Event::Allocated(_)))
    };
    // Nobody is that far ahead but by mistake; and what is behind is no news.
    for (unix, refused) in [
        (own() + hour, true),
        (own() + 25 * hour, false),
        (own() + hour, true),
        (own(), false),
        (own() + hour, true),
        (own() - hour, false),
    ] {
        let time = Time { unix_seconds: unix };
        double.say(FromController::Time(time)).await;
        wait_for(|| is_such(refused, &tried(server)).then_some(())).await;
    }
    node.stop().await;
}
