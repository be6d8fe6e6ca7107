//! Translates messages of the deserializer into terms of the configuration file.

use serde_json::Value;

/// Minimum similarity of two names for a suggestion. (0 to 1, Jaro-Winkler.)
const ALIKE: f64 = 0.8;

/// Terms of the deserializer, and the terms of a configuration file for them.
const WORDS: [(&str, &str); 3] = [
    ("expected a sequence", "expected a list: `[…]`"),
    ("expected a map", "expected a section"),
    ("missing field", "missing setting"),
];

/// Placeholder for a user-chosen name in the path of a table.
const ANY: &str = "*";

/// Returns the translated message, and the remedy. `table`: the path of the table that contains an unknown name.
/// `handlers`: the names of the handlers in the file.
pub(super) fn explain(
    message: &str,
    table: Option<&[String]>,
    handlers: &[String],
) -> (String, Option<String>) {
    let mut text = message.to_owned();
    for (theirs, ours) in WORDS {
        text = text.replace(theirs, ours);
    }
    if let Some((before, _)) = text.split_once("expected struct ") {
        text = format!("{before}expected a section");
    }
    let remedy = unknown(message).and_then(|(found, expected)| {
        let elsewhere = table.and_then(|table| elsewhere(found, table, handlers));
        elsewhere.or_else(|| nearest(found, expected))
    });
    (text, remedy)
}

/// Returns the language of a file that is not TOML, if its first line shows it.
pub(super) fn another_language(text: &str) -> Option<&'static str> {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))?;
    if first.starts_with('{') {
        return Some("JSON");
    }
    if first == "---" {
        return Some("YAML");
    }
    let (name, rest) = first.split_once(':')?;
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    (is_name && (rest.is_empty() || rest.starts_with(' '))).then_some("YAML")
}

/// Extracts an unknown name and the expected names from a message.
fn unknown(message: &str) -> Option<(&str, &str)> {
    let (found, expected) = message.strip_prefix("unknown ")?.split_once(", expected ")?;
    Some((found.split('`').nth(1)?, expected))
}

/// Returns a remedy with the expected name that is most similar to the unknown one.
fn nearest(found: &str, expected: &str) -> Option<String> {
    let names = expected.split('`').skip(1).step_by(2);
    let alike = names.map(|name| (strsim::jaro_winkler(&found.to_lowercase(), name), name));
    let (best, name) = alike.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best >= ALIKE).then(|| format!("did you mean `{name}`?"))
}

/// Returns a remedy with the tables to which a misplaced name belongs.
fn elsewhere(name: &str, table: &[String], handlers: &[String]) -> Option<String> {
    let schema = serde_json::to_value(super::schema()).ok()?;
    let mut tables = Vec::new();
    collect(&schema, &schema, name, &mut Vec::new(), &mut tables);
    let mut tables: Vec<String> = tables.into_iter().map(|path| written(&path, table, handlers)).collect();
    tables.sort();
    tables.dedup();
    if tables.is_empty() {
        // A dotted property name is parsed as nested tables.
        let is_property = table.first().is_some_and(|first| first == "kafka") && table.len() == 1;
        return is_property.then(|| "librdkafka properties belong in `[kafka.client]`".to_owned());
    }
    Some(format!("`{name}` belongs in {}", tables.join(" or ")))
}

/// Finds the paths of all tables of the schema that have a setting of this name.
fn collect(schema: &Value, node: &Value, name: &str, path: &mut Vec<String>, tables: &mut Vec<Vec<String>>) {
    let Some(node) = resolve(schema, node) else { return };
    if let Some(properties) = node["properties"].as_object() {
        if properties.contains_key(name) && !path.is_empty() {
            tables.push(path.clone());
        }
        for (inner, node) in properties {
            path.push(inner.clone());
            collect(schema, node, name, path, tables);
            path.pop();
        }
    }
    for (inner, segment) in [(&node["additionalProperties"], Some(ANY)), (&node["items"], None)] {
        if inner.is_object() {
            path.extend(segment.map(str::to_owned));
            collect(schema, inner, name, path, tables);
            path.truncate(path.len() - usize::from(segment.is_some()));
        }
    }
}

