use std::collections::{BTreeMap, BTreeSet};

use turnfleet_proto::fleet::listener::Transport;
use turnfleet_proto::fleet::{LegUsage, TenantUsage, Usage, UserUsage, Volume};
use turnfleet_proto::{NodeId, PortRange, fleet as wire};
use turnfleet_turn::{Instant, Now};

use super::*;
use crate::config::{PortPlan, ProbeMode};
use crate::fleet::quota::Subject;
use crate::fleet::tenants::Quotas;
use crate::fleet::{Fleet, ListSettings, Settings};
use crate::store::MemoryStore;

const ACME: u32 = 7;
/// Noon of a day.
const NOON: u64 = 20_000 * 86_400 + 43_200;

/// A fleet that nothing is known of.
fn fleet() -> Fleet {
    Fleet::new(Settings {
        region: "north".into(),
        ports: PortPlan {
            range: PortRange::DYNAMIC,
            relays_per_address: 1,
        },
        probe: ProbeMode::Off,
        lists: ListSettings::default(),
        rotate_secrets_every: None,
    })
}

fn limits() -> BTreeMap<u32, Quotas> {
    let quotas = Quotas {
        bytes_per_day: 1500,
        user_bytes_per_day: 1000,
        ..Quotas::default()
    };
    BTreeMap::from([(ACME, quotas)])
}

/// A controller's keeper that leads by itself, and has read what `store` holds.
async fn keeper(store: &MemoryStore, unix: u64) -> Task {
    let history = History::new(Arc::new(store.clone()));
    let desk = UsageDesk::new(history.clone());
    desk.load(unix).await.unwrap();
    desk.exhausted(unix, &limits());
    let now = Now {
        instant: Instant(1),
        unix,
    };
    let view = fleet().view(now);
    let (_, views) = watch::channel(Arc::new(view));
    Task {
        desk,
        history,
        views,
        leadership: Leadership::Sole,
        term: None,
    }
}

/// What a relay tells when Alice has carried so many bytes since it began.
fn report(number: u64, bytes: u64) -> Vec<Usage> {
    let volume = Volume {
        to_peers: bytes,
        hour_to_peers: bytes,
        ..Volume::default()
    };
    let lists = Usage {
        epoch: vec![1; 16],
        begun_millis: 1,
        number,
        users: vec![UserUsage {
            tenant: ACME,
            user: "alice".to_owned(),
            volume: Some(volume),
            ..UserUsage::default()
        }],
        ..Usage::default()
    };
    let leg = LegUsage {
        transport: Transport::Udp.into(),
        bytes_to_peers: bytes,
        ..LegUsage::default()
    };
    let tenant = TenantUsage {
        tenant: ACME,
        legs: vec![leg],
        ..TenantUsage::default()
    };
    let tenants = Usage {
        users: Vec::new(),
        tenants: vec![tenant],
        tenants_only: true,
        ..lists.clone()
    };
    vec![lists, tenants]
}

fn tell(task: &Task, number: u64, bytes: u64) {
    let node: NodeId = "relay-0".parse().unwrap();
    for usage in report(number, bytes) {
        task.desk.report(&node, usage);
    }
}

fn exhausted(task: &Task, unix: u64) -> BTreeSet<Option<Box<str>>> {
    let exhausted = task.desk.exhausted(unix, &limits());
    let whose = |subject: Subject| subject.user;
    exhausted.into_iter().map(whose).collect()
}

#[tokio::test]
async fn a_restart_keeps_the_day_and_the_next_day_begins_at_zero() {
    let store = MemoryStore::new();
    let mut task = keeper(&store, NOON).await;
    tell(&task, 1, 5000);
    assert_eq!(task.desk.bytes_of_day(ACME), 0, "it is of another day");
    tell(&task, 2, 6200);
    assert_eq!(task.desk.bytes_of_day(ACME), 1200);
    task.keep(NOON + 60).await.unwrap();
    assert_eq!(exhausted(&task, NOON), [Some("alice".into())].into());

    let mut task = keeper(&store, NOON + 90).await;
    assert_eq!(exhausted(&task, NOON + 90), [Some("alice".into())].into());
    tell(&task, 3, 6600);
    assert_eq!(task.desk.bytes_of_day(ACME), 1600);
    let both = [None, Some("alice".into())].into();
    assert_eq!(exhausted(&task, NOON + 95), both);
    task.keep(NOON + 120).await.unwrap();

    let tomorrow = NOON + 86_400;
    assert_eq!(exhausted(&task, tomorrow), BTreeSet::new());
    tell(&task, 4, 6700);
    assert_eq!(task.desk.bytes_of_day(ACME), 100);
    let task = keeper(&store, tomorrow).await;
    assert_eq!(exhausted(&task, tomorrow), BTreeSet::new());
    assert_eq!(task.desk.bytes_of_day(ACME), 0);
}

#[tokio::test]
async fn another_controllers_word_of_a_node_that_was_never_heard_is_of_another_day() {
    let store = MemoryStore::new();
    let task = keeper(&store, NOON).await;
    let told = |number, bytes| {
        let usage = report(number, bytes)
            .into_iter()
            .map(|usage| wire::NodeUsage {
                node_id: "relay-0".to_owned(),
                usage: Some(Usage {
                    number: if usage.tenants_only { 0 } else { number },
                    ..usage
                }),
            });
        task.desk.told(usage.rev().collect());
    };
    told(1, 5000);
    assert_eq!(task.desk.bytes_of_day(ACME), 0);
    told(2, 6000);
    assert_eq!(task.desk.bytes_of_day(ACME), 1000);
    assert_eq!(exhausted(&task, NOON), [Some("alice".into())].into());
    // Its session comes here.
    tell(&task, 2, 6000);
    tell(&task, 3, 6100);
    assert_eq!(task.desk.bytes_of_day(ACME), 1100);
}
