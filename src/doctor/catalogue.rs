//! Every check that there is: its id, what it looks at, how to mend what it finds, and what it needs.
//!
//! The page in `docs/` is made of this table. An id is for programs too, and keeps its meaning. Nothing is checked here.

/// One thing that is looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Check {
    /// Group and name.
    pub(super) id: &'static str,
    /// What is looked at, and when it fails or warns.
    pub(super) what: &'static str,
    /// What to do about it, where a finding says nothing better.
    pub(super) fix: &'static str,
    /// Without which it is skipped.
    pub(super) needs: &'static str,
}

/// Defines the checks, and `ALL` with every one of them in this order.
macro_rules! checks {
    ($($name:ident: $id:literal, $what:literal, $fix:literal, $needs:literal;)*) => {
        $(pub(super) const $name: &Check = &Check { id: $id, what: $what, fix: $fix, needs: $needs };)*
        /// Every check, in the order in which findings are printed.
        pub(super) const ALL: &[&Check] = &[$($name),*];
    };
}

checks! {
    HOMESERVER_URIS: "homeserver.uris",
        "`turn_uris` of the homeserver: each is a TURN URI that browsers can use, with a port, and one is for UDP",
        "write turn_uris as turn:HOST:3478?transport=udp, turn:HOST:3478?transport=tcp and turns:HOST:5349?transport=tcp",
        "a homeserver (--homeserver)";
    HOMESERVER_SECRET: "homeserver.secret",
        "`turn_shared_secret` or its file is there, and is the secret of `--secret` where that is given; `turn_username` alone is a warning",
        "set turn_shared_secret, or turn_shared_secret_path, to the secret that the relays have",
        "a homeserver (--homeserver)";
    HOMESERVER_LIFETIME: "homeserver.lifetime",
        "`turn_user_lifetime` lets a call begin and go on: less than ten minutes fails, more than a week warns; a bare number is milliseconds",
        "set turn_user_lifetime: 1h",
        "a homeserver (--homeserver)";
    HOMESERVER_GUESTS: "homeserver.guests",
        "`turn_allow_guests`: whether people without an account get a relay; where they may register and get none, it is a warning",
        "set turn_allow_guests: true, or allow_guest_access: false",
        "a homeserver (--homeserver)";
    CONTROLLER_ANSWERS: "controller.answers",
        "the controller answers, and the token may see its relay nodes",
        "see that the controller runs, that --controller is its HTTP address, and that the token has the scope viewer",
        "a controller (--controller)";
    CONTROLLER_NODES: "controller.nodes",
        "every relay node of the fleet is in lists; fails where none is",
        "turnfleet fleet explain NODE says which gate keeps a node out of the lists",
        "a controller (--controller)";
    CLOCK_CONTROLLER: "clock.controller",
        "the `Date` of the controller's answers against this machine's clock: five seconds warn, a minute fails",
        "run NTP (chrony or systemd-timesyncd) on both machines",
        "a controller (--controller)";
    CLOCK_RELAYS: "clock.relays",
        "how far the clock of each relay node is from the controller's, as the controller measures it: five seconds warn, a minute fails",
        "run NTP (chrony or systemd-timesyncd) on the relay",
        "a controller (--controller)";
    CLOCK_HOMESERVER: "clock.homeserver",
        "the `Date` of the homeserver's answers against this machine's clock: five seconds warn, a minute fails",
        "run NTP (chrony or systemd-timesyncd) on the homeserver, which dates the credentials",
        "a homeserver with a public_baseurl (--homeserver)";
    DNS_NAMES: "dns.names",
        "the name of each URI has A or AAAA records, and how many ways they lead to",
        "add A and AAAA records with the addresses of the relays, or correct the name in the URI",
        "a URI with a name in it";
    DNS_SRV: "dns.srv",
        "a URI without a port leads to the default one: browsers ask for no SRV records, so others are a warning",
        "write the port into the URI",
        "a URI without a port";
    ADDRESS_PUBLIC: "address.public",
        "the address that a URI leads to is one that the Internet routes; a private one is a warning",
        "name the relay by its public address; behind 1:1 NAT set public-ip to EXTERNAL/LOCAL",
        "a URI that leads to an address";
    REACH_UDP: "reach.udp",
        "a STUN Binding request over UDP is answered; where not, packets of limited life tell which hop was the last to answer",
        "open the UDP port in the firewall of the relay and in that of its cloud, see that the relay listens there, and that no network on the way drops UDP",
        "a URI for UDP";
    REACH_TCP: "reach.tcp",
        "a TCP connection is let in, and a Binding request on it is answered",
        "open the TCP port in the firewall of the relay and in that of its cloud, and see that the relay listens there",
        "a URI for TCP";
    REACH_TLS: "reach.tls",
        "a TLS handshake succeeds, and a Binding request inside is answered",
        "open the TCP port in the firewalls, and see that the relay has a listener with a certificate there, and no proxy for HTTP before it",
        "a turns: URI";
    TLS_CHAIN: "tls.chain",
        "the certificate leads to an authority that browsers trust, or to one of `--ca`",
        "give the relay the full chain, the certificates of the issuers behind its own (fullchain.pem), or --ca for an authority of your own",
        "a turns: URI that is reached";
    TLS_NAME: "tls.name",
        "the certificate is for the host of the URI",
        "issue a certificate for the name in the URI, or write the name of the certificate into the URI",
        "a turns: URI that is reached";
    TLS_EXPIRY: "tls.expiry",
        "the certificate is valid today; less than 14 days of what is left warn",
        "renew the certificate; the relay takes up the file without a restart",
        "a turns: URI that is reached";
    TLS_VERSIONS: "tls.versions",
        "TLS 1.2 and TLS 1.3 are spoken; TLS 1.1 and older still taken is a warning",
        "let whoever ends TLS there speak TLS 1.2 and 1.3 only",
        "a turns: URI that is reached";
    CREDENTIALS_FORM: "credentials.form",
        "a username that was given is EXPIRY or EXPIRY:USER, has not expired and does not end in years, and its password is the one that the secret makes",
        "let the service make it again: username = EXPIRY:USER with Unix seconds, password = base64(HMAC-SHA1(secret, username))",
        "credentials (--username and --password, or a homeserver that has them)";
    CREDENTIALS_ACCEPTED: "credentials.accepted",
        "a relay grants an allocation to the credentials, signed with MD5 or SHA-256 as it asks for",
        "use the secret that the relays have: turnfleet fleet secrets lists those of a fleet, turnfleet up --shared-secret sets it",
        "a secret or credentials (--secret-file, or --username and --password), and a relay that is reached";
    CLOCK_SERVER: "clock.server",
        "which expiries the relay takes tells its clock: one that ends in 30 seconds it has to take, one that ended 150 seconds ago it has to refuse",
        "run NTP (chrony or systemd-timesyncd) on the relay, on whoever makes the credentials, and here",
        "a secret (--secret-file), and a relay that is reached";
    ALLOCATE_V4: "allocate.ipv4",
        "an IPv4 relayed address is granted",
        "see the log of the relay; 486 is the quota of the user, 508 a relay without free ports or one that drains",
        "credentials that are accepted";
    ALLOCATE_V6: "allocate.ipv6",
        "an IPv6 relayed address is granted; a server without them is a warning",
        "give the relay an IPv6 address to listen on, so that peers in networks without IPv4 are reached",
        "credentials that are accepted";
    PEERS_PRIVATE: "peers.private",
        "permissions for loopback, link-local and metadata addresses are refused; for private networks, granting them is a warning",
        "take these blocks out of the allowed peers: a client could reach services of the relay's own network through it",
        "an allocation";
    RELAY_ADDRESS: "relay.address",
        "the relayed address is public where the server's is, and what is sent to it arrives",
        "set the external address of the relay to the one that the world sees (turnfleet up --public-ip EXTERNAL/LOCAL)",
        "an allocation";
    RELAY_PORTS: "relay.ports",
        "datagrams from this machine to several relayed ports arrive, and what is sent back from there does",
        "open the relay port range for UDP (49152-65535 unless set otherwise) in the firewall of the relay and in that of its cloud",
        "an allocation, and an address of this machine that the relay takes for a peer";
    RELAY_PAIRS: "relay.pairs",
        "two allocations exchange data both ways, in each pair of transports that are reached",
        "let relays reach the relayed addresses of their own fleet: their firewalls, and hairpin NAT where they are behind NAT",
        "an allocation";
    PATH_MTU: "path.mtu",
        "how large datagrams may be that nobody fragments; less than 1280 bytes warn, less than 1200 fail",
        "raise the MTU of tunnels on the way, or let ICMP \"fragmentation needed\" and \"packet too big\" through",
        "two allocations over UDP that reach each other";
    PATH_LOSS: "path.loss",
        "latency and loss of 50 packets through the relay and back; 2 % lost warn, 20 % fail",
        "look for a full link, a CPU at its limit, or small socket buffers on the relay (host.buffers)",
        "two allocations that reach each other";
    ICE_REFLEXIVE: "ice.reflexive",
        "the server-reflexive candidate that a browser here gets",
        "a browser needs one server that answers over UDP",
        "a server that is reached over UDP";
    ICE_RELAY: "ice.relay",
        "the relay candidates that a browser here gets; fails where the URIs lead to none although nothing else has failed",
        "give clients turn: URIs with credentials; stun: URIs make no relay candidates, and browsers have no DTLS (turns: with transport=udp)",
        "a secret or credentials, and a URI";
    HOST_LISTENERS: "host.listeners",
        "on the relay: a process listens on each port of the URIs that lead to this machine",
        "start the relay, or correct its listeners (relay.listeners) or the URIs",
        "--on-relay, and a URI";
    HOST_FIREWALL: "host.firewall",
        "on the relay: no input chain of nftables drops what is for the listeners or the relay ports",
        "accept the listeners' ports and the relay port range in the input chain",
        "--on-relay";
    HOST_PORTS: "host.ports",
        "on the relay: the relay port range is apart from the ports that the system hands out",
        "set net.ipv4.ip_local_reserved_ports to the relay port range, or move net.ipv4.ip_local_port_range",
        "--on-relay";
    HOST_CONNTRACK: "host.conntrack",
        "on the relay: the table of the connection tracking has room; 80 % warn, 95 % fail",
        "raise net.netfilter.nf_conntrack_max, or exempt the relay's ports with notrack rules",
        "--on-relay";
    HOST_BUFFERS: "host.buffers",
        "on the relay: sockets may have receive buffers of 4 MiB",
        "set net.core.rmem_max = 8388608 and net.core.wmem_max = 8388608",
        "--on-relay";
    RUN_WHOLE: "run.whole",
        "the run had time for everything; fails where it was cut off, as then nobody has looked at the rest, whatever passed before",
        "mend what has failed and look again: servers that keep silent take the most time; or name fewer URIs at once",
        "a run";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_of_one_check_each_and_every_check_says_what_to_do() {
        let ids: BTreeSet<&str> = ALL.iter().map(|check| check.id).collect();
        assert_eq!(ids.len(), ALL.len());
        for check in ALL {
            assert_eq!(check.id.split('.').count(), 2, "{}", check.id);
            assert!(!check.what.is_empty() && !check.fix.is_empty() && !check.needs.is_empty());
        }
    }
}
