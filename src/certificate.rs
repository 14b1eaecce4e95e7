//! The certificates that `turnfleet up` makes where it is given none: a certificate authority of its own, kept in the state
//! folder, and a certificate of this machine that it signs at every start.
//!
//! A client that trusts the authority once trusts every later start.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::state_dir::StateDir;

/// Files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    /// The chain, PEM.
    pub(crate) certificate: PathBuf,
    /// The private key, PEM.
    pub(crate) key: PathBuf,
}

/// A certificate authority of this fleet alone.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, PEM: what clients are to trust.
    pub(crate) certificate: PathBuf,
}

/// Clients on some systems refuse server certificates of more than 825 days.
const CERTIFICATE_DAYS: u64 = 398;
const AUTHORITY_DAYS: u64 = 3650;
const DAY: Duration = Duration::from_secs(86_400);

impl Authority {
    /// The authority of the state folder, made where it is missing.
    ///
    /// # Errors
    /// When its files cannot be read or written.
    pub(crate) fn open(state: &StateDir) -> anyhow::Result<Self> {
        let kept = state.read("ca.key")?.zip(state.read("ca.pem")?);
        if let Some((key, _)) = kept {
            let path = state.join("ca.key");
            let key = KeyPair::from_pem(&key);
            let key = key.with_context(|| format!("{} holds no private key", path.display()))?;
            let issuer = Issuer::new(authority_parameters(&key), key);
            return Ok(Self {
                issuer,
                certificate: state.join("ca.pem"),
            });
        }
        let key = KeyPair::generate()?;
        let parameters = authority_parameters(&key);
        state.write("ca.key", &key.serialize_pem())?;
        let certificate = state.write("ca.pem", &parameters.self_signed(&key)?.pem())?;
        Ok(Self {
            issuer: Issuer::new(parameters, key),
            certificate,
        })
    }

    /// Signs a server certificate for `names` and `addresses` and writes it as `<name>.pem` and `<name>.key`.
    ///
    /// # Errors
    /// When a name is not a DNS name, or a file cannot be written.
    pub(crate) fn issue(
        &self,
        state: &StateDir,
        name: &str,
        names: &[String],
        addresses: &[IpAddr],
    ) -> anyhow::Result<Files> {
        let addresses = addresses.iter().map(ToString::to_string);
        let subjects: Vec<String> = names.iter().cloned().chain(addresses).collect();
        let mut parameters = CertificateParams::new(subjects).context("not a DNS name")?;
        parameters
            .distinguished_name
            .push(DnType::CommonName, "Turnfleet relay");
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.use_authority_key_identifier_extension = true;
        valid_for(&mut parameters, CERTIFICATE_DAYS);
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        Ok(Files {
            key: state.write(&format!("{name}.key"), &key.serialize_pem())?,
            certificate: state.write(&format!("{name}.pem"), &certificate.pem())?,
        })
    }
}

/// What the authority's certificate says. The subject and the key identifier are the same at every start, since both come
/// from the key: certificates signed at a later start verify against the certificate of the first.
fn authority_parameters(key: &KeyPair) -> CertificateParams {
    let fingerprint = ring::digest::digest(&ring::digest::SHA256, key.public_key_raw());
    let mark: String = fingerprint
        .as_ref()
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters
        .distinguished_name
        .push(DnType::CommonName, format!("Turnfleet authority {mark}"));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut parameters, AUTHORITY_DAYS);
    parameters
}

/// From yesterday, for clients whose clock is slow, for so many days.
fn valid_for(parameters: &mut CertificateParams, days: u64) {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let days = u32::try_from(days).unwrap_or(u32::MAX);
    parameters.not_before = epoch + now.saturating_sub(DAY);
    parameters.not_after = epoch + (now + DAY * days);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

    use super::*;

    #[test]
    fn a_later_certificate_verifies_against_the_authority_of_the_first_start() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let first = Authority::open(&state).unwrap();
        let mut roots = RootCertStore::empty();
        let trusted = CertificateDer::from_pem_file(&first.certificate).unwrap();
        roots.add(trusted).unwrap();

        let names = ["turn.example.org".to_owned()];
        let addresses = ["127.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let later = Authority::open(&state).unwrap();
        let files = later.issue(&state, "server", &names, &addresses).unwrap();
        let certificate = CertificateDer::from_pem_file(&files.certificate).unwrap();

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.build().unwrap();
        let verify = |name: &str| {
            let name = ServerName::try_from(name).unwrap();
            verifier.verify_server_cert(&certificate, &[], &name, &[], UnixTime::now())
        };
        for name in ["turn.example.org", "127.0.0.1", "2001:db8::1"] {
            verify(name).unwrap();
        }
        assert!(verify("192.0.2.1").is_err());
    }
}
