//! The commands for keyed state: they read and write changelogs and committed offsets, without the handler.
//!
//! [`log_reader`] reads partitions of a changelog, [`states`] makes states of its records, [`group`] describes the group
//! and its offsets, [`transaction`] writes. [`reset`], [`adopt`], [`accept`] and [`marks`] are the commands that write.
//!
//! *Invariants.* Commands that write need a group without members. What is read before a write was decided: open
//! transactions are waited for. A state never belongs to another offset than its binding says, at whatever moment a
//! command is interrupted.

mod accept;
mod adopt;
mod group;
mod log_reader;
mod marks;
mod reset;
mod states;
mod transaction;

use std::ffi::{CStr, CString};
use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use keylane_state::BindingIdentity;

use super::group_status::no_broker;
use super::start::{Access, client_properties, credentials, keys_of, source_spec};
use crate::config::{Checked, HandlerConfig};
use crate::librdkafka::{
    Consumer, Deadline, Properties, StartupError, StartupRequests, TopicDescription, TopicRole, Waiting,
};
use log_reader::LogReader;

pub use accept::Accepted;
pub use adopt::Adopted;
pub use marks::{KnownMark, NewMarks, WrittenMarks};
pub use reset::ResetPartition;
pub use states::StateOfKey;

/// Time limit of the first response of a broker, and of the descriptions of topics.
const CONTACT_TIMEOUT: Duration = Duration::from_secs(10);
/// The rest of the time limit, to find out why no broker responds.
const DIAGNOSIS_TIMEOUT: Duration = Duration::from_secs(5);

const INPUTS: TopicRole = TopicRole { name: "the topic", rights: "READ and DESCRIBE" };
const CHANGELOGS: TopicRole = TopicRole { name: "the changelog", rights: "READ and DESCRIBE" };

/// The partitions that a command is about.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only those of this input topic.
    pub topic: Option<String>,
    /// Only those with this number.
    pub partition: Option<i32>,
}

/// One partition of an input topic, and of its changelog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolPartition {
    /// Index of the topic.
    topic: usize,
    /// The input topic.
    pub input: String,
    /// The number.
    pub number: i32,
}

/// The connection of a command for keyed state, and what the brokers say about the topics of the handler.
pub struct KeyedTools {
    handler: String,
    group: CString,
    /// As the binding records have it.
    lane_key: String,
    is_transactional: bool,
    consumer_properties: Properties,
    producer_properties: Properties,
    reader: LogReader,
    topics: Vec<ToolTopic>,
    partitions: Vec<ToolPartition>,
}

/// An input topic, and its changelog.
struct ToolTopic {
    input: TopicDescription,
    /// `None`: the handler has no keyed state.
    changelog: Option<TopicDescription>,
}

impl KeyedTools {
    /// Connects to the brokers at `servers`, and describes the topics of the handler.
    ///
    /// # Errors
    /// No broker responds, a topic does not exist or is denied, or the selection is empty.
    pub fn connect(
        config: &Checked,
        servers: &str,
        handler: &HandlerConfig,
        selection: &Selection,
    ) -> anyhow::Result<KeyedTools> {
        let access = Access {
            servers: Some(servers.to_owned()),
            credentials: credentials(config)?,
            client_id: Some("keylane/state".into()),
        };
        let mut consumer_properties = source_spec(config, handler, access.clone(), false).reader_properties();
        consumer_properties.set("isolation.level", "read_committed");
        let mut producer_properties = client_properties(&config.kafka.producer, access);
        for properties in [&mut consumer_properties, &mut producer_properties] {
            // Errors are results of a command.
            properties.set("log_level", 0);
            properties.set("allow.auto.create.topics", "false");
        }
        let topics = match describe(&consumer_properties, handler) {
            Ok(topics) => topics,
            Err(error) if is_stopped(&error) => {
                return Err(no_broker(config, servers, Deadline::after(DIAGNOSIS_TIMEOUT)));
            }
            Err(error) => return Err(error),
        };
        Ok(KeyedTools {
            handler: handler.name.clone(),
            group: name(&handler.group_id)?,
            lane_key: keys_of(handler),
            is_transactional: handler.transactions.is_some(),
            reader: LogReader::new(consumer_properties.clone())?,
            consumer_properties,
            producer_properties,
            partitions: selection.apply(&topics)?,
            topics,
        })
    }

    /// Returns the selected partitions, in the order of the topics and of their numbers.
    pub fn partitions(&self) -> &[ToolPartition] {
        &self.partitions
    }

    /// Returns whether the handler has several input topics.
    pub fn has_several_topics(&self) -> bool {
        self.topics.len() > 1
    }

    /// Returns the group.
    pub fn group(&self) -> String {
        text(&self.group)
    }

    /// Describes what is read, for a message: the changelogs, and the handler.
    pub fn source(&self) -> String {
        let is_selected = |index: usize| self.partitions.iter().any(|partition| partition.topic == index);
        let selected = self.topics.iter().enumerate().filter(|(index, _)| is_selected(*index));
        let name = |topic: &ToolTopic| topic.changelog.as_ref().map(|changelog| text(&changelog.name));
        let names: Vec<String> =
            selected.filter_map(|(_, topic)| name(topic)).map(|name| format!("`{name}`")).collect();
        let noun = if names.len() == 1 { "changelog" } else { "changelogs" };
        let (handler, group) = (&self.handler, self.group());
        format!("{noun} {} of the handler `{handler}` in the group `{group}`", names.join(", "))
    }

