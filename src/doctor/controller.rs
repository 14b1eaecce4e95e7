//! What a controller tells of its fleet: every relay node, where it listens, and whether lists name it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Value as Json, json};
use turnfleet_proto::{Scheme, TurnUri, UriTransport};

use super::catalogue::{CLOCK_CONTROLLER, CLOCK_RELAYS, CONTROLLER_ANSWERS, CONTROLLER_NODES};
use super::clock;
use super::identity::Source;
use super::reach::special;
use super::report::Report;
use crate::fleet::call::{Call, Client};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(4);

/// Looks at the fleet, and returns the ways to its relays as URIs.
pub(super) fn look(client: &Client, report: &Report) -> Vec<TurnUri> {
    let (answer, date) = match client.ask_dated(&Call::get("/v1/nodes"), PATIENCE) {
        Ok(answer) => answer,
        Err(error) => {
            report.fail(CONTROLLER_ANSWERS, "", format!("{error:#}"));
            return Vec::new();
        }
    };
    let Some(nodes) = answer["nodes"].as_array() else {
        let text = "what answers is not the HTTP API of a controller: there is no list of nodes";
        report.fail(CONTROLLER_ANSWERS, "", text);
        return Vec::new();
    };
    let text = format!("it knows {} relay nodes", nodes.len());
    report.pass(CONTROLLER_ANSWERS, "", text);
    clock::compare(CLOCK_CONTROLLER, "", date.as_deref(), report);
    if !nodes.iter().any(|node| node["listed"] == true) {
        report.fail(
            CONTROLLER_NODES,
            "",
            "no relay node is in lists: nobody gets a relay",
        );
    }
    let mut uris = Vec::new();
    for node in nodes {
        let name = node["node"].as_str().unwrap_or_default();
        match (node["listed"] == true, node["reason"].as_str()) {
            (true, None) => report.pass(CONTROLLER_NODES, name, "lists name it"),
            (true, Some(why)) => {
                report.warn(
                    CONTROLLER_NODES,
                    name,
                    format!("lists name it in part: {why}"),
                );
            }
            (false, why) => report.warn(
                CONTROLLER_NODES,
                name,
                format!("lists do not name it: {}", why.unwrap_or("nobody says why")),
            ),
        }
        if let Some(skew) = node["clock_skew_milliseconds"].as_i64() {
            let way = if skew < 0 { "behind" } else { "ahead of" };
            let off = Duration::from_millis(skew.unsigned_abs());
            clock::judge(CLOCK_RELAYS, name, off, way, "the controller's", report);
        }
        if node["listed"] == true {
            uris.extend(uris_of(node));
        }
    }
    uris
}

/// The credentials that the controller gives to the bearer of the token, where it gives any.
pub(super) fn credentials(client: &Client) -> Option<Source> {
    let call = Call::post("/v1/ice-servers").with(json!({ "user": "turnfleet-doctor" }));
    let (answer, _) = client.ask_dated(&call, PATIENCE).ok()?;
    let server = &answer["iceServers"][0];
    Some(Source::Fixed {
        username: server["username"].as_str()?.to_owned(),
        password: server["credential"].as_str()?.to_owned(),
    })
}

/// How clients reach the listeners of a node.
fn uris_of(node: &Json) -> Vec<TurnUri> {
    let ips: Vec<IpAddr> = node["public_ips"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|ip| ip.as_str()?.parse().ok())
        .collect();
    let hostname = node["hostname"].as_str();
    let mut uris = Vec::new();
    for listener in node["listeners"].as_array().into_iter().flatten() {
        let address = listener["address"].as_str();
        let address: Option<SocketAddr> = address.and_then(|it| it.parse().ok());
        let (Some(address), Some(transport)) = (address, listener["transport"].as_str()) else {
            continue;
        };
        let (scheme, transport) = match transport {
            "udp" => (Scheme::Turn, UriTransport::Udp),
            "tcp" => (Scheme::Turn, UriTransport::Tcp),
            _ => (Scheme::Turns, UriTransport::Tcp),
        };
        for ip in outside(address, &ips) {
            let host = match (scheme, hostname) {
                (Scheme::Turns, Some(name)) => name.to_owned(),
                (_, _) => ip.to_string(),
            };
            let uri = TurnUri {
                scheme,
                host,
                port: Some(address.port()),
                transport: Some(transport),
            };
            if !uris.contains(&uri) {
                uris.push(uri);
            }
        }
    }
    uris
}

/// The addresses by which clients reach a listener: its own, or behind NAT those that the node has outside.
fn outside(listener: SocketAddr, public: &[IpAddr]) -> Vec<IpAddr> {
    let ip = listener.ip();
    let of_family = public
        .iter()
        .copied()
        .filter(|it| it.is_ipv4() == ip.is_ipv4());
    let of_family: Vec<IpAddr> = of_family.collect();
    if of_family.is_empty() || of_family.contains(&ip) || special(ip).is_none() {
        vec![ip]
    } else {
        of_family
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_behind_nat_is_reached_by_the_address_outside() {
        let node = json!({
            "hostname": "turn.example.org",
            "public_ips": ["192.0.2.7"],
            "listeners": [
                { "transport": "udp", "address": "10.0.0.7:3478" },
                { "transport": "tls", "address": "10.0.0.7:5349" },
            ],
        });
        let uris: Vec<String> = uris_of(&node).iter().map(ToString::to_string).collect();
        assert_eq!(
            uris,
            [
                "turn:192.0.2.7:3478?transport=udp",
                "turns:turn.example.org:5349?transport=tcp"
            ]
        );
    }
}
