//! What the kernel says about this process, read from `/proc/self`. Where it says nothing, the value is zero.

use std::collections::HashMap;
use std::fs;
use std::time::Instant;

/// What the process uses of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ProcessUsage {
    pub(crate) file_descriptors: u64,
    pub(crate) resident_bytes: u64,
    pub(crate) cpu_seconds: f64,
}

impl ProcessUsage {
    pub(crate) fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            file_descriptors: file_descriptors(),
            resident_bytes: resident_bytes(&text("/proc/self/status")).unwrap_or_default(),
            cpu_seconds: cpu_seconds(&text("/proc/self/stat")).unwrap_or_default(),
        }
    }
}

/// Bytes of memory that the process may use: its control group's, or the machine's.
pub(crate) fn memory_limit() -> u64 {
    let text = |path| fs::read_to_string(path).unwrap_or_default();
    let group = text("/sys/fs/cgroup/memory.max").trim().parse().ok();
    let machine = kilobytes(&text("/proc/meminfo"), "MemTotal:");
    group.into_iter().chain(machine).min().unwrap_or_default()
}

/// Bytes of memory in use.
pub(crate) fn memory_used() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    resident_bytes(&status).unwrap_or_default()
}

/// Measures how busy the shards' threads are.
#[derive(Debug, Default)]
pub(crate) struct ShardClock {
    last: Option<(Instant, HashMap<String, f64>)>,
    permille: u32,
}

impl ShardClock {
    /// How busy the busiest of them was since the last reading, in thousandths of one processor. Readings less than a second
    /// apart give the last one again.
    pub(crate) fn busiest_permille(&mut self) -> u32 {
        const SHORTEST: f64 = 1.0;
        let now = Instant::now();
        let span = |then: &Instant| now.duration_since(*then).as_secs_f64();
        if self
            .last
            .as_ref()
            .is_some_and(|(then, _)| span(then) < SHORTEST)
        {
            return self.permille;
        }
        let seconds = shard_seconds();
        if let Some((then, before)) = &self.last {
            let spent = seconds.iter().map(|(thread, total)| {
                let earlier = before.get(thread).copied().unwrap_or(*total);
                (total - earlier) / span(then)
            });
            let busiest = spent.fold(0.0, f64::max).clamp(0.0, 1.0);
            self.permille = permille(busiest);
        }
        self.last = Some((now, seconds));
        self.permille
    }
}

/// A ratio from 0 to 1 in thousandths.
fn permille(ratio: f64) -> u32 {
    (0..1000u32)
        .rev()
        .find(|step| f64::from(*step) < ratio * 1000.0)
        .map_or(0, |step| step + 1)
}

/// What each shard's thread has had of a processor.
fn shard_seconds() -> HashMap<String, f64> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else {
        return HashMap::new();
    };
    let of_shard = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).ok()?;
        let (head, _) = stat.rsplit_once(')')?;
        let (thread, name) = head.split_once(" (")?;
        let seconds = name.starts_with("shard-").then(|| cpu_seconds(&stat))??;
        Some((thread.to_owned(), seconds))
    };
    tasks.flatten().filter_map(of_shard).collect()
}

/// Open file descriptors.
pub(crate) fn file_descriptors() -> u64 {
    const FOLDER: &str = "/proc/self/fd";
    // Kernels from 6.2 on give the number as the folder's size; with older ones the entries are counted.
    let size = fs::metadata(FOLDER).map_or(0, |folder| folder.len());
    if size > 0 {
        return size;
    }
    let entries = fs::read_dir(FOLDER).map_or(0, Iterator::count);
    u64::try_from(entries).unwrap_or(u64::MAX)
}

/// `VmRSS:     1234 kB`.
fn resident_bytes(status: &str) -> Option<u64> {
    kilobytes(status, "VmRSS:")
}

/// The bytes of the line that begins with `name`.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// The 14th and 15th field, in hundredths of a second. The second one is the program's name in parentheses, which may
/// hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read() {
        assert_eq!(
            resident_bytes("Name:\tx\nVmRSS:\t    2048 kB\n"),
            Some(2 << 20)
        );
        let stat = "1 (a) b) S 0 1 1 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu_seconds(stat), Some(2.0));
    }

    #[test]
    fn this_process_has_descriptors_and_memory() {
        let usage = ProcessUsage::read();
        assert!(usage.file_descriptors > 2 && usage.resident_bytes > 0);
        assert!(memory_used() > 0 && memory_used() < memory_limit());
    }

    #[test]
    fn a_ratio_is_told_in_thousandths() {
        assert_eq!([0.0, 0.25, 1.0].map(permille), [0, 250, 1000]);
    }
}
