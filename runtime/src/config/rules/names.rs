//! Names: of topics, handlers, groups.

use super::super::problem::Problems;

/// Kafka's own limit.
const TOPIC_LENGTH_MAX: usize = 249;

/// Whether brokers accept this as a topic's name.
pub(super) fn is_topic(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=TOPIC_LENGTH_MAX).contains(&name.len()) && !matches!(name, "." | "..") && name.chars().all(allowed)
}

/// Reports what is not a topic's name.
pub(super) fn topic(problems: &mut Problems<'_, '_>, path: &[&str], name: &str) {
    if is_topic(name) {
        return;
    }
    if name.starts_with('^') {
        let message = format!("`{name}`: patterns of topics are not in this version of Keylane");
        problems.add(path, message).hint("list the topics");
    } else if name.is_empty() {
        problems.add(path, "the name of a topic can't be empty");
    } else if name.len() > TOPIC_LENGTH_MAX {
        problems
            .add(path, format!("the name of a topic has at most {TOPIC_LENGTH_MAX} characters: `{name}`"))
            .hint("use a shorter name; that of dead letters is `dead_letters.topic`");
    } else {
        let message = format!("`{name}` is not the name of a topic");
        problems.add(path, message).hint("letters, digits, `.`, `_` and `-`");
    }
}

/// A handler's name: it becomes part of metrics, logs and thread names.
pub(super) fn handler(problems: &mut Problems<'_, '_>, path: &[&str], name: &str) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
        let message = format!("`{name}` can't be the name of a handler");
        problems.add(path, message).hint("up to 64 letters, digits, `_` and `-`");
    }
}

/// A text that brokers take as an id: not empty, nothing that can't be seen.
pub(super) fn id(problems: &mut Problems<'_, '_>, path: &[&str], id: &str) {
    if id.is_empty() || id.len() > TOPIC_LENGTH_MAX || id.chars().any(char::is_control) {
        let name = path.join(".");
        problems.add(path, format!("`{name}` must have 1 to {TOPIC_LENGTH_MAX} visible characters"));
    }
}
