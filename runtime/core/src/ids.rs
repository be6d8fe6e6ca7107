//! Small values that name things: all `Copy`, none of them owns anything.

use std::fmt;
use std::time::Duration;

/// One partition of one of the handler's topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// Index into the handler's `topics`, in the order of the configuration.
    pub topic: u16,
    /// Kafka's partition number.
    pub number: i32,
}

/// One uninterrupted ownership of a partition; never reused within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnershipId(pub u64);

/// One question of the group that has to be answered: an assign, a revoke or a loss. Counts up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RebalanceId(pub u64);

/// One guest call. The slot is reused, the generation tells its users apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId {
    /// Dense index: a shell may keep a table by it.
    pub slot: u32,
    /// Which user of the slot this is.
    pub generation: u32,
}

/// One commit request of this consumer; counts up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub u64);

/// Where the shell keeps the bytes of an event. The core only carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArenaSlot(pub u64);

/// The two clocks, read once by the shell before it hands an input over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time since the process started: what every deadline is made of.
    pub uptime: Duration,
    /// Milliseconds since 1970: for ages of records only.
    pub wall_ms: i64,
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.number)
    }
}
