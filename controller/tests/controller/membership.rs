//! How relays become members and stay ones: what their tokens bind them to, credentials that follow each other, and the end.

use tonic::Code;
use turnfleet_controller::config::{ProbeMode, RawApiToken};
use turnfleet_controller::fleet::record::{JoinToken, token_hash};
use turnfleet_proto::NodeId;
use turnfleet_proto::fleet::Hello;
use turnfleet_proto::fleet::controller_message::Message as Down;
use turnfleet_proto::fleet::listener::Transport;

use crate::stage::calls::ask;
use crate::stage::{Stage, any_hello, hello};

fn id(text: &str) -> NodeId {
    text.parse().unwrap()
}

fn takes_deltas(id: &str) -> Hello {
    Hello {
        protocol: 1,
        ..any_hello(id)
    }
}

fn token(name: &str) -> JoinToken {
    JoinToken {
        name: name.to_owned(),
        ..JoinToken::default()
    }
}

#[test]
fn a_token_puts_its_nodes_into_its_region() {
    let stage = Stage::new();
    let handle = stage.controller().handle();
    let south = JoinToken {
        region: Some("south".to_owned()),
        ..token("south")
    };
    let text = stage
        .runtime
        .block_on(handle.make_join_token(south.clone()))
        .unwrap();
    let again = stage.runtime.block_on(handle.make_join_token(south));
    assert!(again.is_err(), "a name is taken once");
    let credential = stage.enroll_with("relay-0", &text).unwrap();
    let says = any_hello("relay-0");
    assert_ne!(says.region, "south");
    let mut node = stage.session(&credential, says);
    stage.runtime.block_on(node.settle());
    let seen = stage.wait_for("relay-0", |node| node.connected);
    assert_eq!(seen.identity.region, "south");

    stage
        .runtime
        .block_on(handle.revoke_join_token("south"))
        .unwrap();
    let late = stage.enroll_with("relay-1", &text).unwrap_err();
    assert_eq!(late.code(), Code::Unauthenticated);
    drop(node);
    stage.wait_for("relay-0", |node| !node.connected);
    // Who is a member stays one.
    let mut node = stage.session(&credential, any_hello("relay-0"));
    stage.runtime.block_on(node.settle());
}

#[test]
fn a_token_of_a_tenant_makes_relays_for_its_users_alone() {
    const MINTS: &str = "mints for the users of acme";
    let stage = Stage::with(|raw| {
        raw.probe.mode = ProbeMode::Off;
        raw.api_tokens = vec![RawApiToken {
            name: "acme".to_owned(),
            token: Some(MINTS.to_owned()),
            token_file: None,
            scopes: vec!["mint".to_owned()],
            tenant: Some("acme".to_owned()),
        }];
    });
    let handle = stage.controller().handle();
    let theirs = handle.make_join_token(JoinToken {
        tenant: Some("acme".to_owned()),
        ..token("acme")
    });
    let theirs = stage.runtime.block_on(theirs).unwrap();
    let everybodys = stage.controller().join_token();
    let mut nodes = Vec::new();
    for (name, token, address) in [
        ("relay-0", &*theirs, "192.0.2.0:3478"),
        ("relay-1", everybodys, "192.0.2.1:3478"),
    ] {
        let credential = stage.enroll_with(name, token).unwrap();
        let hello = hello(name, &[Transport::Udp], address.parse().unwrap());
        let mut node = stage.session(&credential, hello);
        stage.runtime.block_on(node.settle());
        stage.wait_for(name, |node| node.listed);
        nodes.push(node);
    }
    let listed = |token: &str| {
        let path = "/turn?service=turn&username=alice";
        ask(&stage, "GET", path, &[("authorization", token)], "").body
    };
    let admin = listed(&stage.admin());
    assert!(
        !admin.contains("192.0.2.0") && admin.contains("192.0.2.1"),
        "{admin}"
    );
    let acme = listed(&format!("Bearer {MINTS}"));
    assert!(
        acme.contains("192.0.2.0") && acme.contains("192.0.2.1"),
        "{acme}"
    );
    let shown = ask(
        &stage,
        "GET",
        "/v1/nodes",
        &[("authorization", &stage.admin())],
        "",
    );
    let shown = shown.json();
    assert_eq!(shown["nodes"][0]["tenant"], "acme");
    assert_eq!(shown["nodes"][1]["tenant"], serde_json::Value::Null);
}

