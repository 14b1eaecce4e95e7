//! Which of the snapshots that controllers offer a node runs by: a decision without clock, thread or socket, so that a
//! simulated node takes it exactly as a real one does.

use turnfleet_proto::{GrantedRange, fleet};

use crate::policy::compile;
pub use crate::policy::{Compiled, LocalPolicy, SecretUses, SnapshotError};

/// What a node does with a snapshot that it does not refuse.
#[derive(Debug)]
pub enum Verdict {
    /// It runs by this from here on.
    Apply(Compiled),
    /// It runs by it already.
    Running,
}

/// What a node runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// Zero for nothing.
    pub generation: u64,
    /// Within which generations are compared; empty for a controller that knows of no epochs.
    pub epoch: Vec<u8>,
    /// Of what the snapshot holds; empty where the controller gave none.
    pub sha256: Vec<u8>,
    /// The ports that it has.
    pub granted: Vec<GrantedRange>,
}

/// Decides about `snapshot`, whose content has the hash `sha256` (empty where none is known). `again` asks for a policy of the
/// generation that runs already, because something else that it is made of has changed.
///
/// # Errors
/// With the reason why the node refuses the snapshot, and stays as it is.
pub fn consider(
    running: &Running,
    snapshot: &fleet::Snapshot,
    sha256: &[u8],
    local: &LocalPolicy,
    again: bool,
) -> Result<Verdict, SnapshotError> {
    let no_epoch = running.epoch.is_empty() || snapshot.epoch.is_empty();
    let same_epoch = no_epoch || running.epoch == snapshot.epoch;
    if same_epoch && snapshot.generation < running.generation {
        return Err(SnapshotError::Stale {
            offered: snapshot.generation,
            running: running.generation,
        });
    }
    let same_content = sha256.is_empty() || sha256 == running.sha256;
    let same = same_epoch && same_content && snapshot.generation == running.generation;
    if running.generation > 0 && same && !again {
        return Ok(Verdict::Running);
    }
    let compiled = compile(snapshot, local)?;
    if same_epoch && running.generation > 0 {
        let is_outdated = |offer: &&GrantedRange| {
            running
                .granted
                .iter()
                .any(|held| offer.is_outdated_by(held))
        };
        if let Some(outdated) = compiled.granted.iter().find(is_outdated) {
            return Err(SnapshotError::Outdated {
                public: outdated.public,
                range: outdated.range,
                fence: outdated.fence,
            });
        }
    }
    Ok(Verdict::Apply(compiled))
}
