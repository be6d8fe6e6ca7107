//! Identifiers: all `Copy`, none owns anything.

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

/// One uninterrupted ownership of a partition; never reused by a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnershipId(pub u64);

/// One rebalance request that has to be answered: an assign, a revoke or a loss. Counts up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RebalanceId(pub u64);

/// One guest call. The slot is reused; the count distinguishes its users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId {
    /// Dense index: a shell may index a table with it.
    pub slot: u32,
    /// Counts the users of the slot.
    pub reuse_count: u32,
}

/// One commit request of this consumer; counts up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub u64);

/// One request for what is remembered of a gate key; counts up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookUpId(pub u64);

/// Transactional delivery: the position of an event among the events of the handler that have settled. Counts up from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SettleNumber(pub u64);

/// Where the shell keeps the bytes of an event. Opaque to the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArenaSlot(pub u64);

/// The two clocks, read by the shell once per turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time since the run started: the clock of every deadline.
    pub uptime: Duration,
    /// Milliseconds since 1970: only for the age of records.
    pub wall_ms: i64,
}

impl Now {
    /// Returns the uptime in milliseconds, modulo 2³².
    #[expect(clippy::cast_possible_truncation, reason = "only differences of less than 49 days are used")]
    pub(crate) fn uptime_ms(self) -> u32 {
        self.uptime.as_millis() as u32
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.number)
    }
}
