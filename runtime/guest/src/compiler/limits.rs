//! What compiling one component may take.

use std::fmt;
use std::io;
use std::time::Duration;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getrlimit, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};

/// Code of one component. The largest guests that people write (a JavaScript engine) have 37 MB.
const CODE_MAX: u64 = 512 << 20;

/// The kernel kills at the hard limit. A little later, so that the signal at the soft one, which tells the reason,
/// comes first.
const CPU_GRACE: u64 = 2;

/// What compiling one component may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Everything that the process maps, in bytes: its program and the stacks of its threads count too.
    pub address_space: u64,
    /// Time on processors, over all its threads, in whole seconds.
    pub cpu_seconds: u64,
    /// Time from its start to its end.
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
    /// Address space in bytes.
    Memory(u64),
    /// Seconds on processors.
    Cpu(u64),
    /// Time from start to end.
    Wall(Duration),
    /// Bytes of machine code.
    Code(u64),
}

impl Limit {
    pub(super) const CODE: Limit = Limit::Code(CODE_MAX);
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Memory(bytes) => write!(f, "{} MiB of memory", bytes >> 20),
            Limit::Cpu(seconds) => write!(f, "{seconds} s of processor time"),
            Limit::Wall(time) => write!(f, "{} s", time.as_secs()),
            Limit::Code(bytes) => write!(f, "{} MiB of machine code", bytes >> 20),
        }
    }
}

impl Limits {
    /// Puts this process under the limits, for good. The time from start to end is watched by its parent.
    pub(super) fn apply(&self) -> io::Result<()> {
        // Whoever waits for the result may be killed.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        limit(Resource::As, self.address_space, 0)?;
        limit(Resource::Cpu, self.cpu_seconds, CPU_GRACE)?;
        limit(Resource::Fsize, CODE_MAX, 0)?;
        // An abort is an answer here, not something to look into: neither a file nor a collector gets a core.
        limit(Resource::Core, 0, 0)?;
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        Ok(())
    }
}

/// What an operator has limited more stays so.
fn limit(resource: Resource, soft: u64, grace: u64) -> io::Result<()> {
    let lowest = |wanted: u64, set: Option<u64>| Some(set.map_or(wanted, |set| set.min(wanted)));
    let set = getrlimit(resource);
    let new = Rlimit {
        current: lowest(soft, set.current),
        maximum: lowest(soft.saturating_add(grace), set.maximum),
    };
    Ok(setrlimit(resource, new)?)
}
