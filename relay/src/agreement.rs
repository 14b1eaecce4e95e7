//! Which of the snapshots that controllers offer a node runs by: a decision without clock, thread or socket, so that a
//! simulated node takes it exactly as a real one does.

use turnfleet_proto::fleet;

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

/// Decides about `snapshot` for a node that runs generation `running`, or zero for none. `again` asks for a policy of the
/// generation that runs already, because something else that it is made of has changed.
///
/// # Errors
/// With the reason why the node refuses the snapshot, and stays as it is.
pub fn consider(
    running: u64,
    snapshot: &fleet::Snapshot,
    local: &LocalPolicy,
    again: bool,
) -> Result<Verdict, SnapshotError> {
    if snapshot.generation < running {
        return Err(SnapshotError::Stale {
            offered: snapshot.generation,
            running,
        });
    }
    if running > 0 && snapshot.generation == running && !again {
        return Ok(Verdict::Running);
    }
    compile(snapshot, local).map(Verdict::Apply)
}
