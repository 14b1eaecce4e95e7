//! The certificate that TLS listeners of relays and of the controller show, replaced when its files change.
//!
//! A replacement is used by handshakes that begin after it; live connections never notice. A pair of files that does not
//! fit (one is replaced before the other) is logged and counted, and the old pair stays in use until a good one is there.

mod validity;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::file_watch::{FileStates, FileWatcher};

/// Why a certificate could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file could not be read, or is not PEM.
    #[error("cannot read {}", path.display())]
    File {
        /// The file in question.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The certificate file has no certificate.
    #[error("{} has no certificate", path.display())]
    Empty {
        /// The file in question.
        path: PathBuf,
    },
    /// The key cannot be used, or belongs to another certificate.
    #[error("the key in {} does not fit the certificate", path.display())]
    Key {
        /// The key's file.
        path: PathBuf,
        /// What rustls says about it.
        source: rustls::Error,
    },
}

/// The first and the last second in which clients accept `certificate`, in Unix time. `None` where it cannot be read.
#[must_use]
pub fn validity_of(certificate: &CertificateDer<'_>) -> Option<(u64, u64)> {
    validity::read(certificate)
}

/// The certificate chain and key in use, read from two PEM files.
#[derive(Debug)]
pub struct Certificate {
    chain_file: PathBuf,
    key_file: PathBuf,
    /// The state of the files before they were read first.
    loaded: FileStates,
    // Handshakes read it and a replacement writes it: a lock is held for the copy of one pointer.
    current: RwLock<Arc<CertifiedKey>>,
    replaced: AtomicU64,
    rejected: AtomicU64,
}

impl Certificate {
    /// Reads the certificate chain and its private key.
    pub fn load(chain_file: &Path, key_file: &Path) -> Result<Self, CertificateError> {
        // Taken first, so that a replacement in the meantime is one that is still to be seen.
        let loaded = FileStates::of([chain_file, key_file]);
        let current = read_pair(chain_file, key_file)?;
        Ok(Self {
            loaded,
            chain_file: chain_file.to_owned(),
            key_file: key_file.to_owned(),
            current: RwLock::new(Arc::new(current)),
            replaced: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
        })
    }

    /// How often the certificate was replaced.
    #[must_use]
    pub fn replaced(&self) -> u64 {
        self.replaced.load(Ordering::Relaxed)
    }

    /// How often the files changed to something that cannot be used.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// The first and the last second in which clients accept the certificate in use, in Unix time. `None` where it cannot be
    /// read.
    #[must_use]
    pub fn validity(&self) -> Option<(u64, u64)> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        validity_of(current.cert.first()?)
    }

    /// Looks every second whether the files are others than those that were loaded, from a thread of its own, until the
    /// returned watcher is dropped.
    pub fn watch(self: &Arc<Self>) -> io::Result<FileWatcher> {
        let certificate = Arc::clone(self);
        let files = vec![self.chain_file.clone(), self.key_file.clone()];
        FileWatcher::start(files, self.loaded.clone(), move || certificate.reload())
    }

    /// Reads the files again and uses them if they are good.
    fn reload(&self) {
        match read_pair(&self.chain_file, &self.key_file) {
            Ok(pair) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pair);
                self.replaced.fetch_add(1, Ordering::Relaxed);
                tracing::info!(file = %self.chain_file.display(), "certificate replaced");
            }
            Err(error) => {
                self.rejected.fetch_add(1, Ordering::Relaxed);
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "certificate files changed and cannot be used");
            }
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&current))
    }
}

fn read_pair(chain_file: &Path, key_file: &Path) -> Result<CertifiedKey, CertificateError> {
    let in_file = |path: &Path| {
        let path = path.to_owned();
        move |source| CertificateError::File { path, source }
    };
    let chain = CertificateDer::pem_file_iter(chain_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(in_file(chain_file))?;
    if chain.is_empty() {
        let path = chain_file.to_owned();
        return Err(CertificateError::Empty { path });
    }
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(in_file(key_file))?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|source| {
        let path = key_file.to_owned();
        CertificateError::Key { path, source }
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write_pair(chain_file: &Path, key_file: &Path) {
        let made = rcgen::generate_simple_self_signed(["turn.example.org".to_owned()]).unwrap();
        fs::write(chain_file, made.cert.pem()).unwrap();
        fs::write(key_file, made.signing_key.serialize_pem()).unwrap();
    }

    #[test]
    fn a_pair_that_does_not_fit_is_refused_and_the_old_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = (
            folder.path().join("cert.pem"),
            folder.path().join("key.pem"),
        );
        write_pair(&chain, &key);
        let certificate = Certificate::load(&chain, &key).unwrap();
        let first = certificate.current.read().unwrap().clone();

        let other_key = folder.path().join("other.pem");
        write_pair(&chain, &other_key);
        certificate.reload();
        assert_eq!((certificate.replaced(), certificate.rejected()), (0, 1));
        assert!(Arc::ptr_eq(&first, &certificate.current.read().unwrap()));

        fs::rename(&other_key, &key).unwrap();
        certificate.reload();
        assert_eq!((certificate.replaced(), certificate.rejected()), (1, 1));
        assert!(!Arc::ptr_eq(&first, &certificate.current.read().unwrap()));
    }

    #[test]
    fn a_missing_file_is_named() {
        let missing = Path::new("/nowhere/cert.pem");
        let error = Certificate::load(missing, missing).unwrap_err();
        assert!(error.to_string().contains("/nowhere/cert.pem"));
    }
}
