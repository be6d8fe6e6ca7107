//! `[handlers.NAME.state]` and `[handlers.NAME.keys]`.

use std::path::PathBuf;

use super::super::Environment;
use super::super::checked::{Checked, Cluster, KafkaConfig, KeysConfig, NoKey, Ordering, StateConfig};
use super::super::forget_after::ForgetAfter;
use super::super::problem::Problems;
use super::super::written_handler as written;
use super::super::written_state::Keys;
use super::super::written_transactions::Delivery;
use super::{gate, names, ranges};

/// Checks the keyed state of a handler. `None`: it has none.
pub(super) fn state(
    name: &str,
    handler: &written::Handler,
    problems: &mut Problems<'_, '_>,
) -> Option<StateConfig> {
    let state = handler.state.as_ref()?;
    if handler.delivery != Delivery::Transactional {
        problems
            .add(&["handlers", name, "state"], "keyed state needs transactional delivery")
            .remedy(format!("add `delivery = \"transactional\"` to `[handlers.{name}]`"));
    }
    needs_lane_key(name, handler, problems);
    let in_state = |field| ["handlers", name, "state", field];
    let max_value = ranges::size(problems, &in_state("max_value"), state.max_value, ranges::STATE_BYTES);
    Some(StateConfig {
        max_value: usize::try_from(max_value).unwrap_or(usize::MAX),
        version: ranges::whole(problems, &in_state("version"), state.version, ranges::STATE_VERSION),
    })
}

/// Checks where the records of keys are stored. `None`: the handler has none.
pub(super) fn keys(
    name: &str,
    handler: &written::Handler,
    kafka: &KafkaConfig,
    environment: &Environment<'_>,
    problems: &mut Problems<'_, '_>,
) -> Option<KeysConfig> {
    let needed_by = match () {
        () if handler.state.is_some() => "state",
        () if gate::is_durable(handler) => "gate",
        () => {
            if handler.keys.is_some() {
                let text =
                    "`keys` has no effect: the handler has neither a `state` nor a gate with durable memory";
                problems.warn(&["handlers", name, "keys"], text);
            }
            return None;
        }
    };
    let default = Keys::default();
    let keys = handler.keys.as_ref().unwrap_or(&default);
    let at = |field| ["handlers", name, "keys", field];
    let dir = match kafka.cluster {
        Cluster::Embedded(_) => None, // the embedded broker ends with the process, and so do the records
        Cluster::Brokers(_) => directory(keys, environment),
    };
    if dir.is_none() && matches!(kafka.cluster, Cluster::Brokers(_)) {
        problems
            .add(&["handlers", name, needed_by], "no directory is known for the files of its keys")
            .remedy(format!("set `dir` in `[handlers.{name}.keys]`"));
    }
    Some(KeysConfig {
        changelogs: changelogs(name, needed_by, handler, keys, problems),
        dir,
        cache: ranges::size(problems, &at("cache"), keys.cache, ranges::STATE_CACHE),
        keep_for: ranges::time(problems, &at("keep_for"), keys.keep_for, ranges::STATE_KEEP),
        forget_after: match keys.forget_after {
            ForgetAfter::Never => None,
            ForgetAfter::After(age) => {
                Some(ranges::time(problems, &at("forget_after"), age, ranges::STATE_FORGET))
            }
        },
    })
}

/// A state belongs to a lane key, so every event needs one.
fn needs_lane_key(name: &str, handler: &written::Handler, problems: &mut Problems<'_, '_>) {
    let lanes = &handler.lanes;
    match lanes.ordering {
        Ordering::Partition => {}
        Ordering::Unordered => {
            problems
                .add(&["handlers", name, "lanes", "ordering"], "keyed state needs lanes with a key")
                .remedy("use `ordering = \"key\"`, or \"partition\" for one state per partition");
        }
        Ordering::Key if gate::no_key(handler) == NoKey::Spread => {
            problems
                .add(&["handlers", name, "state"], "events without a lane key have no state")
                .remedy(format!(
                    "set `no_key` in `[handlers.{name}.lanes]` to \"reject\", or to \"partition\" for one state of all \
                     events without a key"
                ));
        }
        Ordering::Key => {}
    }
}

/// Returns the changelog of each topic.
fn changelogs(
    name: &str,
    needed_by: &str,
    handler: &written::Handler,
    keys: &Keys,
    problems: &mut Problems<'_, '_>,
) -> Vec<String> {
    let path = ["handlers", name, "keys", "topic"];
    // A default that is not a valid name is a problem of what needs it.
    let path: &[&str] = if handler.keys.is_some() { &path } else { &["handlers", name, needed_by] };
    if handler.topics.len() > 1 && !keys.topic.contains("{topic}") {
        problems
            .add(path, "the topics of a handler can't share a changelog")
            .remedy("add `{topic}`, the name of the input topic, to the name");
    }
    let changelog =
        |topic: &String| keys.topic.replace("{group_id}", &handler.group_id).replace("{topic}", topic);
    let changelogs: Vec<String> = handler.topics.iter().map(changelog).collect();
    for (changelog, _) in changelogs.iter().zip(&handler.topics).filter(|(_, input)| names::is_topic(input)) {
        if changelog.contains(['{', '}']) {
            problems
                .add(path, format!("`{changelog}` is not a valid topic name"))
                .remedy("`{group_id}` and `{topic}` are the only placeholders");
            continue;
        }
        names::topic(problems, path, changelog);
        let is_output = handler.outputs.values().any(|output| output.topic == *changelog);
        let of_input = |input: &String| handler.dead_letters.topic.replace("{topic}", input) == *changelog;
        if is_output || handler.topics.contains(changelog) || handler.topics.iter().any(of_input) {
            problems
                .add(
                    path,
                    format!(
                        "`{changelog}` is also an input, output or dead-letter topic of the handler `{name}`"
                    ),
                )
                .remedy("use a topic of its own: only Keylane may write to a changelog");
        }
    }
    changelogs
}

/// Reports changelogs that another handler uses in any way.
pub(super) fn shared_changelogs(checked: &Checked, problems: &mut Problems<'_, '_>) {
    for handler in &checked.handlers {
        let Some(keys) = &handler.keys else { continue };
        for other in checked.handlers.iter().filter(|other| other.name != handler.name) {
            let dead_letters = other.dead_letters.iter().flat_map(|dead_letters| &dead_letters.topics);
            let changelogs = other.keys.iter().flat_map(|keys| &keys.changelogs);
            let outputs = other.outputs.iter().map(|output| &output.topic);
            let mut used = other.topics.iter().chain(dead_letters).chain(changelogs).chain(outputs);
            if let Some(topic) = used.find(|topic| keys.changelogs.contains(topic)) {
                let (name, other) = (&handler.name, &other.name);
                let needed_by = if handler.state.is_some() { "state" } else { "gate" };
                problems
                    .add(
                        &["handlers", name, needed_by],
                        format!(
                            "`{topic}`, the changelog of the handler `{name}`, is also a topic of `{other}`"
                        ),
                    )
                    .remedy("use another name: only one handler may use a changelog");
            }
        }
    }
}

/// Returns the configured directory, or `keylane/state` in the directory for state of the XDG specification.
fn directory(keys: &Keys, environment: &Environment<'_>) -> Option<PathBuf> {
    let variable = |name| (environment.variable)(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    keys.dir.as_ref().map(|folder| environment.resolve(folder)).or_else(|| {
        let xdg = variable("XDG_STATE_HOME").filter(|folder| folder.is_absolute());
        xdg.or_else(|| Some(variable("HOME")?.join(".local/state")))
            .map(|folder| folder.join("keylane/state"))
    })
}
