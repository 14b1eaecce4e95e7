//! The candidates that a browser here would get, in words: server-reflexive ones by STUN, and relayed ones.

use turnfleet_turn::Transport;

use super::allocation::Granted;
use super::catalogue::{ICE_REFLEXIVE, ICE_RELAY};
use super::reach::Reached;
use super::report::Report;
use super::way::Way;

/// Says what a browser gets from these ways, of which `reached` answer and `granted` grant allocations.
pub(super) fn candidates(
    ways: &[Way],
    reached: &[Reached],
    granted: &[Granted],
    has_identity: bool,
    report: &Report,
) {
    let mut reflexive: Vec<String> = Vec::new();
    for it in reached {
        let Some(mapped) = it.mapped else {
            continue;
        };
        let shown = mapped.ip().to_string();
        if it.way.transport() == Transport::Udp && !reflexive.contains(&shown) {
            reflexive.push(shown);
        }
    }
    if !reflexive.is_empty() {
        report.pass(ICE_REFLEXIVE, "", format!("srflx {}", reflexive.join(", ")));
    }
    if !has_identity {
        return;
    }
    let relayed = granted.iter().flat_map(|it| {
        let ips = it.relayed.iter().map(|relayed| relayed.ip());
        ips.map(move |ip| format!("relay {ip} by {}", it.way.uri))
    });
    let relayed: Vec<String> = relayed.collect();
    if !relayed.is_empty() {
        report.pass(ICE_RELAY, "", relayed.join(", "));
    } else if report.has_failures() {
        report.skip(ICE_RELAY, "", "none, as the findings above explain");
    } else if reached.iter().any(|it| it.way.is_turn) {
        report.fail(ICE_RELAY, "", "the servers grant no allocation");
    } else if ways.iter().any(|way| way.is_turn) {
        let text = "no turn: or turns: URI could be tried from here, as the findings above explain";
        report.skip(ICE_RELAY, "", text);
    } else {
        report.fail(
            ICE_RELAY,
            "",
            "a browser gets no relay candidate: none of the URIs is a turn: or turns: one that browsers use",
        );
    }
}
