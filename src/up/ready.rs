//! What `turnfleet up` prints when the fleet is ready: a line of JSON for a script, and a page for a person.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Serialize;
use turnfleet_controller::fleet::Transport as Reached;
use turnfleet_proto::credentials::EphemeralCredential;
use turnfleet_proto::{Scheme, TurnUri, UriTransport};
use turnfleet_turn::Transport;

/// A fleet that serves. Serialised, it is the ready line, on which scripts depend.
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
    pub(crate) relay_ports: String,
    /// The URL of its metrics.
    pub(crate) metrics: String,
}

/// One listen address.
#[derive(Debug, Serialize)]
pub(crate) struct ReadyListener {
    pub(crate) transport: &'static str,
    pub(crate) addr: SocketAddr,
}

impl ReadyRelay {
    /// A relay that listens on `listeners`.
    pub(crate) fn new(node: String, pid: u32, listeners: &[(Transport, SocketAddr)]) -> Self {
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
            relay_ports: String::new(),
            metrics: String::new(),
        }
    }
}

/// The URI with which a client reaches a listener. `turns:` carries the name that the certificate is checked against.
pub(crate) fn uri(transport: Reached, address: SocketAddr, hostname: Option<&str>) -> String {
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

/// What a person is told besides.
#[derive(Debug)]
pub(crate) struct Particulars {
    pub(crate) credential: EphemeralCredential,
    pub(crate) state_dir: PathBuf,
    /// The file with the key that seals the store.
    pub(crate) key_file: PathBuf,
    /// The addresses that clients see.
    pub(crate) public_ips: Vec<IpAddr>,
    pub(crate) loopback_peers_allowed: bool,
    pub(crate) spawned: bool,
}

impl Ready {
    /// The page for a person.
    pub(crate) fn page(&self, more: &Particulars) -> String {
        let mut page = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_page(&mut page, more);
        page
    }

    fn write_page(&self, page: &mut String, more: &Particulars) -> std::fmt::Result {
        writeln!(
            page,
            "Turnfleet is ready: {} relays, realm {}.\n",
            self.relays.len(),
            self.realm
        )?;
        writeln!(page, "TURN servers")?;
        for uri in &self.turn_uris {
            writeln!(page, "  {uri}")?;
        }
        writeln!(page, "\nA credential, good for an hour")?;
        writeln!(page, "  username  {}", more.credential.username)?;
        writeln!(page, "  password  {}", more.credential.password)?;

        writeln!(page, "\nFor Synapse, in homeserver.yaml")?;
        writeln!(page, "  turn_uris:")?;
        for uri in &self.turn_uris {
            writeln!(page, "    - \"{uri}\"")?;
        }
        // A JSON string is a YAML string too.
        let secret = serde_json::Value::from(self.shared_secret.as_str());
        writeln!(page, "  turn_shared_secret: {secret}")?;
        writeln!(page, "  turn_user_lifetime: 1h")?;
        writeln!(page, "  turn_allow_guests: true")?;

        writeln!(page, "\nDashboard and API  {}", self.http)?;
        writeln!(page, "API token          {}", self.api_token)?;
        writeln!(page, "State folder       {}", more.state_dir.display())?;
        writeln!(page, "Its sealing key    {}", more.key_file.display())?;
        if let Some(ca) = &self.ca {
            writeln!(
                page,
                "CA certificate     {} (clients of turns: are to trust it)",
                ca.display()
            )?;
        }
        if more.spawned {
            let again = more.state_dir.join("relay-K.toml");
            writeln!(
                page,
                "\nStart relay K again with: turnfleet relay --config {}",
                again.display()
            )?;
        }
        let loopback = more.public_ips.iter().any(IpAddr::is_loopback);
        if loopback && !more.loopback_peers_allowed {
            writeln!(
                page,
                "\nThe relays have loopback addresses, and refuse peers on loopback other than relays of this fleet.\n\
                 To try it with peers on this machine, add --danger-allow-loopback-peers."
            )?;
        }
        writeln!(page, "\nStop it with Ctrl-C.")
    }
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
}
