//! Counts partitions before anything is read: the memory for prefetching is divided by their number.

use std::ffi::CString;

use super::Error;
use crate::librdkafka::{
    ErrorCode, KeepWaiting, Producer, Properties, StartupRequests, admin_broker, describe_topics,
};

/// Returns the partition count or the error of each of these topics, in their order. Uses its own client, which neither
/// reads nor writes records. Waits for brokers that do not respond, as [`Source::start`](super::Source::start) does.
pub fn partition_counts(
    properties: &Properties,
    topics: &[&str],
    keep_waiting: KeepWaiting<'_>,
) -> Result<Vec<Result<u64, ErrorCode>>, Error> {
    let names: Vec<CString> = topics.iter().filter_map(|topic| CString::new(*topic).ok()).collect();
    let producer = Producer::new(properties)?;
    let events = producer.main_queue();
    let mut requests =
        StartupRequests::new(producer.client(), &events, properties.response_timeout(), keep_waiting);
    let found = loop {
        let requested = names.clone();
        let described = requests.run(move |client, timeout| {
            admin_broker(client, timeout)
                .and_then(|broker| describe_topics(client, &requested, broker, timeout))
        })?;
        match described {
            Ok(found) => break found,
            Err(code) => requests.wait(format!("the brokers do not respond: {code}"))?,
        }
    };
    let count = |topic: &&str| {
        let described = found.iter().find(|found| found.name.as_bytes() == topic.as_bytes());
        let described = described.ok_or(ErrorCode::UNKNOWN_PARTITION)?;
        described.error.into_result()?;
        Ok(u64::try_from(described.partitions).unwrap_or(0))
    };
    Ok(topics.iter().map(count).collect())
}
