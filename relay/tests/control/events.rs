//! What a node tells of its allocations: to a controller that asks for it, in order, and again until it is taken.

use turnfleet_proto::fleet::controller_message::Message as FromController;
use turnfleet_proto::fleet::event::What;
use turnfleet_proto::fleet::node_message::Message as FromNode;
use turnfleet_proto::fleet::{Drain, Event, EventsTaken};

use crate::client::{Holder, allocate};
use crate::double::Double;
use crate::{TOKEN, running, take};

impl Double {
    async fn take_events(&self, number: u64) {
        let taken = EventsTaken { number };
        self.say(FromController::EventsTaken(taken)).await;
    }

    /// The events of the next message that has any.
    async fn hear_events(&mut self) -> Vec<Event> {
        self.hear_said(|message| {
            let FromNode::Events(told) = message else {
                return None;
            };
            Some(told.events)
        })
        .await
    }
}

fn kinds(events: &[Event]) -> Vec<&'static str> {
    let kind = |event: &Event| match event.what.as_ref().unwrap() {
        What::Opened(_) => "opened",
        What::Closed(_) => "closed",
        What::Evicting(_) => "evicting",
        What::Refused(_) => "refused",
        What::Lost(_) => "lost",
    };
    events.iter().map(kind).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_told_again_in_the_next_session_until_it_is_taken() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let node = running(root.path(), &mut double, 1).await;
    let server = node.listeners()[0].address;
    tokio::task::block_in_place(|| allocate(server, "north"));
    double.take_events(0).await;
    let told = double.hear_events().await;
    assert_eq!((kinds(&told), told[0].number), (vec!["opened"], 1));
    let client = told[0].client.as_ref().unwrap();
    assert!(client.username.ends_with(":a") && client.allocation == Some(0));

    double.end_session();
    double.hear_hello().await;
    take(&mut double, 2).await;
    double.take_events(0).await;
    assert_eq!(double.hear_events().await, told, "it was not taken");
    double.take_events(1).await;
    tokio::task::block_in_place(|| allocate(server, "north"));
    let next = double.hear_events().await;
    assert_eq!((kinds(&next), next[0].number), (vec!["opened"], 2));
    let page = node.render_metrics();
    assert!(page.contains("turnfleet_relay_events_taken_total 1\n"));
    assert!(page.contains("turnfleet_relay_events_waiting 1\n"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_with_a_deadline_is_told_of_each_allocation_and_once() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let node = running(root.path(), &mut double, 1).await;
    let server = node.listeners()[0].address;
    tokio::task::block_in_place(|| {
        allocate(server, "north");
        allocate(server, "north");
    });
    double.take_events(0).await;
    let mut told = double.hear_events().await;
    while told.len() < 2 {
        told.extend(double.hear_events().await);
    }
    let order = FromController::Drain(Drain {
        draining: true,
        deadline_seconds: 600,
    });
    double.say(order.clone()).await;
    let mut told = double.hear_events().await;
    while told.len() < 2 {
        told.extend(double.hear_events().await);
    }
    assert_eq!(kinds(&told), ["evicting", "evicting"]);
    let deadline = |event: &Event| match event.what {
        Some(What::Evicting(evicting)) => evicting.deadline,
        _ => 0,
    };
    assert!(deadline(&told[0]) > told[0].unix_millis / 1000 + 590);
    let last = told.last().unwrap().number;
    double.take_events(last).await;

    // The controller says it again at the beginning of the next session.
    double.end_session();
    double.hear_hello().await;
    take(&mut double, 2).await;
    double.say(order).await;
    double.take_events(last).await;
    // The node has heard both by then, in their order.
    take(&mut double, 3).await;
    node.stop().await;
    let mut told = double.hear_events().await;
    while told.len() < 2 {
        told.extend(double.hear_events().await);
    }
    assert_eq!(kinds(&told), ["closed", "closed"]);
    assert_eq!(told[0].number, last + 1, "nothing was told in between");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_tells_of_the_end_of_its_allocations_before_its_goodbye() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let node = running(root.path(), &mut double, 1).await;
    let server = node.listeners()[0].address;
    double.take_events(0).await;
    let mut holder = Holder::new(server, "north");
    tokio::task::block_in_place(|| holder.allocate());
    assert_eq!(kinds(&double.hear_events().await), ["opened"]);
    node.stop().await;
    assert_eq!(kinds(&double.hear_events().await), ["closed"]);
    double.hear_goodbye().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_asks_for_no_events_is_told_none() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let node = running(root.path(), &mut double, 1).await;
    let server = node.listeners()[0].address;
    tokio::task::block_in_place(|| allocate(server, "north"));
    node.stop().await;
    let first = double
        .hear_said(|message| {
            let is_either = matches!(message, FromNode::Events(_) | FromNode::Goodbye(_));
            is_either.then_some(message)
        })
        .await;
    assert!(matches!(first, FromNode::Goodbye(_)), "{first:?}");
}
