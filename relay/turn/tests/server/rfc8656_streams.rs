//! Clients on streams: what their allocations mean for the stream, and for the log when many end at once.

use super::support::{Caller, Net, Setup};
use turnfleet_turn::policy::Limits;
use turnfleet_turn::{CloseReason, Event, Transport};

/// More than events wait for the driver.
const CROWD: u16 = 4_200;

/// So many clients with an allocation each, on streams.
fn crowd() -> Net {
    let mut net = Net::with(Setup {
        ports: (20_000, 59_999),
        limits: Limits {
            allocations_per_user: u32::from(CROWD),
            ..Limits::default()
        },
        ..Setup::default()
    });
    for port in 0..CROWD {
        let client = format!("192.0.2.1:{}", 1000 + port);
        Caller::of(&mut net, &client, Transport::Tcp, "alice").allocated(&mut net);
    }
    assert_eq!(net.kept.len(), usize::from(CROWD));
    net
}

/// Every end was told, and no stream is kept.
#[track_caller]
fn assert_all_told(net: &Net, wanted: CloseReason) {
    let ended = |event: &&Event| matches!(event, Event::Closed { reason, .. } if *reason == wanted);
    let told = net.events.iter().filter(ended).count();
    assert_eq!(told, usize::from(CROWD));
    net.assert_idle();
}

// RFC 8656 §7.3: the stream of an allocation is kept as long as that
#[test]
fn a_stream_is_kept_while_its_client_has_an_allocation() {
    let mut net = Net::new();
    let mut caller = Caller::of(&mut net, "192.0.2.1:5000", Transport::Tls, "alice");
    for _ in 0..2 {
        assert_eq!(net.kept, []);
        caller.allocated(&mut net);
        assert_eq!(net.kept, [caller.five_tuple]);
        caller.refresh(&mut net, Some(0));
    }
    net.assert_idle();
    let mut caller = Caller::new(&mut net, "192.0.2.1:5000");
    caller.allocated(&mut net);
    assert_eq!(net.kept, [], "a client on UDP has no stream");
}

// RFC 8656 §6: an allocation ends with its lifetime, however many others do
#[test]
fn each_of_a_crowd_of_allocations_that_expire_at_once_is_told() {
    let mut net = crowd();
    net.advance_seconds(600);
    assert_all_told(&net, CloseReason::Expired);
}

// RFC 8656 §6: closing everything frees everything
#[test]
fn each_of_a_crowd_of_allocations_that_the_operator_ends_is_told() {
    let mut net = crowd();
    while net.server.close_some(net.now) {
        net.obey();
    }
    net.obey();
    assert_all_told(&net, CloseReason::Shutdown);
}

// RFC 8656 §7.5: a client learns of the end in time to move
#[test]
fn each_of_a_crowd_that_lives_is_told_of_its_eviction_once() {
    let mut net = crowd();
    net.events.clear();
    net.server.begin_evicting(1_700_000_060);
    let mut calls = 0;
    loop {
        let others = net.server.tell_evicting(100);
        net.obey();
        calls += 1;
        if !others {
            break;
        }
    }
    let deadline = |event: &Event| {
        let Event::Evicting { deadline, .. } = event else {
            return None;
        };
        Some(*deadline)
    };
    let told: Vec<_> = net.events.iter().filter_map(deadline).collect();
    let live = usize::try_from(net.server.counters().allocations()).unwrap();
    assert_eq!(told, vec![1_700_000_060; live]);
    assert!(calls >= live / 100, "{calls} calls tell of {live}");
    net.server.begin_evicting(1_700_000_090);
    net.server.begin_evicting(0);
    assert!(!net.server.tell_evicting(100));
}
