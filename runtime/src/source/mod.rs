//! The consumer side.
//!
//! A [`Source`] is the consumer of one handler, used only by that handler's loop thread. It reports rebalances, start
//! positions, commit results and errors ([`SourceEvent`]), reads records of one partition at a time, and carries out
//! the core's actions. Between its start and `leave` it never waits for a broker: the results of lookups and commits
//! arrive through queues. Whatever arrives in a queue wakes that thread through one
//! [`Wake`](crate::librdkafka::Wake); timeouts are polled.
//!
//! [`embedded`] is the broker for trials and tests: it runs in this process and is fed from files.

pub mod embedded;

mod delivery_suffix;
mod errors;
mod event;
mod group_status;
mod kafka;
mod log_ends;
mod lookups;
mod partition_count;
mod partitions;
mod spec;
mod startup_checks;
mod topic_settings;

pub use delivery_suffix::configured_client_id;
pub use event::{SourceEvent, StartPosition};
pub use group_status::GroupInspector;
pub use kafka::Source;
pub use partition_count::partition_counts;
pub use spec::{Ends, SourceSpec};
pub use startup_checks::Error;
pub use topic_settings::TopicNeeds;

#[cfg(test)]
mod tests;
