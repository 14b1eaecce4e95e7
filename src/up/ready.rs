//! The ready line of `turnfleet up`, on which scripts depend: one JSON object with all that they need to use the fleet.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use serde::Serialize;
use turnfleet_controller::Controller;
use turnfleet_controller::fleet::{Listener, Transport as Reached};
use turnfleet_proto::{Scheme, TurnUri, UriTransport};
use turnfleet_turn::Transport;

/// A fleet that serves.
#[derive(Debug, Serialize)]
pub(crate) struct Ready {
    /// Always true.
    pub(crate) ready: bool,
    /// The URL of the HTTP API.
    pub(crate) http: String,
    /// The URL that relays register at.
    pub(crate) grpc: String,
    pub(crate) realm: String,
    pub(crate) shared_secret: String,
    pub(crate) api_token: String,
    /// The certificate that clients are to trust; nothing where a certificate was given.
    pub(crate) ca: Option<PathBuf>,
    pub(crate) relays: Vec<ReadyRelay>,
    pub(crate) turn_uris: Vec<String>,
    /// One of the URIs for each relay and transport: clients of a homeserver try all that they are given.
    #[serde(skip)]
    pub(crate) few_uris: Vec<String>,
}

/// Where the controller is reached from this machine.
#[derive(Clone, Debug)]
pub(crate) struct Urls {
    pub(crate) http: String,
    pub(crate) grpc: String,
}

/// One relay of the fleet.
#[derive(Debug, Serialize)]
pub(crate) struct ReadyRelay {
    pub(crate) node: String,
    pub(crate) pid: u32,
    /// The first listen address of each transport.
    pub(crate) udp: Option<SocketAddr>,
    pub(crate) tcp: Option<SocketAddr>,
    pub(crate) tls: Option<SocketAddr>,
    pub(crate) dtls: Option<SocketAddr>,
    /// Every listen address.
    pub(crate) listeners: Vec<ReadyListener>,
    /// The ports for relayed transport addresses on its first address.
    pub(crate) relay_ports: Option<String>,
    /// The URL of its metrics.
    pub(crate) metrics: Option<String>,
}

/// One listen address.
#[derive(Debug, Serialize)]
pub(crate) struct ReadyListener {
    pub(crate) transport: &'static str,
    pub(crate) addr: SocketAddr,
}

impl Ready {
    /// The facts of a fleet whose relays are listed. `relays` know nothing of their ports yet.
    pub(crate) fn new(
        controller: &Controller,
        urls: Urls,
        ca: Option<PathBuf>,
        mut relays: Vec<ReadyRelay>,
    ) -> Self {
        let view = controller.view();
        let (mut turn_uris, mut few_uris) = (Vec::new(), Vec::new());
        for relay in &mut relays {
            let Some(node) = view
                .nodes
                .iter()
                .find(|node| node.id.as_str() == relay.node)
            else {
                continue;
            };
            relay.relay_ports = node.grants.first().map(|grant| grant.range.to_string());
            let hostname = node.identity.hostname.as_deref();
            let mut shown = Vec::new();
            for Listener {
                transport, address, ..
            } in &node.identity.listeners
            {
                let uri = uri(*transport, *address, hostname);
                if !shown.contains(transport) {
                    shown.push(*transport);
                    few_uris.push(uri.clone());
                }
                if !turn_uris.contains(&uri) {
                    turn_uris.push(uri);
                }
            }
        }
        let secret = controller.shared_secret();
        Self {
            ready: true,
            http: urls.http,
            grpc: urls.grpc,
            realm: view.realm.to_string(),
            shared_secret: String::from_utf8_lossy(secret.as_bytes()).into_owned(),
            api_token: controller.api_token().to_owned(),
            ca,
            relays,
            turn_uris,
            few_uris,
        }
    }
}

impl ReadyRelay {
    /// A relay that listens on `listeners`.
    pub(crate) fn new(
        node: String,
        pid: u32,
        listeners: &[(Transport, SocketAddr)],
        metrics: Option<SocketAddr>,
    ) -> Self {
        let first = |wanted| {
            let mut of = listeners
                .iter()
                .filter(|(transport, _)| *transport == wanted);
            of.next().map(|(_, addr)| *addr)
        };
        let shown = listeners.iter().map(|(transport, addr)| ReadyListener {
            transport: transport.name(),
            addr: *addr,
        });
        Self {
            node,
            pid,
            udp: first(Transport::Udp),
            tcp: first(Transport::Tcp),
            tls: first(Transport::Tls),
            dtls: None,
            listeners: shown.collect(),
            relay_ports: None,
            metrics: metrics.map(|address| format!("http://{address}/metrics")),
        }
    }
}

/// The URL at which a process of this machine reaches a listener, which may listen on all addresses.
pub(crate) fn url(secured: bool, mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let scheme = if secured { "https" } else { "http" };
    format!("{scheme}://{address}")
}

/// The URI with which a client reaches a listener. `turns:` carries the name that the certificate is checked against.
fn uri(transport: Reached, address: SocketAddr, hostname: Option<&str>) -> String {
    let (scheme, parameter) = match transport {
        Reached::Udp => (Scheme::Turn, UriTransport::Udp),
        Reached::Tcp => (Scheme::Turn, UriTransport::Tcp),
        Reached::Tls => (Scheme::Turns, UriTransport::Tcp),
        Reached::Dtls => (Scheme::Turns, UriTransport::Udp),
    };
    let name = hostname.filter(|_| scheme == Scheme::Turns);
    let uri = TurnUri {
        scheme,
        host: name.map_or_else(|| address.ip().to_string(), str::to_owned),
        port: Some(address.port()),
        transport: Some(parameter),
    };
    uri.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_turns_carries_the_host_name() {
        let address = "192.0.2.1:3478".parse().unwrap();
        assert_eq!(
            uri(Reached::Udp, address, Some("turn.example.org")),
            "turn:192.0.2.1:3478?transport=udp"
        );
        assert_eq!(
            uri(Reached::Tls, address, Some("turn.example.org")),
            "turns:turn.example.org:3478?transport=tcp"
        );
        let address = "[2001:db8::1]:5349".parse().unwrap();
        assert_eq!(
            uri(Reached::Tls, address, None),
            "turns:[2001:db8::1]:5349?transport=tcp"
        );
    }

    #[test]
    fn a_listener_on_all_addresses_is_reached_by_loopback() {
        assert_eq!(
            url(false, "0.0.0.0:80".parse().unwrap()),
            "http://127.0.0.1:80"
        );
        assert_eq!(url(true, "[::]:80".parse().unwrap()), "https://[::1]:80");
        assert_eq!(
            url(true, "192.0.2.1:80".parse().unwrap()),
            "https://192.0.2.1:80"
        );
    }
}
