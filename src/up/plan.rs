//! From flags to a plan: how many relays there are, and where each listens.
//!
//! Looks at the machine's addresses and ports and changes nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;

use super::Flags;
use crate::certificate::Files;
use turnfleet_proto::{ConfigError, ConfigErrors};

/// The most relays that one command runs.
const MAX_RELAYS: u16 = 64;

/// What `turnfleet up` will run, checked against this machine.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) relays: Vec<Relay>,
    pub(crate) listen_ips: Vec<IpAddr>,
    /// The external addresses, without the listen addresses that they belong to.
    pub(crate) public_ips: Vec<IpAddr>,
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) given_certificate: Option<Files>,
    flags: Flags,
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
    /// Checks the flags, the keys that they hold for the controller and the relays, and that this machine has the addresses.
    ///
    /// # Errors
    /// With every flag that cannot be used.
    pub(crate) fn new(flags: Flags) -> Result<Self, ConfigErrors> {
        let mut problems = ConfigErrors::default();
        let relays = relays(&flags, &mut problems);
        check_pairs(&flags, &mut problems);
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let plan = Self {
            relays,
            listen_ips: listen_ips(&flags, wildcard, &mut problems),
            public_ips: flags
                .public_ip
                .iter()
                .filter_map(|text| external(text))
                .collect(),
            http: flags.http.unwrap_or_else(|| loopback(8080)),
            grpc: flags.grpc.unwrap_or_else(|| loopback(8081)),
            given_certificate: given_certificate(&flags, &mut problems),
            flags,
        };
        plan.check_keys(&mut problems);
        if problems.is_empty() {
            Ok(plan)
        } else {
            Err(problems)
        }
    }

    /// The flags as they were written.
    pub(crate) fn flags(&self) -> &Flags {
        &self.flags
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
}

fn relays(flags: &Flags, problems: &mut ConfigErrors) -> Vec<Relay> {
    let count = flags.relays.unwrap_or(2);
    if !(1..=MAX_RELAYS).contains(&count) {
        let expected = format!("1 to {MAX_RELAYS}");
        problems.push(ConfigError::new(
            "--relays",
            Some(count.to_string()),
            expected,
        ));
    }
    let last = count.clamp(1, MAX_RELAYS) - 1;
    let mut ports = |flag: &str, first: u16, step: u16| {
        let most = u16::MAX - last * step;
        if !(1..=most).contains(&first) {
            let expected = format!("1 to {most}, for {count} relays");
            problems.push(ConfigError::new(flag, Some(first.to_string()), expected));
        }
        move |k: u16| first.saturating_add(k * step)
    };
    let port = ports("--port", flags.port.unwrap_or(3478), 2);
    let tls_port = ports("--tls-port", flags.tls_port.unwrap_or(5349), 2);
    let metrics = ports("--metrics-port", flags.metrics_port.unwrap_or(9641), 1);
    let relay = |k| Relay {
        name: format!("relay-{k}"),
        port: port(k),
        tls_port: tls_port(k),
        metrics: SocketAddr::from((Ipv4Addr::LOCALHOST, metrics(k))),
    };
    (0..=last).map(relay).collect()
}

/// Checks what is taken apart before it is passed on.
fn check_pairs(flags: &Flags, problems: &mut ConfigErrors) {
    for (index, user) in flags.user.iter().enumerate() {
        if user.split_once(':').is_none_or(|(name, _)| name.is_empty()) {
            problems.push(ConfigError::new(
                format!("--user ({})", index + 1),
                None,
                "NAME:PASSWORD",
            ));
        }
    }
    for (key, _) in &flags.set {
        if !key.starts_with("relay.") && !key.starts_with("controller.") {
            let expected = "relay.KEY=VALUE or controller.KEY=VALUE";
            problems.push(ConfigError::new("--set", Some(key.clone()), expected));
        }
    }
}

fn given_certificate(flags: &Flags, problems: &mut ConfigErrors) -> Option<Files> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (&flags.tls_cert, &flags.tls_key) {
        (Some(certificate), Some(key)) => {
            let (certificate, key) = (absolute(certificate), absolute(key));
            Some(Files { certificate, key })
        }
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            let expected = "to be given together with --tls-key";
            problems.push(ConfigError::new("--tls-cert", None, expected));
            None
        }
    }
}

