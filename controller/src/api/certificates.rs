//! `GET /v1/certificates`: the fleet's certificate, the order of the next one, and what each relay shows.

use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use super::app::answer_json;
use super::route::Call;
use super::status::ApiError;
use crate::fleet::issuance::{Attempt, IssuedCertificate};
use crate::fleet::{FleetView, Transport};

/// What there is, and what is to come. No key is in it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Certificates")]
pub(super) struct Answer {
    /// Of a certificate authority; `null` where there is none, or not yet.
    fleet: Option<Issued>,
    /// `null` where nothing was ever ordered.
    order: Option<Ordered>,
    /// Every relay with a TLS listener, whatever its certificate comes from.
    relays: Vec<Relay>,
}

/// The certificate that relays with `tls.from_fleet` show.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "FleetCertificate")]
struct Issued {
    names: Vec<String>,
    /// The directory of the authority.
    directory: String,
    /// Unix seconds.
    not_before: u64,
    not_after: u64,
    /// When it came.
    issued_at: u64,
    /// When the next one is ordered.
    renews_at: u64,
}

/// The order of the next certificate.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CertificateOrder")]
struct Ordered {
    names: Vec<String>,
    directory: String,
    /// Whether one is under way.
    under_way: bool,
    /// How many have failed since the last good one.
    failures: u32,
    /// `rate_limited`, `refused`, `challenge`, `unreachable`, `late` or `unusable`; `null` where none has failed.
    last_failure: Option<String>,
    last_error: Option<String>,
    /// Unix seconds.
    last_failure_at: Option<u64>,
    /// Unix seconds before which nothing is tried after a failure.
    next_at: Option<u64>,
}

/// What a relay says of the certificate of its TLS listeners.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RelayCertificate")]
struct Relay {
    node: String,
    /// `unknown`, `good`, `ending` or `withheld`.
    state: &'static str,
    /// Unix seconds; `null` where it is not known.
    not_after: Option<u64>,
}

/// `GET /v1/certificates`.
pub(super) async fn certificates(call: Call) -> Result<Response, ApiError> {
    Ok(answer_json(&answer(&call.view)))
}

fn answer(view: &FleetView) -> Answer {
    let has_tls = |node: &crate::fleet::NodeView| {
        let mut listeners = node.identity.listeners.iter();
        listeners.any(|listener| listener.transport == Transport::Tls)
    };
    let relays = view.nodes.iter().filter(|node| has_tls(node));
    let attempt = &view.issuance.attempt;
    Answer {
        fleet: view.issuance.certificate.as_ref().map(issued),
        order: (!attempt.names.is_empty()).then(|| ordered(attempt)),
        relays: relays
            .map(|node| Relay {
                node: node.id.to_string(),
                state: node.certificate.name(),
                not_after: node.validity.map(|validity| validity.not_after),
            })
            .collect(),
    }
}

fn issued(certificate: &IssuedCertificate) -> Issued {
    Issued {
        names: certificate.names.clone(),
        directory: certificate.directory.clone(),
        not_before: certificate.not_before,
        not_after: certificate.not_after,
        issued_at: certificate.issued_at,
        renews_at: certificate.renew_at,
    }
}

fn ordered(attempt: &Attempt) -> Ordered {
    let failure = attempt.failure.as_ref();
    Ordered {
        names: attempt.names.clone(),
        directory: attempt.directory.clone(),
        under_way: attempt.order.is_some(),
        failures: attempt.failures,
        last_failure: failure.map(|failure| failure.reason.clone()),
        last_error: failure.map(|failure| failure.error.clone()),
        last_failure_at: failure.map(|failure| failure.at),
        next_at: failure.map(|_| attempt.next_at),
    }
}
