//! How many partitions there are, before anything is read: the memory for what is fetched ahead is divided by them.

use std::ffi::CString;

use super::Error;
use crate::librdkafka::{
    ErrorCode, Producer, Properties, Questions, StartupRetry, admin_broker, describe_topics,
};

/// Partitions of these topics, in their order, or what is wrong with the topic. LookUpId with a client of its own, which
/// neither reads nor writes. Waits for brokers that do not answer, as [`Source::start`](super::Source::start) does.
pub fn partition_counts(
    properties: &Properties,
    topics: &[&str],
    retry: StartupRetry<'_>,
) -> Result<Vec<Result<u64, ErrorCode>>, Error> {
    let names: Vec<CString> = topics.iter().filter_map(|topic| CString::new(*topic).ok()).collect();
    let asker = Producer::new(properties)?;
    let events = asker.main_queue();
    let mut questions = Questions::new(asker.client(), &events, properties.answer_limit(), retry);
    let found = loop {
        let asked = names.clone();
        let described = questions.ask(move |client, limit| {
            admin_broker(client, limit).and_then(|broker| describe_topics(client, &asked, broker, limit))
        })?;
        match described {
            Ok(found) => break found,
            Err(code) => questions.wait(format!("the brokers do not answer: {code}"))?,
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
