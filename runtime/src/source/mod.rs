//! Where events come from.
//!
//! A [`Source`] is the consumer of one handler, used on that handler's one OS thread: it tells of rebalances,
//! starts, commits and errors ([`SourceEvent`]), reads records of one partition at a time, and does what the
//! core asks of it. Nothing in it waits for a broker once it is started: look-ups and commits are answered through
//! queues. Everything that happens wakes one
//! [`Wake`](crate::librdkafka::Wake).
//!
//! [`embedded`] is the broker for a first look and for tests: in this process, fed from files.

pub mod embedded;

mod errors;
mod event;
mod kafka;
mod look_ups;
mod partition_count;
mod partitions;
mod spec;
mod start;

pub use event::{ReadResult, Record, SourceError, SourceEvent, StartFound};
pub use kafka::Source;
pub use partition_count::partition_counts;
pub use spec::{Assignor, Ends, SourceSpec, StartPolicy};
pub use start::Error;

#[cfg(test)]
mod tests;
