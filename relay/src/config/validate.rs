//! From [`RawConfig`] to [`Config`]: reads every key before it gives up, so that all mistakes are told at once.

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use turnfleet_proto::{NodeId, spans};
use turnfleet_turn::AddressFamily;
use turnfleet_turn::peer_filter::Cidr;

use super::{
    Config, ConfigErrors, ControllerConfig, ControllerEndpoint, Findings, JoinToken, JournalConfig,
    LogConfig, LogFormat, NodeLimits, PublicIp, RawConfig, RawController, RawJournal, RawLimits,
    RawLog, RawStream, RawTelemetry, StreamConfig, TlsConfig, listeners, tls,
};

/// Shards mark reservation tokens with one byte; more threads than this have not been of use on any machine.
const MAX_SHARDS: u8 = 64;

impl TryFrom<RawConfig> for Config {
    type Error = ConfigErrors;

    fn try_from(raw: RawConfig) -> Result<Self, ConfigErrors> {
        let mut findings = Findings::default();
        let f = &mut findings;
        let node_id = node_id(&raw.node_id, f);
        label("region", &raw.region, f);
        if !raw.zone.is_empty() {
            label("zone", &raw.zone, f);
        }
        hostnames(&raw.hostname, f);
        if raw.state_dir.is_empty() {
            f.missing("state_dir", "a folder");
        }
        let controller = controller(raw.controller, f);
        let mut listeners = listeners::listeners(&raw.listeners, f);
        let public_ips = public_ips(&raw.public_ips, f);
        let (tls, fleet_tls) = tls::tls(&raw.tls, &listeners, f);
        listeners::detect_tls(&mut listeners, tls.is_some() || fleet_tls.is_some());
        let shards = shards(raw.shards, f);
        let trusted_sources = trusted_sources(&raw.trusted_sources, f);
        let stream = stream(&raw.stream, f);
        let limits = limits(&raw.limits, f);
        f.within(
            "nonce_lifetime_seconds",
            raw.nonce_lifetime_seconds,
            60,
            3600,
        );
        let metrics_address = match raw.metrics.address.as_str() {
            "" => None,
            text => f.parse("metrics.address", text, "ip:port or nothing"),
        };
        let journal = journal(&raw.journal, f);
        let log = log(raw.log, f);
        let otlp_endpoint = otlp_endpoint(raw.telemetry, f);
        let warnings = findings.finish()?;
        Ok(Self {
            node_id: node_id.expect("a missing node id is an error above"),
            region: raw.region,
            zone: raw.zone,
            hostnames: raw.hostname,
            state_dir: raw.state_dir.into(),
            controller,
            listeners,
            public_ips,
            tls,
            fleet_tls,
            shards,
            nodes_in_process: NonZeroU64::MIN,
            rfc5766_channel_numbers: raw.rfc5766_channel_numbers,
            short_cut: raw.short_cut,
            tcp_low_peer_ports: raw.tcp_relaying.low_peer_ports,
            trusted_sources,
            limits,
            stream,
            nonce_lifetime: Duration::from_secs(raw.nonce_lifetime_seconds.into()),
            drain_deadline: Some(raw.drain_deadline_seconds)
                .filter(|seconds| *seconds > 0)
                .map(Duration::from_secs),
            journal,
            metrics_address,
            log,
            otlp_endpoint,
            warnings,
        })
    }
}

