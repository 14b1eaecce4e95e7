//! What follows where somebody is found.

use super::*;

fn guesses() -> Signals {
    office(NetworkSignals {
        failures: 5000,
        ..NetworkSignals::default()
    })
}

fn at(engine: &mut Engine, second: u64, signals: &Signals) -> Vec<Finding> {
    engine.judge(second * 1000, signals, &Fleetwide::default(), true)
}

#[test]
fn by_default_every_rule_looks_and_none_acts() {
    let settings = usual_abuse();
    for rule in Rule::ALL {
        assert!(settings.of(rule).enabled, "{rule}");
        assert_eq!(settings.of(rule).verdict, Verdict::Observe, "{rule}");
    }
    let findings = watched(&mut Engine::new(settings), 1, &guesses());
    assert_eq!(rules(&findings), [Rule::AuthenticationFailures]);
    assert!(findings.iter().all(|it| it.ban.is_none()));
    let would = findings[0].case.act.about(&findings[0].subject);
    assert_eq!(would, "ban source 192.0.2.0/24 for 1h");
}

#[test]
fn a_verdict_waits_for_a_second_report_and_falls_once() {
    let mut engine = Engine::new(strict());
    let first = at(&mut engine, 100, &guesses());
    assert!(first[0].tell && first[0].ban.is_none());
    assert!(at(&mut engine, 105, &guesses()).is_empty());
    let second = at(&mut engine, 106, &guesses());
    assert_eq!(second[0].ban, Some(Duration::from_secs(3600)));
    let later = (107..3700).step_by(5);
    let later: Vec<_> = later
        .flat_map(|it| at(&mut engine, it, &guesses()))
        .collect();
    assert!(later.iter().all(|it| it.ban.is_none()));
    assert!(at(&mut engine, 3706, &guesses())[0].ban.is_some());
}

#[test]
fn two_moments_far_apart_are_no_second_look() {
    let mut engine = Engine::new(strict());
    let quiet = Signals::default();
    for second in [100, 140, 180] {
        let findings = at(&mut engine, second, &guesses());
        assert!(findings.iter().all(|it| it.ban.is_none()));
        assert!(at(&mut engine, second + 1, &quiet).is_empty());
    }
}

#[test]
fn the_same_is_told_once_a_minute_with_the_count_of_the_moment() {
    let mut engine = Engine::new(usual_abuse());
    let told = (0..180).flat_map(|it| at(&mut engine, it, &guesses()));
    assert_eq!(told.filter(|it| it.tell).count(), 3);
}

#[test]
fn only_who_leads_says_anything_and_whoever_leads_next_knows_as_much() {
    let mut engine = Engine::new(strict());
    let fleet = Fleetwide::default();
    for second in 100..110 {
        let findings = engine.judge(second * 1000, &guesses(), &fleet, false);
        assert!(findings.is_empty());
    }
    assert_eq!(engine.cases().len(), 1);
    let findings = engine.judge(110_000, &guesses(), &fleet, true);
    assert!(findings[0].tell && findings[0].ban.is_some());
}

#[test]
fn whom_the_operator_exempts_no_rule_looks_at() {
    let mut settings = strict();
    settings.exempt = Exempt {
        networks: vec![network("192.0.2.7/32")],
        users: ["ann".to_owned(), "acme/bob".to_owned()].into(),
        tenants: ["load".to_owned()].into(),
    };
    let fleet = Fleetwide {
        tenants: vec![(1, "acme".to_owned()), (2, "load".to_owned())],
        ..Fleetwide::default()
    };
    let scan = UserSignals {
        new_peers: 5000,
        ..UserSignals::default()
    };
    let mut signals = guesses();
    let users = [(0, "ann"), (1, "bob"), (2, "eve"), (1, "eve")];
    for (tenant, user) in users {
        signals
            .users
            .insert((tenant, user.to_owned()), scan.clone());
    }
    let mut engine = Engine::new(settings);
    let findings = engine.judge(1000, &signals, &fleet, true);
    let found: Vec<_> = findings.iter().map(|it| it.subject.clone()).collect();
    let eve = Subject::User {
        tenant: 1,
        user: "eve".to_owned(),
    };
    assert_eq!(found, [eve]);
}

#[test]
fn what_is_the_fleets_own_is_told_and_never_banned() {
    let own = [
        Fleetwide {
            addresses: vec!["192.0.2.9".parse().unwrap()],
            ..Fleetwide::default()
        },
        Fleetwide {
            proxies: vec![network("192.0.2.128/25")],
            ..Fleetwide::default()
        },
    ];
    for fleet in own {
        let mut engine = Engine::new(strict());
        let seconds = 100..120;
        let findings: Vec<_> = seconds
            .flat_map(|it| engine.judge(it * 1000, &guesses(), &fleet, true))
            .collect();
        assert_eq!(rules(&findings), [Rule::AuthenticationFailures]);
        assert!(findings.iter().all(|it| it.ban.is_none()));
        assert!(matches!(findings[0].case.act, Act::Nothing(_)));
    }
}

