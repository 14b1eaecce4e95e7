//! Whether a server is there: names, addresses, and a Binding request by each transport.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use turnfleet_proto::{Scheme, TurnUri, UriTransport};
use turnfleet_turn::Transport;
use turnfleet_turn::peer_filter::PeerFilter;

use super::catalogue::{
    ADDRESS_PUBLIC, Check, DNS_NAMES, DNS_SRV, REACH_TCP, REACH_TLS, REACH_UDP,
};
use super::report::{Finding, Report, State};
use super::session::Refusal;
use super::tls;
use super::trace::trace;
use super::way::Way;
use crate::resolve::{self, Candidate};

/// What was learnt of a way on which somebody answers.
pub(super) struct Reached {
    /// The way.
    pub(super) way: Way,
    /// This machine's address as the server sees it; `None` where it answers no Binding.
    pub(super) mapped: Option<SocketAddr>,
}

/// The ways that a URI leads to, as a browser would find them.
pub(super) fn ways(uri: &TurnUri, report: &Report, tls: &tls::Trust) -> Vec<Way> {
    let shown = uri.to_string();
    if matches!(
        (uri.scheme, uri.transport),
        (Scheme::Turns, Some(UriTransport::Udp))
    ) {
        report.skip(
            REACH_UDP,
            &shown,
            "DTLS is not spoken here, nor by any browser",
        );
        return Vec::new();
    }
    let found = match resolve::candidates(uri) {
        Ok(found) => found,
        Err(error) => {
            report.fail(DNS_NAMES, &shown, format!("{error:#}"));
            return Vec::new();
        }
    };
    // RFC 5928 lets a client try TCP where the URI names no transport; browsers do not.
    let is_tried = |it: &&Candidate| uri.transport.is_some() || it.transport != Transport::Tcp;
    let candidates: Vec<Candidate> = found.iter().filter(is_tried).copied().collect();
    if candidates.is_empty() {
        report.add(Finding {
            check: DNS_NAMES,
            subject: shown,
            state: State::Warn,
            text: format!(
                "its SRV records lead to {} alone, and browsers try UDP only where a URI names no transport",
                listed(&found)
            ),
            fix: Some("write the port and the transport into the URI".to_owned()),
        });
        return Vec::new();
    }
    if uri.host.parse::<IpAddr>().is_err() {
        report.pass(DNS_NAMES, &shown, listed(&candidates));
    }
    if uri.port.is_none() {
        default_port(uri, &candidates, report);
    }
    let is_turn = matches!(uri.scheme, Scheme::Turn | Scheme::Turns);
    let candidates = candidates.into_iter();
    let way = |candidate: Candidate| Way {
        uri: shown.clone(),
        is_turn,
        candidate,
        tls: (candidate.transport == Transport::Tls)
            .then(|| tls.of(&uri.host))
            .flatten(),
    };
    candidates.map(way).collect()
}

/// Says where a URI without a port leads to, and where browsers go.
fn default_port(uri: &TurnUri, candidates: &[Candidate], report: &Report) {
    let shown = uri.to_string();
    let default = uri.scheme.default_port();
    let others = candidates.iter().filter(|it| it.address.port() != default);
    let others: Vec<Candidate> = others.copied().collect();
    if others.is_empty() {
        report.pass(
            DNS_SRV,
            &shown,
            format!("without a port it is port {default}, for browsers too"),
        );
    } else {
        report.warn(
            DNS_SRV,
            &shown,
            format!(
                "its SRV records name {}, and browsers, which do not ask for them, go to port {default}",
                listed(&others)
            ),
        );
    }
}

fn listed(candidates: &[Candidate]) -> String {
    let shown: Vec<String> = candidates.iter().map(ToString::to_string).collect();
    shown.join(", ")
}

/// Why nobody in the Internet could send to `ip`; `None` where everybody can.
pub(super) fn special(ip: IpAddr) -> Option<String> {
    let denied = PeerFilter::default().check_ip(ip).err()?;
    Some(denied.name().replace('_', " "))
}

/// Whether the address that a way leads to is one of the Internet.
pub(super) fn is_public(way: &Way, report: &Report) {
    let ip = way.candidate.address.ip();
    let subject = way.to_string();
    match special(ip) {
        None => report.pass(ADDRESS_PUBLIC, &subject, format!("{ip} is public")),
        Some(kind) => report.warn(
            ADDRESS_PUBLIC,
            &subject,
            format!("{ip} is {kind}: only clients in the same network reach it"),
        ),
    }
}

fn check_of(transport: Transport) -> &'static Check {
    match transport {
        Transport::Udp => REACH_UDP,
        Transport::Tcp => REACH_TCP,
        Transport::Tls => REACH_TLS,
    }
}

/// Asks for the own address, and says how it went.
pub(super) fn reach(way: &Way, report: &Report) -> Option<Reached> {
    let (check, subject) = (check_of(way.transport()), way.to_string());
    let ip = way.candidate.address.ip();
    if ip.is_ipv6() && !resolve::has_route(ip) {
        report.skip(check, &subject, "this machine has no IPv6 to reach it by");
        return None;
    }
    let nobody = (String::new(), String::new());
    let began = Instant::now();
    let mut session = match way.open(nobody, false) {
        Ok(session) => session,
        Err(error) => {
            let far = if is_closed(&error) {
                "nothing listens on that port, or a firewall there refuses it".to_owned()
            } else {
                trace(way.candidate.address, way.transport())
            };
            report.fail(check, &subject, format!("{error:#}; {far}"));
            return None;
        }
    };
    match session.binding() {
        Ok(mapped) => {
            report.pass(
                check,
                &subject,
                format!("a Binding is answered in {}", millis(began.elapsed())),
            );
            Some(Reached {
                way: way.clone(),
                mapped: Some(mapped),
            })
        }
        // Some servers answer no Binding without credentials; they are there all the same.
        Err(Refusal::Code(code)) => {
            report.warn(
                check,
                &subject,
                format!(
                    "the server is there, and refuses a Binding with {}",
                    code.code()
                ),
            );
            Some(Reached {
                way: way.clone(),
                mapped: None,
            })
        }
        Err(_) if way.transport() == Transport::Tcp && speaks_tls(way) => {
            report.fail_with(
                check,
                &subject,
                "a connection is let in, and TLS is spoken on that port",
                "write turns: for that port, or name a port on which the relay speaks TURN without TLS",
            );
            None
        }
        // A stream has got there.
        Err(refusal) if way.transport().is_stream() => {
            let text = format!("a connection is let in, and then {refusal}");
            report.fail(check, &subject, text);
            None
        }
        Err(refusal) => {
            let far = trace(way.candidate.address, way.transport());
            report.fail(check, &subject, format!("{refusal}; {far}"));
            None
        }
    }
}

/// Whether TLS is spoken where the URI has none.
fn speaks_tls(way: &Way) -> bool {
    let host = way.uri.parse().map(|uri: TurnUri| uri.host);
    tls::is_spoken(way.candidate.address, &host.unwrap_or_default())
}

/// Whether somebody has refused a connection, and nobody has kept silent.
fn is_closed(error: &anyhow::Error) -> bool {
    let mut causes = error.chain();
    causes.any(|cause| {
        let cause = cause.downcast_ref::<std::io::Error>();
        cause.is_some_and(|cause| cause.kind() == ErrorKind::ConnectionRefused)
    })
}

/// A time as a person reads it.
pub(super) fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
