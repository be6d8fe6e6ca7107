//! `[handlers.NAME]`.

use std::collections::BTreeSet;

use keylane_core::OutOfRange;

use super::super::Environment;
use super::super::checked::{
    Cluster, CommitConfig, HandlerConfig, KafkaConfig, LaneKey, LanesConfig, Ordering, OutputConfig,
};
use super::super::event_field::EventField;
use super::super::problem::Problems;
use super::super::start_policy::StartPolicy;
use super::super::written_handler as written;
use super::{cluster, filter, gate, grants, names, ranges, retry, state, transactions};

/// Maximum number of topics of a handler: far more than a group can handle, and small enough for a 16-bit index.
const TOPICS_MAX: usize = 10_000;
/// The prefix of headers that only Keylane writes.
const RESERVED_HEADERS: &str = "keylane-";

/// Checks the section of one handler.
pub(super) fn handler(
    name: &str,
    handler: &written::Handler,
    kafka: &KafkaConfig,
    environment: &Environment<'_>,
    problems: &mut Problems<'_, '_>,
) -> HandlerConfig {
    let at = |field| ["handlers", name, field];
    names::handler(problems, &["handlers", name], name);
    names::id(problems, &at("group_id"), &handler.group_id);
    if let Some(id) = &handler.group_instance_id {
        names::id(problems, &at("group_instance_id"), id);
    }
    topics(name, &handler.topics, problems);
    if matches!((&kafka.cluster, handler.start), (Cluster::Embedded(_), StartPolicy::Time(_))) {
        problems
            .add(&at("start"), "the embedded broker can't look up offsets by time")
            .remedy("use \"earliest\" or \"latest\"");
    }
    let memory = ranges::size(problems, &at("memory"), handler.memory, ranges::GUEST_MEMORY);
    let reuse_max_memory = handler
        .reuse_max_memory
        .map(|size| ranges::size(problems, &at("reuse_max_memory"), size, 0..=memory));
    let component =
        cluster::existing(&handler.component, &at("component"), "component", environment, problems);
    HandlerConfig {
        name: name.to_owned(),
        component,
        topics: handler.topics.clone(),
        group_id: handler.group_id.clone(),
        group_instance_id: handler.group_instance_id.clone(),
        timeout: ranges::time(problems, &at("timeout"), handler.timeout, ranges::CALL_TIMEOUT),
        cpu_budget: ranges::time(problems, &at("cpu_budget"), handler.cpu_budget, ranges::CALL_TIMEOUT),
        memory,
        reuse_max_memory: reuse_max_memory.unwrap_or(memory / 4 * 3),
        reuse_max_calls: handler
            .reuse_max_calls
            .map(|n| ranges::whole(problems, &at("reuse_max_calls"), n, ranges::MAX_CALLS)),
        fresh_instances: handler.isolation == written::Isolation::Event,
        max_output_bytes: handler.max_output_bytes.map(|size| {
            let bytes = ranges::size(problems, &at("max_output_bytes"), size, ranges::OUTPUT_BYTES);
            usize::try_from(bytes).unwrap_or(usize::MAX)
        }),
        max_batch: handler.max_batch.map(|n| ranges::whole(problems, &at("max_batch"), n, ranges::MAX_BATCH)),
        start: handler.start,
        out_of_range: match handler.out_of_range {
            written::OutOfRange::Fail => OutOfRange::Fail,
            written::OutOfRange::Earliest => OutOfRange::Earliest,
            written::OutOfRange::Latest => OutOfRange::Latest,
        },
        lanes: lanes(name, handler, problems),
        order: gate::order(name, handler, problems),
        read_in_step: handler
            .read_in_step
            .map(|time| ranges::time(problems, &at("read_in_step"), time, ranges::READ_IN_STEP)),
        filter: filter::filter(name, &handler.filter, problems),
        retry: retry::retry(name, &handler.retry, problems),
        dead_letters: retry::dead_letters(name, handler, problems),
        commit: commit(name, &handler.commit, problems),
        revoke_timeout: ranges::time(
            problems,
            &["handlers", name, "rebalance", "revoke_timeout"],
            handler.rebalance.revoke_timeout,
            ranges::REVOKE_TIMEOUT,
        ),
        transactions: transactions::transactions(name, handler, kafka, problems),
        state: state::state(name, handler, problems),
        keys: state::keys(name, handler, kafka, environment, problems),
        grants: grants::grants(name, &handler.grants, environment, problems),
        outputs: outputs(name, handler, problems),
    }
}

