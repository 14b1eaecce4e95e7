//! The certificates that relays show: who signs them, and whom they name.
//!
//! The handshake only has a caller prove that it holds the key of what it shows. Whether that is good is decided for each
//! connection after it, and said by the first call: a relay hears what is wrong with its certificate, which an alert of TLS could
//! not tell it, and a session that TLS resumes brings a certificate that has to be good once more.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};
use turnfleet_proto::file_watch::{FileStates, FileWatcher};

use crate::StartError;
use crate::fleet::Certified;
use crate::roots::roots;

/// The key of the configuration that names the file.
const KEY: &str = "grpc.client_ca";

/// What a relay's certificate has to say.
const EXPECTED: &str = "one URI in its subject alternative name, spiffe://DOMAIN/turnfleet/region/REGION/relay/NODE_ID or \
    spiffe://DOMAIN/turnfleet/region/REGION/tenant/TENANT/relay/NODE_ID";

/// What a connection's caller has shown, an extension of its requests; there is none where it has shown nothing.
#[derive(Clone, Debug)]
pub(crate) enum Shown {
    /// The certificate of a relay.
    Relay(Arc<Certified>),
    /// A certificate that is not good, and why.
    Refused(Arc<str>),
}

/// The authority that signs the certificates of relays.
#[derive(Debug)]
pub(crate) struct ClientCa {
    path: PathBuf,
    /// The state of the file before it was read first.
    loaded: FileStates,
    provider: Arc<CryptoProvider>,
    // A replacement of the file writes it.
    verifier: RwLock<Arc<dyn ClientCertVerifier>>,
}

impl ClientCa {
    /// Reads the authorities in the PEM file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, or holds no certificate that can be an authority.
    pub(crate) fn load(path: &Path) -> Result<Self, StartError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let loaded = FileStates::of([path]);
        let verifier = RwLock::new(read(path, &provider)?);
        Ok(Self {
            path: path.to_owned(),
            loaded,
            provider,
            verifier,
        })
    }

    /// Reads the file again whenever it changes, until the watcher is dropped. What cannot be used is logged, and nothing changes.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub(crate) fn watch(self: &Arc<Self>) -> Result<FileWatcher, StartError> {
        let ca = Arc::clone(self);
        let reload = move || match read(&ca.path, &ca.provider) {
            Ok(verifier) => {
                let mut current = ca.verifier.write().unwrap_or_else(PoisonError::into_inner);
                *current = verifier;
                tracing::info!(file = %ca.path.display(), "authority of relays replaced");
            }
            Err(error) => {
                tracing::warn!(%error, "the authority of relays changed and stays as it was")
            }
        };
        let files = vec![self.path.clone()];
        FileWatcher::start(files, self.loaded.clone(), reload).map_err(StartError::System)
    }

    /// What the certificates of a connection say, the caller's own first.
    pub(crate) fn judge(&self, chain: Option<&[CertificateDer<'_>]>) -> Option<Shown> {
        let (own, others) = chain?.split_first()?;
        let verifier = self.verifier.read().unwrap_or_else(PoisonError::into_inner);
        let verifier = Arc::clone(&verifier);
        let verified = verifier.verify_client_cert(own, others, UnixTime::now());
        let certified = verified
            .map_err(|error| reason(&error))
            .and_then(|_| name(own));
        Some(match certified {
            Ok(certified) => Shown::Relay(Arc::new(certified)),
            Err(reason) => Shown::Refused(reason.into()),
        })
    }
}

fn read(
    path: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, StartError> {
    let roots = Arc::new(roots(path, KEY)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
    verifier.build().map_err(|cause| StartError::Tls {
        key: KEY,
        path: path.to_owned(),
        reason: cause.to_string(),
    })
}

/// Whom a certificate names.
fn name(certificate: &CertificateDer<'_>) -> Result<Certified, String> {
    let parsed = webpki::EndEntityCert::try_from(certificate)
        .map_err(|error| format!("it cannot be read: {error}"))?;
    let mut uris = parsed.valid_uri_names();
    let found = match (uris.next(), uris.next()) {
        (Some(uri), None) => uri.parse().map_err(|error| format!("its URI {error}")),
        (None, _) => Err("it holds no URI".to_owned()),
        (Some(_), Some(_)) => Err("it holds more than one URI".to_owned()),
    };
    found.map_err(|what| format!("{what}; expected {EXPECTED}"))
}

/// Why a certificate is not believed.
fn reason(error: &rustls::Error) -> String {
    use CertificateError::{
        BadSignature, Expired, ExpiredContext, InvalidPurpose, InvalidPurposeContext, NotValidYet,
        NotValidYetContext, UnknownIssuer,
    };
    let rustls::Error::InvalidCertificate(error) = error else {
        return error.to_string();
    };
    if matches!(error, Expired | ExpiredContext { .. }) {
        "it has expired; expected a renewed one in the same file".to_owned()
    } else if matches!(error, NotValidYet | NotValidYetContext { .. }) {
        "it is not valid yet; expected one that is, or the right time on both machines".to_owned()
    } else if matches!(error, UnknownIssuer | BadSignature) {
        "no known authority has signed it; expected one of those in the controller's grpc.client_ca"
            .to_owned()
    } else if matches!(error, InvalidPurpose | InvalidPurposeContext { .. }) {
        "it is not for clients; expected clientAuth in its extended key usage, or no such extension"
            .to_owned()
    } else {
        error.to_string()
    }
}

impl ClientCertVerifier for ClientCa {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Relays have one certificate, whatever is wished for.
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        // Nothing rests on the handshake: [`Self::judge`] decides, after it.
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
