//! What the kernel says about this process, read from `/proc/self`. Where it says nothing, the value is zero.

use std::fs;

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
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
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
    }
}
