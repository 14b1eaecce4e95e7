//! How long a session lasts when its credential ends, or the operator sets a bound.

use std::time::Duration;

use turnfleet_turn::CloseReason;
use turnfleet_turn::policy::{Limits, TcpRelaying};

use crate::support::{Caller, Net, PEER, START_UNIX, Setup, assert_challenge};

fn net(limits: Limits) -> Net {
    Net::with(Setup {
        limits,
        ..Setup::default()
    })
}

/// Alice with a credential that ends in so many seconds, and an allocation.
fn ending_in(net: &mut Net, seconds: u64) -> Caller {
    let username = format!("{}:alice", START_UNIX + seconds);
    net.keys.set(&username, &["secret"]);
    let mut caller = Caller::named(net, "192.0.2.1:5000", &username);
    caller.allocated(net);
    caller
}

#[test]
fn a_live_allocation_outlives_its_credential() {
    let mut net = net(Limits::default());
    let mut caller = ending_in(&mut net, 100);
    net.advance_seconds(500);
    assert_eq!(caller.refresh(&mut net, None).code(), 200);
    assert_eq!(caller.permit(&mut net, &[PEER]).code(), 200);
    assert_eq!(caller.bind(&mut net, 0x4000, PEER).code(), 200);
}

#[test]
fn a_strict_server_refuses_every_request_from_60_seconds_past_expiry() {
    let mut net = net(Limits {
        strict_expiry: true,
        ..Limits::default()
    });
    let mut caller = ending_in(&mut net, 100);
    net.advance_seconds(159);
    assert_eq!(caller.refresh(&mut net, None).code(), 200);
    net.advance_seconds(1);
    assert_challenge(&caller.refresh(&mut net, None), 401);
    assert_challenge(&caller.permit(&mut net, &[PEER]), 401);
    assert_challenge(&caller.bind(&mut net, 0x4000, PEER), 401);
    net.advance_seconds(600);
    net.assert_idle();
}

#[test]
fn a_strict_server_goes_on_with_static_users() {
    let mut net = net(Limits {
        strict_expiry: true,
        ..Limits::default()
    });
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    caller.allocated(&mut net);
    net.keys.set("alice", &["another"]);
    net.advance_seconds(500);
    assert_eq!(caller.refresh(&mut net, None).code(), 200);
}

#[test]
fn an_allocation_ends_with_its_session_however_often_it_is_refreshed() {
    let mut net = net(Limits {
        max_session: Some(Duration::from_secs(1000)),
        ..Limits::default()
    });
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    let answer = caller.allocate(&mut net, |writer| {
        writer.lifetime(3600);
    });
    assert_eq!(answer.lifetime(), 1000);
    for (seconds, rest) in [(300, 600), (400, 300), (299, 1)] {
        net.advance_seconds(seconds);
        assert_eq!(caller.refresh(&mut net, None).lifetime(), rest);
    }
    net.advance_seconds(1);
    assert_eq!(caller.refresh(&mut net, None).code(), 437);
    net.assert_idle();
    caller.allocated(&mut net);
}

#[test]
fn a_shorter_bound_ends_sessions_that_have_lasted_longer() {
    let mut net = net(Limits::default());
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    caller.allocated(&mut net);
    net.advance_seconds(500);
    net.change_policy(|policy| policy.limits.max_session = Some(Duration::from_secs(400)));
    assert_eq!(caller.refresh(&mut net, None).lifetime(), 1);
    net.advance_seconds(1);
    net.assert_idle();
}

#[test]
fn revoked_keys_end_exactly_the_allocations_that_were_made_with_them() {
    let mut net = Net::new();
    net.keys.set("alice", &["first", "second"]);
    let mut callers: Vec<Caller> = (0..6)
        .map(|number| {
            let mut caller = Caller::new(&mut net, &format!("192.0.2.1:{}", 5000 + number));
            caller.password = ["first", "second"][number % 2].into();
            caller.allocated(&mut net);
            caller
        })
        .collect();
    net.change_policy(|policy| policy.revoked_keys = vec![2, 7]);
    assert_eq!(net.server.counters().closed(CloseReason::Revoked), 3);
    for (number, caller) in callers.iter_mut().enumerate() {
        let code = [200, 437][number % 2];
        assert_eq!(caller.refresh(&mut net, None).code(), code, "{number}");
    }
    // What has been looked for once is not looked for again.
    callers[1].allocated(&mut net);
    net.change_policy(|policy| policy.tcp_relaying = TcpRelaying::On);
    assert_eq!(net.server.counters().allocations(), 4);
}

#[test]
fn whoever_authenticates_uses_the_key_that_fits() {
    let mut net = Net::new();
    net.keys.set("alice", &["first", "second"]);
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    caller.password = "second".into();
    caller.allocated(&mut net);
    assert_eq!(net.keys.used.take(), [2]);
    // A live allocation knows its key, whether it is still given to others or not.
    net.keys.set("alice", &[]);
    assert_eq!(caller.refresh(&mut net, None).code(), 200);
    assert_eq!(net.keys.used.take(), [2]);
    caller.password = "third".into();
    assert_challenge(&caller.refresh(&mut net, None), 401);
    assert_eq!(net.keys.used.take(), []);
}
