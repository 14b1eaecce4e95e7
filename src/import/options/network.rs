//! Where coturn listens, and from where it relays.

use super::Takes::{Nothing, Text};
use super::{CoturnOption, default, none, option, unneeded};
use crate::import::rules::network as rule;

const PORT: &[&str] = &["port"];
const LISTENERS: &[&str] = &["relay.listeners"];
const RELAY_PORTS: &[&str] = &["relay-ports"];

pub(super) const OPTIONS: &[CoturnOption] = &[
    option(
        "listening-port",
        &["p"],
        Text,
        "UDP and TCP. TLS is taken on the TCP port too, as by coturn; DTLS is not.",
    )
    .becomes(PORT, rule::listening_port),
    option(
        "tls-listening-port",
        &[],
        Text,
        "TLS over TCP. DTLS is not spoken.",
    )
    .becomes(&["tls-port"], rule::tls_listening_port),
    none(
        "alt-listening-port",
        &[],
        Text,
        "The second port is for NAT behaviour discovery (RFC 5780), which relays do not \
         offer.",
    ),
    none(
        "alt-tls-listening-port",
        &[],
        Text,
        "As `alt-listening-port`.",
    ),
    none(
        "tcp-proxy-port",
        &[],
        Text,
        "Coturn believes whoever connects there; here a listener names the balancers that \
         it believes (`proxy_protocol_from`), which coturn's file does not. Add it to \
         `relay.listeners`.",
    ),
    option(
        "listening-ip",
        &["L"],
        Text,
        "Each line becomes an entry; without one, all addresses of the machine as with \
         coturn.",
    )
    .becomes(&["listen-ip"], rule::listening_ip)
    .repeated(),
    option(
        "aux-server",
        &[],
        Text,
        "Two more listeners, for UDP and for TCP.",
    )
    .becomes(LISTENERS, rule::aux_server)
    .repeated(),
    none(
        "udp-self-balance",
        &[],
        Nothing,
        "A relay spreads its clients over its own threads; relays that are full send \
         clients to others by themselves.",
    ),
    none(
        "listening-device",
        &["d"],
        Text,
        "Name the addresses of the device instead: `listen-ip`.",
    ),
    none(
        "relay-device",
        &["i"],
        Text,
        "Relayed addresses are those that the relay listens on.",
    ),
    none(
        "relay-ip",
        &["E"],
        Text,
        "Relayed addresses are those that the relay listens on; what is in `listening-ip` \
         too is so by default.",
    )
    .by(rule::relay_ip)
    .repeated(),
    option(
        "external-ip",
        &["X"],
        Text,
        "With its local address or without, as it stands.",
    )
    .becomes(&["public-ip"], rule::external_ip)
    .repeated(),
    option(
        "relay-threads",
        &["m"],
        Text,
        "At most 64. Coturn's 0, one thread for all, is 1.",
    )
    .becomes(&["relay.shards"], rule::relay_threads),
    option("min-port", &[], Text, "The first of the ports.")
        .becomes(RELAY_PORTS, rule::relay_ports),
    option("max-port", &[], Text, "The last of the ports.").becomes(RELAY_PORTS, rule::relay_ports),
    option(
        "no-udp",
        &[],
        Nothing,
        "The listeners are named without those of UDP.",
    )
    .becomes(LISTENERS, rule::no_udp),
    option(
        "no-tcp",
        &[],
        Nothing,
        "The listeners are named without those of TCP.",
    )
    .becomes(LISTENERS, rule::no_tcp),
    option(
        "no-tls",
        &[],
        Nothing,
        "The listeners are named without those of TLS.",
    )
    .becomes(LISTENERS, rule::no_tls),
    default("no-dtls", &[], Nothing, "DTLS is not spoken."),
    none(
        "no-udp-relay",
        &[],
        Nothing,
        "Relaying by UDP is what a relay is for.",
    ),
    option(
        "no-tcp-relay",
        &[],
        Nothing,
        "`turnfleet up` has TCP relaying (RFC 6062) on, as coturn has.",
    )
    .becomes(&["controller.tenant.tcp_relaying"], rule::no_tcp_relay),
    none(
        "server-relay",
        &[],
        Nothing,
        "It takes away the permissions that peers need (RFC 8656 section 9).",
    ),
    none(
        "alternate-server",
        &[],
        Text,
        "A relay that drains or is full sends clients to other relays of its fleet by \
         itself; there is no list to write.",
    )
    .repeated(),
    none("tls-alternate-server", &[], Text, "As `alternate-server`.").repeated(),
    none(
        "keep-address-family",
        &["K"],
        Nothing,
        "A client that does not ask gets IPv4 (RFC 8656 section 7.2).",
    ),
    default(
        "allocation-default-address-family",
        &["A"],
        Text,
        "IPv4, as RFC 8656 has it; `ipv6` and `keep` have no equivalent.",
    )
    .by(rule::default_family),
    none(
        "mobility",
        &[],
        Nothing,
        "Mobility (RFC 8016) is not offered; clients make another allocation.",
    ),
    unneeded(
        "ne",
        &[],
        Text,
        "Relays have one way to wait for the network.",
    ),
    unneeded(
        "cpus",
        &[],
        Text,
        "Relays take as many threads as there are processors; `relay.shards` bounds them.",
    ),
];