/// The addresses to listen on; `wildcard` says what wildcards stand for, by the addresses that external ones are paired with.
/// A default that the machine lacks is skipped, and so is a wildcard of a family that it lacks, as long as another address is
/// left; an address that was asked for is a problem.
fn listen_ips(
    flags: &Flags,
    wildcard: impl Fn(IpAddr, &[IpAddr]) -> Vec<IpAddr>,
    problems: &mut ConfigErrors,
) -> Vec<IpAddr> {
    let asked = &flags.listen_ip;
    let mut ips: Vec<IpAddr> = Vec::new();
    if asked.is_empty() {
        for ip in [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            Ipv6Addr::LOCALHOST.into(),
        ] {
            if is_here(&ip) {
                ips.push(ip);
            } else {
                tracing::warn!(%ip, "skipped: this machine lacks the default listen address");
            }
        }
        if ips.is_empty() {
            problems.push(ConfigError::new(
                "--listen-ip",
                None,
                "an address of this machine",
            ));
        }
        return ips;
    }
    let paired = flags.public_ip.iter();
    let paired = paired.filter_map(|text| text.split_once('/'));
    let paired: Vec<IpAddr> = paired.filter_map(|(_, ip)| ip.parse().ok()).collect();
    let mut lacking = None;
    for ip in asked {
        let meant = if ip.is_unspecified() {
            wildcard(*ip, &paired)
        } else {
            vec![*ip]
        };
        if meant.is_empty() {
            tracing::warn!(%ip, "skipped: the machine has no global address of its family");
            lacking = Some(ip);
        }
        if !meant.iter().all(is_here) {
            let expected = "an address that this machine has";
            problems.push(ConfigError::new(
                "--listen-ip",
                Some(ip.to_string()),
                expected,
            ));
        }
        for ip in meant {
            if !ips.contains(&ip) {
                ips.push(ip);
            }
        }
    }
    if let Some(ip) = lacking.filter(|_| ips.is_empty()) {
        let expected = if ip.is_ipv4() {
            "a machine with an IPv4 address beyond loopback, which 0.0.0.0 stands for"
        } else {
            "a machine with a global IPv6 address, which :: stands for"
        };
        problems.push(ConfigError::new(
            "--listen-ip",
            Some(ip.to_string()),
            expected,
        ));
    }
    ips
}

fn wildcard(ip: IpAddr, paired: &[IpAddr]) -> Vec<IpAddr> {
    turnfleet_relay::Machine::read().wildcard(ip, paired)
}

fn is_here(ip: &IpAddr) -> bool {
    UdpSocket::bind((*ip, 0)).is_ok()
}

/// The external address of `EXTERNAL[/LOCAL]`.
fn external(text: &str) -> Option<IpAddr> {
    let (external, _) = text.split_once('/').unwrap_or((text, ""));
    external.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a machine without IPv6 listens on, and whether it has no problem with what was asked for.
    fn found(asked: &[&str]) -> (Vec<IpAddr>, bool) {
        let flags = Flags {
            listen_ip: asked.iter().map(|ip| ip.parse().unwrap()).collect(),
            ..Flags::default()
        };
        let mut problems = ConfigErrors::default();
        let wildcard = |ip: IpAddr, _: &[IpAddr]| match ip {
            IpAddr::V4(_) => vec![IpAddr::from(Ipv4Addr::LOCALHOST)],
            IpAddr::V6(_) => Vec::new(),
        };
        let ips = listen_ips(&flags, wildcard, &mut problems);
        (ips, problems.is_empty())
    }

    #[test]
    fn a_wildcard_of_a_family_that_the_machine_lacks_is_skipped_beside_another_address() {
        let here = vec![IpAddr::from(Ipv4Addr::LOCALHOST)];
        assert_eq!(found(&["0.0.0.0", "::"]), (here.clone(), true));
        assert_eq!(found(&["::", "127.0.0.1"]), (here, true));
        assert_eq!(found(&["::"]), (Vec::new(), false));
        // It is nobody's.
        assert!(!found(&["0.0.0.0", "192.0.2.1"]).1);
    }
}
