//! What a source finds out before it joins its group.
use std::ffi::{CStr, CString};
use std::time::Duration;

use super::look_ups::{TopicFacts, has_commits};
use super::spec::SourceSpec;
use crate::librdkafka::{
    ConfigError, ErrorCode, GroupReader, NewPartitions, PermanentStartupError, Properties, Purpose,
    Questions, TopicDescription,
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
    PermanentStartupError(#[from] PermanentStartupError),
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
    let facts: Vec<TopicFacts> = found.into_iter().map(fact).collect();
    let group = spec.group_name().ok_or_else(|| PermanentStartupError::GroupName(spec.group_id.clone()))?;
    loop {
        let (properties, group, asked) = (spec.properties(), group.clone(), facts.clone());
        match questions.ask(move |_, limit| read_commits(&properties, limit, &group, asked))?? {
            Ok(found) => return Ok(found),
            Err(code @ ErrorCode::GROUP_AUTHORIZATION_FAILED) => {
                return Err(Error::GroupDenied { group: spec.group_id.clone(), code });
            }
            Err(code) => questions.wait(format!("the group's commits can't be read: {code}"))?,
        }
    }
}

fn read_commits(
    properties: &Properties,
    limit: Duration,
    group: &CStr,
    mut facts: Vec<TopicFacts>,
) -> Result<Result<Vec<TopicFacts>, ErrorCode>, ConfigError> {
    let reader = GroupReader::new(properties)?;
    // Finding the coordinator is a question by itself.
    let (_reader, found) = reader.read(group, None, false, limit + limit);
    let commits = match found {
        Ok(commits) => commits,
        Err(code) => return Ok(Err(code)),
    };
    for topic in &mut facts {
        topic.has_commits = has_commits(&commits, &topic.name);
    }
    Ok(Ok(facts))
}
