//! The certificate of TLS listeners as it is configured: of two files, or the fleet's.

use super::validate::{path, readable};
use super::{Findings, FleetTlsConfig, Listener, RawTls, TlsConfig};

/// The most places where challenges are answered by HTTP.
const MAX_PLACES: usize = 16;

/// Where the certificate comes from; neither where no listener needs one.
pub(super) fn tls(
    raw: &RawTls,
    listeners: &[Listener],
    f: &mut Findings,
) -> (Option<TlsConfig>, Option<FleetTlsConfig>) {
    let needed = listeners.iter().any(Listener::takes_tls);
    let files = [
        ("tls.certificate", path(&raw.certificate)),
        ("tls.key", path(&raw.key)),
    ];
    let has_files = files.iter().any(|(_, file)| file.is_some());
    if !raw.from_fleet && !raw.http_challenges.is_empty() {
        let expected = "nothing without tls.from_fleet";
        f.error(
            "tls.http_challenges",
            &raw.http_challenges.join(" "),
            expected,
        );
    }
    if !needed {
        if has_files || raw.from_fleet {
            f.warn("tls", "has no effect without a tls listener");
        }
        return (None, None);
    }
    if raw.from_fleet {
        for (name, file) in files {
            if let Some(file) = file {
                let expected = "nothing beside tls.from_fleet";
                f.error(name, &file.display().to_string(), expected);
            }
        }
        return (None, Some(of_fleet(raw, f)));
    }
    for (name, file) in &files {
        match file {
            Some(file) => readable(name, file, f),
            None => f.missing(
                *name,
                "a PEM file, or tls.from_fleet, because there is a tls listener",
            ),
        }
    }
    let [(_, certificate), (_, key)] = files;
    let files = certificate.zip(key);
    let files = files.map(|(certificate, key)| TlsConfig { certificate, key });
    (files, None)
}

fn of_fleet(raw: &RawTls, f: &mut Findings) -> FleetTlsConfig {
    if raw.http_challenges.len() > MAX_PLACES {
        let count = raw.http_challenges.len().to_string();
        f.error("tls.http_challenges", &count, "at most 16 of them");
    }
    let places = raw.http_challenges.iter().enumerate();
    let places = places.filter_map(|(index, text)| {
        let key = format!("tls.http_challenges[{index}]");
        f.parse(&key, text, "ip:port, such as 0.0.0.0:80")
    });
    FleetTlsConfig {
        http_challenges: places.collect(),
    }
}
