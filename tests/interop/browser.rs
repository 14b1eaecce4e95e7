//! A call in Chromium that may use relays only, for each way to reach one, with servers and credentials from the API.

use serde_json::{Value, json};

use crate::fleet::Fleet;
use crate::tools;
use crate::webdriver::{Browser, PROGRAMS};

/// Two relays, a call over `transport` as the API names it, and what getStats says of the selected pair.
#[track_caller]
fn call(transport: &str) -> Option<Value> {
    if !tools::present(&PROGRAMS) {
        return None;
    }
    let fleet = Fleet::up(&[]);
    let browser = Browser::start(&["--allow-loopback-in-peer-connection"]);
    browser.open(fleet.text("http"));
    let wanted = json!({ "user": "@alice:example.org", "transports": [transport] });
    let outcome = browser.run(
        include_str!("call.js"),
        &json!([wanted, fleet.text("api_token")]),
    );
    assert_eq!(outcome["reply"], "heard hello", "{outcome}");
    assert_eq!(
        (&outcome["local"], &outcome["remote"]),
        (&json!("relay"), &json!("relay")),
        "{outcome}"
    );
    assert!(outcome["framesDecoded"].as_u64() > Some(0), "{outcome}");
    Some(outcome)
}

#[test]
fn a_call_over_turn_udp() {
    let Some(outcome) = call("udp") else { return };
    assert_eq!(outcome["relayProtocol"], "udp", "{outcome}");
}

#[test]
fn a_call_over_turn_tcp() {
    let Some(outcome) = call("tcp") else { return };
    assert_eq!(outcome["relayProtocol"], "tcp", "{outcome}");
}

#[test]
fn a_call_over_turns_tcp() {
    let Some(outcome) = call("tls") else { return };
    assert_eq!(outcome["relayProtocol"], "tls", "{outcome}");
}
