//! The topics of changelogs, before a handler starts: created if they are missing, and refused if they would lose states.

use std::ffi::{CStr, CString};
use std::time::Duration;

use crate::librdkafka::{
    ClientError, ErrorCode, KeepWaiting, NewTopic, Producer, Properties, StartupError, StartupRequests,
    TopicConfigs, TopicDescription, TopicRole, admin_broker, create_topics, describe_topics,
};

const CHANGELOGS: TopicRole = TopicRole { name: "the changelog", rights: "READ, WRITE and DESCRIBE" };
const INPUTS: TopicRole = TopicRole { name: "the topic", rights: "READ and DESCRIBE" };

const CLEANUP: &CStr = c"cleanup.policy";
const MAX_BYTES: &CStr = c"max.message.bytes";
const DELETE_RETENTION: &CStr = c"delete.retention.ms";
/// The settings of a new changelog. Tombstones are kept for a week, so that files of stopped processes stay usable.
const NEW: &[(&CStr, &CStr)] =
    &[(CLEANUP, c"compact"), (DELETE_RETENTION, c"604800000"), (c"min.cleanable.dirty.ratio", c"0.1")];
/// The brokers' default of `delete.retention.ms`.
const DELETE_RETENTION_DEFAULT: Duration = Duration::from_hours(24);
/// Bytes of a batch besides the state of one key: its header, and a record with its key.
const RECORD_RESERVE: usize = 8 << 10;

/// A changelog that a handler needs.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The changelog.
    pub name: String,
    /// The input topic, whose partitions it has.
    pub input: String,
    /// Maximum bytes of the state of one key.
    pub max_value: usize,
}

/// A changelog that exists.
#[derive(Clone, Debug)]
pub struct Changelog {
    /// The topic.
    pub name: CString,
    /// Its topic id; `None`: the brokers have none.
    pub id: Option<[u8; 16]>,
    /// The number of partitions: that of the input topic when the handler started.
    pub partitions: i32,
    /// How long it keeps the tombstones of deleted keys.
    pub delete_retention: Duration,
}

/// Why a changelog can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client rejects its properties.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A request failed.
    #[error(transparent)]
    Startup(#[from] StartupError),
    /// The name of a topic contains a NUL byte.
    #[error("the topic name `{0}` contains a NUL byte")]
    Name(String),
    /// The settings of the topic can't be read.
    #[error(
        "the settings of the changelog `{topic}` can't be read: {code}; grant this user DESCRIBE_CONFIGS on it: Keylane \
         must know that no state is deleted"
    )]
    SettingsUnknown {
        /// The topic.
        topic: String,
        /// The error.
        code: ErrorCode,
    },
    /// The topic is not only compacted.
    #[error(
        "the changelog `{topic}` has `cleanup.policy={policy}`, which deletes states; it must be exactly \"compact\""
    )]
    NotCompacted {
        /// The topic.
        topic: String,
        /// Its policy.
        policy: String,
    },
    /// The topic has another number of partitions than the input topic.
    #[error(
        "the changelog `{topic}` has {found} partitions and its input topic `{input}` has {wanted}: the state of a key is \
         in the partition of its events; if partitions were added, the keys of events have moved: see \
         docs/keyed-state.md, \"Adding partitions\""
    )]
    Partitions {
        /// The topic.
        topic: String,
        /// The input topic.
        input: String,
        /// Its number of partitions.
        found: i32,
        /// That of the input topic.
        wanted: i32,
    },
    /// The topic does not accept states of the configured size.
    #[error(
        "the changelog `{topic}` accepts batches of {limit} bytes, and the state of a key may have {max_value}: lower \
         `state.max_value`, or raise the topic's `max.message.bytes`"
    )]
    TooSmall {
        /// The topic.
        topic: String,
        /// Its limit.
        limit: usize,
        /// The maximum of the state.
        max_value: usize,
    },
}

/// Creates the changelogs that do not exist, and checks all of them. Waits for unavailable brokers. `create_inputs`:
/// whether missing input topics are created.
///
/// # Errors
/// A topic can't be used as a changelog, or can't be described or created.
pub fn prepare(
    properties: &Properties,
    wanted: &[Wanted],
    create_inputs: bool,
    keep_waiting: KeepWaiting<'_>,
) -> Result<Vec<Changelog>, Error> {
    let name = |name: &String| CString::new(name.as_str()).map_err(|_| Error::Name(name.clone()));
    let names = wanted.iter().map(|wanted| name(&wanted.name)).collect::<Result<Vec<_>, _>>()?;
    let inputs = wanted.iter().map(|wanted| name(&wanted.input)).collect::<Result<Vec<_>, _>>()?;
    let producer = Producer::new(properties)?;
    let events = producer.main_queue();
    let timeout = properties.response_timeout();
    let mut requests = StartupRequests::new(producer.client(), &events, timeout, keep_waiting);
    let inputs = requests.topics(&inputs, INPUTS, create_inputs.then_some(&|_: &CStr| None))?;
    let new: Vec<NewTopic> = names
        .iter()
        .zip(&inputs)
        .map(|(name, input)| NewTopic {
            name: name.clone(),
            partitions: Some(input.partitions),
            configs: NEW,
        })
        .collect();
    create_missing(&mut requests, new)?;
    let topics = requests.new_topics(&names, CHANGELOGS)?;
    let settings = settings(&mut requests, &names)?;
    let described = wanted.iter().zip(&inputs).zip(topics.iter().zip(&settings));
    described.map(|((wanted, input), (topic, settings))| check(wanted, input, topic, settings)).collect()
}

