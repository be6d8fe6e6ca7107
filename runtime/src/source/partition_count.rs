//! How many partitions there are, before anything is read: the memory for what is fetched ahead is divided by them.

use std::ffi::CString;
use std::time::Duration;

use crate::librdkafka::{Producer, Properties, TopicDescription, admin_broker, describe_topics};

/// How long the brokers may take to say it.
const LIMIT: Duration = Duration::from_secs(3);

/// Partitions of these topics, in their order; `None` where the brokers do not say. Asked with a client of its own, which
/// neither reads nor writes.
pub fn partition_counts(client_properties: Vec<(String, String)>, topics: &[&str]) -> Vec<Option<u64>> {
    let names: Vec<CString> = topics.iter().filter_map(|topic| CString::new(*topic).ok()).collect();
    let found = describe(&Properties::new(client_properties), &names).unwrap_or_default();
    let count = |topic: &&str| {
        let found = found.iter().find(|found| found.name.as_bytes() == topic.as_bytes())?;
        u64::try_from(found.partitions).ok().filter(|partitions| *partitions > 0)
    };
    topics.iter().map(count).collect()
}

fn describe(properties: &Properties, names: &[CString]) -> Option<Vec<TopicDescription>> {
    let asker = Producer::new(properties).ok()?;
    let broker = admin_broker(asker.client(), LIMIT).ok()?;
    describe_topics(asker.client(), names, broker, LIMIT).ok()
}
