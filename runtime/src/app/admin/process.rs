//! What the system knows about this process.

use procfs::process::Process;
use procfs::{WithCurrentSystemInfo as _, boot_time_secs, ticks_per_second};

/// The use of resources by this process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ProcessUsage {
    pub(super) resident_bytes: u64,
    pub(super) virtual_bytes: u64,
    /// CPU time, of the user and of the system.
    pub(super) cpu_seconds: f64,
    pub(super) open_files: u64,
    /// When it was started, in seconds since 1970.
    pub(super) started: f64,
}

impl ProcessUsage {
    /// Reads the use; `None`: not available.
    #[expect(clippy::cast_precision_loss, reason = "ticks are far below 2^52")]
    pub(super) fn read() -> Option<ProcessUsage> {
        let process = Process::myself().ok()?;
        let stat = process.stat().ok()?;
        let seconds = |ticks: u64| ticks as f64 / ticks_per_second() as f64;
        Some(ProcessUsage {
            resident_bytes: stat.rss_bytes().get(),
            virtual_bytes: stat.vsize,
            cpu_seconds: seconds(stat.utime + stat.stime),
            open_files: process.fd_count().ok()? as u64,
            started: boot_time_secs().ok()? as f64 + seconds(stat.starttime),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_files() {
        let own = ProcessUsage::read().expect("Linux has /proc/self");
        assert!(own.resident_bytes > 1 << 20 && own.open_files >= 3 && own.started > 1e9, "{own:?}");
        assert!(own.virtual_bytes >= own.resident_bytes && own.cpu_seconds >= 0.0, "{own:?}");
    }
}
