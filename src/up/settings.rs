//! The configurations of the controller and of the relays that a plan makes, each as layers of keys: what follows from the
//! flags, over it the tables of the file, over it `--set`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::{Table, Value};
use turnfleet_controller::config::Config as ControllerConfig;
use turnfleet_relay::config::Config as RelayConfig;

use super::plan::{Plan, Relay};
use crate::certificate::Files;
use crate::config::{Configuration, Layers, Problems, Schema, insert};

/// How relays reach the controller, and what they show to clients.
#[derive(Clone, Debug)]
pub(crate) struct ControlSession {
    pub(crate) endpoint: String,
    /// Present where the endpoint is secured.
    pub(crate) ca: Option<PathBuf>,
    pub(crate) join_token: PathBuf,
    pub(crate) certificate: Files,
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
        keys.text("tls.certificate", session.certificate.certificate.display());
        keys.text("tls.key", session.certificate.key.display());
        keys.text("metrics.address", relay.metrics);
        keys.number("shards", self.shards());
        keys.under(RelayConfig::schema(), &flags.relay, &flags.set, "relay.")
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

    /// Reads the keys that the file and `--set` give for the controller and the relays.
    pub(crate) fn check_keys(&self, problems: &mut Problems) {
        let nowhere = Path::new("");
        let files = Files {
            certificate: PathBuf::new(),
            key: PathBuf::new(),
        };
        let controller = self.controller(nowhere, &files);
        problems.append(
            controller
                .finish::<<ControllerConfig as Configuration>::Raw>()
                .1,
        );
        let session = ControlSession {
            endpoint: String::new(),
            ca: None,
            join_token: PathBuf::new(),
            certificate: files,
        };
        if let Some(relay) = self.relays.first() {
            let relay = self.relay(relay, nowhere, &session);
            problems.append(relay.finish::<<RelayConfig as Configuration>::Raw>().1);
        }
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
