//! The flags of `turnfleet up`, which are also the keys of its file.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Table;

use crate::cli::key_value;
use crate::config::{Layers, Schema, read};
use turnfleet_proto::ConfigErrors;

/// Flags as they are written; one that is missing takes its default when the fleet is planned.
#[derive(Args, Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Flags {
    /// A TOML file with these flags as keys, and keys of every relay and of the controller in tables [relay] and [controller]
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) config: Option<PathBuf>,

    /// How many relays to run [default: 2]
    #[arg(long, value_name = "N")]
    pub(crate) relays: Option<u16>,

    /// The region that the relays serve [default: local]
    #[arg(long, value_name = "NAME")]
    pub(crate) region: Option<String>,

    /// The realm of the credentials [default: turnfleet.local]
    #[arg(long)]
    pub(crate) realm: Option<String>,

    /// A DNS name of this machine; may be repeated. Without it, `turns:` URIs carry the certificate's first DNS name, or else
    /// the IP address
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Vec<String>,

    /// An address of this machine to listen on; may be repeated; 0.0.0.0 and :: stand for all global ones [default: 127.0.0.1
    /// and ::1]
    #[arg(long, value_name = "IP")]
    pub(crate) listen_ip: Vec<IpAddr>,

    /// The address that clients and peers see behind 1:1 NAT, with the listen address that it belongs to; may be
    /// repeated
    #[arg(long, value_name = "EXTERNAL[/LOCAL]")]
    pub(crate) public_ip: Vec<String>,

    /// The port of the first relay over UDP and TCP; each further relay takes the next but one [default: 3478]
    #[arg(long)]
    pub(crate) port: Option<u16>,

    /// The port of the first relay over TLS; each further relay takes the next but one [default: 5349]
    #[arg(long, value_name = "PORT")]
    pub(crate) tls_port: Option<u16>,

    /// The UDP ports for relayed transport addresses, shared out among the relays [default: 49152-65535]
    #[arg(long, value_name = "FIRST-LAST")]
    pub(crate) relay_ports: Option<String>,

    /// The secret that homeservers mint credentials with. Without it, one is made and kept, sealed, in the state folder
    #[arg(
        long,
        value_name = "SECRET",
        env = "TURNFLEET_SHARED_SECRET",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(crate) shared_secret: Option<String>,

    /// A user with a lasting password; may be repeated. Only the key made from the password is kept
    #[arg(long, value_name = "NAME:PASSWORD")]
    pub(crate) user: Vec<String>,

    /// The certificate chain for TLS, PEM. Without it, one is made and signed by an authority kept in the state folder
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The private key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,

    /// Where the controller serves its HTTP API and dashboard [default: 127.0.0.1:8080]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) http: Option<SocketAddr>,

    /// Where the controller serves relays [default: 127.0.0.1:8081]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) grpc: Option<SocketAddr>,

    /// The port of the first relay's metrics on 127.0.0.1; each further relay takes the next [default: 9641]
    #[arg(long, value_name = "PORT")]
    pub(crate) metrics_port: Option<u16>,

    /// The folder that keeps secrets, certificates and the identities of the relays [default: turnfleet/up in
    /// $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,

    /// A block of addresses that may be peers although private ones are refused; may be repeated
    #[arg(long, value_name = "CIDR")]
    pub(crate) allow_peer: Vec<String>,

    /// Lets every client reach every service on this machine's loopback addresses: for tests only
    #[arg(long)]
    pub(crate) danger_allow_loopback_peers: bool,

    /// Sets one key of every relay (relay.KEY) or of the controller (controller.KEY); may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    #[serde(skip)]
    pub(crate) set: Vec<(String, String)>,

    /// Runs each relay as a process of its own, which can be started again with the relay-K.toml in the state folder
    #[arg(long)]
    pub(crate) spawn: bool,

    /// Prints one JSON line when the fleet is ready; what is meant for a person goes to standard error
    #[arg(long)]
    pub(crate) json: bool,

    /// Keys of every relay.
    #[arg(skip)]
    #[schemars(with = "std::collections::BTreeMap<String, serde_json::Value>")]
    pub(crate) relay: Table,

    /// Keys of the controller.
    #[arg(skip)]
    #[schemars(with = "std::collections::BTreeMap<String, serde_json::Value>")]
    pub(crate) controller: Table,
}

