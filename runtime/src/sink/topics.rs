//! What a sink asks about its topics before it starts: whether they are there, and what they take.
use std::ffi::{CStr, CString};
use std::ops::ControlFlow;
use std::time::Duration;

use super::limits::TopicLimits;
use super::start::{Error, SinkSpec, Waiting};
use crate::librdkafka::{
    Deadline, ErrorCode, EventKind, NewTopic, Producer, Properties, Queue, TopicConfigs, TopicDescription,
    admin_broker, create_topics, describe_topic_configs, describe_topics,
};

/// How long one try may take before it is said that the brokers do not answer.
pub(super) const TRY_LIMIT: Duration = Duration::from_secs(3);
/// The pause between two tries; it serves the client's events.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a topic that was just created may be unknown.
const CREATED_LIMIT: Duration = Duration::from_secs(15);
/// How long it is tried to learn what topics take. It is not needed: the brokers look, too.
const LIMITS_LIMIT: Duration = Duration::from_secs(10);

/// One size or policy each.
const MAX_BYTES: &CStr = c"max.message.bytes";
const CLEANUP: &CStr = c"cleanup.policy";

/// Asks the caller whether to go on waiting.
pub(super) type Patience<'a> = &'a mut dyn FnMut(&Waiting) -> ControlFlow<()>;

/// The questions before the start. They have a client of their own: what the producer is made with follows from the
/// answers. Brokers may be away: that is waited for, not an error.
pub(super) struct Questions<'a> {
    client: Producer,
    events: Queue,
    spec: &'a SinkSpec,
    names: &'a [CString],
    patience: Patience<'a>,
}

impl<'a> Questions<'a> {
    pub(super) fn new(
        properties: &Properties,
        spec: &'a SinkSpec,
        names: &'a [CString],
        patience: Patience<'a>,
    ) -> Result<Questions<'a>, Error> {
        let client = Producer::new(properties)?;
        let events = client.main_queue();
        Ok(Questions { client, events, spec, names, patience })
    }

    /// Waits until the brokers have described every topic; creates what is missing if that is wanted. Then asks what each
    /// of them takes.
    pub(super) fn ask(mut self) -> Result<Vec<TopicLimits>, Error> {
        let mut unique = self.names.to_vec();
        unique.sort();
        unique.dedup();
        if unique.is_empty() {
            return Ok(Vec::new());
        }
        self.wait_for_topics(&unique)?;
        let told = self.configs(&unique)?;
        tell_unknown(&told);
        let limits = |name: &CString| told.iter().find(|topic| topic.topic == *name).map(limits_of);
        Ok(self.names.iter().map(|name| limits(name).unwrap_or_default()).collect())
    }

    fn wait_for_topics(&mut self, unique: &[CString]) -> Result<(), Error> {
        let mut created: Option<Deadline> = None;
        loop {
            let found = admin_broker(self.client.client(), TRY_LIMIT)
                .and_then(|broker| describe_topics(self.client.client(), unique, broker, TRY_LIMIT));
            let reason = match found {
                Err(code) => format!("the brokers do not answer: {code}"),
                Ok(found) => {
                    let wrong = found.iter().filter(|topic| !topic.error.is_none()).collect::<Vec<_>>();
                    let Some(first) = wrong.first() else { return Ok(()) };
                    let name = first.name.to_string_lossy().into_owned();
                    match first.error {
                        ErrorCode::UNKNOWN_TOPIC_OR_PART if self.spec.create_topics && created.is_none() => {
                            self.create(&wrong)?;
                            created = Some(Deadline::after(CREATED_LIMIT));
                            continue;
                        }
                        ErrorCode::UNKNOWN_TOPIC_OR_PART if created.is_none_or(Deadline::is_over) => {
                            return Err(Error::TopicMissing(name));
                        }
                        ErrorCode::TOPIC_EXCEPTION => return Err(Error::TopicName(name)),
                        code @ ErrorCode::TOPIC_AUTHORIZATION_FAILED => {
                            return Err(Error::TopicDenied { topic: name, code });
                        }
                        code => format!("topic `{name}`: {code}"),
                    }
                }
            };
            self.wait(reason)?;
        }
    }

    /// Creates those of them that are missing.
    fn create(&self, wrong: &[&TopicDescription]) -> Result<(), Error> {
        let missing = wrong.iter().filter(|topic| topic.error == ErrorCode::UNKNOWN_TOPIC_OR_PART);
        let new = |topic: &&TopicDescription| NewTopic {
            name: topic.name.clone(),
            partitions: self.partitions_for(&topic.name),
        };
        let missing: Vec<NewTopic> = missing.map(new).collect();
        create_topics(self.client.client(), &missing, TRY_LIMIT).map_err(Error::TopicNotCreated)
    }

    /// As many as the topic has that it should be like; `None`: as the brokers are configured.
    fn partitions_for(&self, name: &CStr) -> Option<i32> {
        let like = CString::new(self.spec.as_many_as.get(name.to_str().ok()?)?.as_str()).ok()?;
        let broker = admin_broker(self.client.client(), TRY_LIMIT).ok()?;
        let found = describe_topics(self.client.client(), &[like], broker, TRY_LIMIT).ok()?;
        found.first().filter(|topic| topic.error.is_none()).map(|topic| topic.partitions)
    }

    /// How the topics are configured, as far as the brokers tell it within a limit.
    fn configs(&mut self, unique: &[CString]) -> Result<Vec<TopicConfigs>, Error> {
        let limit = Deadline::after(LIMITS_LIMIT);
        loop {
            let client = self.client.client();
            let told = admin_broker(client, TRY_LIMIT).and_then(|broker| {
                describe_topic_configs(client, unique, &[MAX_BYTES, CLEANUP], broker, TRY_LIMIT)
            });
            let passing = match &told {
                Ok(told) => {
                    told.iter().find_map(|topic| topic.values.as_ref().err().filter(|code| passes(**code)))
                }
                Err(code) => Some(code).filter(|code| passes(**code)),
            };
            match (passing.copied(), told) {
                (Some(code), _) if !limit.is_over() => {
                    self.wait(format!("the brokers do not say what topics take: {code}"))?;
                }
                (_, Ok(told)) => return Ok(told),
                (_, Err(code)) => {
                    let untold = |topic: &CString| TopicConfigs { topic: topic.clone(), values: Err(code) };
                    return Ok(unique.iter().map(untold).collect());
                }
            }
        }
    }

    /// Serves the client's events for a while; some of them end the waiting.
    fn wait(&mut self, mut reason: String) -> Result<(), Error> {
        let pause = Deadline::after(PAUSE);
        while !pause.is_over() {
            if let Some(event) = self.events.poll(pause.remaining())
                && event.kind() == EventKind::Error
            {
                reason = event.text();
                if matches!(event.error(), ErrorCode::AUTHENTICATION | ErrorCode::SASL_AUTHENTICATION_FAILED)
                {
                    return Err(Error::Authentication(reason));
                }
            }
        }
        match (self.patience)(&Waiting { reason }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Stopped),
        }
    }
}