/// The configured name, or the machine's.
fn node_id(text: &str, f: &mut Findings) -> Option<NodeId> {
    let expected = "1 to 63 characters of a-z, 0-9, '-' and '.', a letter or digit at both ends";
    if !text.is_empty() {
        return f.parse("node_id", text, expected);
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim().to_ascii_lowercase();
    let found = host.parse().ok();
    if found.is_none() {
        f.missing(
            "node_id",
            format!("{expected} (the machine's host name {host:?} will not do)"),
        );
    }
    found
}

/// Checks a name that travels to dashboards, metrics and store keys.
fn label(key: &str, text: &str, f: &mut Findings) {
    let fits = (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !fits {
        f.error(
            key,
            text,
            "1 to 63 characters of A-Z, a-z, 0-9, '-', '_' and '.'",
        );
    }
}

fn hostnames(names: &[String], f: &mut Findings) {
    for (index, name) in names.iter().enumerate() {
        let uri = format!("turns:{name}");
        let plain = !name.contains([':', '?', '[', '%']);
        if !plain || uri.parse::<turnfleet_proto::TurnUri>().is_err() {
            f.error(format!("hostname[{index}]"), name, "a DNS name");
        }
    }
}

fn controller(raw: RawController, f: &mut Findings) -> ControllerConfig {
    let endpoints: Vec<ControllerEndpoint> = raw
        .endpoints
        .iter()
        .enumerate()
        .filter_map(|(index, text)| endpoint(&format!("controller.endpoints[{index}]"), text, f))
        .collect();
    if raw.endpoints.is_empty() {
        f.missing(
            "controller.endpoints",
            "at least one controller, such as https://controller.example:8081",
        );
    }
    let needs_ca = endpoints.iter().any(|endpoint| endpoint.tls);
    let ca = path(&raw.ca);
    match &ca {
        Some(ca) if needs_ca => readable("controller.ca", ca, f),
        Some(_) => f.warn("controller.ca", "has no effect without an https endpoint"),
        None if needs_ca => f.missing(
            "controller.ca",
            "the file with the CA certificates of the https endpoints",
        ),
        None => {}
    }
    let certificate = client_certificate(&raw, needs_ca, f);
    let file = path(&raw.join_token_file);
    let join_token = match (raw.join_token.0.is_empty(), file) {
        (true, None) => None,
        (true, Some(file)) => {
            readable("controller.join_token_file", &file, f);
            Some(JoinToken::File(file))
        }
        (false, None) => Some(JoinToken::Value(raw.join_token)),
        (false, Some(_)) => {
            f.missing(
                "controller.join_token",
                "only one of join_token and join_token_file",
            );
            None
        }
    };
    ControllerConfig {
        endpoints,
        ca,
        certificate,
        join_token,
    }
}

/// What the node shows to its controllers, of which some are reached by TLS or none.
fn client_certificate(raw: &RawController, by_tls: bool, f: &mut Findings) -> Option<TlsConfig> {
    let files = [
        ("controller.certificate", path(&raw.certificate)),
        ("controller.key", path(&raw.key)),
    ];
    if files.iter().all(|(_, file)| file.is_none()) {
        return None;
    }
    if !by_tls {
        f.warn(
            "controller.certificate",
            "has no effect without an https endpoint",
        );
        return None;
    }
    for (name, file) in &files {
        match file {
            Some(file) => readable(name, file, f),
            None => f.missing(
                *name,
                "a PEM file: both controller.certificate and controller.key",
            ),
        }
    }
    let [(_, certificate), (_, key)] = files;
    Some(TlsConfig {
        certificate: certificate?,
        key: key?,
    })
}

fn endpoint(key: &str, text: &str, f: &mut Findings) -> Option<ControllerEndpoint> {
    let uri = http::Uri::from_str(text).ok();
    let scheme = uri.as_ref().and_then(|uri| uri.scheme_str());
    let (Some(uri), Some(tls)) = (
        &uri,
        match scheme {
            Some("https") => Some(true),
            Some("http") => Some(false),
            Some(_) | None => None,
        },
    ) else {
        f.error(key, text, "https://host:port");
        return None;
    };
    let host = uri.host().unwrap_or_default();
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    let loopback = literal
        .parse::<IpAddr>()
        .map_or(host == "localhost", |ip| ip.is_loopback());
    if !tls && !loopback {
        f.error(
            key,
            text,
            "https://host:port; plain http, which would show secrets to the network, is for controllers on loopback only",
        );
        return None;
    }
    if !uri.path().trim_end_matches('/').is_empty() || uri.query().is_some() {
        f.error(key, text, "https://host:port without a path");
        return None;
    }
    Some(ControllerEndpoint {
        uri: uri.clone(),
        tls,
    })
}

fn public_ips(raw: &[String], f: &mut Findings) -> Vec<PublicIp> {
    let expected = "EXTERNAL or EXTERNAL/LOCAL, two addresses of one family";
    let mut found: Vec<PublicIp> = Vec::new();
    for (index, text) in raw.iter().enumerate() {
        let key = format!("public_ips[{index}]");
        let (public, local) = match text.split_once('/') {
            Some((public, local)) => (public, Some(local)),
            None => (text.as_str(), None),
        };
        let parsed = (
            public.parse::<IpAddr>(),
            local.map(str::parse::<IpAddr>).transpose(),
        );
        let (Ok(public), Ok(local)) = parsed else {
            f.error(key, text, expected);
            continue;
        };
        let mixed =
            local.is_some_and(|local| AddressFamily::of(local) != AddressFamily::of(public));
        if mixed || public.is_unspecified() || public.is_multicast() {
            f.error(key, text, expected);
        } else if found.iter().any(|known| known.public == public) {
            f.error(key, text, "an external address that is not named twice");
        } else if local.is_some() && found.iter().any(|known| known.local == local) {
            f.error(key, text, "a local address that is not named twice");
        } else {
            found.push(PublicIp { public, local });
        }
    }
    found
}

fn shards(wanted: u8, f: &mut Findings) -> u8 {
    if wanted > MAX_SHARDS {
        f.error("shards", &wanted.to_string(), "0 to 64");
    }
    if wanted > 0 {
        return wanted;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u8::try_from(cores).map_or(MAX_SHARDS, |cores| cores.min(MAX_SHARDS))
}

fn trusted_sources(raw: &[String], f: &mut Findings) -> Vec<Cidr> {
    let expected = "an address block such as 192.0.2.0/24";
    raw.iter()
        .enumerate()
        .filter_map(|(index, text)| f.parse(format!("trusted_sources[{index}]"), text, expected))
        .collect()
}

fn limits(raw: &RawLimits, f: &mut Findings) -> NodeLimits {
    let of_allocations = [
        (
            "limits.permissions_per_allocation",
            raw.permissions_per_allocation,
        ),
        (
            "limits.channels_per_allocation",
            raw.channels_per_allocation,
        ),
        (
            "limits.connections_per_allocation",
            raw.connections_per_allocation,
        ),
    ];
    for (key, bound) in of_allocations {
        f.within(key, bound.into(), 1, u16::MAX.into());
    }
    let of_users = raw.connections_per_user;
    f.within("limits.connections_per_user", of_users, 1, 1_000_000);
    NodeLimits {
        allocations: Some(raw.allocations).filter(|limit| *limit > 0),
        permissions_per_allocation: raw.permissions_per_allocation,
        channels_per_allocation: raw.channels_per_allocation,
        connections_per_allocation: raw.connections_per_allocation,
        connections_per_user: of_users,
    }
}

fn stream(raw: &RawStream, f: &mut Findings) -> StreamConfig {
    f.within(
        "stream.unauthenticated_seconds",
        raw.unauthenticated_seconds,
        1,
        300,
    );
    f.within(
        "stream.unauthenticated_connections",
        raw.unauthenticated_connections,
        1,
        1_000_000,
    );
    f.within(
        "stream.unauthenticated_connections_per_source",
        raw.unauthenticated_connections_per_source,
        1,
        1_000_000,
    );
    f.within(
        "stream.write_queue_bytes",
        raw.write_queue_bytes,
        16_384,
        16_777_216,
    );
    f.within(
        "stream.https_connections",
        raw.https_connections,
        1,
        1_000_000,
    );
    StreamConfig {
        unauthenticated_timeout: Duration::from_secs(raw.unauthenticated_seconds.into()),
        unauthenticated_connections: to_usize(raw.unauthenticated_connections),
        unauthenticated_connections_per_source: to_usize(
            raw.unauthenticated_connections_per_source,
        ),
        write_queue_bytes: to_usize(raw.write_queue_bytes),
        https_connections: to_usize(raw.https_connections),
    }
}

fn journal(raw: &RawJournal, f: &mut Findings) -> Option<JournalConfig> {
    f.within("journal.retention_days", raw.retention_days, 0, 366);
    let megabytes = raw.max_megabytes;
    f.within("journal.max_megabytes", megabytes, 16, 1 << 20);
    let seconds = u64::from(raw.retention_days) * 86_400;
    (seconds > 0).then(|| JournalConfig {
        retention: Duration::from_secs(seconds),
        bytes: u64::from(megabytes) << 20,
    })
}

fn log(raw: RawLog, f: &mut Findings) -> LogConfig {
    let format = match raw.format.as_str() {
        "text" => LogFormat::Text,
        "json" => LogFormat::Json,
        other => {
            f.error("log.format", other, "text or json");
            LogFormat::Text
        }
    };
    LogConfig {
        filter: raw.filter,
        format,
        privacy: raw.privacy,
    }
}

fn otlp_endpoint(raw: RawTelemetry, f: &mut Findings) -> Option<String> {
    let endpoint = Some(raw.otlp_endpoint).filter(|endpoint| !endpoint.is_empty())?;
    if !spans::is_endpoint(&endpoint) {
        f.error("telemetry.otlp_endpoint", &endpoint, spans::ENDPOINT_FORM);
    }
    Some(endpoint)
}

pub(super) fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| text.into())
}

pub(super) fn readable(key: &str, file: &Path, f: &mut Findings) {
    if let Err(error) = std::fs::File::open(file) {
        f.error(
            key,
            &file.to_string_lossy(),
            &format!("a file that can be read ({error})"),
        );
    }
}

fn to_usize(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
