//! What can be run and is seldom meant.

use std::time::Duration;

use super::super::checked::{Checked, Cluster, Embedded, FETCH_QUEUE_MIN, Handler, LaneKey};
use super::super::problem::Problems;
use super::super::size::HumanSize;

/// While a revoke waits, the whole group waits.
const REVOKE_TIMEOUT_LONG: Duration = Duration::from_secs(10);

/// Adds all warnings.
pub(super) fn add(checked: &Checked, problems: &mut Problems<'_, '_>) {
    for handler in &checked.handlers {
        of_handler(handler, problems);
    }
    if let Cluster::Embedded(embedded) = &checked.kafka.cluster {
        of_embedded(checked, embedded, problems);
    }
    if checked.runtime.cache_dir.is_none() {
        problems
            .warn(&["runtime"], "no folder for compiled components is known: every start compiles them anew");
    }
}

fn of_handler(handler: &Handler, problems: &mut Problems<'_, '_>) {
    let name = handler.name.as_str();
    for output in handler.outputs.iter().filter(|output| handler.topics.contains(&output.topic)) {
        let topic = &output.topic;
        problems.warn(
            &["handlers", name, "outputs", &output.target, "topic"],
            format!("the handler `{name}` reads `{topic}`, which it writes to: its outputs come back to it"),
        );
    }
    if handler.lanes.lane_key != LaneKey::Key {
        problems.warn(
            &["handlers", name, "lanes", "lane_key"],
            "events with the same lane key are in order only within a partition: those with other record keys may \
             lie in another one",
        );
    }
    if handler.retry.scope == keylane_core::RetryScope::Partition && handler.retry.max_attempts > 1 {
        problems.warn(
            &["handlers", name, "retry", "scope"],
            "while one event is tried again, nothing new of its partition is handled",
        );
    }
    if handler.group_instance_id.is_some() {
        problems.warn(
            &["handlers", name, "group_instance_id"],
            "a static member does not leave its group: after a stop its partitions are unread until it is back \
             or the session timeout (`session.timeout.ms`, 45 s by default) is over",
        );
    }
    if handler.revoke_timeout > REVOKE_TIMEOUT_LONG {
        problems.warn(
            &["handlers", name, "rebalance", "revoke_timeout"],
            format!("all partitions of `{name}` stand still while a revoke waits this long"),
        );
    }
}

fn of_embedded(checked: &Checked, embedded: &Embedded, problems: &mut Problems<'_, '_>) {
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
            let is_written =
                checked.handlers.iter().flat_map(|h| &h.outputs).any(|output| output.topic == *topic);
            if !is_fed && !is_written {
                let path = ["handlers", &handler.name, "topics", &index.to_string()];
                problems.warn(
                    &path,
                    format!("nothing comes into `{topic}`: it has no feed, and no handler writes to it"),
                );
            }
        }
    }
    let topics = u64::try_from(read.len()).unwrap_or(u64::MAX);
    let needed = topics.saturating_mul(u64::from(embedded.partitions)).saturating_mul(FETCH_QUEUE_MIN);
    let half = checked.runtime.memory_budget / 2;
    if needed > half {
        let (needed, half) = (HumanSize(needed), HumanSize(half));
        problems.warn(
            &["runtime", "memory_budget"],
            format!("fetch queues take up to {needed}, more than their half of the budget ({half})"),
        );
    }
}
