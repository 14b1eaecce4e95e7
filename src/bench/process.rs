//! CPU time and memory of the server's processes and threads, from `/proc`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// The processes, or single threads of the kernel, that a server consists of.
#[derive(Debug)]
pub(super) struct Processes {
    folders: Vec<PathBuf>,
}

impl Processes {
    /// Fails where one of `pids` does not exist.
    pub(super) fn new(pids: &[u32]) -> Result<Self> {
        let folders: Vec<_> = pids.iter().map(|pid| PathBuf::from(format!("/proc/{pid}"))).collect();
        for folder in &folders {
            fs::metadata(folder).with_context(|| format!("no process {}", folder.display()))?;
        }
        Ok(Self { folders })
    }

    /// Whether nothing is measured.
    pub(super) fn is_empty(&self) -> bool {
        self.folders.is_empty()
    }

    /// Time on a CPU since their start, of all threads together, to the nanosecond.
    pub(super) fn cpu_time(&self) -> Duration {
        let threads = self.folders.iter().filter_map(|folder| fs::read_dir(folder.join("task")).ok());
        let nanos = threads.flatten().filter_map(|thread| {
            let schedstat = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            schedstat.split_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }

    /// Memory in use by the processes, in bytes; threads of the kernel have none.
    pub(super) fn resident_bytes(&self) -> u64 {
        let kilobytes = self.folders.iter().filter_map(|folder| {
            let status = fs::read_to_string(folder.join("status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().trim_end_matches(" kB").parse::<u64>().ok()
        });
        kilobytes.sum::<u64>() * 1024
    }
}