fn create_missing(requests: &mut StartupRequests<'_>, new: Vec<NewTopic>) -> Result<(), StartupError> {
    let names: Vec<CString> = new.iter().map(|topic| topic.name.clone()).collect();
    let described = loop {
        let names = names.clone();
        let described = requests.run(move |client, timeout| {
            admin_broker(client, timeout).and_then(|broker| describe_topics(client, &names, broker, timeout))
        })?;
        match described {
            Ok(described) => break described,
            Err(code) => requests.wait(format!("the brokers do not respond: {code}"))?,
        }
    };
    let is_missing = |topic: &NewTopic| {
        let mut described = described.iter().filter(|known| known.name == topic.name);
        described
            .any(|known| matches!(known.error, ErrorCode::UNKNOWN_TOPIC_OR_PART | ErrorCode::UNKNOWN_TOPIC))
    };
    let missing: Vec<NewTopic> = new.into_iter().filter(is_missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for topic in &missing {
        let partitions = topic.partitions.unwrap_or_default();
        tracing::info!(topic = %topic.name.to_string_lossy(), partitions, "changelog is created");
    }
    requests
        .run(move |client, timeout| create_topics(client, &missing, timeout))?
        .map_err(StartupError::TopicNotCreated)
}

/// Requests the settings of the topics, in their order.
fn settings(requests: &mut StartupRequests<'_>, names: &[CString]) -> Result<Vec<TopicConfigs>, Error> {
    let found = requests.topic_settings(names, &[CLEANUP, MAX_BYTES, DELETE_RETENTION])?;
    match found.iter().find_map(|topic| Some((topic, topic.values.as_ref().err().copied()?))) {
        None => Ok(found),
        Some((topic, code)) => Err(Error::SettingsUnknown { topic: text(&topic.topic), code }),
    }
}

fn check(
    wanted: &Wanted,
    input: &TopicDescription,
    topic: &TopicDescription,
    settings: &TopicConfigs,
) -> Result<Changelog, Error> {
    let name = || wanted.name.clone();
    let values = settings.values.as_deref().unwrap_or_default();
    let value = |name: &CStr| {
        values.iter().find(|(known, _)| known.as_bytes() == name.to_bytes()).map(|(_, value)| value.trim())
    };
    let policy = value(CLEANUP).unwrap_or_default();
    if policy != "compact" {
        return Err(Error::NotCompacted { topic: name(), policy: policy.to_owned() });
    }
    if topic.partitions != input.partitions {
        let (found, wanted_count) = (topic.partitions, input.partitions);
        let input = wanted.input.clone();
        return Err(Error::Partitions { topic: name(), input, found, wanted: wanted_count });
    }
    let limit = value(MAX_BYTES).and_then(|bytes| bytes.parse().ok()).unwrap_or(usize::MAX);
    if limit < wanted.max_value.saturating_add(RECORD_RESERVE) {
        return Err(Error::TooSmall { topic: name(), limit, max_value: wanted.max_value });
    }
    let retention = value(DELETE_RETENTION).and_then(|millis| millis.parse().ok());
    Ok(Changelog {
        name: topic.name.clone(),
        id: (topic.id != [0; 16]).then_some(topic.id),
        partitions: topic.partitions,
        delete_retention: retention.map_or(DELETE_RETENTION_DEFAULT, Duration::from_millis),
    })
}

fn text(name: &CStr) -> String {
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(values: &[(&str, &str)], partitions: i32) -> Result<Changelog, String> {
        let description = |name: &CStr, partitions| TopicDescription {
            name: name.to_owned(),
            partitions,
            id: [7; 16],
            error: ErrorCode::NONE,
        };
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings = TopicConfigs { topic: c"keys".to_owned(), values: Ok(values.collect()) };
        let wanted = Wanted { name: "keys".to_owned(), input: "orders".to_owned(), max_value: 100_000 };
        check(&wanted, &description(c"orders", 3), &description(c"keys", partitions), &settings)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_topic_that_would_lose_states_is_refused() {
        let compacted = ("cleanup.policy", "compact");
        let found =
            checked(&[compacted, ("delete.retention.ms", "60000"), ("max.message.bytes", "108192")], 3);
        let found = found.expect("a changelog");
        assert_eq!((found.id, found.delete_retention.as_secs()), (Some([7; 16]), 60));
        for (values, partitions, expected) in [
            (
                &[("cleanup.policy", "compact,delete")][..],
                3,
                "`cleanup.policy=compact,delete`, which deletes",
            ),
            (&[], 3, "must be exactly \"compact\""),
            (&[compacted], 2, "has 2 partitions and its input topic `orders` has 3"),
            (&[compacted, ("max.message.bytes", "108191")], 3, "accepts batches of 108191 bytes"),
        ] {
            let error = checked(values, partitions).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
    }
}
