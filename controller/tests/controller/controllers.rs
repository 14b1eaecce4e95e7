//! Three controllers on one etcd: each knows the nodes of the others, one of them leads, and what one is told holds for all.

use tokio::runtime::Runtime;
use turnfleet_controller::config::RawAcme;
use turnfleet_controller::fleet::Health;
use turnfleet_controller::fleet::record::{Ban, Terms, Whom};
use turnfleet_proto::NodeId;
use turnfleet_proto::fleet::controller_message::Message as Down;
use turnfleet_proto::fleet::{Certificates, Hello};

use crate::acme::Authority;
use crate::cluster::Cluster;
use crate::stage::{Node, Stage, any_hello};

fn leaders(stages: &[&Stage]) -> usize {
    let leads = |stage: &&&Stage| stage.controller().view().leads;
    stages.iter().filter(leads).count()
}

#[test]
fn controllers_share_their_nodes_and_outlive_each_other() {
    let runtime = Runtime::new().unwrap();
    let Some(cluster) = runtime.block_on(Cluster::start()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut first = Stage::of_cluster(cluster.endpoints(), dir.path(), "first");
    let second = Stage::of_cluster(cluster.endpoints(), dir.path(), "second");
    let third = Stage::of_cluster(cluster.endpoints(), dir.path(), "third");
    let all = [&first, &second, &third];
    second.within("one of three leads", || leaders(&all) == 1);

    let relay: NodeId = "relay-0".parse().unwrap();
    // A node of the first one is healthy at every other, and listed there with the first one's secret.
    let node = first.node(any_hello("relay-0"));
    for stage in [&second, &third] {
        stage.wait_for("relay-0", |node| {
            node.health == Health::Healthy && node.connected && node.listed
        });
        let (here, there) = (stage.controller(), first.controller());
        assert_eq!(here.shared_secret(), there.shared_secret());
        assert_eq!(here.join_token(), there.join_token());
    }

    // What an operator asks of one of them holds for all, and reaches the node by its own.
    let drained = third.controller().handle().drain(&relay, None);
    third.runtime.block_on(drained).unwrap();
    for stage in all {
        stage.wait_for("relay-0", |node| node.draining && !node.listed);
    }

    // A controller that stops leaves the others as they are, one of them leading.
    drop(node);
    first.stop();
    let rest = [&second, &third];
    second.within("one of two leads", || leaders(&rest) == 1);
    let undrained = second.controller().handle().undrain(&relay);
    second.runtime.block_on(undrained).unwrap();
    third.wait_for("relay-0", |node| !node.draining);
}

#[test]
fn what_one_controller_is_told_of_tenants_and_bans_holds_for_all_and_outlives_them() {
    let runtime = Runtime::new().unwrap();
    let Some(cluster) = runtime.block_on(Cluster::start()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let source = Whom::Source("198.51.100.0/24".parse().unwrap());
    let ban = Ban {
        whom: source.clone(),
        reason: "spam".to_owned(),
        by: "night".to_owned(),
        since: 1,
        until: None,
        automatic: false,
    };
    {
        let first = Stage::of_cluster(cluster.endpoints(), dir.path(), "first");
        let second = Stage::of_cluster(cluster.endpoints(), dir.path(), "second");
        let node = second.node(any_hello("relay-0"));
        let before = node.snapshot.as_ref().unwrap();
        assert_eq!((before.tenants.len(), before.bans.len()), (0, 0));
        let (name, placed) = ("acme".to_owned(), ban.clone());
        let handle = first.controller().handle().clone();
        first.runtime.block_on(async move {
            let made = handle
                .change(move |fleet, now| fleet.plan_tenant(&name, Terms::default(), now.unix));
            made.await.unwrap();
            let banned = handle.change(move |fleet, _| fleet.plan_ban(placed.clone(), false, None));
            banned.await.unwrap();
        });
        second.within("the other one knows", || {
            let view = second.controller().view();
            view.tenants.named("acme").is_some() && view.bans.of(&source).is_some()
        });
        let other = Hello {
            public_ips: vec!["192.0.2.9".to_owned()],
            ..any_hello("relay-1")
        };
        let again = second.node(other).snapshot.unwrap();
        assert_eq!((again.tenants.len(), again.bans.len()), (1, 1));
    }
    let third = Stage::of_cluster(cluster.endpoints(), dir.path(), "third");
    let view = third.controller().view();
    assert_eq!(view.tenants.id("acme"), Some(1));
    assert_eq!(**view.bans.of(&source).unwrap(), ban);
}

/// What the controller tells next of certificates that is as wanted.
async fn told(node: &mut Node, is_wanted: impl Fn(&Certificates) -> bool) -> Certificates {
    loop {
        let heard = node.hear().await.unwrap();
        if let Some(Down::Certificates(told)) = heard
            && is_wanted(&told)
        {
            return told;
        }
    }
}

#[test]
fn the_next_leader_goes_on_with_the_order_of_a_certificate() {
    let runtime = Runtime::new().unwrap();
    let Some(cluster) = runtime.block_on(Cluster::start()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root.pem");
    let authority = Authority::start(&root, "127.0.0.1:9".parse().unwrap());
    authority.behave(|manner| (manner.waits, manner.believes) = (true, true));
    let acme = RawAcme {
        directory_url: Some(authority.directory()),
        domains: vec!["turn.example.org".to_owned()],
        root_file: Some(root),
        accept_terms: true,
        spread_seconds: 0,
        ..RawAcme::default()
    };
    let controller = |name: &str| {
        let change = |raw: &mut turnfleet_controller::config::RawConfig| raw.acme = acme.clone();
        Stage::of_cluster_with(cluster.endpoints(), dir.path(), name, change)
    };
    let (mut first, mut second) = (controller("first"), controller("second"));
    first.within("one of them leads", || leaders(&[&first, &second]) == 1);
    let (leader, next) = match first.controller().view().leads {
        true => (&mut first, &mut second),
        false => (&mut second, &mut first),
    };
    let mut node = next.node(Hello {
        takes_certificates: true,
        ..any_hello("relay-0")
    });
    next.within("the authority was told to look", || {
        authority.seen().asked == 1
    });
    let answers = told(&mut node, |told| told.answers.len() == 1);
    let before = next.runtime.block_on(answers);
    assert!(before.chain.is_empty() && before.key.is_empty());

    leader.stop();
    authority.behave(|manner| manner.waits = false);
    let issued = told(&mut node, |told| !told.chain.is_empty());
    let after = next.runtime.block_on(issued);
    assert!(after.answers.is_empty() && after.key.contains("PRIVATE KEY"));
    let seen = authority.seen();
    assert_eq!((seen.accounts, seen.orders, seen.certificates), (1, 1, 1));
}
