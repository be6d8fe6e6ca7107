//! Warnings: valid settings that are seldom intended.

use std::time::Duration;

use super::super::checked::{Checked, Cluster, EmbeddedConfig, HandlerConfig, LaneKey, NoKey, Ordering};
use super::super::duration::HumanDuration;
use super::super::problem::Problems;
use super::super::size::HumanSize;
use super::super::written_handler::default_cpu_budget;
use super::gate;

/// The longest revoke timeout without a warning: a longer one delays the whole group noticeably.
const REVOKE_TIMEOUT_LONG: Duration = Duration::from_secs(10);

/// Adds all warnings.
pub(super) fn add(checked: &Checked, problems: &mut Problems<'_, '_>) {
    for handler in &checked.handlers {
        warn_consequences(handler, problems);
        warn_ineffective(handler, problems);
        warn_loops(checked, handler, problems);
        gate::warn(handler, problems);
        if handler.timeout > checked.runtime.drain_timeout {
            problems.warn(
                &["handlers", &handler.name, "timeout"],
                "`timeout` is above `runtime.drain_timeout`: a drain cancels calls that outlast `drain_timeout`, and their events run again",
            );
        }
    }
    if let Cluster::Embedded(embedded) = &checked.kafka.cluster {
        warn_embedded(checked, embedded, problems);
    }
    if checked.runtime.cache_dir.is_none() {
        problems.warn(&["runtime"], "no directory for compiled components: every start compiles them again");
    }
}

/// Warns about dead-letter topics that handlers also read or write: dead letters that a handler reads may circulate
/// forever.
fn warn_loops(checked: &Checked, handler: &HandlerConfig, problems: &mut Problems<'_, '_>) {
    let Some(dead_letters) = &handler.dead_letters else { return };
    let at = ["handlers", &handler.name, "dead_letters", "topic"];
    for topic in &dead_letters.topics {
        let readers = checked.handlers.iter().filter(|other| other.topics.contains(topic));
        for reader in readers {
            let (name, reader) = (&handler.name, &reader.name);
            problems.warn(
                &at,
                format!("the handler `{reader}` reads `{topic}`, the dead-letter topic of `{name}`"),
            );
        }
        let writers = checked.handlers.iter().filter(|other| other.outputs.iter().any(|o| o.topic == *topic));
        for writer in writers {
            let writer = &writer.name;
            problems
                .warn(&at, format!("the dead-letter topic `{topic}` is also an output topic of `{writer}`"));
        }
    }
}

/// Warns about settings that have no effect, or an effect other than their name suggests.
fn warn_ineffective(handler: &HandlerConfig, problems: &mut Problems<'_, '_>) {
    let name = handler.name.as_str();
    if handler.fresh_instances && handler.max_batch.is_some_and(|max_batch| max_batch > 1) {
        let text =
            "`isolation = \"event\"` sets `max_batch` to 1: each call has its own instance, for one event";
        problems.warn(&["handlers", name, "max_batch"], text);
    }
    if handler.lanes.ordering != Ordering::Key && handler.lanes.no_key != NoKey::Spread {
        let text = "`no_key` has no effect without `ordering = \"key\"`";
        problems.warn(&["handlers", name, "lanes", "no_key"], text);
    }
    if handler.retry.max_record_age.is_some_and(|age| age.is_zero()) {
        let text = "no event is retried: every event is older than `max_record_age` when it fails";
        problems.warn(&["handlers", name, "retry", "max_record_age"], text);
    }
    if handler.retry.max_attempts > 1 && handler.retry.max_interval.is_zero() {
        let text = "events are retried without a wait";
        problems.warn(&["handlers", name, "retry", "max_interval"], text);
    }
    if handler.cpu_budget > handler.timeout && handler.cpu_budget != default_cpu_budget().0 {
        let text = "`cpu_budget` has no effect: it is above `timeout`";
        problems.warn(&["handlers", name, "cpu_budget"], text);
    }
}

/// Warns about settings with consequences that are easily overlooked.
fn warn_consequences(handler: &HandlerConfig, problems: &mut Problems<'_, '_>) {
    let name = handler.name.as_str();
    for output in handler.outputs.iter().filter(|output| handler.topics.contains(&output.topic)) {
        let topic = &output.topic;
        problems.warn(
            &["handlers", name, "outputs", &output.target, "topic"],
            format!("the handler `{name}` reads and writes `{topic}`: it receives its own outputs"),
        );
    }
    if handler.lanes.lane_key != LaneKey::Key {
        problems.warn(
            &["handlers", name, "lanes", "lane_key"],
            "events with the same lane key are in order only within a partition: if their record keys differ, they may \
                 be in different partitions",
        );
    }
    if handler.retry.scope == keylane_core::RetryScope::Partition && handler.retry.max_attempts > 1 {
        problems.warn(
            &["handlers", name, "retry", "scope"],
            "while an event is retried, no new events of its partition are processed",
        );
    }
    if handler.group_instance_id.is_some() {
        problems.warn(
            &["handlers", name, "group_instance_id"],
            "a static member does not leave its group: after a stop its partitions are not read until the \
             member returns or the session timeout (`session.timeout.ms`, 45 s by default) expires",
        );
    }
    if handler.revoke_timeout > REVOKE_TIMEOUT_LONG {
        let timeout = HumanDuration(handler.revoke_timeout);
        problems.warn(
            &["handlers", name, "rebalance", "revoke_timeout"],
            format!("nothing is fetched for `{name}` while the calls of revoked partitions finish, up to {timeout}"),
        );
    }
}

/// Warns about topics without events or readers, and about a small memory budget.
fn warn_embedded(checked: &Checked, embedded: &EmbeddedConfig, problems: &mut Problems<'_, '_>) {
    let read = checked.input_topics();
    for (index, feed) in embedded.feeds.iter().enumerate() {
        if !read.contains(&feed.topic.as_str()) {
            let path = ["embedded", "feed", &index.to_string(), "topic"];
            problems.warn(&path, format!("no handler reads `{}`", feed.topic));
        }
    }
    for handler in &checked.handlers {
        for (index, topic) in handler.topics.iter().enumerate() {
            let is_fed = embedded.feeds.iter().any(|feed| feed.topic == *topic);
            let is_written = checked.handlers.iter().any(|other| {
                let is_dead_letter_topic = other
                    .dead_letters
                    .as_ref()
                    .is_some_and(|dead_letters| dead_letters.topics.contains(topic));
                is_dead_letter_topic || other.outputs.iter().any(|output| output.topic == *topic)
            });
            if !is_fed && !is_written {
                let path = ["handlers", &handler.name, "topics", &index.to_string()];
                problems.warn(
                    &path,
                    format!("`{topic}` stays empty: it has no feed, and no handler writes to it"),
                );
            }
        }
    }
    let handlers = u64::try_from(checked.handlers.len()).unwrap_or(u64::MAX);
    let of_handler = |handler: &HandlerConfig| {
        let topics = u64::try_from(handler.topics.len()).unwrap_or(u64::MAX);
        checked.runtime.fetch_limits(handlers, topics.saturating_mul(u64::from(embedded.partitions))).total()
    };
    let needed = checked.handlers.iter().map(of_handler).fold(0, u64::saturating_add);
    let half = checked.runtime.memory_budget / 2;
    if needed > half {
        let (needed, half) = (HumanSize(needed), HumanSize(half));
        problems.warn(
            &["runtime", "memory_budget"],
            format!("fetch queues use up to {needed}, more than their half of the budget ({half})"),
        );
    }
}
