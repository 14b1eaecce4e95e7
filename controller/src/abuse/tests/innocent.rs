//! Whom no rule may find, and why.

use super::*;

#[track_caller]
fn assert_left_alone(signals: &Signals) {
    let findings = strictly(signals);
    assert!(findings.is_empty(), "{findings:?}");
}

/// Three hundred users behind one address, each with a browser on two interfaces and two URIs, all within a second.
#[test]
fn an_office_that_connects_within_a_second_is_no_flood_and_guesses_nothing() {
    // Caught in the middle: a fifth of the challenges have been sent, and not answered yet.
    let caught = office(NetworkSignals {
        nodes: 4,
        challenges: 1200,
        unanswered: 240,
        ..NetworkSignals::default()
    });
    assert_left_alone(&caught);
    let settled = office(NetworkSignals {
        nodes: 4,
        challenges: 1200,
        ..NetworkSignals::default()
    });
    assert_left_alone(&settled);
}

/// Their credentials ended over lunch: three tries each.
#[test]
fn an_office_with_credentials_that_have_ended_is_not_taken_for_one_who_guesses() {
    let ended = office(NetworkSignals {
        nodes: 1,
        failures: 900,
        challenges: 900,
        unanswered: 900,
        ..NetworkSignals::default()
    });
    assert_left_alone(&ended);
}

/// Every user is counted by itself, and the quota of the office's tenant is no user's limit.
#[test]
fn an_office_at_work_is_many_users_who_each_do_little() {
    let mut signals = office(NetworkSignals {
        limited_users: spread(0..3),
        limited: 9,
        ..NetworkSignals::default()
    });
    for n in 0..300 {
        let one = UserSignals {
            nodes: 1,
            addresses: spread([7]),
            networks: spread([7]),
            peers: spread(n..n + 4),
            endpoints: spread(n..n + 6),
            new_peers: 4,
            denied: 6,
            opened: 4,
            ..UserSignals::default()
        };
        signals.users.insert((0, format!("user{n}")), one);
    }
    assert_left_alone(&signals);
}

/// A mesh of three hundred, each with an address of its own, a second one by IPv6 that leads nowhere, and two private ones.
fn conference() -> UserSignals {
    UserSignals {
        nodes: 1,
        bytes_back: 300 * 150,
        addresses: spread([1]),
        networks: spread([1]),
        peers: spread(0..600),
        endpoints: spread(0..900),
        new_peers: 600,
        denied: 600,
        opened: 4,
    }
}

#[test]
fn a_conference_of_three_hundred_peers_is_answered_and_so_no_scan() {
    assert_left_alone(&ann(conference()));
}

#[test]
fn a_conference_whose_peers_have_not_answered_yet_is_given_the_time() {
    let mut engine = Engine::new(strict());
    let begun = ann(UserSignals {
        bytes_back: 0,
        ..conference()
    });
    assert!(
        engine
            .judge(1000, &begun, &Fleetwide::default(), true)
            .is_empty()
    );
    assert!(watched(&mut engine, 2, &ann(conference())).is_empty());
}

/// Three hundred peers behind the one address of their office: each is a port of the same host.
#[test]
fn a_conference_with_an_office_is_no_port_scan() {
    let behind_one = ann(UserSignals {
        peers: spread([1]),
        endpoints: spread(0..300),
        new_peers: 1,
        denied: 0,
        ..conference()
    });
    assert_left_alone(&behind_one);
}

/// A train: another address every minute, most of them of one provider, over an hour, and all allocations anew each time.
#[test]
fn a_mobile_user_changes_its_address_and_shares_nothing() {
    let mut engine = Engine::new(strict());
    for minute in 0..60u32 {
        let lately = minute.saturating_sub(9)..=minute;
        let signals = ann(UserSignals {
            nodes: 1,
            bytes_back: 100_000,
            addresses: spread(lately.clone()),
            networks: spread(lately.map(|it| it / 4)),
            peers: spread(0..4),
            endpoints: spread(0..4),
            new_peers: 16,
            opened: 8,
            ..UserSignals::default()
        });
        let findings = watched(&mut engine, u64::from(minute) * 60, &signals);
        assert!(findings.is_empty(), "{findings:?}");
    }
}

/// The same where the operator's window is an hour: it is told, and nobody is banned for moving within a provider or two.
#[test]
fn a_mobile_user_is_not_banned_where_the_window_is_an_hour() {
    let mut settings = strict();
    settings.rules[Rule::SharedCredential.index()].window = Duration::from_secs(3600);
    let mut engine = Engine::new(settings);
    for minute in 0..60u32 {
        let signals = ann(UserSignals {
            addresses: spread(minute.saturating_sub(9)..=minute),
            networks: spread([1, 2]),
            ..UserSignals::default()
        });
        let findings = watched(&mut engine, u64::from(minute) * 60, &signals);
        assert!(findings.iter().all(|it| it.ban.is_none()), "{findings:?}");
    }
}

#[test]
fn a_user_with_a_password_of_its_own_may_be_many() {
    let shared = ann(UserSignals {
        addresses: spread(0..300),
        networks: spread(0..300),
        ..UserSignals::default()
    });
    let fleet = Fleetwide {
        static_users: ["ann".to_owned()].into(),
        ..Fleetwide::default()
    };
    let mut engine = Engine::new(strict());
    assert!(engine.judge(1000, &shared, &fleet, true).is_empty());
    assert!(engine.cases().is_empty());
}

/// A laptop that wakes: every allocation of every tab anew, once.
#[test]
fn a_user_who_opens_all_its_allocations_anew_is_in_no_loop() {
    let wakes = ann(UserSignals {
        opened: 200,
        ..UserSignals::default()
    });
    assert_left_alone(&wakes);
}
