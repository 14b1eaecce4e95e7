//! The last snapshot that was applied, kept so that a restarted node serves while its controller is away.
//!
//! The file is sealed with AES-256-GCM under a key of this folder, bound to the node's name and to its membership: a file
//! from another node, another fleet or a damaged disk does not open, and a copy of the file alone shows no secret.

use std::io;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use turnfleet_proto::NodeId;

use super::identity::NodeCredential;
use super::sections::Sections;
use super::state_dir::StateDir;

const KEY: &str = "snapshot.key";
const SNAPSHOT: &str = "snapshot.sealed";
/// The first byte of the file: its form.
const VERSION: u8 = 2;

/// The cache of one node.
pub(crate) struct SnapshotCache {
    key: LessSafeKey,
    node_id: NodeId,
}

impl SnapshotCache {
    /// Reads the key, and makes one where it is missing.
    pub(crate) fn open(node_id: NodeId, dir: &StateDir) -> io::Result<Self> {
        let kept = dir
            .read(KEY)?
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let key = match kept {
            Some(key) => key,
            None => {
                let mut key = [0; 32];
                fill(&mut key)?;
                dir.write(KEY, &key)?;
                key
            }
        };
        let key = UnboundKey::new(&AES_256_GCM, &key).expect("the key has 32 bytes");
        Ok(Self {
            key: LessSafeKey::new(key),
            node_id,
        })
    }

    /// The snapshot that this membership applied last; `None` where there is none that opens.
    pub(crate) fn load(
        &self,
        credential: &NodeCredential,
        dir: &StateDir,
    ) -> io::Result<Option<Sections>> {
        let Some(mut bytes) = dir.read(SNAPSHOT)? else {
            return Ok(None);
        };
        let Some((&[version], rest)) = bytes.split_first_chunk_mut::<1>().map(|(v, r)| (&*v, r))
        else {
            return Ok(None);
        };
        let Some((&mut nonce, sealed)) = rest.split_first_chunk_mut::<NONCE_LEN>() else {
            return Ok(None);
        };
        if version != VERSION {
            return Ok(None);
        }
        let nonce = Nonce::assume_unique_for_key(nonce);
        let Ok(plain) = self
            .key
            .open_in_place(nonce, self.bound_to(credential), sealed)
        else {
            return Ok(None);
        };
        Ok(Sections::decode(plain))
    }

    /// Keeps `policy` for this membership.
    pub(crate) fn store(
        &self,
        policy: &Sections,
        credential: &NodeCredential,
        dir: &StateDir,
    ) -> io::Result<()> {
        let mut nonce = [0; NONCE_LEN];
        fill(&mut nonce)?;
        let mut sealed = policy.encode();
        let unique = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(unique, self.bound_to(credential), &mut sealed)
            .map_err(|_| io::Error::other("the snapshot is too long to seal"))?;
        let mut file = Vec::with_capacity(1 + NONCE_LEN + sealed.len());
        file.push(VERSION);
        file.extend_from_slice(&nonce);
        file.append(&mut sealed);
        dir.write(SNAPSHOT, &file)
    }

    fn bound_to(&self, credential: &NodeCredential) -> Aad<Vec<u8>> {
        let mut data = credential.membership().to_vec();
        data.extend_from_slice(self.node_id.as_str().as_bytes());
        Aad::from(data)
    }
}

fn fill(bytes: &mut [u8]) -> io::Result<()> {
    SystemRandom::new()
        .fill(bytes)
        .map_err(|_| io::Error::other("the system has no random bytes"))
}

#[cfg(test)]
mod tests {
    use turnfleet_proto::fleet;

    use super::*;

    #[test]
    fn a_kept_snapshot_opens_for_its_membership_only_and_shows_no_secret() {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::open(root.path()).unwrap();
        let node = |id: &str| id.parse::<NodeId>().unwrap();
        let credential = NodeCredential::new("first").unwrap();
        let other = NodeCredential::new("second").unwrap();
        let cache = SnapshotCache::open(node("a"), &dir).unwrap();
        assert_eq!(cache.load(&credential, &dir).unwrap(), None);
        let snapshot = Sections::of_snapshot(&fleet::Snapshot {
            generation: 3,
            realm: "a secret realm".into(),
            ..fleet::Snapshot::default()
        });
        cache.store(&snapshot, &credential, &dir).unwrap();
        let sealed = dir.read(SNAPSHOT).unwrap().unwrap();
        assert!(!sealed.windows(12).any(|part| part == b"secret realm"));

        let again = SnapshotCache::open(node("a"), &dir).unwrap();
        assert_eq!(again.load(&credential, &dir).unwrap(), Some(snapshot));
        assert_eq!(again.load(&other, &dir).unwrap(), None);
        let elsewhere = SnapshotCache::open(node("b"), &dir).unwrap();
        assert_eq!(elsewhere.load(&credential, &dir).unwrap(), None);

        for damage in [&sealed[..sealed.len() - 1], &sealed[..5], &[], &[9; 40]] {
            dir.write(SNAPSHOT, damage).unwrap();
            assert_eq!(again.load(&credential, &dir).unwrap(), None);
        }
    }
}