#[test]
fn a_token_that_has_ended_enrols_nobody() {
    let stage = Stage::new();
    let handle = stage.controller().handle();
    let ended = JoinToken {
        expires_at: Some(1),
        ..token("ended")
    };
    let text = stage
        .runtime
        .block_on(handle.make_join_token(ended))
        .unwrap();
    let refused = stage.enroll_with("relay-0", &text).unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("ended"), "{refused}");
}

#[test]
fn the_credential_before_is_good_until_the_next_one_is_used() {
    let stage = Stage::new();
    let first = stage.enroll("relay-0").unwrap();
    let handle = stage.controller().handle().clone();
    let next = token_hash("the next credential");
    let given = handle.change(move |fleet, _| fleet.plan_next_credential(&id("relay-0"), next));
    stage.runtime.block_on(given).unwrap();
    let open = |credential: &str| {
        let opened = handle.open_session(credential, any_hello("relay-0"));
        stage.runtime.block_on(opened).map(drop)
    };
    open(&first).unwrap();
    open("the next credential").unwrap();
    assert!(open(&first).is_err(), "the later one has been used");
    open("the next credential").unwrap();
}

#[test]
fn a_credential_is_renewed_after_a_day_and_never_ends_by_time() {
    let stage = Stage::new();
    stage.enroll("relay-0").unwrap();
    let handle = stage.controller().handle().clone();
    let looked = handle.change(|fleet, now| {
        let due = |days: u64| fleet.is_credential_due(&id("relay-0"), now.unix + days * 86_400);
        assert!(!due(0) && due(1) && due(1000));
        Ok(turnfleet_controller::fleet::Plan::default())
    });
    stage.runtime.block_on(looked).unwrap();
}

#[test]
fn a_kill_ends_one_run_of_a_process() {
    let stage = Stage::new();
    let credential = stage.enroll("relay-0").unwrap();
    let handle = stage.controller().handle().clone();
    let kill = || stage.runtime.block_on(handle.kill(&id("relay-0")));
    assert!(kill().is_err(), "it has no session");
    let mut node = stage.session(&credential, takes_deltas("relay-0"));
    stage.wait_for("relay-0", |node| node.connected);
    kill().unwrap();
    stage
        .runtime
        .block_on(async { while !matches!(node.hear().await.unwrap(), Some(Down::Kill(_))) {} });
    // The same run hears of it again, the next one does not.
    let mut node = stage.session(&credential, takes_deltas("relay-0"));
    stage
        .runtime
        .block_on(async { while !matches!(node.hear().await.unwrap(), Some(Down::Kill(_))) {} });
    let next = Hello {
        incarnation: vec![9; 16],
        ..any_hello("relay-0")
    };
    let mut node = stage.session(&credential, next);
    stage.runtime.block_on(node.settle());
    stage.wait_for("relay-0", |node| node.connected && node.listed);
}

#[test]
fn a_node_is_sent_to_another_controller() {
    let stage = Stage::new();
    let credential = stage.enroll("relay-0").unwrap();
    let handle = stage.controller().handle().clone();
    let sent = |to: &str| stage.runtime.block_on(handle.redirect(&id("relay-0"), to));
    assert!(sent("").is_err(), "it has no session");
    let mut node = stage.session(&credential, takes_deltas("relay-0"));
    stage.wait_for("relay-0", |node| node.connected);
    sent("https://other:8081").unwrap();
    let endpoint = stage.runtime.block_on(async {
        loop {
            if let Some(Down::Redirect(redirect)) = node.hear().await.unwrap() {
                return redirect.endpoint;
            }
        }
    });
    assert_eq!(endpoint, "https://other:8081");
}
