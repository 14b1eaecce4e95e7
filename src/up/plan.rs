//! From flags to a plan: which relay listens where, and the configuration of the controller and of every relay.
//!
//! Looks at the machine's addresses and ports and changes nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use socket2::{Domain, Socket, Type};
use toml::{Table, Value};
use turnfleet_proto::PortRange;

use super::Flags;
use crate::certificate::Files;
use crate::config::{Configuration, Layers, Problem, Problems};

/// The most relays that one command runs.
const MAX_RELAYS: u16 = 64;

/// What `turnfleet up` will run, checked against this machine.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) relays: Vec<Relay>,
    pub(crate) realm: String,
    pub(crate) hostnames: Vec<String>,
    pub(crate) listen_ips: Vec<IpAddr>,
    /// The external addresses, without the listen addresses that they belong to.
    pub(crate) public_ips: Vec<IpAddr>,
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) given_certificate: Option<Files>,
    pub(crate) danger_allow_loopback_peers: bool,
    flags: Flags,
    relay_ports: PortRange,
}

/// The places of one relay.
#[derive(Clone, Debug)]
pub(crate) struct Relay {
    /// Its name in the fleet, which is also the name of its folder and file in the state folder.
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) tls_port: u16,
    pub(crate) metrics: SocketAddr,
}