/// Whether another try may find out more: a topic that was just created, a broker that is away for a moment.
fn passes(code: ErrorCode) -> bool {
    !is_denied(code) && code != ErrorCode::UNSUPPORTED_FEATURE
}

fn is_denied(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::TOPIC_AUTHORIZATION_FAILED | ErrorCode::CLUSTER_AUTHORIZATION_FAILED)
}

fn limits_of(topic: &TopicConfigs) -> TopicLimits {
    let values = topic.values.as_deref().unwrap_or_default();
    let value = |name: &CStr| {
        values.iter().find(|(known, _)| known.as_bytes() == name.to_bytes()).map(|(_, value)| value.as_str())
    };
    TopicLimits {
        batch_bytes: value(MAX_BYTES).and_then(|bytes| bytes.parse().ok()),
        compacted: value(CLEANUP)
            .is_some_and(|policy| policy.split(',').any(|word| word.trim() == "compact")),
    }
}

/// One line about all topics of which it is not known what they take. The embedded broker has no such limits, and nobody
/// could do anything about a broker that does not know the question.
fn tell_unknown(told: &[TopicConfigs]) {
    let untold = |topic: &TopicConfigs| {
        let code = topic.values.as_ref().err().copied()?;
        (code != ErrorCode::UNSUPPORTED_FEATURE).then(|| (topic.topic.to_string_lossy().into_owned(), code))
    };
    let untold: Vec<_> = told.iter().filter_map(untold).collect();
    let Some((_, code)) = untold.first() else { return };
    let topics = untold.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let remedy = if is_denied(*code) {
        "grant this user DESCRIBE_CONFIGS on them"
    } else {
        "see why the brokers do not answer, and start again"
    };
    tracing::warn!(
        topics,
        %code,
        remedy,
        "it is not known what output topics take: outputs that are too large, or without a key for a compacted topic, \
         are found only by the brokers"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_from_what_is_told() {
        let told = |values: &[(&str, &str)]| {
            let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            limits_of(&TopicConfigs { topic: c"t".to_owned(), values: Ok(values.collect()) })
        };
        let limits = |batch_bytes, compacted| TopicLimits { batch_bytes, compacted };
        assert_eq!(
            told(&[("cleanup.policy", "delete"), ("max.message.bytes", "2000")]),
            limits(Some(2_000), false)
        );
        assert_eq!(told(&[("cleanup.policy", "compact,delete")]), limits(None, true));
        assert_eq!(
            told(&[("cleanup.policy", "delete, compact"), ("max.message.bytes", "?")]),
            limits(None, true)
        );
        let denied =
            TopicConfigs { topic: c"t".to_owned(), values: Err(ErrorCode::TOPIC_AUTHORIZATION_FAILED) };
        assert_eq!(limits_of(&denied), TopicLimits::default());
    }
}
