//! The listeners of a configuration: each on an address of its own, with what stands before TURN fitting its transport.

use std::net::SocketAddr;

use turnfleet_turn::Transport;
use turnfleet_turn::peer_filter::Cidr;

use super::{Findings, Front, Listener, RawListener};

const ADDRESS: &str = "ip:port or [ip]:port";

/// The listeners without mistakes.
pub(super) fn listeners(raw: &[RawListener], f: &mut Findings) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::new();
    for (index, raw) in raw.iter().enumerate() {
        let key = |name: &str| format!("listeners[{index}].{name}");
        let transport = transport(&raw.transport);
        if transport.is_none() {
            f.error(key("transport"), &raw.transport, "udp, tcp, tls or tcp+tls");
        }
        let address: Option<SocketAddr> = f.parse(key("address"), &raw.address, ADDRESS);
        let (Some((transport, with_tls)), Some(address)) = (transport, address) else {
            continue;
        };
        if address.ip().is_multicast() {
            f.error(key("address"), &raw.address, "a unicast address");
            continue;
        }
        // TCP and TLS share the port space of the machine.
        let taken = |other: &Listener| {
            other.address == address && other.transport.is_stream() == transport.is_stream()
        };
        if address.port() != 0 && listeners.iter().any(taken) {
            f.error(
                key("address"),
                &raw.address,
                "an address that no other listener has",
            );
            continue;
        }
        let mut listener = Listener::new(transport, address);
        listener.front.detects_tls = with_tls;
        listener.front.announces_tls = with_tls;
        listener.front = front(raw, &listener, key, f);
        listeners.push(listener);
    }
    if raw.is_empty() {
        f.missing("listeners", "at least one listener");
    }
    listeners
}

/// Lets TCP listeners take TLS too where there is a certificate for it.
pub(super) fn detect_tls(listeners: &mut [Listener], has_certificate: bool) {
    for listener in listeners {
        listener.front.detects_tls |= has_certificate && listener.transport == Transport::Tcp;
    }
}

/// The transport of that name, and whether TLS goes with it.
fn transport(name: &str) -> Option<(Transport, bool)> {
    if name == "tcp+tls" {
        return Some((Transport::Tcp, true));
    }
    let mut all = Transport::ALL.into_iter();
    let found = all.find(|transport| transport.name() == name)?;
    Some((found, false))
}

/// What stands before TURN on the streams of `listener`.
fn front(
    raw: &RawListener,
    listener: &Listener,
    key: impl Fn(&str) -> String,
    f: &mut Findings,
) -> Front {
    let mut front = listener.front.clone();
    if !raw.proxy_protocol_from.is_empty() && !listener.transport.is_stream() {
        f.missing(key("proxy_protocol_from"), "nothing on a udp listener");
    }
    let block = "an address block such as 192.0.2.0/24";
    for (index, text) in raw.proxy_protocol_from.iter().enumerate() {
        let key = key(&format!("proxy_protocol_from[{index}]"));
        let parsed: Option<Cidr> = f.parse(key, text, block);
        front.proxy_protocol_from.extend(parsed);
    }
    if raw.https_backend.is_empty() {
        return front;
    }
    let backend: Option<SocketAddr> = raw.https_backend.parse().ok();
    let fits = |backend: &SocketAddr| backend.port() != 0 && *backend != listener.address;
    front.https_backend = backend.filter(fits);
    if front.https_backend.is_none() {
        f.error(
            key("https_backend"),
            &raw.https_backend,
            "the ip:port or [ip]:port of another server",
        );
    } else if !listener.takes_tls() {
        f.error(
            key("https_backend"),
            &raw.https_backend,
            "nothing on a listener without TLS",
        );
    }
    front
}
