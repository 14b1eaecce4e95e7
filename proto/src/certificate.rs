//! The certificate that TLS listeners of relays and of the controller show, replaced when its files change, or when the
//! controller tells another one.
//!
//! A replacement is used by handshakes that begin after it; live connections never notice. A pair of files that does not
//! fit (one is replaced before the other) is logged and counted, and the old pair stays in use until a good one is there.

mod challenges;
mod validity;

use std::fmt;
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
use challenges::Answers;
pub use challenges::Challenged;

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
    #[error("the certificate cannot be used with the key in {}", path.display())]
    Key {
        /// The key's file.
        path: PathBuf,
        /// What rustls says about it.
        source: rustls::Error,
    },
}

/// Why a chain and a key that were told could not be used.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// One of both is not PEM.
    #[error("the {part} is no PEM")]
    Pem {
        /// Which one.
        part: &'static str,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// There is no certificate.
    #[error("there is no certificate in the chain")]
    Empty,
    /// The key cannot be used, or belongs to another certificate.
    #[error("the key does not fit the certificate")]
    Key(#[source] rustls::Error),
}

/// The certificate chain and key in use, read from two PEM files, or told by somebody.
pub struct Certificate {
    /// Where it is read from; `None` where it is told.
    files: Option<Files>,
    // Handshakes read it and a replacement writes it: a lock is held for the copy of one pointer.
    current: RwLock<Option<Arc<CertifiedKey>>>,
    answers: RwLock<Answers>,
    replaced: AtomicU64,
    rejected: AtomicU64,
    answers_left_out: AtomicU64,
}

/// The files of a certificate.
struct Files {
    chain: PathBuf,
    key: PathBuf,
    /// Their state before they were read first.
    loaded: FileStates,
}

impl Certificate {
    /// One that [`Self::replace`] brings: until then there is none, and handshakes fail.
    #[must_use]
    pub fn awaited() -> Self {
        Self::new(None, None)
    }

    fn new(files: Option<Files>, current: Option<CertifiedKey>) -> Self {
        Self {
            files,
            current: RwLock::new(current.map(Arc::new)),
            answers: RwLock::default(),
            replaced: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            answers_left_out: AtomicU64::new(0),
        }
    }

    /// Reads the certificate chain and its private key.
    pub fn load(chain_file: &Path, key_file: &Path) -> Result<Self, CertificateError> {
        // Taken first, so that a replacement in the meantime is one that is still to be seen.
        let loaded = FileStates::of([chain_file, key_file]);
        let current = read_pair(chain_file, key_file)?;
        let files = Files {
            chain: chain_file.to_owned(),
            key: key_file.to_owned(),
            loaded,
        };
        Ok(Self::new(Some(files), Some(current)))
    }

    /// Shows this chain, with the private key of its first certificate, from the next handshake on; both are PEM. `false`
    /// where that is what is shown already. Live connections stay.
    ///
    /// # Errors
    /// When they cannot be used; what is shown stays, and the refusal is counted.
    pub fn replace(&self, chain: &str, key: &str) -> Result<bool, PairError> {
        let pair = told_pair(chain, key).inspect_err(|_| {
            self.rejected.fetch_add(1, Ordering::Relaxed);
        })?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let is_shown = |shown: &Arc<CertifiedKey>| shown.cert == pair.cert;
        if current.as_ref().is_some_and(is_shown) {
            return Ok(false);
        }
        if current.replace(Arc::new(pair)).is_some() {
            self.replaced.fetch_add(1, Ordering::Relaxed);
        }
        Ok(true)
    }

    /// The first certificate of the chain in use; `None` where there is none yet.
    #[must_use]
    pub fn leaf(&self) -> Option<CertificateDer<'static>> {
        let current = self.shown()?;
        current.cert.first().cloned()
    }

    fn shown(&self) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
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

    /// How many answers to challenges were not held, because there were too many.
    #[must_use]
    pub fn answers_left_out(&self) -> u64 {
        self.answers_left_out.load(Ordering::Relaxed)
    }

    /// The first and the last second in which clients accept the certificate in use, in Unix time. `None` where it cannot be
    /// read.
    #[must_use]
    pub fn validity(&self) -> Option<(u64, u64)> {
        validity_of(&self.leaf()?)
    }

    /// Looks every second whether the files are others than those that were loaded, from a thread of its own, until the
    /// returned watcher is dropped. `None` where there are no files.
    pub fn watch(self: &Arc<Self>) -> io::Result<Option<FileWatcher>> {
        let Some(files) = &self.files else {
            return Ok(None);
        };
        let certificate = Arc::clone(self);
        let paths = vec![files.chain.clone(), files.key.clone()];
        FileWatcher::start(paths, files.loaded.clone(), move || certificate.reload()).map(Some)
    }

    /// Reads the files again and uses them if they are good.
    fn reload(&self) {
        let Some(files) = &self.files else { return };
        match read_pair(&files.chain, &files.key) {
            Ok(pair) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) =
                    Some(Arc::new(pair));
                self.replaced.fetch_add(1, Ordering::Relaxed);
                tracing::info!(file = %files.chain.display(), "certificate replaced");
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
        self.shown()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.files.as_ref();
        f.debug_struct("Certificate")
            .field("chain_file", &files.map(|files| &files.chain))
            .finish_non_exhaustive()
    }
}

