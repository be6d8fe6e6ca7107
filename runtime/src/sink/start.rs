//! What a sink is made of, and the check of its topics.
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::ops::ControlFlow;
use std::time::Duration;

use crate::librdkafka::{
    ConfigError, Deadline, ErrorCode, EventKind, NewTopic, Producer, Properties, Queue, admin_broker,
    create_topics, describe_topics,
};

/// How long one try may take before it is said that the brokers do not answer.
const TRY_LIMIT: Duration = Duration::from_secs(3);
/// The pause between two tries; it serves the client's events.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a topic that was just created may be unknown.
const CREATED_LIMIT: Duration = Duration::from_secs(15);
/// What a topic takes unless it is configured otherwise, less what the batch's own header needs.
const BATCH_SIZE: usize = (1 << 20) - 1024;

/// Everything that a sink needs to know; all of it checked before.
#[derive(Clone, Debug)]
pub struct SinkSpec {
    /// Properties of the user, with `bootstrap.servers`; those that Keylane owns were refused before.
    pub client_properties: Vec<(String, String)>,
    /// The topics of all outputs: [`Output::topic`](super::Output::topic) is an index into it.
    pub topics: Vec<String>,
    /// Create missing topics with the brokers' defaults instead of refusing to start.
    pub create_topics: bool,
    /// Topics that, if they are created, get as many partitions as another one has.
    pub as_many_as: BTreeMap<String, String>,
    /// Bytes on their way per topic, so that a topic that does not move does not take the others' memory.
    pub max_bytes_per_topic: usize,
}

/// Why a sink could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client refuses its properties.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A topic name that can't be one.
    #[error("topic `{0}`: not a topic name")]
    TopicName(String),
    /// An output topic is missing.
    #[error(
        "the topic `{0}`, for outputs or dead letters, does not exist: create it, or set `create_topics = true` \
         under [kafka]"
    )]
    TopicMissing(String),
    /// A topic could not be created.
    #[error("{0}")]
    TopicNotCreated(String),
    /// A topic may not be used.
    #[error("the topic `{topic}` can't be written: {code}; grant this user WRITE and DESCRIBE on it")]
    TopicDenied {
        /// Which.
        topic: String,
        /// What the broker says.
        code: ErrorCode,
    },
    /// The brokers refuse who we are.
    #[error("authentication failed: {0}; check `sasl.*` and `security.protocol` under [kafka.client]")]
    Authentication(String),
    /// No thread could be had.
    #[error("the sink can't start: {0}")]
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

impl SinkSpec {
    /// The user's properties, then ours, which win.
    pub(super) fn properties(&self) -> Properties {
        let mut all = Properties::new(self.client_properties.clone());
        all.set("enable.idempotence", "true");
        all.set("acks", "all");
        // An outage holds lanes up; with a timeout it would become a loss that may not even be one.
        all.set("message.timeout.ms", 0);
        // The same partition for a key as Java clients choose.
        all.set("partitioner", "murmur2_random");
        // One limit for all topics would let a dead leader take everything: bytes per topic are counted here.
        all.set("queue.buffering.max.messages", 0);
        all.set("queue.buffering.max.kbytes", i32::MAX);
        all.set("batch.size", BATCH_SIZE);
        all.default_value("linger.ms", 5);
        all.default_value("client.id", "keylane");
        all.set("allow.auto.create.topics", "false");
        all
    }

    pub(super) fn topic_names(&self) -> Result<Vec<CString>, Error> {
        let name = |topic: &String| CString::new(topic.as_str()).map_err(|_| Error::TopicName(topic.clone()));
        self.topics.iter().map(name).collect()
    }
}

/// Waits until the brokers have described every topic; creates what is missing if that is wanted.
pub(super) fn check_topics(
    producer: &Producer,
    events: &Queue,
    spec: &SinkSpec,
    names: &[CString],
    patience: &mut dyn FnMut(&Waiting) -> ControlFlow<()>,
) -> Result<(), Error> {
    let mut unique = names.to_vec();
    unique.sort();
    unique.dedup();
    let mut created: Option<Deadline> = None;
    while !unique.is_empty() {
        let found = admin_broker(producer.client(), TRY_LIMIT)
            .and_then(|broker| describe_topics(producer.client(), &unique, broker, TRY_LIMIT));
        let reason = match found {
            Err(code) => format!("the brokers do not answer: {code}"),
            Ok(found) => {
                let wrong = found.iter().filter(|topic| !topic.error.is_none()).collect::<Vec<_>>();
                let Some(first) = wrong.first() else { return Ok(()) };
                let name = first.name.to_string_lossy().into_owned();
                match first.error {
                    ErrorCode::UNKNOWN_TOPIC_OR_PART if spec.create_topics && created.is_none() => {
                        let missing: Vec<NewTopic> = wrong
                            .iter()
                            .filter(|topic| topic.error == ErrorCode::UNKNOWN_TOPIC_OR_PART)
                            .map(|topic| NewTopic {
                                name: topic.name.clone(),
                                partitions: partitions_for(producer, spec, &topic.name),
                            })
                            .collect();
                        create_topics(producer.client(), &missing, TRY_LIMIT)
                            .map_err(Error::TopicNotCreated)?;
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
        wait(events, reason, patience)?;
    }
    Ok(())
}

/// As many as the topic has that it should be like; `None`: as the brokers are configured.
fn partitions_for(producer: &Producer, spec: &SinkSpec, name: &CStr) -> Option<i32> {
    let like = CString::new(spec.as_many_as.get(name.to_str().ok()?)?.as_str()).ok()?;
    let broker = admin_broker(producer.client(), TRY_LIMIT).ok()?;
    let found = describe_topics(producer.client(), &[like], broker, TRY_LIMIT).ok()?;
    found.first().filter(|topic| topic.error.is_none()).map(|topic| topic.partitions)
}

/// Serves the client's events for a while; some of them end the waiting.
fn wait(
    events: &Queue,
    mut reason: String,
    patience: &mut dyn FnMut(&Waiting) -> ControlFlow<()>,
) -> Result<(), Error> {
    let pause = Deadline::after(PAUSE);
    while !pause.is_over() {
        if let Some(event) = events.poll(pause.remaining())
            && event.kind() == EventKind::Error
        {
            reason = event.text();
            if matches!(event.error(), ErrorCode::AUTHENTICATION | ErrorCode::SASL_AUTHENTICATION_FAILED) {
                return Err(Error::Authentication(reason));
            }
        }
    }
    match patience(&Waiting { reason }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Stopped),
    }
}