    fn topic(&self, partition: &ToolPartition) -> anyhow::Result<&ToolTopic> {
        self.topics.get(partition.topic).context("the partition is of another connection")
    }

    fn changelog(&self, partition: &ToolPartition) -> anyhow::Result<&TopicDescription> {
        let handler = &self.handler;
        let changelog = self.topic(partition)?.changelog.as_ref();
        changelog.ok_or_else(|| anyhow!("the handler `{handler}` has no keyed state"))
    }

    /// Returns what the binding record of a partition must say, as the runtime does.
    fn identity(&self, partition: &ToolPartition) -> anyhow::Result<BindingIdentity> {
        let (input, changelog) = (&self.topic(partition)?.input, self.changelog(partition)?);
        Ok(BindingIdentity {
            group: self.group(),
            handler: self.handler.clone(),
            topic: partition.input.clone(),
            partition: partition.number,
            topic_id: (input.id != [0; 16]).then_some(input.id),
            partition_count: changelog.partitions.unsigned_abs(),
            lane_key: self.lane_key.clone(),
        })
    }

    /// Refuses changelogs with another number of partitions than their input: the keys of events are in other partitions
    /// than their states.
    fn needs_equal_partitions(&self) -> anyhow::Result<()> {
        for ToolTopic { input, changelog } in &self.topics {
            let Some(changelog) = changelog else { continue };
            ensure!(
                input.partitions == changelog.partitions,
                "the changelog `{}` has {} partitions and its input topic `{}` has {}: see docs/keyed-state.md, \"Adding \
                 partitions\"",
                text(&changelog.name),
                changelog.partitions,
                text(&input.name),
                input.partitions
            );
        }
        Ok(())
    }
}

impl Selection {
    fn apply(&self, topics: &[ToolTopic]) -> anyhow::Result<Vec<ToolPartition>> {
        let mut found = Vec::new();
        for (topic, described) in topics.iter().enumerate() {
            let input = text(&described.input.name);
            if self.topic.as_ref().is_some_and(|wanted| *wanted != input) {
                continue;
            }
            let count =
                described.changelog.as_ref().map_or(described.input.partitions, |topic| topic.partitions);
            let numbers = (0..count).filter(|number| self.partition.is_none_or(|wanted| wanted == *number));
            found.extend(numbers.map(|number| ToolPartition { topic, input: input.clone(), number }));
        }
        if !found.is_empty() {
            return Ok(found);
        }
        match (&self.topic, self.partition) {
            (Some(topic), _) if topics.iter().all(|known| text(&known.input.name) != *topic) => {
                let names: Vec<String> =
                    topics.iter().map(|topic| format!("`{}`", text(&topic.input.name))).collect();
                bail!("the handler does not read topic `{topic}`, but {}", names.join(", "))
            }
            (_, Some(partition)) => bail!("no selected topic has a partition {partition}"),
            (_, None) => bail!("the topics have no partitions"),
        }
    }
}

/// Describes the input topics of a handler and their changelogs. Creates nothing.
fn describe(properties: &Properties, handler: &HandlerConfig) -> anyhow::Result<Vec<ToolTopic>> {
    let consumer = Consumer::new(properties)?;
    let events = consumer.main_queue();
    let deadline = Deadline::after(CONTACT_TIMEOUT);
    let mut keep_waiting = |_: &Waiting| match deadline.is_over() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    let mut requests = StartupRequests::new(consumer.client(), &events, CONTACT_TIMEOUT, &mut keep_waiting);
    let inputs = names(&handler.topics)?;
    let inputs = requests.topics(&inputs, INPUTS, None)?;
    let changelogs = handler.keys.as_ref().map_or(&[][..], |keys| &keys.changelogs);
    let changelogs = match requests.topics(&names(changelogs)?, CHANGELOGS, None) {
        Ok(changelogs) => changelogs,
        Err(StartupError::TopicsMissing { topics, .. }) => bail!(
            "the changelog `{}` does not exist: the first start of the handler creates it, so it was never started with \
             this configuration, or the topic was deleted",
            topics.join("`, `")
        ),
        Err(error) => return Err(error.into()),
    };
    let mut changelogs = changelogs.into_iter();
    Ok(inputs.into_iter().map(|input| ToolTopic { input, changelog: changelogs.next() }).collect())
}

fn is_stopped(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(StartupError::Stopped))
}

fn names(names: &[String]) -> anyhow::Result<Vec<CString>> {
    names.iter().map(|text| name(text)).collect()
}

fn name(name: &str) -> anyhow::Result<CString> {
    CString::new(name).with_context(|| format!("`{}` contains a NUL byte", name.escape_debug()))
}

fn text(name: &CStr) -> String {
    name.to_string_lossy().into_owned()
}