#[test]
fn a_rule_that_is_switched_off_forgets_whom_it_found() {
    let mut engine = Engine::new(usual_abuse());
    assert_eq!(at(&mut engine, 1, &guesses()).len(), 1);
    let mut off = usual_abuse();
    off.rules[Rule::AuthenticationFailures.index()].enabled = false;
    engine.configure(off);
    assert!(at(&mut engine, 100, &guesses()).is_empty());
    assert!(engine.cases().is_empty());
}

#[test]
fn cases_are_bounded_and_go_when_nothing_is_found_for_ten_minutes() {
    let mut engine = Engine::new(usual_abuse());
    let mut signals = Signals::default();
    for n in 0..5000u32 {
        let ip = std::net::Ipv4Addr::from(0x0A00_0000 + (n << 8));
        let seen = NetworkSignals {
            failures: 2000,
            ..NetworkSignals::default()
        };
        let network = ipnet::Ipv4Net::new(ip, 24).unwrap();
        signals.networks.insert(network.into(), seen);
    }
    at(&mut engine, 1, &signals);
    assert_eq!(engine.cases().len(), 4096);
    assert_eq!(engine.dropped(), 904);
    at(&mut engine, 700, &Signals::default());
    assert!(engine.cases().is_empty());
}

#[test]
fn names_that_strangers_make_up_crowd_out_nobody_who_is_named_often() {
    let mut claims = Claims::default();
    for n in 0..100_000u32 {
        claims.failed(1_000_000, &format!("made up {n}"));
        if n % 100 == 0 {
            claims.failed(1_000_000, "ann");
        }
    }
    let named = claims.of_last_minute(1_000_000);
    assert!(named.len() <= 512);
    assert!(named["ann"] >= 900, "{}", named["ann"]);
    assert!(claims.of_last_minute(1_070_000).is_empty());
}

#[test]
fn a_time_is_told_in_its_largest_whole_unit() {
    let told = |seconds| Act::Ban(Duration::from_secs(seconds)).to_string();
    assert_eq!(told(86_400), "ban for 1d");
    assert_eq!(told(5400), "ban for 90m");
    assert_eq!(told(61), "ban for 61s");
}

fn scans() -> Signals {
    ann(UserSignals {
        new_peers: 2000,
        ..UserSignals::default()
    })
}

fn throttling() -> Settings {
    let mut settings = usual_abuse();
    let rule = &mut settings.rules[Rule::PeerFanOut.index()];
    rule.verdict = Verdict::Throttle;
    rule.ban_for = Duration::from_secs(1800);
    settings
}

#[test]
fn a_throttle_waits_for_a_second_report_and_ends_by_itself() {
    let mut engine = Engine::new(throttling());
    let first = at(&mut engine, 100, &scans());
    assert_eq!(
        first[0].case.act.about(&first[0].subject),
        "throttle user ann for 30m"
    );
    assert!(!first[0].throttle && engine.throttled(100_000).is_empty());
    let second = at(&mut engine, 106, &scans());
    assert!(second[0].throttle && second[0].ban.is_none());
    let ann = user("ann").quota().unwrap();
    // It outlasts what is remembered of suspects who have stopped.
    for second in [107, 1000, 1905] {
        at(&mut engine, second, &Signals::default());
        assert_eq!(engine.throttled(second * 1000), [ann.clone()].into());
    }
    assert!(engine.throttled(1_906_000).is_empty());
    at(&mut engine, 1906, &Signals::default());
    assert!(engine.cases().is_empty());
}

#[test]
fn a_throttle_ends_when_it_is_wanted_no_more_or_its_user_is_exempt() {
    let mut exempt = throttling();
    exempt.exempt.users = ["ann".to_owned()].into();
    for other in [usual_abuse(), exempt] {
        let mut engine = Engine::new(throttling());
        for second in [100, 106] {
            at(&mut engine, second, &scans());
        }
        assert_eq!(engine.throttled(107_000).len(), 1);
        engine.configure(other);
        at(&mut engine, 107, &scans());
        assert!(engine.throttled(107_000).is_empty());
    }
}

#[test]
fn as_many_are_throttled_as_relays_are_told_of() {
    let mut signals = Signals::default();
    for n in 0..1200 {
        let seen = UserSignals {
            new_peers: 2000,
            ..UserSignals::default()
        };
        signals.users.insert((0, format!("user{n}")), seen);
    }
    let mut engine = Engine::new(throttling());
    for second in [100, 106, 107] {
        at(&mut engine, second, &signals);
    }
    assert_eq!(engine.throttled(107_000).len(), 1000);
}