fn topics(handler: &str, topics: &[String], problems: &mut Problems<'_, '_>) {
    let path = ["handlers", handler, "topics"];
    if topics.is_empty() {
        problems.add(&path, format!("the handler `{handler}` reads no topic"));
    }
    if topics.len() > TOPICS_MAX {
        problems.add(&path, format!("a handler reads at most {TOPICS_MAX} topics"));
    }
    let mut seen = BTreeSet::new();
    for (index, topic) in topics.iter().enumerate() {
        let index = index.to_string();
        let path = ["handlers", handler, "topics", &index];
        names::topic(problems, &path, topic);
        if !seen.insert(topic) {
            problems.add(&path, format!("`{topic}` is listed twice"));
        }
    }
}

fn lanes(name: &str, handler: &written::Handler, problems: &mut Problems<'_, '_>) -> LanesConfig {
    let at = |field| ["handlers", name, "lanes", field];
    let lanes = &handler.lanes;
    if lanes.lane_key != LaneKey::Key && lanes.ordering != Ordering::Key {
        problems
            .add(&at("lane_key"), "`lane_key` needs `ordering = \"key\"`")
            .remedy("remove one of the two");
    }
    LanesConfig {
        ordering: lanes.ordering,
        lane_key: lanes.lane_key.clone(),
        no_key: gate::no_key(handler),
        max_concurrency: ranges::whole(
            problems,
            &at("max_concurrency"),
            lanes.max_concurrency,
            ranges::MAX_CONCURRENCY,
        ),
        max_queued: ranges::whole(problems, &at("max_queued"), lanes.max_queued, ranges::MAX_QUEUED),
        max_window: ranges::whole(problems, &at("max_window"), lanes.max_window, ranges::MAX_WINDOW),
    }
}

fn commit(handler: &str, commit: &written::Commit, problems: &mut Problems<'_, '_>) -> CommitConfig {
    let at = |field| ["handlers", handler, "commit", field];
    CommitConfig {
        interval: ranges::time(problems, &at("interval"), commit.interval, ranges::COMMIT_INTERVAL),
        every: ranges::whole(problems, &at("every"), commit.every, ranges::COMMIT_EVERY),
        timeout: ranges::time(problems, &at("timeout"), commit.timeout, ranges::COMMIT_TIMEOUT),
        metadata_limit: ranges::whole(
            problems,
            &at("metadata_limit"),
            commit.metadata_limit,
            ranges::METADATA_LIMIT,
        ),
    }
}

/// Returns the name of the header with the order value.
fn order_value(
    name: &str,
    target: &str,
    output: &written::Output,
    problems: &mut Problems<'_, '_>,
) -> Option<String> {
    let written = output.order_value.as_ref()?;
    let path = ["handlers", name, "outputs", target, "order_value"];
    let Some(EventField::Header(header)) = EventField::parse(written) else {
        problems
            .add(&path, format!("`{written}` is not a header for the order value"))
            .remedy("write \"header:NAME\"");
        return None;
    };
    if header.starts_with(RESERVED_HEADERS) {
        problems
            .add(&path, format!("the header `{header}` has a name that is reserved for Keylane"))
            .remedy("use another name, such as \"header:order-value\"");
    }
    Some(header)
}

fn outputs(name: &str, handler: &written::Handler, problems: &mut Problems<'_, '_>) -> Vec<OutputConfig> {
    let mut outputs = Vec::new();
    for (target, output) in &handler.outputs {
        names::topic(problems, &["handlers", name, "outputs", target, "topic"], &output.topic);
        outputs.push(OutputConfig {
            target: target.clone(),
            topic: output.topic.clone(),
            provenance: output.provenance,
            timestamp: output.timestamp,
            order_value: order_value(name, target, output, problems),
        });
    }
    outputs
}
