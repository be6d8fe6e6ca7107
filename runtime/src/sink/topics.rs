//! Requests of a sink before it starts: whether its topics exist, and their limits.
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::time::Duration;

use super::spec::{Error, SinkSpec};
use super::topic_limits::{TimestampLimits, TopicLimits};
use crate::librdkafka::{
    Client, ErrorCode, KeepWaiting, NewPartitions, Producer, Properties, StartupRequests, TopicConfigs,
    TopicRole, admin_broker, describe_topics,
};

const OUTPUTS: TopicRole =
    TopicRole { name: "the output or dead-letter topic", rights: "WRITE and DESCRIBE" };
/// Timeout of each request for a partition count to copy.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(10);

const MAX_BYTES: &CStr = c"max.message.bytes";
const CLEANUP: &CStr = c"cleanup.policy";
const RETENTION: &CStr = c"retention.ms";
const TIME_TYPE: &CStr = c"message.timestamp.type";
const TIME_BEFORE: &CStr = c"message.timestamp.before.max.ms";
const TIME_AFTER: &CStr = c"message.timestamp.after.max.ms";
/// The limit in both directions, on brokers before 4.0.
const TIME_DIFFERENCE: &CStr = c"message.timestamp.difference.max.ms";
/// The settings requested for each topic.
const SETTINGS: &[&CStr] =
    &[MAX_BYTES, CLEANUP, RETENTION, TIME_TYPE, TIME_BEFORE, TIME_AFTER, TIME_DIFFERENCE];

/// Waits until the brokers have described every topic of a sink, and creates missing topics if configured. Then
/// requests the limits of the topics. Uses its own client, because the properties of the producer depend on the limits.
pub(super) fn prepare_topics(
    properties: &Properties,
    spec: &SinkSpec,
    names: &[CString],
    keep_waiting: KeepWaiting<'_>,
) -> Result<Vec<TopicLimits>, Error> {
    let mut unique = names.to_vec();
    unique.sort();
    unique.dedup();
    if unique.is_empty() {
        return Ok(Vec::new());
    }
    let producer = Producer::new(properties)?;
    let (client, events) = (producer.client(), producer.main_queue());
    let mut requests = StartupRequests::new(client, &events, properties.response_timeout(), keep_waiting);
    let like: NewPartitions<'_> = &|name| partitions_for(name, &spec.partitions_like, client);
    requests.topics(&unique, OUTPUTS, spec.create_topics.then_some(like))?;
    let described = requests.topic_settings(&unique, SETTINGS)?;
    log_unknown_limits(&described); // they are optional, because the brokers check, too
    let limits = |name: &CString| described.iter().find(|topic| topic.topic == *name).map(limits_of);
    Ok(names.iter().map(|name| limits(name).unwrap_or_default()).collect())
}

/// Returns the partition count of the topic that `partitions_like` names; `None`: the brokers' default.
fn partitions_for(
    name: &CStr,
    partitions_like: &BTreeMap<String, String>,
    client: &Arc<Client>,
) -> Option<i32> {
    let like = CString::new(partitions_like.get(name.to_str().ok()?)?.as_str()).ok()?;
    let broker = admin_broker(client, DESCRIBE_TIMEOUT).ok()?;
    let found = describe_topics(client, &[like], broker, DESCRIBE_TIMEOUT).ok()?;
    found.first().filter(|topic| topic.error.is_none()).map(|topic| topic.partitions)
}

fn is_denied(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::TOPIC_AUTHORIZATION_FAILED | ErrorCode::CLUSTER_AUTHORIZATION_FAILED)
}

