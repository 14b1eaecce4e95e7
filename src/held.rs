//! The start of a service whose process was killed a moment ago: what that one held, the lock of its files and its ports, is free
//! when the system has taken the process apart, and that may be after the next one begins.

use std::io::{self, ErrorKind};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use turnfleet_controller::store::StoreError;

/// Longer than the end of a process takes anywhere. What is held then is held by somebody who stays.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before the second attempt; each rest is twice as long as the one before it.
const FIRST_REST: Duration = Duration::from_millis(100);

/// Starts by `start`, again and again for a few seconds where another process holds what that needs.
///
/// # Errors
/// That of the last attempt.
pub(crate) async fn start<T>(start: impl AsyncFn() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + PATIENCE;
    let mut rest = FIRST_REST;
    loop {
        match start().await {
            Err(error) if is_held(&error) && Instant::now() + rest < deadline => {
                let error = crate::causes(&error);
                tracing::warn!(
                    error,
                    "another process holds what this one needs, which may be about to end: trying again"
                );
                sleep(rest).await;
                rest *= 2;
            }
            outcome => return outcome,
        }
    }
}

/// Whether it fails by what another process holds.
fn is_held(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let kind = cause.downcast_ref().map(io::Error::kind);
        matches!(kind, Some(ErrorKind::AddrInUse | ErrorKind::ResourceBusy))
            || matches!(cause.downcast_ref(), Some(StoreError::InUse { .. }))
    })
}
