//! What a node says of itself when a session begins.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use turnfleet_proto::certificate::Certificate;
use turnfleet_proto::fleet;
use turnfleet_proto::fleet::listener::Transport as WireTransport;
use turnfleet_turn::Transport;

use super::identity::Identity;
use crate::node::BoundListener;

/// Deltas, and the messages that came with them.
const PROTOCOL: u32 = 1;

/// The fixed part of every Hello.
#[derive(Clone, Debug)]
pub(crate) struct Introduction {
    pub(crate) region: String,
    pub(crate) zone: String,
    pub(crate) hostnames: Vec<String>,
    /// The file of the certificate of TLS listeners, where it is not the fleet's: names the node where the configuration does not.
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) listeners: Vec<BoundListener>,
    pub(crate) public_ips: Vec<std::net::IpAddr>,
    pub(crate) allocations: u32,
    pub(crate) file_descriptors: u64,
    pub(crate) memory_bytes: u64,
    /// Whether a journal of allocations is kept.
    pub(crate) journal: bool,
    /// The certificate as TLS listeners show it.
    pub(crate) shown: Option<Arc<Certificate>>,
}

/// The policy that the node runs, as the controller tells it from others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Zero for none.
    pub(crate) generation: u64,
    pub(crate) epoch: Vec<u8>,
    /// Empty where the controller gave none.
    pub(crate) sha256: Vec<u8>,
}

impl Introduction {
    /// The first message of a session. `allocations` live at this moment.
    pub(crate) fn hello(
        &self,
        identity: &Identity,
        applied: Applied,
        allocations: u64,
    ) -> fleet::Hello {
        fleet::Hello {
            node_id: identity.node_id.to_string(),
            incarnation: identity.incarnation.to_vec(),
            version: env!("CARGO_PKG_VERSION").into(),
            region: self.region.clone(),
            zone: self.zone.clone(),
            hostname: self.hostname().unwrap_or_default(),
            listeners: self.listeners.iter().map(listener).collect(),
            public_ips: self.public_ips.iter().map(ToString::to_string).collect(),
            capacity: Some(fleet::Capacity {
                allocations: self.allocations.into(),
                file_descriptors: self.file_descriptors,
                memory_bytes: self.memory_bytes,
            }),
            applied_generation: applied.generation,
            applied_epoch: applied.epoch,
            applied_sha256: applied.sha256,
            protocol: PROTOCOL,
            journal: self.journal,
            events: true,
            allocations,
            takes_certificates: self.fleet_certificate().is_some(),
        }
    }

    /// When the certificate of TLS listeners is valid.
    pub(super) fn certificate_validity(&self) -> Option<fleet::CertificateValidity> {
        let (not_before, not_after) = self.shown.as_ref()?.validity()?;
        Some(fleet::CertificateValidity {
            not_before,
            not_after,
        })
    }

    /// The certificate, where it is the fleet's.
    pub(super) fn fleet_certificate(&self) -> Option<&Certificate> {
        let shown = self.shown.as_deref();
        shown.filter(|_| self.certificate.is_none())
    }

    /// The DNS name that `turns:` URIs carry.
    pub(super) fn hostname(&self) -> Option<String> {
        if let Some(name) = self.hostnames.first() {
            return Some(name.clone());
        }
        // Read for each session: a renewed certificate may carry another name.
        let leaf = match &self.certificate {
            Some(file) => CertificateDer::from_pem_file(file).ok()?,
            None => self.fleet_certificate()?.leaf()?,
        };
        let certificate = webpki::EndEntityCert::try_from(&leaf).ok()?;
        let mut names = certificate.valid_dns_names();
        // No client can be sent to a wildcard.
        names.find(|name| !name.contains('*')).map(str::to_owned)
    }
}

fn listener(bound: &BoundListener) -> fleet::Listener {
    let transport = match bound.transport {
        Transport::Udp => WireTransport::Udp,
        Transport::Tcp => WireTransport::Tcp,
        Transport::Tls => WireTransport::Tls,
    };
    fleet::Listener {
        transport: transport.into(),
        address: bound.public.to_string(),
        local_address: bound.address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_names_the_node_where_the_configuration_does_not() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("chain.pem");
        let names = ["*.example.org", "192.0.2.1", "relay.example.org"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        std::fs::write(&path, made.cert.pem()).unwrap();
        let mut introduction = Introduction {
            region: "local".into(),
            zone: String::new(),
            hostnames: Vec::new(),
            certificate: Some(path),
            listeners: Vec::new(),
            public_ips: Vec::new(),
            allocations: 1,
            file_descriptors: 2,
            memory_bytes: 3,
            journal: false,
            shown: None,
        };
        let expected = Some("relay.example.org".to_owned());
        assert_eq!(introduction.hostname(), expected);
        introduction.hostnames = vec!["turn.example.org".into()];
        assert_eq!(introduction.hostname().as_deref(), Some("turn.example.org"));
        introduction.hostnames.clear();
        introduction.certificate = None;
        assert_eq!(introduction.hostname(), None);
    }
}