impl Plan {
    /// Checks the flags, and that this machine has the addresses.
    ///
    /// # Errors
    /// With every flag that cannot be used.
    pub(crate) fn new(flags: Flags) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let count = flags.relays.unwrap_or(2);
        if !(1..=MAX_RELAYS).contains(&count) {
            let expected = format!("1 to {MAX_RELAYS}");
            problems.push(Problem::new("--relays", Some(count.to_string()), expected));
        }
        let relays = relays(&flags, count, &mut problems);
        let relay_ports = flags
            .relay_ports
            .as_deref()
            .map_or(Ok(PortRange::DYNAMIC), str::parse);
        let relay_ports = relay_ports.unwrap_or_else(|_| {
            let expected = "FIRST-LAST, 1024 or above, such as 49152-65535";
            problems.push(Problem::new(
                "--relay-ports",
                flags.relay_ports.clone(),
                expected,
            ));
            PortRange::DYNAMIC
        });
        for (index, user) in flags.user.iter().enumerate() {
            if user.split_once(':').is_none_or(|(name, _)| name.is_empty()) {
                problems.push(Problem::new(
                    format!("--user ({})", index + 1),
                    None,
                    "NAME:PASSWORD",
                ));
            }
        }
        for (key, _) in &flags.set {
            if !key.starts_with("relay.") && !key.starts_with("controller.") {
                problems.push(Problem::new(
                    "--set",
                    Some(key.clone()),
                    "relay.KEY or controller.KEY",
                ));
            }
        }
        let given_certificate = match (&flags.tls_cert, &flags.tls_key) {
            (Some(certificate), Some(key)) => Some(Files {
                certificate: absolute(certificate),
                key: absolute(key),
            }),
            (None, None) => None,
            _ => {
                problems.push(Problem::new(
                    "--tls-cert",
                    None,
                    "to be given together with --tls-key",
                ));
                None
            }
        };
        let listen_ips = listen_ips(&flags.listen_ip, &mut problems);
        let public_ips = public_ips(&flags.public_ip, &mut problems);
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let plan = Self {
            relays,
            realm: flags
                .realm
                .clone()
                .unwrap_or_else(|| "turnfleet.local".to_owned()),
            hostnames: flags.hostname.clone(),
            listen_ips,
            public_ips,
            http: flags.http.unwrap_or_else(|| loopback(8080)),
            grpc: flags.grpc.unwrap_or_else(|| loopback(8081)),
            given_certificate,
            danger_allow_loopback_peers: flags.danger_allow_loopback_peers,
            relay_ports,
            flags,
        };
        if problems.is_empty() {
            Ok(plan)
        } else {
            Err(problems)
        }
    }

    /// Whether each relay is a process of its own.
    pub(crate) fn spawns(&self) -> bool {
        self.flags.spawn
    }

    /// Whether the ready line is wanted.
    pub(crate) fn json(&self) -> bool {
        self.flags.json
    }

    /// The addresses that a certificate of this machine is to carry: those that clients use, and loopback, where the relays
    /// find the controller.
    pub(crate) fn certificate_addresses(&self) -> Vec<IpAddr> {
        let mut addresses = self.public_ips.clone();
        addresses.extend(&self.listen_ips);
        addresses.extend([
            IpAddr::from(Ipv4Addr::LOCALHOST),
            Ipv6Addr::LOCALHOST.into(),
        ]);
        addresses.extend([self.http.ip(), self.grpc.ip()]);
        let mut seen = Vec::new();
        addresses.retain(|ip| {
            let fresh = !ip.is_unspecified() && !seen.contains(ip);
            seen.push(*ip);
            fresh
        });
        addresses
    }

    /// The configuration of the controller.
    ///
    /// `own` is the certificate that the fleet's own authority signed: relays check it on gRPC, whatever clients are given.
    pub(crate) fn controller(&self, state: &Path, own: &Files, client: &Files) -> Layers {
        let flags = &self.flags;
        let mut table = Table::new();
        put(
            &mut table,
            "state_dir",
            text(state.join("controller").display()),
        );
        put(&mut table, "realm", text(&self.realm));
        put(&mut table, "relay_ports", text(self.relay_ports));
        put(
            &mut table,
            "relays_per_address",
            self.relays.len().try_into().map(Value::Integer).ok(),
        );
        put(&mut table, "http.address", text(self.http));
        put(&mut table, "grpc.address", text(self.grpc));
        if !self.http.ip().is_loopback() {
            put(
                &mut table,
                "http.tls.certificate",
                text(client.certificate.display()),
            );
            put(&mut table, "http.tls.key", text(client.key.display()));
        }
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
        let flags = &self.flags;
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
        if !self.hostnames.is_empty() {
            put(&mut table, "hostname", texts(&self.hostnames));
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
        let controller = self.controller(nowhere, &files, &files);
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

    /// Finds out that no port is taken, by this plan twice or by another process, before anything starts.
    ///
    /// # Errors
    /// With every port that is taken, and the flag that names it.
    pub(crate) fn check_ports(&self) -> Result<(), Problems> {
        // All are held until the last is open, so that two flags that name one port are found too.
        let mut held = Vec::new();
        let mut problems = Problems::default();
        let mut open = |flag, kind, place| match open(kind, place) {
            Ok(socket) => held.push(socket),
            Err(error) => problems.push(taken(flag, kind, place, &error)),
        };
        open("--http", Type::STREAM, self.http);
        open("--grpc", Type::STREAM, self.grpc);
        for relay in &self.relays {
            open("--metrics-port", Type::STREAM, relay.metrics);
            for ip in &self.listen_ips {
                open("--port", Type::DGRAM, SocketAddr::new(*ip, relay.port));
                open("--port", Type::STREAM, SocketAddr::new(*ip, relay.port));
                open(
                    "--tls-port",
                    Type::STREAM,
                    SocketAddr::new(*ip, relay.tls_port),
                );
            }
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }
}

/// How relays reach the controller, and what they show to clients.
#[derive(Clone, Debug)]
pub(crate) struct ControlSession {
    pub(crate) endpoint: String,
    /// Present where the endpoint is secured.
    pub(crate) ca: Option<PathBuf>,
    pub(crate) join_token: PathBuf,
    pub(crate) certificate: Files,
}

/// Opens a socket as a listener does, for no other purpose than to find out whether it can be opened.
fn open(kind: Type, place: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(place), kind, None)?;
    if place.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        // Connections of an earlier run that linger do not hold the port.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&place.into())?;
    if kind == Type::STREAM {
        socket.listen(1)?;
    }
    Ok(socket)
}

fn taken(flag: &str, kind: Type, place: SocketAddr, error: &std::io::Error) -> Problem {
    let kind = if kind == Type::STREAM { "TCP" } else { "UDP" };
    let port = place.port();
    let expected = match error.kind() {
        std::io::ErrorKind::AddrInUse => format!("a free port: {kind} port {port} is taken"),
        std::io::ErrorKind::PermissionDenied => {
            format!("a port that this user may open: {kind} port {port} is not")
        }
        std::io::ErrorKind::AddrNotAvailable => {
            format!("an address of this machine: {} is none", place.ip())
        }
        _ => format!("a {kind} port that can be opened ({error})"),
    };
    Problem::new(flag, Some(place.to_string()), expected)
}

fn relays(flags: &Flags, count: u16, problems: &mut Problems) -> Vec<Relay> {
    let (port, tls_port) = (flags.port.unwrap_or(3478), flags.tls_port.unwrap_or(5349));
    let metrics = flags.metrics_port.unwrap_or(9641);
    let last = count.clamp(1, MAX_RELAYS) - 1;
    let mut first_of = |flag: &str, first: u16, step: u16| {
        if first == 0 || first.checked_add(last * step).is_none() {
            let expected = format!(
                "1 to {}: {count} relays take every {step}. port",
                u16::MAX - last * step
            );
            problems.push(Problem::new(flag, Some(first.to_string()), expected));
        }
        move |k: u16| first.saturating_add(k * step)
    };
    let port = first_of("--port", port, 2);
    let tls_port = first_of("--tls-port", tls_port, 2);
    let metrics = first_of("--metrics-port", metrics, 1);
    let relay = |k| Relay {
        name: format!("relay-{k}"),
        port: port(k),
        tls_port: tls_port(k),
        metrics: SocketAddr::from((Ipv4Addr::LOCALHOST, metrics(k))),
    };
    (0..=last).map(relay).collect()
}

/// The addresses to listen on, wildcards resolved. A default that the machine lacks is skipped; one that was asked for is a problem.
fn listen_ips(asked: &[IpAddr], problems: &mut Problems) -> Vec<IpAddr> {
    let here = |ip: &IpAddr| UdpSocket::bind((*ip, 0)).is_ok();
    let mut ips: Vec<IpAddr> = Vec::new();
    if asked.is_empty() {
        for ip in [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            Ipv6Addr::LOCALHOST.into(),
        ] {
            if here(&ip) {
                ips.push(ip);
            } else {
                tracing::warn!(%ip, "skipped: this machine lacks the default listen address");
            }
        }
        if ips.is_empty() {
            problems.push(Problem::new(
                "--listen-ip",
                None,
                "an address of this machine",
            ));
        }
        return ips;
    }
    for ip in asked {
        let meant = if ip.is_unspecified() {
            let machine = turnfleet_relay::machine_addresses().into_iter();
            machine
                .filter(|other| other.is_ipv4() == ip.is_ipv4())
                .collect()
        } else {
            vec![*ip]
        };
        if meant.is_empty() || !meant.iter().all(here) {
            let expected = "an address that this machine has";
            problems.push(Problem::new("--listen-ip", Some(ip.to_string()), expected));
        }
        for ip in meant {
            if !ips.contains(&ip) {
                ips.push(ip);
            }
        }
    }
    ips
}

fn public_ips(asked: &[String], problems: &mut Problems) -> Vec<IpAddr> {
    let parse = |text: &str| {
        let (external, local) = text
            .split_once('/')
            .map_or((text, None), |(a, b)| (a, Some(b)));
        let external = external.parse::<IpAddr>().ok()?;
        local
            .is_none_or(|local| local.parse::<IpAddr>().is_ok())
            .then_some(external)
    };
    let mut found = Vec::new();
    for text in asked {
        match parse(text) {
            Some(external) => found.push(external),
            None => {
                let expected = "EXTERNAL or EXTERNAL/LOCAL, two IP addresses";
                problems.push(Problem::new("--public-ip", Some(text.clone()), expected));
            }
        }
    }
    found
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

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Writes a dotted key, where there is a value.
fn put(table: &mut Table, key: &str, value: Option<Value>) {
    let Some(value) = value else {
        return;
    };
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((name, rest)) => {
            let inner = table
                .entry(name)
                .or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                put(inner, rest, Some(value));
            }
        }
    }
}

fn text(value: impl ToString) -> Option<Value> {
    Some(Value::String(value.to_string()))
}

fn texts<T: ToString>(values: impl IntoIterator<Item = T>) -> Option<Value> {
    Some(Value::Array(values.into_iter().filter_map(text).collect()))
}
