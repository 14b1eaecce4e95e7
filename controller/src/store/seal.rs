//! Seals what must not be read from the store's files, backups or a stolen disk: AES-256-GCM with the store key and the
//! fleet's generation as associated data, so that a value moved to another key, or one that is said to be of another
//! generation, does not open (THREATS T27). Whoever follows a key's values holds their generations against each other.
//!
//! The key that seals lives beside the store in a file of its own, readable by its owner only. Whoever copies the store
//! without it copies no secret.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use turnfleet_proto::private_file;
use turnfleet_proto::store::SealedRecord;
use zeroize::Zeroizing;

const KEY_LEN: usize = 32;

/// Seals and opens values with the key of one store.
pub struct Sealer {
    key: LessSafeKey,
    derivation: hmac::Key,
    random: SystemRandom,
    path: PathBuf,
}

/// Why a value is not sealed or does not open.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file cannot be read or made.
    #[error("the key file {path} cannot be used")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The key file does not hold a key.
    #[error("the key file {path} does not hold 32 bytes in base64")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The store holds sealed values and the key file is gone.
    #[error(
        "the key file {path} is missing, and the secrets of the store beside it open with it alone"
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Sealed by another key, for another place, or damaged.
    #[error("the sealed value at {place} does not open: another key, another place, or damage")]
    Refused {
        /// The store key that it was read from.
        place: String,
    },
    /// A value that was there before, and is there again.
    #[error(
        "the sealed value at {place} is of generation {found}, and one of {known} was there before: an old value was put back"
    )]
    Old {
        /// The store key that it was read from.
        place: String,
        /// The generation that it was sealed in.
        found: u64,
        /// That of the one before it.
        known: u64,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

impl Sealer {
    /// Reads the key at `path`, or makes one there if `create` says so.
    ///
    /// # Errors
    /// When the file cannot be used, or is missing and must not be made.
    pub fn open(path: &Path, create: bool) -> Result<Self, SealError> {
        let random = SystemRandom::new();
        let key = match fs::read_to_string(path) {
            Ok(text) => parse(path, &Zeroizing::new(text))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound && create => make(path, &random)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SealError::Missing {
                    path: path.to_owned(),
                });
            }
            Err(source) => {
                return Err(SealError::File {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        warn_if_readable_by_others(path);
        let derivation = hmac::Key::new(hmac::HMAC_SHA256, key.as_slice());
        let key = UnboundKey::new(&AES_256_GCM, key.as_slice())
            .expect("the key has the length of the algorithm");
        Ok(Self {
            key: LessSafeKey::new(key),
            derivation,
            random,
            path: path.to_owned(),
        })
    }

    /// A key for `purpose` that only holders of this one can make: HMAC-SHA256.
    #[must_use]
    pub fn derive(&self, purpose: &[u8]) -> [u8; KEY_LEN] {
        let tag = hmac::sign(&self.derivation, purpose);
        tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// The bytes to keep at the store key `place`, written in `generation`.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn seal(
        &self,
        place: &str,
        generation: u64,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        self.random
            .fill(&mut nonce)
            .map_err(|_| SealError::Random)?;
        let mut ciphertext = plaintext.to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                associated(place, generation),
                &mut ciphertext,
            )
            .expect("values of the store are far below the algorithm's bound of 64 GiB");
        Ok(SealedRecord {
            nonce: nonce.to_vec(),
            ciphertext,
            generation,
        }
        .encode_to_vec())
    }

    /// What was sealed for the store key `place`.
    ///
    /// # Errors
    /// When it was sealed by another key, for another place or in another generation, or is damaged.
    pub fn open_sealed(&self, place: &str, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let refused = || SealError::Refused {
            place: place.to_owned(),
        };
        let sealed = SealedRecord::decode(bytes).map_err(|_| refused())?;
        let nonce = Nonce::try_assume_unique_for_key(&sealed.nonce).map_err(|_| refused())?;
        let mut buffer = Zeroizing::new(sealed.ciphertext);
        let aad = associated(place, sealed.generation);
        let length = self
            .key
            .open_in_place(nonce, aad, &mut buffer)
            .map_err(|_| refused())?
            .len();
        buffer.truncate(length);
        Ok(buffer)
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// What is sealed along: the place and the generation, of which the latter has a fixed length.
fn associated(place: &str, generation: u64) -> Aad<Vec<u8>> {
    Aad::from([place.as_bytes(), &generation.to_be_bytes()].concat())
}

/// The generation in which `bytes` were sealed; it is true of them only if they open.
pub(super) fn generation(bytes: &[u8]) -> Option<u64> {
    let sealed = SealedRecord::decode(bytes).ok()?;
    Some(sealed.generation)
}

type Key = Zeroizing<[u8; KEY_LEN]>;

fn parse(path: &Path, text: &str) -> Result<Key, SealError> {
    let malformed = || SealError::Malformed {
        path: path.to_owned(),
    };
    let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| malformed())?);
    let key = <[u8; KEY_LEN]>::try_from(bytes.as_slice()).map_err(|_| malformed())?;
    Ok(Zeroizing::new(key))
}

/// Makes a key, and keeps it at `path`.
fn make(path: &Path, random: &SystemRandom) -> Result<Key, SealError> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    random
        .fill(key.as_mut_slice())
        .map_err(|_| SealError::Random)?;
    let text = Zeroizing::new(format!("{}\n", STANDARD.encode(key.as_slice())));
    private_file::write(path, text.as_bytes()).map_err(|source| SealError::File {
        path: path.to_owned(),
        source,
    })?;
    Ok(key)
}

fn warn_if_readable_by_others(path: &Path) {
    if let Ok(metadata) = fs::metadata(path)
        && metadata.permissions().mode() & 0o077 != 0
    {
        tracing::warn!(path = %path.display(), "the key file is open to others than its owner: chmod 600");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(dir: &Path) -> Sealer {
        Sealer::open(&dir.join("store.key"), true).unwrap()
    }

    #[test]
    fn a_sealed_value_opens_at_its_own_place_only() {
        let dir = tempfile::tempdir().unwrap();
        let sealer = sealer(dir.path());
        let sealed = sealer.seal("/tf/v1/secrets/1", 7, b"north").unwrap();
        assert!(!sealed.windows(5).any(|window| window == b"north"));
        assert_eq!(
            sealer
                .open_sealed("/tf/v1/secrets/1", &sealed)
                .unwrap()
                .as_slice(),
            b"north"
        );
        assert!(matches!(
            sealer.open_sealed("/tf/v1/secrets/2", &sealed),
            Err(SealError::Refused { .. })
        ));
    }

    #[test]
    fn a_value_of_one_generation_is_none_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let sealer = sealer(dir.path());
        let sealed = sealer.seal("a", 7, b"north").unwrap();
        assert_eq!(generation(&sealed), Some(7));
        let mut later = SealedRecord::decode(sealed.as_slice()).unwrap();
        later.generation = 8;
        let _ = sealer.open_sealed("a", &later.encode_to_vec()).unwrap_err();
    }

    #[test]
    fn a_damaged_value_does_not_open() {
        let dir = tempfile::tempdir().unwrap();
        let sealer = sealer(dir.path());
        let sealed = sealer.seal("a", 7, b"north").unwrap();
        for place in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[place] ^= 1;
            let _ = sealer.open_sealed("a", &damaged).unwrap_err();
        }
    }

    #[test]
    fn the_key_file_is_for_its_owner_only_and_outlives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let sealed = sealer(dir.path()).seal("a", 7, b"north").unwrap();
        let mode = fs::metadata(dir.path().join("store.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            sealer(dir.path())
                .open_sealed("a", &sealed)
                .unwrap()
                .as_slice(),
            b"north"
        );
    }

    #[test]
    fn a_missing_key_is_not_replaced_where_the_store_needs_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.key");
        assert!(matches!(
            Sealer::open(&path, false),
            Err(SealError::Missing { .. })
        ));
        fs::write(&path, "short").unwrap();
        assert!(matches!(
            Sealer::open(&path, true),
            Err(SealError::Malformed { .. })
        ));
    }
}
