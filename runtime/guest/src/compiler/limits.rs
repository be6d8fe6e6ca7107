//! Limits of compiling one component.

use std::fmt;
use std::io;
use std::time::Duration;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getrlimit, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};

/// Maximum bytes of machine code of one component. The largest guests in use (a JavaScript engine) take 37 MB.
const CODE_MAX: u64 = 512 << 20;

/// Seconds between the soft and the hard limit of CPU time. At the hard limit the kernel kills the process. The signal
/// of the soft limit must come first, because it identifies the cause.
const CPU_GRACE: u64 = 2;

/// Limits of compiling one component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Everything that the process maps, in bytes, including its program and the stacks of its threads.
    pub address_space: u64,
    /// CPU time over all its threads, in whole seconds.
    pub cpu_seconds: u64,
    /// Real time from start to end, without the time during which this process was stopped.
    pub wall: Duration,
}

/// A component of 10 MB with 20,000 functions takes 20 s and 135 MB, a Python with its standard library 19 s.
impl Default for Limits {
    fn default() -> Self {
        Limits { address_space: 2 << 30, cpu_seconds: 60, wall: Duration::from_secs(120) }
    }
}

/// The limit that a component hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Address space, in bytes.
    Memory(u64),
    /// CPU time, in seconds.
    Cpu(u64),
    /// Real time from start to end.
    Wall(Duration),
    /// Machine code, in bytes.
    Code(u64),
}

impl Limit {
    pub(super) const CODE: Limit = Limit::Code(CODE_MAX);
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Memory(bytes) => write!(f, "{} MiB of memory", bytes >> 20),
            Limit::Cpu(seconds) => write!(f, "{seconds} s of CPU time"),
            Limit::Wall(time) => write!(f, "{} s", time.as_secs()),
            Limit::Code(bytes) => write!(f, "{} MiB of machine code", bytes >> 20),
        }
    }
}

impl Limits {
    /// Applies the limits to this process permanently. The parent enforces `wall`.
    pub(super) fn apply(&self) -> io::Result<()> {
        // The parent may be killed; the child must end with it.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        limit(Resource::As, self.address_space, 0)?;
        limit(Resource::Cpu, self.cpu_seconds, CPU_GRACE)?;
        limit(Resource::Fsize, CODE_MAX, 0)?;
        // An abort is an expected result here: neither a file nor a collector gets a core dump.
        limit(Resource::Core, 0, 0)?;
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        Ok(())
    }
}

/// Sets a limit. Lower limits that an operator has set remain.
fn limit(resource: Resource, soft: u64, grace: u64) -> io::Result<()> {
    let lowest = |new: u64, set: Option<u64>| Some(set.map_or(new, |set| set.min(new)));
    let set = getrlimit(resource);
    let new = Rlimit {
        current: lowest(soft, set.current),
        maximum: lowest(soft.saturating_add(grace), set.maximum),
    };
    Ok(setrlimit(resource, new)?)
}
