//! The broker for trials and tests: librdkafka's mock cluster in this process, fed from files.
//!
//! Handlers reach it through the same client code as any broker. It keeps 5 MiB per partition and silently drops older
//! records. Therefore the [`Feeder`] never gets far ahead of the sources, and an [`OutputReader`] reads the handlers'
//! outputs before they are dropped.

mod broker;
pub(super) mod feed;
mod jsonl;
mod output;
mod progress;

pub use broker::EmbeddedBroker;
pub use feed::{Feeder, for_each_record};
pub use output::OutputReader;
pub use progress::{FeedProgress, SourceProgress};
