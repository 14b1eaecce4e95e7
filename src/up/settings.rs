//! The configurations of the controller and of the relays that a plan makes, each as layers of keys: what follows from the
//! flags, over it the tables of the file, over it `--set`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::plan::{Plan, Relay};
use crate::certificate::Files;
use crate::config::{Configuration, Layers, Problems, insert};

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
        let mut table = Table::new();
        put(
            &mut table,
            "state_dir",
            text(state.join("controller").display()),
        );
        put(&mut table, "realm", flags.realm.as_deref().and_then(text));
        put(
            &mut table,
            "relay_ports",
            flags.relay_ports.as_deref().and_then(text),
        );
        put(
            &mut table,
            "relays_per_address",
            self.relays.len().try_into().map(Value::Integer).ok(),
        );
        put(&mut table, "http.address", text(self.http));
        put(&mut table, "grpc.address", text(self.grpc));
        if !self.grpc.ip().is_loopback() {
            put(
                &mut table,
                "grpc.tls.certificate",
                text(own.certificate.display()),
            );
            put(&mut table, "grpc.tls.key", text(own.key.display()));
        }
        put(&mut table, "region", flags.region.as_deref().and_then(text));
        put(
            &mut table,
            "shared_secret",
            flags.shared_secret.as_deref().and_then(text),
        );
        if !flags.user.is_empty() {
            let users = flags.user.iter().filter_map(|user| user.split_once(':'));
            let users = users.map(|(name, password)| {
                let mut user = Table::new();
                put(&mut user, "name", text(name));
                put(&mut user, "password", text(password));
                Value::Table(user)
            });
            put(&mut table, "users", Some(Value::Array(users.collect())));
        }
        if !flags.allow_peer.is_empty() {
            put(&mut table, "peers.allow", texts(&flags.allow_peer));
        }
        if flags.danger_allow_loopback_peers {
            put(
                &mut table,
                "peers.danger_allow_loopback",
                Some(Value::Boolean(true)),
            );
        }
        let mut layers = Layers::new(turnfleet_controller::config::Config::schema());
        layers.table(table);
        layers.table(flags.controller.clone());
        layers.sets(&sets(&flags.set, "controller."));
        layers
    }

    /// The configuration of one relay.
    pub(crate) fn relay(&self, relay: &Relay, state: &Path, session: &ControlSession) -> Layers {
        let flags = self.flags();
        let mut table = Table::new();
        put(&mut table, "node_id", text(&relay.name));
        put(&mut table, "region", flags.region.as_deref().and_then(text));
        put(
            &mut table,
            "state_dir",
            text(state.join(&relay.name).display()),
        );
        put(
            &mut table,
            "controller.endpoints",
            texts([&session.endpoint]),
        );
        put(
            &mut table,
            "controller.ca",
            session.ca.as_ref().and_then(|ca| text(ca.display())),
        );
        put(
            &mut table,
            "controller.join_token_file",
            text(session.join_token.display()),
        );
        put(
            &mut table,
            "listeners",
            Some(Value::Array(self.listeners(relay))),
        );
        put(
            &mut table,
            "tls.certificate",
            text(session.certificate.certificate.display()),
        );
        put(
            &mut table,
            "tls.key",
            text(session.certificate.key.display()),
        );
        put(&mut table, "metrics.address", text(relay.metrics));
        put(&mut table, "shards", Some(Value::Integer(self.shards())));
        if !flags.hostname.is_empty() {
            put(&mut table, "hostname", texts(&flags.hostname));
        }
        if !flags.public_ip.is_empty() {
            put(&mut table, "public_ips", texts(&flags.public_ip));
        }
        let mut layers = Layers::new(turnfleet_relay::config::Config::schema());
        layers.table(table);
        layers.table(flags.relay.clone());
        layers.sets(&sets(&flags.set, "relay."));
        layers
    }

    fn listeners(&self, relay: &Relay) -> Vec<Value> {
        let transports = [
            ("udp", relay.port),
            ("tcp", relay.port),
            ("tls", relay.tls_port),
        ];
        let places = transports.into_iter().flat_map(|(transport, port)| {
            self.listen_ips
                .iter()
                .map(move |ip| (transport, SocketAddr::new(*ip, port)))
        });
        let listeners = places.map(|(transport, address)| {
            let mut listener = Table::new();
            put(&mut listener, "transport", text(transport));
            put(&mut listener, "address", text(address));
            Value::Table(listener)
        });
        listeners.collect()
    }

    /// The relays of one machine share its processors.
    fn shards(&self) -> i64 {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        i64::try_from(cores / self.relays.len().max(1)).map_or(1, |shards| shards.clamp(1, 64))
    }

    /// Reads the keys that the file and `--set` give for the controller and the relays.
    pub(crate) fn check_keys(&self, problems: &mut Problems) {
        let nowhere = Path::new("");
        let files = Files {
            certificate: PathBuf::new(),
            key: PathBuf::new(),
        };
        let session = ControlSession {
            endpoint: String::new(),
            ca: None,
            join_token: PathBuf::new(),
            certificate: files.clone(),
        };
        let controller = self.controller(nowhere, &files);
        problems.append(
            controller
                .finish::<turnfleet_controller::config::RawConfig>()
                .1,
        );
        for relay in self.relays.iter().take(1) {
            let relay = self.relay(relay, nowhere, &session);
            problems.append(relay.finish::<turnfleet_relay::config::RawConfig>().1);
        }
    }
}

/// The pairs under `prefix`, without it.
fn sets(pairs: &[(String, String)], prefix: &str) -> Vec<(String, String)> {
    let under = pairs
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(prefix)?, value)));
    under
        .map(|(key, value)| (key.to_owned(), value.clone()))
        .collect()
}

fn put(table: &mut Table, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        insert(table, key, value);
    }
}

fn text(value: impl ToString) -> Option<Value> {
    Some(Value::String(value.to_string()))
}

fn texts<T: ToString>(values: impl IntoIterator<Item = T>) -> Option<Value> {
    Some(Value::Array(values.into_iter().filter_map(text).collect()))
}
