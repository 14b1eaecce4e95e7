//! Scenarios: who is found, who never is, and what follows.

mod innocent;
mod verdicts;

use std::time::Duration;

use turnfleet_turn::usage::Spread;

use super::*;
use crate::config::usual_abuse;

/// The default rules, with verdicts that ban.
fn strict() -> Settings {
    let mut settings = usual_abuse();
    for rule in Rule::ALL {
        settings.rules[rule.index()].verdict = Verdict::Ban;
    }
    settings
}

fn spread(things: impl IntoIterator<Item = u32>) -> Spread {
    let mut spread = Spread::default();
    for thing in things {
        spread.insert(&thing.to_be_bytes());
    }
    spread
}

fn ann(seen: UserSignals) -> Signals {
    let mut signals = Signals::default();
    signals.users.insert((0, "ann".to_owned()), seen);
    signals
}

fn user(name: &str) -> Subject {
    Subject::User {
        tenant: 0,
        user: name.to_owned(),
    }
}

fn network(text: &str) -> ipnet::IpNet {
    text.parse().unwrap()
}

fn office(seen: NetworkSignals) -> Signals {
    let mut signals = Signals::default();
    signals.networks.insert(network("192.0.2.0/24"), seen);
    signals
}

/// What a leader finds where relays tell the same for ten seconds.
fn watched(engine: &mut Engine, from: u64, signals: &Signals) -> Vec<Finding> {
    let fleet = Fleetwide::default();
    let seconds = (from..from + 10).map(|second| second * 1000);
    seconds
        .flat_map(|millis| engine.judge(millis, signals, &fleet, true))
        .collect()
}

fn strictly(signals: &Signals) -> Vec<Finding> {
    watched(&mut Engine::new(strict()), 1000, signals)
}

fn rules(findings: &[Finding]) -> Vec<Rule> {
    let told = findings.iter().filter(|it| it.tell);
    told.map(|it| it.rule).collect()
}

#[track_caller]
fn assert_found(signals: &Signals, rule: Rule, subject: &Subject) {
    let findings = strictly(signals);
    assert_eq!(rules(&findings), [rule], "{findings:?}");
    assert!(findings.iter().all(|it| it.subject == *subject));
}

#[test]
fn bad_credentials_of_a_network_are_found_and_bring_a_ban_of_it() {
    let guesses = office(NetworkSignals {
        nodes: 2,
        failures: 1200,
        ..NetworkSignals::default()
    });
    let source = Subject::Network(network("192.0.2.0/24"));
    assert_found(&guesses, Rule::AuthenticationFailures, &source);
    let findings = strictly(&guesses);
    let ban = findings.iter().find(|it| it.ban.is_some()).unwrap();
    let case = &ban.case;
    assert_eq!(case.act.about(&source), "ban source 192.0.2.0/24 for 1h");
    assert_eq!(
        case.evidence,
        "1200 requests with bad credentials within 60 s, at 2 relays"
    );
}

#[test]
fn who_fails_in_the_name_of_a_user_has_it_told_and_nobody_banned() {
    let mut claims = Claims::default();
    for n in 0..150 {
        claims.failed(1_000_000 + n, "ann");
    }
    let signals = Signals {
        claims: claims.of_last_minute(1_001_000),
        ..Signals::default()
    };
    let ann = Subject::Claim("ann".to_owned());
    assert_found(&signals, Rule::FailuresOfUser, &ann);
    assert!(strictly(&signals).iter().all(|it| it.ban.is_none()));
}

#[test]
fn a_flood_in_the_name_of_a_victim_is_found_at_once_and_its_victim_not_banned() {
    let flood = office(NetworkSignals {
        nodes: 1,
        challenges: 30_000,
        unanswered: 30_000,
        ..NetworkSignals::default()
    });
    let mut engine = Engine::new(strict());
    let findings = engine.judge(1000, &flood, &Fleetwide::default(), true);
    assert_eq!(rules(&findings), [Rule::UnansweredChallenges]);
    let findings = watched(&mut engine, 2, &flood);
    assert!(findings.iter().all(|it| it.ban.is_none()));
}

