//! What a source finds out before it joins its group.
use std::ffi::CString;
use std::ops::ControlFlow;
use std::time::Duration;

use super::errors::{is_authentication, source_error};
use super::lookup::TopicFacts;
use super::spec::SourceSpec;
use crate::librdkafka::{
    AdminBroker, ConfigError, Consumer, Deadline, ErrorCode, EventKind, NewTopic, PartitionList, Queue,
    TopicDescription, admin_broker, create_topics, describe_topics,
};

/// How long one try may take before it is said that the brokers do not answer.
const TRY_LIMIT: Duration = Duration::from_secs(3);
/// The pause between two tries; it serves the client's events.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a topic that was just created may be unknown.
const CREATED_LIMIT: Duration = Duration::from_secs(15);

/// Why a source could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client refuses its properties.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A topic name that can't be one.
    #[error("topic `{0}`: not a topic name")]
    TopicName(String),
    /// A topic is missing.
    #[error("topic `{0}` does not exist: create it, or set `create_topics = true`")]
    TopicMissing(String),
    /// A topic could not be created.
    #[error("{0}")]
    TopicNotCreated(String),
    /// A topic may not be read.
    #[error("topic `{topic}` can't be used: {code}; grant this user READ and DESCRIBE on it")]
    TopicDenied {
        /// Which.
        topic: String,
        /// What the broker says.
        code: ErrorCode,
    },
    /// The group may not be used.
    #[error("group `{group}` can't be used: {code}; grant this user READ on it")]
    GroupDenied {
        /// Which.
        group: String,
        /// What the broker says.
        code: ErrorCode,
    },
    /// The brokers refuse who we are.
    #[error("authentication failed: {0}")]
    Authentication(String),
    /// The consumer could not join.
    #[error("the consumer can't subscribe: {0}")]
    Subscribe(ErrorCode),
    /// No thread or descriptor could be had.
    #[error("the source can't start: {0}")]
    System(#[from] std::io::Error),
    /// The caller did not want to wait longer.
    #[error("stopped while waiting for the brokers")]
    Stopped,
}

/// A try that failed; another follows unless the caller breaks.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// What does not work yet, for people.
    pub reason: String,
}

/// Asks the caller whether to go on waiting.
pub(super) type Patience<'a> = &'a mut dyn FnMut(&Waiting) -> ControlFlow<()>;

/// The questions before the start. The broker may be away: that is waited for, not an error.
pub(super) struct Preparation<'a> {
    pub(super) consumer: &'a Consumer,
    pub(super) events: &'a Queue,
    pub(super) spec: &'a SourceSpec,
    pub(super) patience: Patience<'a>,
}

