//! Names of topics, handlers and groups.

use super::super::problem::Problems;

/// Maximum length of a topic name in Kafka.
const TOPIC_LENGTH_MAX: usize = 249;

/// Returns whether brokers accept this topic name.
pub(super) fn is_topic(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=TOPIC_LENGTH_MAX).contains(&name.len()) && !matches!(name, "." | "..") && name.chars().all(allowed)
}

/// Reports an invalid topic name.
pub(super) fn topic(problems: &mut Problems<'_, '_>, path: &[&str], name: &str) {
    if is_topic(name) {
        return;
    }
    if name.starts_with('^') {
        let message = format!("`{name}`: topic patterns are not supported in this version of Keylane");
        problems.add(path, message).remedy("list the topics");
    } else if name.is_empty() {
        problems.add(path, "a topic name can't be empty");
    } else if name.len() > TOPIC_LENGTH_MAX {
        problems
            .add(path, format!("a topic name has at most {TOPIC_LENGTH_MAX} characters: `{name}`"))
            .remedy("use a shorter name; the dead-letter topic is set by `dead_letters.topic`");
    } else {
        let message = format!("`{name}` is not a valid topic name");
        problems.add(path, message).remedy("letters, digits, `.`, `_` and `-`");
    }
}

/// Checks a handler's name, which becomes part of metrics, logs and thread names.
pub(super) fn handler(problems: &mut Problems<'_, '_>, path: &[&str], name: &str) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
        let message = format!("`{name}` is not a valid handler name");
        problems.add(path, message).remedy("up to 64 letters, digits, `_` and `-`");
    }
}

/// Checks the id of a group or of a group instance: not empty, not longer than a topic name, no control characters.
pub(super) fn id(problems: &mut Problems<'_, '_>, path: &[&str], id: &str) {
    if id.is_empty() || id.len() > TOPIC_LENGTH_MAX || id.chars().any(char::is_control) {
        let name = path.join(".");
        problems.add(path, format!("`{name}` must have 1 to {TOPIC_LENGTH_MAX} visible characters"));
    }
}