/// The first and the last second in which clients accept `certificate`, in Unix time. `None` where it cannot be read.
#[must_use]
pub fn validity_of(certificate: &CertificateDer<'_>) -> Option<(u64, u64)> {
    validity::read(certificate)
}

/// A chain and the private key of its first certificate, both PEM.
fn told_pair(chain: &str, key: &str) -> Result<CertifiedKey, PairError> {
    let (chain, key) = told_parts(chain, key)?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(PairError::Key)
}

/// What two PEM texts hold.
fn told_parts(
    chain: &str,
    key: &str,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PairError> {
    let in_part = |part| move |source| PairError::Pem { part, source };
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(in_part("chain"))?;
    if chain.is_empty() {
        return Err(PairError::Empty);
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(in_part("key"))?;
    Ok((chain, key))
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
        let first = certificate.shown().unwrap();

        let other_key = folder.path().join("other.pem");
        write_pair(&chain, &other_key);
        certificate.reload();
        assert_eq!((certificate.replaced(), certificate.rejected()), (0, 1));
        assert!(Arc::ptr_eq(&first, &certificate.shown().unwrap()));

        fs::rename(&other_key, &key).unwrap();
        certificate.reload();
        assert_eq!((certificate.replaced(), certificate.rejected()), (1, 1));
        assert!(!Arc::ptr_eq(&first, &certificate.shown().unwrap()));
    }

    #[test]
    fn what_is_told_is_shown_once_it_fits() {
        let pair = || {
            let made = rcgen::generate_simple_self_signed(["turn.example.org".to_owned()]).unwrap();
            (made.cert.pem(), made.signing_key.serialize_pem())
        };
        let (chain, key) = pair();
        let (other_chain, other_key) = pair();
        let certificate = Certificate::awaited();
        assert!(certificate.leaf().is_none() && certificate.validity().is_none());
        for (chain, key) in [("", &*key), (&*chain, &*other_key), (&*chain, "")] {
            certificate.replace(chain, key).unwrap_err();
            assert!(certificate.leaf().is_none());
        }
        assert!(certificate.replace(&chain, &key).unwrap());
        assert!(!certificate.replace(&chain, &key).unwrap());
        assert_eq!((certificate.replaced(), certificate.rejected()), (0, 3));
        assert!(certificate.replace(&other_chain, &other_key).unwrap());
        assert_eq!(certificate.replaced(), 1);
        let leaf = certificate.leaf().unwrap();
        assert_eq!(certificate.validity(), validity_of(&leaf));
        assert!(!format!("{certificate:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let missing = Path::new("/nowhere/cert.pem");
        let error = Certificate::load(missing, missing).unwrap_err();
        assert!(error.to_string().contains("/nowhere/cert.pem"));
    }
}
