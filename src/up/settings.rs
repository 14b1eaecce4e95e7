//! The configurations of the controller and of the relays that a plan makes, each as layers of keys: what follows from the
//! flags, over it the tables of the file, over it `--set`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use toml::{Table, Value};
use turnfleet_controller::config::{AcmeChallenge, AcmeConfig, Config as ControllerConfig};
use turnfleet_relay::config::Config as RelayConfig;

use super::Flags;
use super::plan::{Plan, Relay};
use crate::certificate::Files;
use crate::config::{self, Configuration as _, Layers, Schema, insert};
use turnfleet_proto::{ConfigError, ConfigErrors, ConfigWarning};

/// Where certificate authorities look for answers over HTTP (RFC 8555 §8.3).
const HTTP: u16 = 80;

/// How relays reach the controller, and what they show to clients.
#[derive(Clone, Debug)]
pub(crate) struct ControlSession {
    pub(crate) endpoint: String,
    /// Present where the endpoint is secured.
    pub(crate) ca: Option<PathBuf>,
    pub(crate) join_token: PathBuf,
    pub(crate) certificate: ShownCertificate,
}

/// Where relays have the certificate from that clients see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ShownCertificate {
    /// From these files.
    Files(Files),
    /// From the controller, which orders it by this challenge.
    Fleet(AcmeChallenge),
}

impl Plan {
    /// The configuration of the controller.
    ///
    /// `own` is the certificate that the fleet's own authority signed: relays check it on gRPC, whatever clients are given.
    pub(crate) fn controller(&self, state: &Path, own: &Files) -> Layers {
        let flags = self.flags();
        let mut keys = Keys::default();
        keys.text("state_dir", state.join("controller").display());
        keys.text_if("realm", flags.realm.as_deref());
        keys.text_if("region", flags.region.as_deref());
        keys.text_if("relay_ports", flags.relay_ports.as_deref());
        keys.number("relays_per_address", self.relays.len());
        keys.text("http.address", self.http);
        keys.text("grpc.address", self.grpc);
        if !self.grpc.ip().is_loopback() {
            keys.text("grpc.tls.certificate", own.certificate.display());
            keys.text("grpc.tls.key", own.key.display());
        }
        keys.text_if("shared_secret", flags.shared_secret.as_deref());
        let users = flags.user.iter().filter_map(|user| user.split_once(':'));
        keys.tables(
            "users",
            users.map(|(name, password)| [("name", name), ("password", password)]),
        );
        keys.texts("peers.allow", &flags.allow_peer);
        keys.value("tenant.tcp_relaying", true);
        if flags.danger_allow_loopback_peers {
            keys.value("peers.danger_allow_loopback", true);
        }
        keys.under(
            ControllerConfig::schema(),
            &flags.controller,
            &flags.set,
            "controller.",
        )
    }

    /// The configuration of one relay.
    pub(crate) fn relay(&self, relay: &Relay, state: &Path, session: &ControlSession) -> Layers {
        let flags = self.flags();
        let mut keys = Keys::default();
        keys.text("node_id", &relay.name);
        keys.text_if("region", flags.region.as_deref());
        keys.texts("hostname", &flags.hostname);
        keys.text("state_dir", state.join(&relay.name).display());
        keys.texts("controller.endpoints", &[&session.endpoint]);
        keys.text_if("controller.ca", session.ca.as_ref().map(|ca| ca.display()));
        keys.text("controller.join_token_file", session.join_token.display());
        let listeners = self.listeners(relay);
        let listeners = listeners.iter();
        keys.tables(
            "listeners",
            listeners.map(|(transport, address)| {
                [("transport", *transport), ("address", address.as_str())]
            }),
        );
        keys.texts("public_ips", &flags.public_ip);
        match &session.certificate {
            ShownCertificate::Files(files) => {
                keys.text("tls.certificate", files.certificate.display());
                keys.text("tls.key", files.key.display());
            }
            ShownCertificate::Fleet(challenge) => {
                keys.value("tls.from_fleet", true);
                // One of them answers for all: the port is the machine's.
                let is_first = self.relays.first().is_some_and(|it| it.name == relay.name);
                if *challenge == AcmeChallenge::Http01 && is_first {
                    let places = self.listen_ips.iter().map(|ip| SocketAddr::new(*ip, HTTP));
                    keys.texts("tls.http_challenges", &places.collect::<Vec<_>>());
                }
            }
        }
        keys.text("metrics.address", relay.metrics);
        keys.number("shards", self.shards());
        keys.under(RelayConfig::schema(), &flags.relay, &flags.set, "relay.")
    }

    /// What clients see: the files that were given, the certificate that is ordered, or the fleet's `own`.
    pub(crate) fn shown_certificate(
        &self,
        acme: Option<&AcmeConfig>,
        own: &Files,
    ) -> ShownCertificate {
        match (&self.given_certificate, acme) {
            (Some(files), _) => ShownCertificate::Files(files.clone()),
            (None, Some(acme)) => ShownCertificate::Fleet(acme.challenge),
            (None, None) => ShownCertificate::Files(own.clone()),
        }
    }

    fn listeners(&self, relay: &Relay) -> Vec<(&'static str, String)> {
        let transports = [
            ("udp", relay.port),
            ("tcp", relay.port),
            ("tls", relay.tls_port),
        ];
        let mut listeners = Vec::new();
        for (transport, port) in transports {
            let places = self.listen_ips.iter().map(|ip| SocketAddr::new(*ip, port));
            listeners.extend(places.map(|place| (transport, place.to_string())));
        }
        listeners
    }

    /// The relays of one machine share its processors.
    fn shards(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        (cores / self.relays.len()).clamp(1, 64)
    }

