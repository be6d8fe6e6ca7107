//! Keyed state before a handler runs: its changelogs, stores, and the reader that restores them.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use keylane_state::StoreSpec;
use sha2::{Digest as _, Sha256};

use crate::admit::LaneRule;
use crate::changelog::{self, Changelog, ChangelogReader, LocalStore, ReaderSpec, Wanted};
use crate::config::{Checked, Cluster, HandlerConfig, KeysConfig};
use crate::sink::SinkTopic;

use super::super::event_loop::{Keyed, KeyedSettings, LoopEvent, TopicChangelog, TopicStates};
use super::assemble::{KeepWaiting, Parts};
use super::options::{self, Access};

/// Prepares the changelogs of each handler, in the order of its topics. Waits for unavailable brokers.
pub(super) fn changelogs(
    config: &Checked,
    access: &Access,
    keep_waiting: KeepWaiting<'_>,
) -> Result<Vec<Vec<Changelog>>, changelog::Error> {
    let mut all = Vec::with_capacity(config.handlers.len());
    for handler in &config.handlers {
        let keys = handler.keys.as_ref().filter(|_| matches!(config.kafka.cluster, Cluster::Brokers(_)));
        let Some(keys) = keys else {
            all.push(Vec::new());
            continue;
        };
        let wanted = |(name, input): (&String, &String)| Wanted {
            name: name.clone(),
            input: input.clone(),
            max_value: handler.state.as_ref().map_or(0, |state| state.max_value),
        };
        let wanted: Vec<Wanted> = keys.changelogs.iter().zip(&handler.topics).map(wanted).collect();
        let properties = options::client_properties(&config.kafka.client, access.clone());
        let create_inputs = config.kafka.create_topics;
        all.push(changelog::prepare(&properties, &wanted, create_inputs, &mut |waiting| {
            keep_waiting(waiting.reason.as_deref())
        })?);
    }
    Ok(all)
}

impl Parts {
    /// Starts the stores of a handler with keyed state, and the reader that restores them.
    pub(super) fn keyed(
        &self,
        config: &Checked,
        handler: &HandlerConfig,
        index: usize,
    ) -> anyhow::Result<Option<Keyed>> {
        let Some(keys) = &handler.keys else { return Ok(None) };
        let version = handler.state.as_ref().map_or(0, |state| state.version);
        let part = self.handlers.get(index).context("every handler has its part")?;
        let changelogs = self.changelogs.get(index).map_or(&[][..], Vec::as_slice);
        let mut topics = Vec::with_capacity(handler.topics.len());
        for at in 0..handler.topics.len() {
            let number = u16::try_from(at).context("too many topics")?;
            let changelog = changelogs.get(at);
            let mailbox = Arc::clone(&part.mailbox);
            let spec = store_spec(handler, keys, changelog);
            let store = LocalStore::start(spec, move |event| {
                mailbox.put(LoopEvent::Store { topic: number, event });
            });
            topics.push(TopicStates {
                store: Arc::new(store.context("can't start the thread of a store")?),
                changelog: changelog.map(|changelog| self.topic_changelog(changelog)),
            });
        }
        let reader = if changelogs.is_empty() {
            None
        } else {
            let spec = ReaderSpec {
                properties: options::source_spec(config, handler, self.access(config), false)
                    .reader_properties(),
                changelogs: changelogs.iter().map(|changelog| changelog.name.clone()).collect(),
                stores: topics.iter().map(|topic| Arc::clone(&topic.store)).collect(),
                version,
            };
            let mailbox = Arc::clone(&part.mailbox);
            let on_event = Box::new(move |event| mailbox.put(LoopEvent::Restore(event)));
            Some(ChangelogReader::start(spec, on_event)?)
        };
        let settings = KeyedSettings {
            handler: handler.name.clone(),
            group: handler.group_id.clone(),
            topics: handler.topics.clone(),
            lane_key: keys_of(handler),
            version,
            cache_bytes: usize::try_from(keys.cache / 2).unwrap_or(usize::MAX),
            forget_after: keys.forget_after,
            has_states: handler.state.is_some(),
            has_marks: handler.order.is_durable(),
        };
        Ok(Some(Keyed::new(settings, topics, reader, Arc::clone(&part.mailbox))))
    }

    fn topic_changelog(&self, changelog: &Changelog) -> TopicChangelog {
        let is_it = |name: &&String| name.as_bytes() == changelog.name.as_bytes();
        let topic = (0..).zip(&self.topics).find(|(_, name)| is_it(name)).map(|(index, _)| SinkTopic(index));
        TopicChangelog {
            topic: topic.expect("the sink was started with every changelog"),
            id: changelog.id,
            partitions: changelog.partitions,
        }
    }
}

/// Returns a text that determines the keys of records, and what a gate remembers.
pub(in crate::app) fn keys_of(handler: &HandlerConfig) -> String {
    let lanes = &handler.lanes;
    let lane_key = LaneRule::description(lanes.ordering, &lanes.lane_key, lanes.no_key);
    let gate = handler.order.gate.as_ref().filter(|gate| gate.durable);
    gate.map_or(lane_key.clone(), |gate| format!("{lane_key}; {}", gate.description()))
}

/// Without a topic id, a file can't be recognised after the changelog was created anew, so the state is kept in memory.
fn store_spec(handler: &HandlerConfig, keys: &KeysConfig, changelog: Option<&Changelog>) -> StoreSpec {
    let known = keys.dir.as_deref().zip(changelog.and_then(|changelog| changelog.id));
    let retention = changelog.map(|changelog| changelog.delete_retention / 2);
    let of_stores = usize::try_from(keys.cache / 2).unwrap_or(usize::MAX);
    StoreSpec {
        dir: known.map(|(dir, id)| dir.join(folder(handler, id))),
        cache_bytes: of_stores / handler.topics.len().max(1),
        trusted_for: retention.map_or(keys.keep_for, |retention| retention.min(keys.keep_for)),
    }
}

/// Returns the folder of one changelog of a handler. The topic id makes it different for each cluster.
fn folder(handler: &HandlerConfig, changelog_id: [u8; 16]) -> impl AsRef<Path> {
    let mut hash = Sha256::new();
    for part in [handler.group_id.as_bytes(), handler.name.as_bytes(), &changelog_id] {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    let hash = hash.finalize();
    hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>()
}
