//! How many partitions there are, before anything is read: the memory for what is fetched ahead is divided by them.

use std::ffi::CString;
use std::time::Duration;

use crate::librdkafka::{Producer, Properties, admin_broker, describe_topics};

/// How long the brokers may take to say it.
const LIMIT: Duration = Duration::from_secs(3);

/// Partitions of all these topics together; `None` if the brokers do not say. Asked with a client of its own, which
/// neither reads nor writes.
pub fn partition_count(client_properties: Vec<(String, String)>, topics: &[&str]) -> Option<u64> {
    let names: Vec<CString> = topics.iter().filter_map(|topic| CString::new(*topic).ok()).collect();
    let asker = Producer::new(&Properties::new(client_properties)).ok()?;
    let broker = admin_broker(asker.client(), LIMIT).ok()?;
    let found = describe_topics(asker.client(), &names, broker, LIMIT).ok()?;
    Some(found.iter().filter_map(|topic| u64::try_from(topic.partitions).ok()).sum())
}