/// Follows references, and selects the alternative that is not null.
fn resolve<'s>(schema: &'s Value, node: &'s Value) -> Option<&'s Value> {
    if let Some(reference) = node["$ref"].as_str() {
        return resolve(schema, schema.pointer(reference.strip_prefix('#')?)?);
    }
    match node["anyOf"].as_array() {
        Some(choices) => resolve(schema, choices.iter().find(|choice| choice["type"] != "null")?),
        None => Some(node),
    }
}

/// Returns the path of a table as written in the file, with the user-chosen names from the path of the misplaced
/// setting.
fn written(schema_path: &[String], table: &[String], handlers: &[String]) -> String {
    let mut path: Vec<&str> = Vec::new();
    for (at, segment) in schema_path.iter().enumerate() {
        let beside = table.get(at).filter(|_| is_within(table, &path));
        path.push(match (segment.as_str(), beside, handlers) {
            (ANY, Some(name), _) => name,
            (ANY, None, [only]) if path == ["handlers"] => only,
            (ANY, ..) => "NAME",
            (segment, ..) => segment,
        });
    }
    format!("`[{}]`", path.join("."))
}

fn is_within(table: &[String], path: &[&str]) -> bool {
    table.get(..path.len()).is_some_and(|beginning| beginning.iter().zip(path).all(|(a, b)| a == b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_are_suggested() {
        for (found, expected, meant) in [
            ("group-id", "`component`, `group_id`, `topics`", Some("`group_id`")),
            ("output", "`outputs`, `topics`", Some("`outputs`")),
            ("dead_letter", "one of `dead_letters`, `retry`", Some("`dead_letters`")),
            ("zebra", "`outputs`, `topics`", None),
        ] {
            let (_, remedy) = explain(&format!("unknown field `{found}`, expected {expected}"), None, &[]);
            assert_eq!(remedy, meant.map(|name| format!("did you mean {name}?")));
        }
    }

    #[test]
    fn the_table_of_a_misplaced_setting_is_suggested() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        for (found, table, handlers, remedy) in [
            ("ordering", &["handlers", "orders"][..], &["orders", "x"][..], "[handlers.orders.lanes]`"),
            ("ordering", &[], &["orders"], "[handlers.orders.lanes]`"),
            ("ordering", &["runtime"], &["a", "b"], "[handlers.NAME.lanes]`"),
            ("max_attempts", &["handlers", "a", "dead_letters"], &["a"], "[handlers.a.retry]`"),
            ("workers", &["handlers", "a"], &["a"], "[runtime]`"),
            ("provenance", &["handlers", "a"], &["a"], "[handlers.a.outputs.NAME]`"),
            (
                "timeout",
                &["handlers", "a", "lanes"],
                &["a"],
                "[handlers.a.commit]` or `[handlers.a.transactions]` or `[handlers.a]`",
            ),
        ] {
            let message = format!("unknown field `{found}`, expected `zebra`");
            let (_, found_remedy) = explain(&message, Some(&names(table)), &names(handlers));
            assert_eq!(found_remedy, Some(format!("`{found}` belongs in `{remedy}")), "{table:?}");
        }
        let (_, remedy) = explain("unknown field `sasl`, expected `client`", Some(&names(&["kafka"])), &[]);
        assert_eq!(remedy.as_deref(), Some("librdkafka properties belong in `[kafka.client]`"));
    }

    #[test]
    fn other_languages_are_recognized() {
        for (text, language) in [
            ("# mine\nkafka:\n  bootstrap_servers: a:1\n", Some("YAML")),
            ("---\nkafka:\n", Some("YAML")),
            ("workers: 3", Some("YAML")),
            ("{ \"kafka\": 1 }", Some("JSON")),
            ("[kafka]\nbootstrap = \n", None),
            ("kafka.bootstrap_servers = \"a:1", None),
            ("", None),
        ] {
            assert_eq!(another_language(text), language, "{text}");
        }
    }

    #[test]
    fn messages_use_terms_of_the_file() {
        for (theirs, ours) in [
            ("invalid type: integer `6`, expected a map", "invalid type: integer `6`, expected a section"),
            (
                "invalid type: boolean `false`, expected struct DeadLetters",
                "invalid type: boolean `false`, expected a section",
            ),
            ("missing field `topics`", "missing setting `topics`"),
        ] {
            assert_eq!(explain(theirs, None, &[]).0, ours);
        }
    }
}
