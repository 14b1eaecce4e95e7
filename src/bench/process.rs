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
        let folders: Vec<_> = pids
            .iter()
            .map(|pid| PathBuf::from(format!("/proc/{pid}")))
            .collect();
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
        let threads = self
            .folders
            .iter()
            .filter_map(|folder| fs::read_dir(folder.join("task")).ok());
        let nanos = threads.flatten().filter_map(|thread| {
            let schedstat = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            schedstat.split_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }

    /// Time on a CPU since their start, with that of threads that have ended, to the hundredth of a second.
    pub(super) fn whole_cpu_time(&self) -> Duration {
        let ticks = self.folders.iter().filter_map(|folder| {
            let stat = fs::read_to_string(folder.join("stat")).ok()?;
            // The name before the parenthesis may hold anything; utime and stime are the 12th and 13th fields behind it.
            let fields = stat.rsplit_once(") ")?.1.split_whitespace().skip(11);
            fields
                .take(2)
                .map(|field| field.parse::<u64>().ok())
                .sum::<Option<u64>>()
        });
        Duration::from_millis(10 * ticks.sum::<u64>())
    }

    /// Memory in use by the processes, in bytes; threads of the kernel have none.
    pub(super) fn resident_bytes(&self) -> u64 {
        let kilobytes = self.folders.iter().filter_map(|folder| {
            let status = fs::read_to_string(folder.join("status")).ok()?;
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().trim_end_matches(" kB").parse::<u64>().ok()
        });
        kilobytes.sum::<u64>() * 1024
    }
}
