//! What a node tells of those who use it, and that it goes on counting over a restart.

use std::path::Path;
use std::time::{Duration, Instant};

use turnfleet_proto::fleet::{TenantUsage, Usage};
use turnfleet_relay::Node;
use turnfleet_turn::client::Event;

use crate::client::Holder;
use crate::double::Double;
use crate::{TOKEN, config, running};

fn default_tenant(usage: &Usage) -> Option<&TenantUsage> {
    usage.tenants.iter().find(|tenant| tenant.tenant == 0)
}

fn opened(usage: &Usage) -> u64 {
    default_tenant(usage).map_or(0, |tenant| tenant.opened)
}

/// A node that waits until the one before it has let go of the folder.
async fn started(state_dir: &Path, double: &Double) -> Node {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match Node::start(config(state_dir, &[double.endpoint()])).await {
            Ok(node) => return node,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_counted_goes_on_over_a_restart_that_nobody_prepared() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let node = running(root.path(), &mut double, 1).await;
    let server = node.listeners()[0].address;
    assert!(matches!(
        Holder::new(server, "north").allocate(),
        Event::Allocated(_)
    ));
    let told = double.hear_usage(|usage| opened(usage) == 1).await;
    assert_eq!(default_tenant(&told).unwrap().open, 1);
    assert_eq!(told.epoch.len(), 16);

    // Without a Goodbye, and without a last word on what was counted.
    drop(node);
    let node = started(root.path(), &double).await;
    // The one before may have told of its open allocation more than once.
    let closed = |usage: &_| default_tenant(usage).is_some_and(|tenant| tenant.open == 0);
    let again = double
        .hear_usage(|usage| opened(usage) == 1 && closed(usage))
        .await;
    assert_eq!(again.epoch, told.epoch);
    assert!(again.number >= told.number);
    node.stop().await;

    std::fs::remove_file(root.path().join("usage.counters")).unwrap();
    let node = started(root.path(), &double).await;
    let lost = double.hear_usage(|usage| usage.epoch != told.epoch).await;
    assert!(lost.begun_millis > told.begun_millis);
    assert_eq!(opened(&lost), 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_tells_the_last_of_it_before_goodbye() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let node = running(root.path(), &mut double, 1).await;
    let mut holder = Holder::new(node.listeners()[0].address, "north");
    assert!(matches!(holder.allocate(), Event::Allocated(_)));
    assert!(matches!(holder.refresh(0), Event::Refreshed { .. }));
    node.drain(None);
    node.drained().await;
    node.stop().await;
    // It may have told of the open allocation before.
    double
        .hear_usage(|usage| {
            opened(usage) == 1 && default_tenant(usage).is_some_and(|tenant| tenant.open == 0)
        })
        .await;
    double.hear_goodbye().await;
}
