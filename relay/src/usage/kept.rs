//! The file that counting goes on from: replaced each second, so that even a killed process loses no more than that.
//!
//! The kernel has the contents as soon as they are written, which outlives the process and not the machine. What a machine
//! that lost its power has of them may be older than what was told: then another epoch begins.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prost::Message as _;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use turnfleet_proto::fleet;

use crate::control::StateDir;

const FILE: &str = "usage.counters";
/// The first byte of the file: its form.
const VERSION: u8 = 1;
const SUM_LEN: usize = 32;
const BOOT_LEN: usize = 36;
/// Drawn by the kernel at each start of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// See the module.
pub(super) struct Kept {
    dir: Arc<StateDir>,
    boot: [u8; BOOT_LEN],
    /// Whether the last attempt to write went wrong.
    failing: AtomicBool,
}

impl Kept {
    pub(super) fn open(dir: Arc<StateDir>) -> Self {
        let mut boot = [0; BOOT_LEN];
        if let Ok(id) = std::fs::read(BOOT_ID)
            && let Some(id) = id.first_chunk::<BOOT_LEN>()
        {
            boot = *id;
        }
        Self {
            dir,
            boot,
            failing: AtomicBool::new(false),
        }
    }

    /// What was kept; `None` where there is nothing that can be gone on from. From here on the file is that of a process that
    /// runs, even where the machine loses what is written to it later.
    pub(super) fn load(&self) -> Option<fleet::Usage> {
        let usage = self.look()?;
        self.write(&usage, false, StateDir::write);
        Some(usage)
    }

    fn look(&self) -> Option<fleet::Usage> {
        let file = self.dir.read(FILE).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read what was counted; counting begins anew");
            None
        })?;
        let usage = self.read(&file);
        if usage.is_none() {
            tracing::warn!(
                "what was counted is damaged, or older than what was told; counting begins anew"
            );
        }
        usage
    }

    fn read(&self, file: &[u8]) -> Option<fleet::Usage> {
        let (sum, rest) = file.split_first_chunk::<SUM_LEN>()?;
        if digest(&SHA256, rest).as_ref() != sum {
            return None;
        }
        let ([version, is_final], rest) = rest.split_first_chunk::<2>()?;
        let (boot, usage) = rest.split_first_chunk::<BOOT_LEN>()?;
        let is_whole = *is_final == 1 || *boot == self.boot;
        let usage = fleet::Usage::decode(usage).ok()?;
        (*version == VERSION && is_whole && usage.epoch.len() == 16).then_some(usage)
    }

    /// Keeps the counters of `usage`; `finally` for good, whatever happens to the machine, because nothing follows.
    pub(super) fn store(&self, usage: &fleet::Usage, finally: bool) {
        let write = match finally {
            true => StateDir::write,
            false => StateDir::write_unsynced,
        };
        self.write(usage, finally, write);
    }

    fn write(
        &self,
        usage: &fleet::Usage,
        is_final: bool,
        write: impl FnOnce(&StateDir, &str, &[u8]) -> io::Result<()>,
    ) {
        let counters = fleet::Usage {
            epoch: usage.epoch.clone(),
            begun_millis: usage.begun_millis,
            number: usage.number,
            tenants: usage.tenants.clone(),
            ..fleet::Usage::default()
        };
        let mut rest = vec![VERSION, u8::from(is_final)];
        rest.extend_from_slice(&self.boot);
        rest.extend(counters.encode_to_vec());
        let mut file = digest(&SHA256, &rest).as_ref().to_vec();
        file.append(&mut rest);
        let stored = write(&self.dir, FILE, &file);
        let failed = stored.is_err();
        let failed_before = self.failing.swap(failed, Ordering::Relaxed);
        if let Err(error) = stored {
            // What is there is older than what will be told: a restart must not go on from it.
            let _ = self.dir.remove(FILE);
            if !failed_before {
                tracing::warn!(%error, "cannot keep what was counted: after a restart counting begins anew");
            }
        }
    }
}

/// The name of another epoch.
pub(super) fn another_epoch() -> io::Result<Vec<u8>> {
    let mut epoch = vec![0; 16];
    SystemRandom::new()
        .fill(&mut epoch)
        .map_err(|_| io::Error::other("the system gave no randomness"))?;
    Ok(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage() -> fleet::Usage {
        fleet::Usage {
            epoch: vec![7; 16],
            number: 3,
            tenants: vec![fleet::TenantUsage {
                tenant: 2,
                opened: 5,
                ..fleet::TenantUsage::default()
            }],
            ..fleet::Usage::default()
        }
    }

    #[test]
    fn what_was_kept_is_gone_on_from_unless_it_may_be_older_than_what_was_told() {
        let root = tempfile::tempdir().unwrap();
        let dir = Arc::new(StateDir::open(root.path()).unwrap());
        let mut kept = Kept::open(Arc::clone(&dir));
        assert_eq!(kept.load(), None);
        kept.store(&usage(), false);
        assert_eq!(kept.load(), Some(usage()));

        kept.boot = [b'0'; BOOT_LEN];
        assert_eq!(kept.load(), None, "the machine has started anew");
        kept.store(&usage(), true);
        kept.boot = [b'1'; BOOT_LEN];
        assert_eq!(kept.load(), Some(usage()), "it was stopped in order");
        kept.boot = [b'2'; BOOT_LEN];
        assert_eq!(kept.load(), None, "it has run since, and not ended");
        kept.boot = [b'1'; BOOT_LEN];

        let mut file = dir.read(FILE).unwrap().unwrap();
        *file.last_mut().unwrap() ^= 1;
        dir.write(FILE, &file).unwrap();
        assert_eq!(kept.load(), None, "it is damaged");
    }
}
