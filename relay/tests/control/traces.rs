//! Searches of the journal over the control session.

use std::time::UNIX_EPOCH;

use turnfleet_proto::fleet::controller_message::Message as FromController;
use turnfleet_proto::fleet::journal_gap::Reason;
use turnfleet_proto::fleet::traced_allocation::Ending;
use turnfleet_proto::fleet::{JournalKey, TraceAnswer, TraceQuery};
use turnfleet_proto::user_hash::UserKey;
use turnfleet_relay::Node;
use turnfleet_turn::client::Event;

use crate::client::Holder;
use crate::double::Double;
use crate::{TOKEN, config, running, take};

fn unix() -> u64 {
    UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// Asks who has `port` about this time, until `holds` is true of the answer.
async fn ask(double: &mut Double, port: u16, holds: impl Fn(&TraceAnswer) -> bool) -> TraceAnswer {
    let mut last = None;
    for id in 1..400 {
        let query = TraceQuery {
            id,
            relayed_ip: "127.0.0.1".into(),
            relayed_port: port.into(),
            from: unix() - 60,
            to: unix() + 60,
        };
        double.say(FromController::TraceQuery(query)).await;
        let answer = double.hear_trace().await;
        assert_eq!(answer.id, id);
        if holds(&answer) {
            return answer;
        }
        last = Some(answer);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("never came: {last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allocation_is_found_by_its_address_while_it_lives_and_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let node = running(root.path(), &mut double, 1).await;
    let key = UserKey::new([5; 32]);
    let given = key.as_bytes().to_vec();
    let given = FromController::JournalKey(JournalKey { key: given });
    double.say(given.clone()).await;
    let Event::Allocated(allocated) = Holder::new(node.listeners()[0].address, "north").allocate()
    else {
        panic!("no allocation")
    };
    let port = allocated.relayed.port();

    let named = |answer: &TraceAnswer| {
        let first = answer.allocations.first();
        first.is_some_and(|it| !it.user_hash.is_empty())
    };
    let answer = ask(&mut double, port, named).await;
    let [found] = &*answer.allocations else {
        panic!("{answer:?}")
    };
    assert_eq!(found.client, allocated.mapped.to_string());
    assert_eq!(found.relayed, [allocated.relayed.to_string()]);
    assert_eq!(found.user_hash, key.hash("1800000000:a").as_bytes());
    assert_eq!((found.ending(), found.ended), (Ending::Unspecified, 0));
    assert!(unix() - found.opened < 60 && answer.covers_since <= found.opened);
    assert_eq!(answer.refusal, "");

    node.stop().await;
    let node = Node::start(config(root.path(), &[double.endpoint()]))
        .await
        .unwrap();
    assert!(double.hear_hello().await.journal);
    take(&mut double, 2).await;
    let answer = ask(&mut double, port, |answer| !answer.allocations.is_empty()).await;
    let found = &answer.allocations[0];
    assert_eq!(found.ending(), Ending::Closed);
    assert_eq!(
        (found.reason.as_str(), answer.allocations.len()),
        ("shutdown", 1)
    );
    let died = |answer: &TraceAnswer| answer.gaps.iter().any(|gap| gap.reason() == Reason::Died);
    assert!(!died(&answer), "{answer:?}");
    let other = ask(&mut double, port ^ 1, |_| true).await;
    assert_eq!(other.allocations, []);
    let page = node.render_metrics();
    assert!(page.contains("turnfleet_relay_journal_events_lost_total 0\n"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_is_none_and_a_node_without_a_journal_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let node = running(root.path(), &mut double, 1).await;
    let good = TraceQuery {
        id: 7,
        relayed_ip: "127.0.0.1".into(),
        relayed_port: 50000,
        from: 10,
        to: 20,
    };
    for wrong in [
        TraceQuery {
            relayed_ip: "north".into(),
            ..good.clone()
        },
        TraceQuery {
            relayed_port: 70000,
            ..good.clone()
        },
        TraceQuery {
            from: 21,
            ..good.clone()
        },
        TraceQuery {
            to: 1_000_000,
            ..good.clone()
        },
    ] {
        double.say(FromController::TraceQuery(wrong)).await;
        let answer = double.hear_trace().await;
        assert!(answer.refusal.contains("a day at most"), "{answer:?}");
    }
    node.stop().await;

    let mut config = config(root.path(), &[double.endpoint()]);
    config.journal = None;
    let node = Node::start(config).await.unwrap();
    assert!(!double.hear_hello().await.journal);
    take(&mut double, 2).await;
    double.say(FromController::TraceQuery(good)).await;
    let answer = double.hear_trace().await;
    assert!(answer.refusal.contains("no journal"), "{answer:?}");
    node.stop().await;
    let mut kept = std::fs::read_dir(root.path().join("journal")).unwrap();
    assert!(kept.next().is_none(), "a journal that is off keeps nothing");
}