    /// Judges the configurations of the controller and of the relays before anything is started. ConfigErrors are named by
    /// what the person wrote: a flag, or a key behind `controller.` or `relay.`.
    pub(crate) fn check_keys(&self, problems: &mut ConfigErrors) {
        // Stands for the files that are made when the fleet starts: it is there, and can be read.
        let made = PathBuf::from("/dev/null");
        let files = || Files {
            certificate: made.clone(),
            key: made.clone(),
        };
        let controller = self.controller(Path::new("state"), &files());
        let mut acme = None;
        match config::finish::<ControllerConfig>(controller) {
            Ok(config) => acme = config.acme,
            Err(found) => problems.append_named(found, |key| self.written("controller", key)),
        }
        if acme.is_some() && self.given_certificate.is_some() {
            let expected = "nothing beside controller.acme.directory_url";
            problems.push(ConfigError::new("--tls-cert", None, expected));
        }
        let session = ControlSession {
            endpoint: format!("http://{}", SocketAddr::from((Ipv4Addr::LOCALHOST, 1))),
            ca: None,
            join_token: made.clone(),
            certificate: self.shown_certificate(acme.as_ref(), &files()),
        };
        let relay = self.relays.first().filter(|_| !self.listen_ips.is_empty());
        let Some(relay) = relay else { return };
        let relay = self.relay(relay, Path::new("state"), &session);
        let judged = config::finish::<RelayConfig>(relay);
        let judged = judged.and_then(|relay| relay.check_addresses());
        if let Err(found) = judged {
            problems.append_named(found, |key| self.written("relay", key));
        }
    }

    /// What is seldom meant among the keys of the controller and of a relay.
    pub(crate) fn warnings(&self) -> Vec<ConfigWarning> {
        let nowhere = PathBuf::from("/dev/null");
        let files = Files {
            certificate: nowhere.clone(),
            key: nowhere,
        };
        let controller = self.controller(Path::new("state"), &files);
        let found = config::finish::<ControllerConfig>(controller);
        let mut found = found.map_or_else(|_| Vec::new(), |config| config.warnings());
        for warning in &mut found {
            warning.key = self.written("controller", &warning.key);
        }
        found
    }

    /// Where the value of a key of the `part` was written.
    fn written(&self, part: &str, key: &str) -> String {
        let Flags {
            region,
            realm,
            hostname,
            public_ip,
            relay_ports,
            shared_secret,
            tls_cert,
            allow_peer,
            user,
            ..
        } = self.flags();
        let flags = [
            ("region", "--region", region.is_some()),
            ("realm", "--realm", realm.is_some()),
            ("hostname", "--hostname", !hostname.is_empty()),
            ("public_ips", "--public-ip", !public_ip.is_empty()),
            ("relay_ports", "--relay-ports", relay_ports.is_some()),
            ("shared_secret", "--shared-secret", shared_secret.is_some()),
            ("tls.certificate", "--tls-cert", tls_cert.is_some()),
            ("tls.key", "--tls-key", tls_cert.is_some()),
            ("peers.allow", "--allow-peer", !allow_peer.is_empty()),
            ("users.name", "--user", !user.is_empty()),
            ("users.password", "--user", !user.is_empty()),
        ];
        // Without the place in a list: the value tells which one.
        let name = key.split('[').next().unwrap_or(key);
        let given = |(of, _, given): &&(&str, &str, bool)| *of == name && *given;
        let flag = flags.iter().find(given);
        flag.map_or_else(
            || format!("{part}.{key}"),
            |(_, flag, _)| (*flag).to_owned(),
        )
    }
}

/// Keys that follow from the flags.
#[derive(Default)]
struct Keys(Table);

impl Keys {
    fn value(&mut self, key: &str, value: impl Into<Value>) {
        insert(&mut self.0, key, value.into());
    }

    fn text(&mut self, key: &str, text: impl ToString) {
        self.value(key, text.to_string());
    }

    fn text_if(&mut self, key: &str, text: Option<impl ToString>) {
        if let Some(text) = text {
            self.text(key, text);
        }
    }

    /// A list; an empty one is not written.
    fn texts(&mut self, key: &str, texts: &[impl ToString]) {
        if !texts.is_empty() {
            let texts = texts.iter().map(|text| Value::String(text.to_string()));
            self.value(key, texts.collect::<Vec<_>>());
        }
    }

    fn number(&mut self, key: &str, number: usize) {
        self.value(key, i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// A list of tables of two texts; an empty one is not written.
    fn tables<'t>(&mut self, key: &str, tables: impl Iterator<Item = [(&'t str, &'t str); 2]>) {
        let table = |pairs: [(&str, &str); 2]| {
            let pairs = pairs.map(|(name, text)| (name.to_owned(), Value::String(text.to_owned())));
            Value::Table(pairs.into_iter().collect())
        };
        let tables: Vec<Value> = tables.map(table).collect();
        if !tables.is_empty() {
            self.value(key, tables);
        }
    }

    /// These keys, over them `table` and the pairs under `prefix`.
    fn under(
        self,
        schema: Schema,
        table: &Table,
        pairs: &[(String, String)],
        prefix: &str,
    ) -> Layers {
        let meant = pairs
            .iter()
            .filter_map(|(key, text)| Some((key.strip_prefix(prefix)?, text)));
        let pairs: Vec<_> = meant
            .map(|(key, text)| (key.to_owned(), text.clone()))
            .collect();
        let mut layers = Layers::new(schema);
        layers.table(self.0);
        layers.table(table.clone());
        layers.sets(&pairs);
        layers
    }
}
