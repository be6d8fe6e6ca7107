//! The checks of a source before it joins its group.
use std::ffi::{CStr, CString};
use std::time::Duration;

use super::lookups::{TopicFacts, has_commits};
use super::spec::SourceSpec;
use crate::librdkafka::{
    ClientError, ErrorCode, GroupReader, NewPartitions, Properties, StartupError, StartupRequests,
    TopicDescription, TopicRole,
};

const INPUTS: TopicRole = TopicRole { name: "the topic", rights: "READ and DESCRIBE" };

/// Why a source could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client rejects its properties.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A request before the start failed, or the caller stopped waiting.
    #[error(transparent)]
    Startup(#[from] StartupError),
    /// Access to the group is denied.
    #[error("access to group `{group}` is denied: {code}; grant this user READ on it")]
    GroupDenied {
        /// The group's id.
        group: String,
        /// The broker's error code.
        code: ErrorCode,
    },
    /// A gate orders events by the timestamps of their producers, and the broker replaces these.
    #[error(
        "the topic `{topic}` has `message.timestamp.type=LogAppendTime`: `gate.by = \"timestamp\"` would order events as they \
         arrived; set it to `CreateTime`, or order by a header"
    )]
    LogAppendTime {
        /// The topic.
        topic: String,
    },
    /// A gate needs all events of a key from the first one on, and the topic may lose them.
    #[error(
        "the topic `{topic}` is compacted: keys whose first event was removed would wait for it; set `first = \"any\"` in the \
         gate, or use a topic without `cleanup.policy=compact`"
    )]
    Compacted {
        /// The topic.
        topic: String,
    },
    /// The consumer could not subscribe.
    #[error("the consumer can't subscribe: {0}")]
    Subscribe(ErrorCode),
    /// A thread or file descriptor could not be created.
    #[error("the source can't start: {0}")]
    System(#[from] std::io::Error),
}

/// Describes the topics, in the order of `names`, and determines for each whether the group has a commit for any of its
/// partitions. Creates missing topics if configured. Called once, before the group is joined.
pub(super) fn topic_facts(
    requests: &mut StartupRequests<'_>,
    spec: &SourceSpec,
    names: &[CString],
) -> Result<Vec<TopicFacts>, Error> {
    let broker_default: NewPartitions<'_> = &|_| None;
    let found = requests.topics(names, INPUTS, spec.create_topics.then_some(broker_default))?;
    let fact = |topic: TopicDescription| TopicFacts {
        name: topic.name,
        id: topic.id,
        partitions: topic.partitions,
        start_policy_applies: true,
    };
    let facts: Vec<TopicFacts> = found.into_iter().map(fact).collect();
    let group = spec.group_name().ok_or_else(|| StartupError::GroupName(spec.group_id.clone()))?;
    loop {
        let (properties, group, topics) = (spec.properties(), group.clone(), facts.clone());
        match requests.run(move |_, timeout| read_commits(&properties, timeout, &group, topics))?? {
            Ok(found) => return Ok(found),
            Err(code @ ErrorCode::GROUP_AUTHORIZATION_FAILED) => {
                return Err(Error::GroupDenied { group: spec.group_id.clone(), code });
            }
            Err(code) => requests.wait(format!("committed offsets of the group can't be read: {code}"))?,
        }
    }
}

fn read_commits(
    properties: &Properties,
    timeout: Duration,
    group: &CStr,
    mut facts: Vec<TopicFacts>,
) -> Result<Result<Vec<TopicFacts>, ErrorCode>, ClientError> {
    let reader = GroupReader::new(properties)?;
    // Twice the timeout, because the coordinator must be found by another request first.
    let (_reader, found) = reader.read(group, None, false, timeout + timeout);
    let commits = match found {
        Ok(commits) => commits,
        Err(code) => return Ok(Err(code)),
    };
    for topic in &mut facts {
        topic.start_policy_applies = !has_commits(&commits, &topic.name);
    }
    Ok(Ok(facts))
}
