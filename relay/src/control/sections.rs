//! The policy that a node runs, in the sections that it came in: what the next delta rests on, and what is kept on disk.
//!
//! The bytes stay as they came, so that a hash is the controller's own whatever of it this version understands.

use std::collections::BTreeMap;

use prost::Message as _;
use prost::bytes::Bytes;
use ring::digest;
use turnfleet_proto::fleet;

/// A policy by the numbers of its sections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sections {
    epoch: Vec<u8>,
    generation: u64,
    contents: BTreeMap<u32, Bytes>,
    /// Empty where the controller gave none.
    sha256: Vec<u8>,
}

/// Why a delta leads nowhere: the whole policy is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DeltaError {
    #[error("the delta does not rest on the policy that runs")]
    Base,
    #[error("the delta leads to another hash than it says")]
    Hash,
}

impl Sections {
    /// The policy that `delta` leads to from `base`.
    pub(crate) fn follow(base: Option<&Self>, delta: fleet::Delta) -> Result<Self, DeltaError> {
        let mut contents = match (delta.base_generation, base) {
            (0, _) => BTreeMap::new(),
            (wanted, Some(base)) if wanted == base.generation && delta.epoch == base.epoch => {
                base.contents.clone()
            }
            (_, Some(_) | None) => return Err(DeltaError::Base),
        };
        for section in delta.sections {
            contents.insert(section.number, section.content);
        }
        let mut hash = digest::Context::new(&digest::SHA256);
        for content in contents.values() {
            hash.update(content);
        }
        if hash.finish().as_ref() != delta.sha256 {
            return Err(DeltaError::Hash);
        }
        Ok(Self {
            epoch: delta.epoch,
            generation: delta.generation,
            contents,
            sha256: delta.sha256,
        })
    }

    /// One that came as a whole and without sections: no delta rests on it.
    pub(crate) fn of_snapshot(snapshot: &fleet::Snapshot) -> Self {
        Self {
            epoch: snapshot.epoch.clone(),
            generation: snapshot.generation,
            contents: [(0, snapshot.encode_to_vec().into())].into(),
            sha256: Vec::new(),
        }
    }

    /// What it says, as far as this version understands it.
    pub(crate) fn snapshot(&self) -> Result<fleet::Snapshot, prost::DecodeError> {
        let mut snapshot = fleet::Snapshot::default();
        for content in self.contents.values() {
            snapshot.merge(content.clone())?;
        }
        snapshot.epoch.clone_from(&self.epoch);
        snapshot.generation = self.generation;
        Ok(snapshot)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Its hash; empty where the controller gave none.
    pub(crate) fn sha256(&self) -> &[u8] {
        &self.sha256
    }

    /// As it is kept.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let section = |(number, content): (&u32, &Bytes)| fleet::Section {
            number: *number,
            content: content.clone(),
        };
        let whole = fleet::Delta {
            epoch: self.epoch.clone(),
            base_generation: 0,
            generation: self.generation,
            sections: self.contents.iter().map(section).collect(),
            sha256: self.sha256.clone(),
        };
        whole.encode_to_vec()
    }

    /// What [`Self::encode`] gave.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let whole = fleet::Delta::decode(bytes).ok()?;
        let contents = whole.sections.into_iter();
        Some(Self {
            epoch: whole.epoch,
            generation: whole.generation,
            contents: contents.map(|it| (it.number, it.content)).collect(),
            sha256: whole.sha256,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u32, part: &fleet::Snapshot) -> fleet::Section {
        fleet::Section {
            number,
            content: part.encode_to_vec().into(),
        }
    }

    fn realm(realm: &str) -> fleet::Section {
        let realm = realm.to_owned();
        part(
            1,
            &fleet::Snapshot {
                realm,
                ..fleet::Snapshot::default()
            },
        )
    }

    fn delta(
        base: u64,
        generation: u64,
        sections: Vec<fleet::Section>,
        all: &[&fleet::Section],
    ) -> fleet::Delta {
        let whole: Vec<u8> = all.iter().flat_map(|it| it.content.to_vec()).collect();
        fleet::Delta {
            epoch: vec![1; 16],
            base_generation: base,
            generation,
            sections,
            sha256: digest::digest(&digest::SHA256, &whole).as_ref().to_vec(),
        }
    }

    #[test]
    fn a_delta_replaces_sections_and_leaves_the_others() {
        // A later version's section, of which this one knows nothing.
        let unknown = fleet::Section {
            number: 99,
            content: Bytes::from_static(&[0xfa, 0x7f, 0x01, 0x07]),
        };
        let (first, second) = (realm("a"), realm("b"));
        let whole = delta(
            0,
            3,
            vec![first.clone(), unknown.clone()],
            &[&first, &unknown],
        );
        let base = Sections::follow(None, whole).unwrap();
        assert_eq!(base.snapshot().unwrap().realm, "a");
        let step = delta(3, 5, vec![second.clone()], &[&second, &unknown]);
        let after = Sections::follow(Some(&base), step.clone()).unwrap();
        let snapshot = after.snapshot().unwrap();
        assert_eq!((snapshot.realm.as_str(), snapshot.generation), ("b", 5));
        assert_eq!(Sections::decode(&after.encode()), Some(after.clone()));
        assert_eq!(
            Sections::follow(Some(&after), step.clone()),
            Err(DeltaError::Base)
        );
        assert_eq!(Sections::follow(None, step.clone()), Err(DeltaError::Base));
        let forged = fleet::Delta {
            sha256: vec![0; 32],
            ..step.clone()
        };
        assert_eq!(Sections::follow(Some(&base), forged), Err(DeltaError::Hash));
        let elsewhere = fleet::Delta {
            epoch: vec![2; 16],
            ..step
        };
        assert_eq!(
            Sections::follow(Some(&base), elsewhere),
            Err(DeltaError::Base)
        );
    }
}