fn limits_of(topic: &TopicConfigs) -> TopicLimits {
    let values = topic.values.as_deref().unwrap_or_default();
    let value = |name: &CStr| {
        values.iter().find(|(known, _)| known.as_bytes() == name.to_bytes()).map(|(_, value)| value.as_str())
    };
    let number = |name: &CStr| value(name).and_then(|number| number.parse::<i64>().ok());
    let policy =
        |wanted| value(CLEANUP).is_some_and(|policy| policy.split(',').any(|word| word.trim() == wanted));
    let limit = |names: [&CStr; 2]| names.map(number).into_iter().flatten().filter(|&ms| ms < i64::MAX).min();
    let times = TimestampLimits {
        before: limit([TIME_BEFORE, TIME_DIFFERENCE]),
        after: limit([TIME_AFTER, TIME_DIFFERENCE]),
        retention: number(RETENTION).filter(|&limit| limit >= 0 && policy("delete")),
    };
    TopicLimits {
        batch_bytes: value(MAX_BYTES).and_then(|bytes| bytes.parse().ok()),
        compacted: policy("compact"),
        // With `LogAppendTime` the broker sets the timestamps.
        times: if value(TIME_TYPE) == Some("LogAppendTime") { TimestampLimits::default() } else { times },
    }
}

/// Logs one line about all topics with unknown limits. Topics of brokers that do not support the request, such as the
/// embedded broker, are not logged, because no remedy exists.
fn log_unknown_limits(described: &[TopicConfigs]) {
    let unknown = |topic: &TopicConfigs| {
        let code = topic.values.as_ref().err().copied()?;
        (code != ErrorCode::UNSUPPORTED_FEATURE).then(|| (topic.topic.to_string_lossy().into_owned(), code))
    };
    let unknown: Vec<_> = described.iter().filter_map(unknown).collect();
    let Some((_, code)) = unknown.first() else { return };
    let topics = unknown.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let remedy = if is_denied(*code) {
        "grant this user DESCRIBE_CONFIGS on them"
    } else {
        "check why the brokers do not respond, and restart Keylane"
    };
    tracing::warn!(
        topics,
        %code,
        remedy,
        "limits of output topics unknown: outputs that are too large, or without a key for a compacted topic, are \
         detected only by the brokers"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_parsed_from_topic_settings() {
        let parsed = |values: &[(&str, &str)]| {
            let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            limits_of(&TopicConfigs { topic: c"t".to_owned(), values: Ok(values.collect()) })
        };
        let limits = |batch_bytes, compacted| TopicLimits {
            batch_bytes,
            compacted,
            times: TimestampLimits::default(),
        };
        assert_eq!(
            parsed(&[("cleanup.policy", "delete"), ("max.message.bytes", "2000")]),
            limits(Some(2_000), false)
        );
        assert_eq!(parsed(&[("cleanup.policy", "compact,delete")]), limits(None, true));
        assert_eq!(
            parsed(&[("cleanup.policy", "delete, compact"), ("max.message.bytes", "?")]),
            limits(None, true)
        );
        let day = [("cleanup.policy", "delete"), ("retention.ms", "86400000")];
        let times = |values: &[(&str, &str)]| parsed(values).times;
        assert_eq!(
            times(&day),
            TimestampLimits { retention: Some(86_400_000), ..TimestampLimits::default() }
        );
        let unbounded = "9223372036854775807";
        assert_eq!(
            times(&[
                ("message.timestamp.before.max.ms", unbounded),
                ("message.timestamp.difference.max.ms", unbounded),
                ("message.timestamp.after.max.ms", "3600000"),
                ("cleanup.policy", "compact"),
                ("retention.ms", "1000"),
            ]),
            TimestampLimits { after: Some(3_600_000), ..TimestampLimits::default() }
        );
        let appended = [day[0], day[1], ("message.timestamp.type", "LogAppendTime")];
        assert_eq!(times(&appended), TimestampLimits::default());
        let denied =
            TopicConfigs { topic: c"t".to_owned(), values: Err(ErrorCode::TOPIC_AUTHORIZATION_FAILED) };
        assert_eq!(limits_of(&denied), TopicLimits::default());
    }
}
