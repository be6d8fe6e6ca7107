//! The configuration of a gate, and of the detection of duplicates.

use std::time::Duration;

/// A gate: decides from the order value of an event whether the event may run, waits, or is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateConfig {
    /// The rule.
    pub rule: GateRule,
    /// What to do with an event without a readable order value.
    pub no_value: NoValue,
    /// The greatest accepted order value; `None`: any.
    pub max_ahead: Option<MaxAhead>,
    /// Whether a record without a value ends its key: the next event of the key begins anew.
    pub ends_at_tombstone: bool,
}

/// The rule of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateRule {
    /// Each value runs after the value before it: no value is left out.
    Consecutive(Consecutive),
    /// A value runs only if no greater one ran before it.
    Newest(Newest),
    /// Values wait for lower ones that arrive late, for a limited time.
    Window(Window),
}

/// The settings of [`GateRule::Consecutive`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consecutive {
    /// The value that a key begins with.
    pub first: First,
    /// How long, in stream time, an event waits for the missing values before it; `None`: for ever.
    pub gap_timeout: Option<Duration>,
    /// Maximum number of events of one gate key that wait for a missing value.
    pub max_early: u32,
    /// What to do when a value does not come.
    pub on_gap: OnGap,
    /// What to do with the event of a value that was passed over, or whose event was dead-lettered or skipped.
    pub late: Late,
}

/// The first value of a gate key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// This one.
    At(i64),
    /// The lowest that is known after the first event has waited for this time, in stream time.
    Any {
        /// The wait.
        wait: Duration,
    },
}

/// What to do when an event has waited too long for a missing value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnGap {
    /// Dead-letter the events that wait, and those that follow until the missing value comes.
    DeadLetter,
    /// Pass over the missing values.
    Pass,
    /// Stop the partition.
    Stop,
}

/// What to do with an event that comes too late for its place in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// It runs out of order, as soon as its lane is free.
    Deliver,
    /// It is dead-lettered.
    DeadLetter,
    /// It settles without a call.
    Drop,
}

/// The settings of [`GateRule::Newest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newest {
    /// Whether a value equal to the mark runs, too.
    pub equal_runs: bool,
    /// How far below the mark a value still runs; 0: none does. Then the last [`DELIVERED_MAX`](crate::DELIVERED_MAX) values that ran are
    /// remembered, and none of them runs again.
    pub tolerance: u64,
    /// Whether the greatest queued value of a key runs first.
    pub latest_first: bool,
}

/// The settings of [`GateRule::Window`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// How long an event waits, in stream time.
    pub window: Duration,
    /// Whether the sequence has no holes: the value after the mark need not wait.
    pub consecutive: bool,
    /// What to do with a value that is not above the mark.
    pub late: Late,
    /// Maximum number of events of a partition that wait.
    pub max_waiting: u32,
    /// Maximum bytes of these events.
    pub max_waiting_bytes: u64,
    /// Whether events are released before their time when a limit is reached. Otherwise reading pauses.
    pub releases_on_overflow: bool,
}

/// What to do with an event without a readable order value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoValue {
    /// It is rejected.
    Reject,
    /// It runs in its place by arrival, and changes no mark.
    Pass,
}

/// The limit of order values: one absurd value would end a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxAhead {
    /// Above the mark; without a mark, above the lowest value that waits.
    OfMark(u64),
    /// Above the wall clock: order values are nanoseconds since 1970.
    OfClock(Duration),
}

/// The detection of events that a producer has sent twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duplicates {
    /// Number of ids that are remembered for each lane key, at least 1.
    pub keep: u32,
    /// How long an id is remembered.
    pub window: Duration,
}
