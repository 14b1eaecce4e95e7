//! Rules of abuse in a running controller: what relays report becomes events, suspects and bans.

use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;
use tonic::Request;
use tonic::metadata::MetadataValue;
use turnfleet_controller::config::{Config, RawConfig, RawRule, RawVerdict};
use turnfleet_proto::fleet::controller_message::Message as Down;
use turnfleet_proto::fleet::node_message::Message as Up;
use turnfleet_proto::fleet::{Demand, Heartbeat, Share, StrangerUsage, Usage, UserUsage};
use turnfleet_proto::operator::AbuseRequest;
use turnfleet_proto::operator::operator_client::OperatorClient;

use crate::stage::calls::ask;
use crate::stage::{Node, Stage, any_hello};

/// A relay's report: a user who scans, and a network from which somebody guesses.
fn report(number: u64) -> Usage {
    Usage {
        epoch: vec![7; 16],
        begun_millis: 1,
        number,
        users: vec![UserUsage {
            user: "eve".to_owned(),
            permissions: 2000,
            ..UserUsage::default()
        }],
        strangers: vec![StrangerUsage {
            network: "198.51.100.0/24".to_owned(),
            failures: 5000,
            ..StrangerUsage::default()
        }],
        ..Usage::default()
    }
}

fn tell(stage: &Stage, node: &Node, number: u64) {
    let said = node.say(Up::Usage(report(number)));
    stage.runtime.block_on(said);
}

#[track_caller]
fn get(stage: &Stage, path: &str) -> Value {
    let answer = ask(stage, "GET", path, &[("authorization", &stage.admin())], "");
    assert_eq!(answer.status, 200, "{path} {}", answer.body);
    answer.json()
}

/// The events of abuse and of bans that the controller still has.
#[track_caller]
fn told(stage: &Stage) -> Vec<Value> {
    let path = "/v1/events?once=true&after=start&kinds=abuse,ban";
    let bearer = stage.admin();
    let answer = ask(stage, "GET", path, &[("authorization", &bearer)], "");
    let data = answer
        .body
        .lines()
        .filter_map(|line| line.strip_prefix("data:"));
    data.map(|text| serde_json::from_str(text).unwrap())
        .collect()
}

fn suspects(stage: &Stage) -> Vec<Value> {
    let answer = get(stage, "/v1/abuse");
    answer["suspects"].as_array().unwrap().clone()
}

fn bans_by_fan_out(raw: &mut RawConfig) {
    raw.abuse.peer_fan_out = RawRule {
        verdict: Some(RawVerdict::Ban),
        ban_seconds: Some(120),
        ..RawRule::default()
    };
}

