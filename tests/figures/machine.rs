//! The load of the machine by process, because a measurement on a shared machine must show what
//! disturbed it.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::numbers::float;

/// The unit of the kernel's CPU times is a hundredth of a second on every Linux that runs Kafka.
const TICK: Duration = Duration::from_millis(10);

/// CPU time since the machine started.
#[derive(Debug)]
pub(crate) struct CpuTimes {
    all: Duration,
    brokers: Duration,
}

impl CpuTimes {
    /// The CPU time of all processes so far, and of the brokers.
    pub(crate) fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("processor times of the machine")?;
        let first = stat.lines().next().unwrap_or_default();
        let fields: Vec<u32> =
            first.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal: idle and iowait are not work, and steal
        // belongs to another machine.
        let work = [0, 1, 2, 5, 6].iter().filter_map(|index| fields.get(*index)).sum::<u32>();
        Ok(Self { all: TICK * work, brokers: brokers()? })
    }

    /// Cores used neither by the brokers nor by a child that used `own`, on average since `before`.
    pub(crate) fn others_since(&self, before: &Self, own: Duration, wall: Duration) -> f64 {
        let all = self.all.saturating_sub(before.all);
        let known = self.brokers.saturating_sub(before.brokers) + own;
        all.saturating_sub(known).as_secs_f64() / wall.as_secs_f64()
    }
}

/// The context of a figure: the number of cores, their model, the load of the last minute.
pub(crate) fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches(['\t', ' ', ':']);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("unknown").to_owned();
    format!("{cores} cores ({model}), load {load} before")
}

/// CPU time of the children that are brokers.
fn brokers() -> Result<Duration> {
    let own = u64::from(std::process::id());
    let mut ticks = 0;
    for entry in fs::read_dir("/proc").context("processes of the machine")?.filter_map(Result::ok) {
        // The file of a process that ends meanwhile no longer exists.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some((parent, used)) = java(&stat)
            && parent == own
        {
            ticks += used;
        }
    }
    Ok(Duration::from_secs_f64(float(ticks) * TICK.as_secs_f64()))
}

/// Parent and CPU time of a process, if it is a Java virtual machine.
fn java(stat: &str) -> Option<(u64, u64)> {
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let field = |index| rest.split_whitespace().nth(index).and_then(|field: &str| field.parse::<u64>().ok());
    (name == "java").then_some((field(1)?, field(11)? + field(12)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read() {
        let line = "77 (java) S 42 77 42 0 -1 1 2 3 4 5 100 20 0 0 20 0 60 0 9 9 9";
        assert_eq!(java(line), Some((42, 120)));
        assert_eq!(java(&line.replace("java", "a (java)")), None);
        assert!(CpuTimes::now().expect("this is Linux").all > Duration::ZERO);
    }
}
