//! The settings of input topics that a gate needs.

use std::ffi::{CStr, CString};

use super::startup_checks::Error;
use crate::librdkafka::{ErrorCode, StartupRequests};

const TIME_TYPE: &CStr = c"message.timestamp.type";
const CLEANUP: &CStr = c"cleanup.policy";

/// What a handler needs of its topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicNeeds {
    /// The timestamps of records are those of their producers.
    pub create_time: bool,
    /// No record is removed because a later one has its key.
    pub all_records: bool,
}

/// Refuses topics that do not have what the handler needs. Settings that this user may not see are not checked, which is logged.
pub(super) fn check(
    requests: &mut StartupRequests<'_>,
    handler: &str,
    topics: &[CString],
    needs: TopicNeeds,
) -> Result<(), Error> {
    if needs == TopicNeeds::default() {
        return Ok(());
    }
    for topic in requests.topic_settings(topics, &[TIME_TYPE, CLEANUP])? {
        let name = topic.topic.to_string_lossy();
        match &topic.values {
            Ok(values) => check_topic(&name, values, needs)?,
            // Brokers that do not support the request, such as the embedded one.
            Err(ErrorCode::UNSUPPORTED_FEATURE) => {}
            Err(code) => tracing::warn!(
                handler,
                topic = &*name,
                %code,
                remedy = "grant this user DESCRIBE_CONFIGS on the topic",
                "settings of a topic can't be read: whether its gate can work is not checked"
            ),
        }
    }
    Ok(())
}

fn check_topic(name: &str, values: &[(String, String)], needs: TopicNeeds) -> Result<(), Error> {
    let value = |wanted: &CStr| {
        let known = values.iter().find(|(known, _)| known.as_bytes() == wanted.to_bytes());
        known.map_or("", |(_, value)| value.as_str())
    };
    if needs.create_time && value(TIME_TYPE) == "LogAppendTime" {
        return Err(Error::LogAppendTime { topic: name.to_owned() });
    }
    if needs.all_records && value(CLEANUP).split(',').any(|policy| policy.trim() == "compact") {
        return Err(Error::Compacted { topic: name.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(settings: &[(&str, &str)], create_time: bool, all_records: bool) -> Result<(), String> {
        let settings: Vec<_> =
            settings.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let checked = check_topic("in", &settings, TopicNeeds { create_time, all_records });
        checked.map_err(|error| error.to_string())
    }

    #[test]
    fn topics_that_a_gate_cannot_use_are_refused() {
        let append = [("message.timestamp.type", "LogAppendTime"), ("cleanup.policy", "delete")];
        let compacted = [("message.timestamp.type", "CreateTime"), ("cleanup.policy", "compact, delete")];
        let error = check(&append, true, true).expect_err("the broker sets the times");
        assert!(error.contains("`in`") && error.contains("LogAppendTime"), "{error}");
        let error = check(&compacted, true, true).expect_err("records are missing");
        assert!(error.contains("`in`") && error.contains("`first = \"any\"`"), "{error}");
        assert_eq!(check(&append, false, true), Ok(()));
        assert_eq!(check(&compacted, true, false), Ok(()));
        assert_eq!(check(&[], true, true), Ok(()));
    }
}
