//! A child process and its resource usage, as reported by the kernel.
#![allow(unsafe_code, reason = "the standard library has no wait4; the safety argument is below")]
// Safety argument: `wait4` receives the id of a child that is started here, passed to no other code and waited for
// nowhere else, and pointers to two local variables of the types that it fills.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::machine;

/// The interval between two polls of a running child, a hundredth of the shortest measurement.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The time limit of a child: longer than any measurement.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// The resource usage of a child, from its start to its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) wall: Duration,
    /// The CPU time of all threads, in user and kernel mode.
    pub(crate) cpu: Duration,
    /// Peak resident memory in bytes, as reported by the kernel while the child lives. (The value
    /// of `wait4` is not usable: it starts at the peak of the process that started the child.)
    pub(crate) peak_memory: u64,
    /// Cores that processes other than this child and the brokers used meanwhile, on average.
    pub(crate) others: f64,
}

/// Runs `command` to its end. A failure is an error.
#[expect(clippy::disallowed_methods, reason = "measuring time is the purpose of this program")]
pub(crate) fn run(command: &mut Command) -> Result<Usage> {
    let before = machine::CpuTimes::now()?;
    let start = Instant::now();
    let name = command.get_program().display().to_string();
    let (status, usage, peak_memory) = wait(command, &name, start)?;
    let wall = start.elapsed();
    ensure!(libc::WIFEXITED(status), "{name} was ended by signal {}", libc::WTERMSIG(status));
    ensure!(libc::WEXITSTATUS(status) == 0, "{name} ended with exit code {}", libc::WEXITSTATUS(status));
    let cpu = duration(usage.ru_utime)? + duration(usage.ru_stime)?;
    let others = machine::CpuTimes::now()?.others_since(&before, cpu, wall);
    Ok(Usage { wall, cpu, peak_memory, others })
}

#[expect(clippy::disallowed_methods, reason = "a deadline in real time; nothing that is measured reads it")]
fn wait(command: &mut Command, name: &str, start: Instant) -> Result<(libc::c_int, libc::rusage, u64)> {
    let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    let pid = i32::try_from(child.id())?;
    let mut killed = false;
    let mut peak_memory = 0;
    loop {
        let mut status = 0;
        // SAFETY: see the top of the file; the kernel fills a zeroed `rusage` or leaves it unchanged.
        let (waited, usage) = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            (libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage), usage)
        };
        match waited {
            0 => peak_memory = peak_memory.max(high_water(pid).unwrap_or(0)),
            waited if waited == pid && killed => bail!("{name} did not end within {TIME_LIMIT:?}"),
            waited if waited == pid => return Ok((status, usage, peak_memory)),
            _ => return Err(std::io::Error::last_os_error()).context("wait4"),
        }
        if !killed && Instant::now().duration_since(start) > TIME_LIMIT {
            kill_process(Pid::from_raw(pid).context("a child has a pid")?, Signal::KILL)?;
            killed = true;
        }
        std::thread::park_timeout(POLL_INTERVAL);
    }
}

/// `None`: the child has just ended.
fn high_water(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn duration(time: libc::timeval) -> Result<Duration> {
    Ok(Duration::from_secs(u64::try_from(time.tv_sec)?) + Duration::from_micros(u64::try_from(time.tv_usec)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_measured() {
        let usage = run(Command::new("sh").args(["-c", "n=0; while [ $n -lt 100000 ]; do n=$((n+1)); done"]))
            .expect("the command exits with 0");
        assert!(usage.cpu > Duration::ZERO && usage.cpu <= usage.wall * 2, "{usage:?}");
        assert!(usage.peak_memory > 100_000, "{usage:?}");
    }

    #[test]
    fn a_failure_is_reported_with_its_exit_code() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).expect_err("exit code 3 is an error");
        assert!(error.to_string().contains("exit code 3"), "{error}");
    }
}
