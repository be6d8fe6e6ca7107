//! Settings of later versions, and settings that belong in another table. They are refused, with an error that names
//! the setting: a setting without effect would be misleading.

use super::document::Document;
use super::problem::ProblemReport;

/// A refused setting; `*` in its path matches any name.
struct RefusedSetting {
    path: &'static [&'static str],
    /// The beginnings of refused values; empty: every value is refused.
    values: &'static [&'static str],
    /// The predicate of the message.
    reason: &'static str,
    remedy: &'static str,
}

const LATER: &str = "is not supported in this version of Keylane";
const MOVED: &str = "belongs in another table";
const REMOVE: &str = "remove it";

const ALL: [RefusedSetting; 8] = [
    moved(&["metrics"], "metrics are served by the admin server: see `[admin]`"),
    moved(&["dead_letters"], "set it for each handler: `[handlers.NAME.dead_letters]`"),
    always(&["handlers", "*", "gates"], "a handler has at most one gate: use `gate`"),
    moved(&["handlers", "*", "env"], "use `grants.env`"),
    moved(&["handlers", "*", "http"], "use `grants.http`"),
    always(&["handlers", "*", "pipeline"], REMOVE),
    always(&["handlers", "*", "consumers"], "remove it; run more processes with the same `group_id`"),
    only(
        &["handlers", "*", "retry", "on_exhausted"],
        &["hold", "dlq-key"],
        "use \"dlq\", \"skip\" or \"stop\"",
    ),
];

const fn always(path: &'static [&'static str], remedy: &'static str) -> RefusedSetting {
    RefusedSetting { path, values: &[], reason: LATER, remedy }
}

const fn moved(path: &'static [&'static str], remedy: &'static str) -> RefusedSetting {
    RefusedSetting { path, values: &[], reason: MOVED, remedy }
}

const fn only(
    path: &'static [&'static str],
    values: &'static [&'static str],
    remedy: &'static str,
) -> RefusedSetting {
    RefusedSetting { path, values, reason: LATER, remedy }
}

/// Reports these settings, and removes them from the document, so that no second error is reported for them.
pub(super) fn refuse(document: &mut Document<'_>, report: &mut ProblemReport) {
    for setting in &ALL {
        for path in matching(document, setting.path) {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let text = document.string(&path).unwrap_or("");
            if !setting.values.is_empty() && !setting.values.iter().any(|value| text.starts_with(value)) {
                continue;
            }
            let name = path.join(".");
            let value = if setting.values.is_empty() { String::new() } else { format!(" = \"{text}\"") };
            report
                .add(document.span_of(&path), format!("`{name}{value}` {}", setting.reason))
                .remedy(setting.remedy);
            document.remove(&path);
        }
    }
}

/// Returns the paths in the document that match a pattern.
fn matching(document: &Document<'_>, pattern: &[&str]) -> Vec<Vec<String>> {
    let mut paths = vec![Vec::new()];
    for part in pattern {
        paths = paths.into_iter().flat_map(|path: Vec<String>| extend(document, &path, part)).collect();
    }
    paths
}

fn extend(document: &Document<'_>, path: &[String], part: &str) -> Vec<Vec<String>> {
    let table: Vec<&str> = path.iter().map(String::as_str).collect();
    let names = document.keys(&table).into_iter().filter(|name| part == "*" || name == part);
    names.map(|name| path.iter().cloned().chain([name]).collect()).collect()
}