#[test]
fn a_scan_of_many_hosts_is_found_whether_they_are_silent_or_refuse() {
    let scan = ann(UserSignals {
        nodes: 1,
        bytes_back: 2000,
        new_peers: 1500,
        peers: spread(0..1500),
        endpoints: spread(0..1500),
        ..UserSignals::default()
    });
    assert_found(&scan, Rule::PeerFanOut, &user("ann"));
    // Six a second: slower than that is below the rule.
    let slow = ann(UserSignals {
        new_peers: 360,
        ..UserSignals::default()
    });
    assert_found(&slow, Rule::PeerFanOut, &user("ann"));
    let tempered = ann(UserSignals {
        new_peers: 240,
        ..UserSignals::default()
    });
    assert!(strictly(&tempered).is_empty());
}

#[test]
fn company_does_not_hide_a_scan_that_is_ten_times_as_wide() {
    let busy = ann(UserSignals {
        bytes_back: u64::MAX,
        new_peers: 3200,
        ..UserSignals::default()
    });
    assert_found(&busy, Rule::PeerFanOut, &user("ann"));
}

#[test]
fn many_ports_of_one_host_are_a_scan_at_first_sight() {
    let scan = |ports| {
        ann(UserSignals {
            new_peers: 1,
            bytes_back: 100,
            peers: spread(0..1),
            endpoints: spread(0..ports),
            ..UserSignals::default()
        })
    };
    // Ports that are only sent to fill at most 64 groups.
    for ports in [64, 400] {
        let mut engine = Engine::new(strict());
        let findings = engine.judge(1000, &scan(ports), &Fleetwide::default(), true);
        assert_eq!(rules(&findings), [Rule::PortScan]);
        assert_found(&scan(ports), Rule::PortScan, &user("ann"));
    }
}

#[test]
fn some_ports_of_many_hosts_are_a_scan_at_second_sight() {
    let scan = ann(UserSignals {
        peers: spread(0..100),
        endpoints: spread(0..300),
        ..UserSignals::default()
    });
    let mut engine = Engine::new(strict());
    let first = engine.judge(1000, &scan, &Fleetwide::default(), true);
    assert!(first.is_empty(), "{first:?}");
    assert_eq!(rules(&watched(&mut engine, 2, &scan)), [Rule::PortScan]);
}

#[test]
fn a_credential_on_twenty_addresses_is_found_and_banned_only_where_they_are_of_several_networks() {
    let shared = |networks| {
        ann(UserSignals {
            addresses: spread(0..20),
            networks: spread(0..networks),
            ..UserSignals::default()
        })
    };
    assert_found(&shared(1), Rule::SharedCredential, &user("ann"));
    assert_found(&shared(20), Rule::SharedCredential, &user("ann"));
    let bans = |signals: Signals| strictly(&signals).iter().any(|it| it.ban.is_some());
    assert!(bans(shared(20)));
    assert!(!bans(shared(1)));
}

#[test]
fn the_addresses_of_an_hour_are_put_together_where_the_window_is_one() {
    let mut settings = strict();
    settings.rules[Rule::SharedCredential.index()].window = Duration::from_secs(3600);
    let mut engine = Engine::new(settings);
    let mut found = Vec::new();
    for minute in 0..60u32 {
        let last = minute * 4 / 5;
        let signals = ann(UserSignals {
            addresses: spread(last.saturating_sub(4)..last),
            networks: spread(last.saturating_sub(4)..last),
            ..UserSignals::default()
        });
        found.extend(watched(&mut engine, u64::from(minute) * 60, &signals));
    }
    assert!(rules(&found).contains(&Rule::SharedCredential));
}

#[test]
fn many_users_of_one_network_at_their_limits_are_found() {
    let farm = office(NetworkSignals {
        limited_users: spread(0..25),
        limited: 400,
        ..NetworkSignals::default()
    });
    let source = Subject::Network(network("192.0.2.0/24"));
    assert_found(&farm, Rule::QuotaEvasion, &source);
}

#[test]
fn a_user_who_opens_ten_allocations_a_second_is_found() {
    let loops = ann(UserSignals {
        opened: 700,
        ..UserSignals::default()
    });
    assert_found(&loops, Rule::ReconnectLoop, &user("ann"));
}

#[test]
fn a_user_who_asks_for_internal_hosts_is_found() {
    let probe = ann(UserSignals {
        denied: 250,
        new_peers: 3,
        ..UserSignals::default()
    });
    assert_found(&probe, Rule::DeniedPeers, &user("ann"));
}
