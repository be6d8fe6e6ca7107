//! What a source finds out before it joins its group.
use std::ffi::CString;

use super::lookup::TopicFacts;
use super::spec::SourceSpec;
use crate::librdkafka::{
    ConfigError, Consumer, ErrorCode, Hopeless, NewPartitions, PartitionList, Purpose, Questions, TRY_LIMIT,
    TopicDescription,
};

const INPUTS: Purpose = Purpose { name: "the topic", rights: "READ and DESCRIBE" };

/// Why a source could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client refuses its properties.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The brokers, or the caller, end the waiting.
    #[error(transparent)]
    Hopeless(#[from] Hopeless),
    /// The group may not be used.
    #[error("group `{group}` can't be used: {code}; grant this user READ on it")]
    GroupDenied {
        /// Which.
        group: String,
        /// What the broker says.
        code: ErrorCode,
    },
    /// The consumer could not join.
    #[error("the consumer can't subscribe: {0}")]
    Subscribe(ErrorCode),
    /// No thread or descriptor could be had.
    #[error("the source can't start: {0}")]
    System(#[from] std::io::Error),
}

/// The topics, in the order of their names, and whether the group has a commit for any partition of each: once, before
/// it is joined.
pub(super) fn topic_facts(
    questions: &mut Questions<'_>,
    consumer: &Consumer,
    spec: &SourceSpec,
    names: &[CString],
) -> Result<Vec<TopicFacts>, Error> {
    let as_configured: NewPartitions<'_> = &|_| None;
    let found = questions.topics(names, INPUTS, spec.create_topics.then_some(as_configured))?;
    let fact = |topic: TopicDescription| TopicFacts {
        name: topic.name,
        id: topic.id,
        partitions: topic.partitions,
        has_commits: false,
    };
    let mut facts: Vec<TopicFacts> = found.into_iter().map(fact).collect();
    loop {
        match read_commits(consumer, &mut facts) {
            Ok(()) => return Ok(facts),
            Err(code @ ErrorCode::GROUP_AUTHORIZATION_FAILED) => {
                return Err(Error::GroupDenied { group: spec.group_id.clone(), code });
            }
            Err(code) => questions.wait(format!("the group's commits can't be read: {code}"))?,
        }
    }
}

fn read_commits(consumer: &Consumer, facts: &mut [TopicFacts]) -> Result<(), ErrorCode> {
    let mut list = PartitionList::with_capacity(facts.len());
    for topic in facts.iter() {
        for number in 0..topic.partitions {
            list.push(&topic.name, number, 0);
        }
    }
    consumer.committed(&mut list, TRY_LIMIT)?;
    if let Some(code) = list.iter().map(|entry| entry.error).find(|code| !code.is_none()) {
        return Err(code);
    }
    for topic in facts.iter_mut() {
        topic.has_commits = list.iter().any(|e| e.topic == topic.name.as_c_str() && e.offset >= 0);
    }
    Ok(())
}
