//! In which generations the sealed values were written: an old one that is put back at its own key opens, and is no truth.

use std::collections::BTreeMap;

use crate::fleet::record::RecordKey;
use crate::store::SealError;

/// The latest generation of each sealed value.
#[derive(Debug, Default)]
pub(super) struct Seals {
    latest: BTreeMap<RecordKey, u64>,
}

impl Seals {
    /// Takes note of a value that opens at `place`.
    ///
    /// # Errors
    /// [`SealError::Old`] where a later one was there before.
    pub(super) fn admit(
        &mut self,
        key: &RecordKey,
        place: &str,
        generation: u64,
    ) -> Result<(), SealError> {
        if let Some(known) = self.latest.get(key).filter(|known| generation < **known) {
            return Err(SealError::Old {
                place: place.to_owned(),
                found: generation,
                known: *known,
            });
        }
        self.latest.insert(key.clone(), generation);
        Ok(())
    }

    /// The value was deleted.
    pub(super) fn forget(&mut self, key: &RecordKey) {
        self.latest.remove(key);
    }
}
