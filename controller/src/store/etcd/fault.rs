//! Which key of the configuration is at fault where etcd refuses, for an operator who reads one line.

use std::error::Error as StdError;
use std::io;

use etcd_client::Error;
use rustls::{CertificateError, Error as TlsError};
use tonic::{Code, Status};

/// Alerts that speak of a client's certificate.
const REFUSALS: [&str; 8] = [
    "AccessDenied",
    "BadCertificate",
    "CertificateExpired",
    "CertificateRequired",
    "CertificateUnknown",
    "HandshakeFailure",
    "UnknownCA",
    "UnsupportedCertificate",
];

/// A key of the configuration, and what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) key: &'static str,
    pub(super) what: &'static str,
}

impl Fault {
    /// `None` where the error speaks of no key.
    pub(super) fn of(error: &Error) -> Option<Self> {
        let by_status = if let Error::GRpcStatus(status) = error {
            of_status(status)
        } else {
            None
        };
        by_status.or_else(|| of_causes(error))
    }
}

fn fault(key: &'static str, what: &'static str) -> Option<Fault> {
    Some(Fault { key, what })
}

fn of_status(status: &Status) -> Option<Fault> {
    let says = |code, text| status.code() == code && status.message().contains(text);
    if status.code() == Code::PermissionDenied {
        let what = "the user of etcd may not read and write below /tf/: `etcdctl role grant-permission ROLE readwrite --prefix=true /tf/`";
        fault("store.etcd.user", what)
    } else if says(Code::InvalidArgument, "user name is empty") {
        let what = "etcd asks for a user and a password";
        fault("store.etcd.user", what)
    } else if says(Code::InvalidArgument, "authentication failed") {
        let what = "etcd does not know this user with this password";
        fault("store.etcd.password", what)
    } else if says(Code::FailedPrecondition, "authentication is not enabled") {
        let what = "etcd asks for no user: take user and password out, or `etcdctl auth enable`";
        fault("store.etcd.user", what)
    } else {
        None
    }
}

fn of_tls(error: &TlsError) -> Option<Fault> {
    use CertificateError::{NotValidForName, NotValidForNameContext};
    if let TlsError::InvalidCertificate(reason) = error {
        return if matches!(reason, NotValidForName | NotValidForNameContext { .. }) {
            let what = "the certificate of etcd is not for the name or address in its URL";
            fault("store.etcd.endpoints", what)
        } else {
            let what = "the certificate of etcd is not good by this authority";
            fault("store.etcd.ca", what)
        };
    }
    if matches!(error, TlsError::InvalidMessage(_)) {
        let what = "what answers at this URL does not speak TLS";
        return fault("store.etcd.endpoints", what);
    }
    None
}

/// The alert of a member that wants another client certificate. It comes after the handshake, and through HTTP/2 as a text.
fn of_alert(text: &str) -> Option<Fault> {
    let (_, alert) = text.split_once("received fatal alert: ")?;
    let what = "etcd asks for a client certificate, and there is none or not one that it takes";
    let refused = REFUSALS.contains(&alert);
    refused.then_some(Fault {
        key: "store.etcd.certificate",
        what,
    })
}

/// What is at fault by the causes of `error`.
fn of_causes(error: &Error) -> Option<Fault> {
    let mut next: Option<&(dyn StdError + 'static)> = if let Error::GRpcStatus(status) = error {
        status.source()
    } else {
        Some(error)
    };
    while let Some(error) = next {
        let found = error.downcast_ref::<TlsError>().and_then(of_tls);
        let found = found.or_else(|| of_alert(&error.to_string()));
        if found.is_some() {
            return found;
        }
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