impl Preparation<'_> {
    pub(super) fn admin_broker(&mut self) -> Result<AdminBroker, Error> {
        loop {
            match admin_broker(self.consumer.client(), TRY_LIMIT) {
                Ok(broker) => return Ok(broker),
                Err(code) => self.wait(format!("the brokers do not answer: {code}"))?,
            }
        }
    }

    pub(super) fn topic_facts(
        &mut self,
        names: &[CString],
        broker: AdminBroker,
    ) -> Result<Vec<TopicFacts>, Error> {
        let described = self.described(names, broker)?;
        let mut facts: Vec<TopicFacts> = described
            .into_iter()
            .map(|topic| TopicFacts {
                name: topic.name,
                id: topic.id,
                partitions: topic.partitions,
                has_commits: false,
            })
            .collect();
        self.read_commits(&mut facts)?;
        Ok(facts)
    }

    /// Waits until every topic is described; creates what is missing if that is wanted.
    fn described(&mut self, names: &[CString], broker: AdminBroker) -> Result<Vec<TopicDescription>, Error> {
        let mut created: Option<Deadline> = None;
        loop {
            let found = describe_topics(self.consumer.client(), names, broker, TRY_LIMIT);
            let reason = match found {
                Ok(found) => match self.missing(names, &found, created)? {
                    Missing::Nothing(sorted) => return Ok(sorted),
                    Missing::Create(missing) => {
                        create_topics(self.consumer.client(), &missing, TRY_LIMIT)
                            .map_err(Error::TopicNotCreated)?;
                        created = Some(Deadline::after(CREATED_LIMIT));
                        continue;
                    }
                    Missing::NotYet(reason) => reason,
                },
                Err(code) => format!("the brokers do not answer: {code}"),
            };
            self.wait(reason)?;
        }
    }

    fn missing(
        &self,
        names: &[CString],
        found: &[TopicDescription],
        created: Option<Deadline>,
    ) -> Result<Missing, Error> {
        let mut sorted = Vec::with_capacity(names.len());
        let mut missing = Vec::new();
        for name in names {
            let text = name.to_string_lossy().into_owned();
            let Some(topic) = found.iter().find(|topic| topic.name == *name) else {
                return Ok(Missing::NotYet(format!("topic `{text}` is not described")));
            };
            match topic.error {
                ErrorCode::NONE if topic.partitions > 0 => sorted.push(topic.clone()),
                ErrorCode::UNKNOWN_TOPIC_OR_PART | ErrorCode::UNKNOWN_TOPIC => match created {
                    None if self.spec.create_topics => {
                        missing.push(NewTopic { name: name.clone(), partitions: None });
                    }
                    Some(limit) if !limit.is_over() => {
                        return Ok(Missing::NotYet(format!("topic `{text}` is being created")));
                    }
                    _ => return Err(Error::TopicMissing(text)),
                },
                ErrorCode::TOPIC_EXCEPTION => return Err(Error::TopicName(text)),
                ErrorCode::TOPIC_AUTHORIZATION_FAILED => {
                    return Err(Error::TopicDenied { topic: text, code: topic.error });
                }
                code => return Ok(Missing::NotYet(format!("topic `{text}`: {code}"))),
            }
        }
        Ok(if missing.is_empty() { Missing::Nothing(sorted) } else { Missing::Create(missing) })
    }

    /// Whether the group has a commit for any partition of each topic: once, before it is joined.
    fn read_commits(&mut self, facts: &mut [TopicFacts]) -> Result<(), Error> {
        loop {
            let mut list = PartitionList::with_capacity(facts.len());
            for topic in facts.iter() {
                for number in 0..topic.partitions {
                    list.push(&topic.name, number, 0);
                }
            }
            let result = self.consumer.committed(&mut list, TRY_LIMIT);
            let code =
                result.err().or_else(|| list.iter().map(|entry| entry.error).find(|code| !code.is_none()));
            match code {
                None => {
                    for topic in facts.iter_mut() {
                        topic.has_commits =
                            list.iter().any(|e| e.topic == topic.name.as_c_str() && e.offset >= 0);
                    }
                    return Ok(());
                }
                Some(code @ ErrorCode::GROUP_AUTHORIZATION_FAILED) => {
                    return Err(Error::GroupDenied { group: self.spec.group_id.clone(), code });
                }
                Some(code) => self.wait(format!("the group's commits can't be read: {code}"))?,
            }
        }
    }

    /// Serves the client's events for a while; some of them end the waiting.
    fn wait(&mut self, mut reason: String) -> Result<(), Error> {
        let pause = Deadline::after(PAUSE);
        loop {
            if let Some(event) = self.events.poll(pause.remaining())
                && event.kind() == EventKind::Error
            {
                let error = source_error(event.error(), &event.text(), event.is_fatal());
                if is_authentication(error.code) {
                    return Err(Error::Authentication(error.text));
                }
                reason = error.text;
            }
            if pause.is_over() {
                break;
            }
        }
        match (self.patience)(&Waiting { reason }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Stopped),
        }
    }
}

enum Missing {
    /// All are there, in the order of the names.
    Nothing(Vec<TopicDescription>),
    /// These are to be created.
    Create(Vec<NewTopic>),
    /// Ask again.
    NotYet(String),
}