#[test]
fn what_rules_find_is_told_once_a_minute_and_banned_where_that_is_switched_on() {
    let stage = Stage::with(bans_by_fan_out);
    let node = stage.node(any_hello("relay-0"));
    tell(&stage, &node, 1);
    stage.within("both are told", || told(&stage).len() == 2);
    let first = told(&stage);
    let kinds: Vec<_> = first
        .iter()
        .map(|it| it["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        ["abuse.authentication_failures", "abuse.peer_fan_out"]
    );
    let guesses = &first[0]["fields"];
    assert_eq!(guesses["verdict"], "observe");
    assert_eq!(guesses["would"], "ban source 198.51.100.0/24 for 1h");
    let scan = &first[1]["fields"];
    assert_eq!(scan["username"], "eve");
    assert_eq!(scan["would"], "ban user eve for 2m");

    tell(&stage, &node, 2);
    stage.within("the scanner is banned", || {
        get(&stage, "/v1/bans")["total"] == 1
    });
    let ban = &get(&stage, "/v1/bans")["bans"][0];
    assert_eq!(ban["by"], "peer_fan_out");
    assert_eq!(ban["automatic"], true);
    assert_eq!(ban["user"], "eve");
    let since = ban["since"].as_u64().unwrap();
    assert_eq!(ban["until"], since + 120);
    let audit = get(&stage, "/v1/audit");
    assert_eq!(audit["entries"][0]["by"], "rule peer_fan_out");

    stage.within("the ban is told", || told(&stage).len() == 3);
    assert_eq!(told(&stage)[2]["kind"], "ban.placed");
    let banned = suspects(&stage);
    let of = |user: &str| banned.iter().find(|it| it["user"] == user).unwrap();
    assert_eq!(of("eve")["banned"], true);
    let metrics = ask(&stage, "GET", "/metrics", &[], "").body;
    for line in [
        "turnfleet_controller_abuse_found_total{rule=\"peer_fan_out\",verdict=\"ban\"} 1",
        "turnfleet_controller_abuse_found_total{rule=\"authentication_failures\",verdict=\"observe\"} 1",
        "turnfleet_controller_abuse_bans_total{rule=\"peer_fan_out\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
}

#[test]
fn rules_follow_the_configuration_without_a_restart() {
    let stage = Stage::new();
    let node = stage.node(any_hello("relay-0"));
    tell(&stage, &node, 1);
    stage.within("both are suspected", || suspects(&stage).len() == 2);
    let mut raw = stage.raw().clone();
    raw.abuse.exempt.users = vec!["eve".to_owned()];
    raw.abuse.authentication_failures.enabled = Some(false);
    let config = Config::try_from(raw).unwrap();
    let reloaded = stage.controller().reload(&config);
    stage.runtime.block_on(reloaded).unwrap();
    stage.within("nobody is suspected", || suspects(&stage).is_empty());
    let rules = get(&stage, "/v1/abuse")["rules"].clone();
    assert_eq!(rules.as_array().unwrap().len(), 9);
    assert_eq!(rules[0]["enabled"], false);
}

#[test]
fn suspects_are_by_grpc_what_they_are_by_http() {
    let stage = Stage::new();
    let node = stage.node(any_hello("relay-0"));
    tell(&stage, &node, 1);
    stage.within("both are suspected", || suspects(&stage).len() == 2);
    let address = stage.controller().grpc_address();
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut client = OperatorClient::new(stage.runtime.block_on(endpoint.connect()).unwrap());
    let mut request = Request::new(AbuseRequest {
        rule: "peer_fan_out".to_owned(),
        limit: 0,
    });
    let header: MetadataValue<_> = stage.admin().parse().unwrap();
    request.metadata_mut().insert("authorization", header);
    let answer = stage.runtime.block_on(client.show_abuse(request)).unwrap();
    let answer = answer.into_inner();
    assert_eq!((answer.rules.len(), answer.total), (9, 2));
    let [eve] = answer.suspects.as_slice() else {
        panic!("{answer:?}");
    };
    assert_eq!((eve.tenant.as_str(), eve.user.as_str()), ("default", "eve"));
    assert_eq!(eve.count, 2000);
}

#[test]
fn under_privacy_nothing_says_who_and_where() {
    let stage = Stage::with(|raw| {
        raw.privacy = true;
        bans_by_fan_out(raw);
    });
    let node = stage.node(any_hello("relay-0"));
    tell(&stage, &node, 1);
    stage.within("both are told", || told(&stage).len() == 2);
    let seen = format!("{:?} {:?}", told(&stage), suspects(&stage));
    assert!(
        !seen.contains("eve\"") && !seen.contains("198.51.100"),
        "{seen}"
    );
    assert!(seen.contains("ban for 2m"), "{seen}");
    // What peers sent to whom stays, under the name that events have.
    let (told, suspects) = (told(&stage), suspects(&stage));
    let suspect = suspects.iter().find(|it| it["rule"] == "peer_fan_out");
    let suspect = suspect.unwrap();
    assert_eq!(suspect["user"], told[1]["fields"]["username"]);
    let evidence = suspect["evidence"].as_str().unwrap();
    assert!(evidence.contains("whose peers sent 0 bytes"), "{evidence}");
}

/// Lives, says what it takes of quotas and confirms shares, as a relay does, until this user is among those that are told of.
fn hear_held_back(stage: &Stage, node: &mut Node, user: &str) -> Share {
    const TURNS: usize = 30;
    stage.runtime.block_on(async {
        let mut held = Demand::default();
        for _ in 0..TURNS {
            node.say(Up::Heartbeat(Heartbeat::default())).await;
            node.say(Up::Demand(held.clone())).await;
            let heard = timeout(Duration::from_secs(1), node.hear()).await;
            let Ok(Ok(Some(Down::Shares(shares)))) = heard else {
                continue;
            };
            (held.term, held.number) = (shares.term, shares.number);
            if let Some(share) = shares.shares.into_iter().find(|it| it.user == user) {
                return share;
            }
        }
        panic!("{user} is held back by nobody");
    })
}

#[test]
fn a_user_is_throttled_at_relays_that_know_of_no_limit() {
    let stage = Stage::with(|raw| {
        raw.abuse.peer_fan_out.verdict = Some(RawVerdict::Throttle);
    });
    let mut node = stage.node(any_hello("relay-0"));
    tell(&stage, &node, 1);
    let share = hear_held_back(&stage, &mut node, "eve");
    assert!(share.exhausted);
    let limits = (share.allocations, share.to_peers, share.to_clients);
    assert_eq!(limits, (None, None, None));
    let suspects = suspects(&stage);
    let eve = suspects.iter().find(|it| it["user"] == "eve").unwrap();
    assert_eq!(eve["would"], "throttle user eve for 1h");
    assert_eq!(
        (&eve["throttled"], &eve["banned"]),
        (&true.into(), &false.into())
    );
    assert_eq!(get(&stage, "/v1/bans")["total"], 0);
    let metrics = ask(&stage, "GET", "/metrics", &[], "").body;
    let line = "turnfleet_controller_abuse_throttles_total{rule=\"peer_fan_out\"} 1";
    assert!(metrics.contains(line), "{metrics}");
}