impl Flags {
    /// These flags over the keys of the file that they name.
    ///
    /// # Errors
    /// With every key of the file that cannot be used.
    pub(crate) fn over_file(self) -> Result<Self, ConfigErrors> {
        match self.config.clone() {
            Some(file) => Ok(self.over(from_file(&file)?)),
            None => Ok(self),
        }
    }

    fn over(self, below: Self) -> Self {
        let list = |above: Vec<String>, below| if above.is_empty() { below } else { above };
        // A certificate and its key come from one place.
        let (tls_cert, tls_key) = match (self.tls_cert, self.tls_key) {
            (None, None) => (below.tls_cert, below.tls_key),
            given => given,
        };
        Self {
            config: self.config,
            relays: self.relays.or(below.relays),
            region: self.region.or(below.region),
            realm: self.realm.or(below.realm),
            hostname: list(self.hostname, below.hostname),
            listen_ip: if self.listen_ip.is_empty() {
                below.listen_ip
            } else {
                self.listen_ip
            },
            public_ip: list(self.public_ip, below.public_ip),
            port: self.port.or(below.port),
            tls_port: self.tls_port.or(below.tls_port),
            relay_ports: self.relay_ports.or(below.relay_ports),
            shared_secret: self.shared_secret.or(below.shared_secret),
            user: list(self.user, below.user),
            tls_cert,
            tls_key,
            http: self.http.or(below.http),
            grpc: self.grpc.or(below.grpc),
            metrics_port: self.metrics_port.or(below.metrics_port),
            state_dir: self.state_dir.or(below.state_dir),
            allow_peer: list(self.allow_peer, below.allow_peer),
            danger_allow_loopback_peers: self.danger_allow_loopback_peers
                || below.danger_allow_loopback_peers,
            set: self.set,
            spawn: self.spawn || below.spawn,
            json: self.json || below.json,
            relay: below.relay,
            controller: below.controller,
        }
    }
}

fn from_file(path: &Path) -> Result<Flags, ConfigErrors> {
    let table = read(path).map_err(|problem| ConfigErrors(vec![problem]))?;
    // The keys of the inner tables have underscores; a flag may be written in that manner too.
    let named = table
        .into_iter()
        .map(|(key, value)| (key.replace('_', "-"), value));
    let mut layers = Layers::new(Schema::of::<Flags>());
    layers.table(named.collect());
    match layers.finish::<Flags>() {
        (Some(flags), problems) if problems.is_empty() => Ok(flags),
        (_, problems) => Err(problems),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    #[track_caller]
    fn flags(arguments: &[&str]) -> Flags {
        let all = ["turnfleet", "up"]
            .into_iter()
            .chain(arguments.iter().copied());
        let Command::Up(flags) = Cli::try_parse_from(all).unwrap().command else {
            panic!("another command");
        };
        *flags
    }

    #[test]
    fn a_flag_stands_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("turnfleet.toml");
        let text = "relays = 1\nport = 4000\nlisten-ip = ['192.0.2.1']\npublic_ip = ['198.51.100.1']\n\
                    [relay]\nrfc5766_channel_numbers = true\n";
        std::fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap();
        let flags = flags(&[
            "--config",
            path,
            "--port",
            "5000",
            "--allow-peer",
            "10.0.0.0/8",
        ]);
        let flags = flags.over_file().unwrap();
        assert_eq!((flags.relays, flags.port), (Some(1), Some(5000)));
        assert_eq!(flags.public_ip, ["198.51.100.1"]);
        assert_eq!(flags.listen_ip, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(flags.allow_peer, ["10.0.0.0/8"]);
        assert!(flags.relay.contains_key("rfc5766_channel_numbers"));
    }

    #[test]
    fn every_bad_key_of_the_file_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("turnfleet.toml");
        std::fs::write(&path, "relay-port = '1-2'\nport = 70000\n").unwrap();
        let text = from_file(&path).unwrap_err().to_string();
        assert!(text.contains("did you mean relay-ports?"), "{text}");
        assert!(
            text.contains("port = 70000: expected a whole number from 0 to 65535"),
            "{text}"
        );
    }
}
