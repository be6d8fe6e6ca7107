//! The text of a configuration file without its secrets, for a report to others.

use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Error;
use super::{secret, sha256};

/// What replaces a secret.
const REDACTED: &str = "\"(redacted)\"";
/// Settings whose names only look like those of secrets.
const NOT_SECRET: [&str; 2] = ["lane_key", "no_key"];
/// The tables of client properties under `[kafka]`.
const CLIENTS: [&str; 3] = ["client", "consumer", "producer"];

/// A configuration file without its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedactedFile {
    /// The SHA-256 of the file as it is, in hex, as in the status of a process that runs it.
    pub sha256: String,
    /// The text with comments, with variables that are not replaced, and with placeholders for secrets.
    pub text: String,
}

/// Reads a configuration file, valid or not, and removes its secrets.
///
/// # Errors
///
/// The file can't be read.
pub fn load_redacted(path: &Path) -> Result<RedactedFile, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| Error::Unreadable { path: path.to_path_buf(), source })?;
    Ok(RedactedFile { sha256: sha256(&text), text: redacted(&text) })
}

/// Returns the text without secrets. A text that can't be parsed is redacted line by line, as in the errors of
/// [`load`](super::load).
fn redacted(text: &str) -> String {
    let Ok(root) = DeTable::parse(text) else { return redact_lines(text) };
    let mut secrets = Vec::new();
    find_in_table(root.get_ref(), text, &mut Vec::new(), &mut secrets);
    secrets.sort_unstable_by_key(|range| range.start);
    let (mut result, mut end) = (String::new(), 0);
    for range in secrets {
        result.push_str(text.get(end..range.start).unwrap_or_default());
        result.push_str(REDACTED);
        end = range.end;
    }
    result.push_str(text.get(end..).unwrap_or_default());
    redact_comments(&result)
}

fn find_in_table<'t>(
    table: &'t DeTable<'_>,
    text: &str,
    path: &mut Vec<&'t str>,
    secrets: &mut Vec<Range<usize>>,
) {
    for (key, value) in table {
        path.push(key.get_ref());
        find(value, text, path, secrets);
        path.pop();
    }
}

/// Adds the ranges of the secrets in a value.
fn find<'t>(
    value: &'t Spanned<DeValue<'_>>,
    text: &str,
    path: &mut Vec<&'t str>,
    secrets: &mut Vec<Range<usize>>,
) {
    match value.get_ref() {
        DeValue::Table(table) => find_in_table(table, text, path, secrets),
        DeValue::Array(values) => values.iter().for_each(|value| find(value, text, path, secrets)),
        DeValue::String(string) => {
            let is_secret = if is_secret(path) { !is_variable(string) } else { has_secret(string) };
            secrets.extend(is_secret.then(|| value.span()));
        }
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            secrets.extend(is_secret(path).then(|| value.span()));
        }
    }
}

/// Returns whether the setting at this path is a secret. The names of handlers and of their outputs are no evidence.
fn is_secret(path: &[&str]) -> bool {
    match path {
        ["kafka", table, name @ ..] if CLIENTS.contains(table) => secret::is_hidden_property(&name.join(".")),
        ["handlers", _, "outputs", _, names @ ..] | ["handlers", _, names @ ..] | names => {
            names.iter().any(|name| is_secret_name(name))
        }
    }
}

fn is_secret_name(name: &str) -> bool {
    !NOT_SECRET.iter().any(|known| name.ends_with(known))
        && (secret::is_secret(name) || secret::is_hidden_property(name) || name == "sasl")
}

/// Returns whether the text is nothing but a variable without a default.
fn is_variable(text: &str) -> bool {
    let name = text.strip_prefix("${").and_then(|text| text.strip_suffix('}'));
    name.is_some_and(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
}

/// Returns whether a setting without the name of a secret contains one: a private key, the password of a URL, or the
/// default of a variable with the name of a secret.
fn has_secret(text: &str) -> bool {
    let defaults = text.split("${").skip(1).filter_map(|variable| variable.split_once(":-"));
    // A password may contain a slash, so the whole rest counts.
    let in_url = text.split_once("://").map(|(_, rest)| rest);
    text.contains("-----BEGIN")
        || in_url.is_some_and(|authority| authority.contains('@'))
        || defaults.into_iter().any(|(name, _)| secret::is_secret(name))
}

/// Hides comments that may contain a secret: a private key, a word that names a secret, or the rest of a line after the
/// name of a secret and `=` or `:`, such as a setting that is commented out.
fn redact_comments(text: &str) -> String {
    let mut in_key = false;
    let line = |line: &str| {
        let (before, comment) = line.split_at(line.find('#').unwrap_or(line.len()));
        let was_in_key = in_key;
        in_key = (in_key || comment.contains("-----BEGIN"))
            && !comment.contains("-----END")
            && !comment.is_empty();
        if was_in_key && !comment.is_empty() || comment.contains("-----BEGIN") {
            return format!("{before}# {REDACTED}");
        }
        for (at, separator) in comment.match_indices(['=', ':']) {
            let word = comment.get(..at).unwrap_or_default().split_whitespace().last().unwrap_or_default();
            if is_secret_name(word.trim_matches(['#', '"', '\''])) {
                return format!("{before}{}{separator} {REDACTED}", comment.get(..at).unwrap_or_default());
            }
        }
        line.to_owned()
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// Hides secrets as the errors of [`load`](super::load) do, and those that are evident in a single line.
fn redact_lines(text: &str) -> String {
    let mut start = 0;
    let line = |line: &str| {
        let visible = secret::visible_part(text, start);
        start += line.len() + 1;
        let (name, value) = line.split_once('=').unwrap_or(("", line));
        let name = name.trim().trim_matches(['"', '\'']);
        match visible {
            Some(visible) => format!("{visible} {REDACTED}"),
            None if is_secret_name(name) || has_secret(value) => format!("{name} = {REDACTED}"),
            None => line.to_owned(),
        }
    };
    redact_comments(&text.split('\n').map(line).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Represents a secret.
    const CANARY: &str = "canary-4711";

    #[test]
    fn settings_comments_and_variables_stay() {
        let text = "\
# Our brokers.
[kafka]
bootstrap_servers = \"a:1,${OTHER:-b:2}\" # two of them
client = { \"security.protocol\" = \"SASL_SSL\", \"sasl.password\" = \"${KAFKA_PASSWORD}\" }

[handlers.token-service]
topics = [\"tokens\"] # lanes: by key
lanes = { lane_key = \"json:/id\", no_key = \"reject\" }
grants.env = [\"API_TOKEN\"]
outputs.secrets.topic = \"out\"
filter = [{ key_prefix = \"test-\", keep = false }]
";
        assert_eq!(redacted(text), text);
    }

    #[test]
    fn the_values_of_secrets_are_replaced() {
        for (text, expected) in [
            ("[admin]\ntoken = 'X' # why", "[admin]\ntoken = \"(redacted)\" # why"),
            (
                "kafka.client.\"sasl.username\" = \"X\"\nkafka.client.acks = 1",
                "kafka.client.\"sasl.username\" = \"(redacted)\"\nkafka.client.acks = 1",
            ),
            (
                "[kafka.producer.ssl]\nkey.pem = \"\"\"\n-----\nX\"\"\"\n",
                "[kafka.producer.ssl]\nkey.pem = \"(redacted)\"\n",
            ),
            (
                "[kafka.client.sasl]\npassword = ['X', 'X']",
                "[kafka.client.sasl]\npassword = [\"(redacted)\", \"(redacted)\"]",
            ),
            (
                "# -----BEGIN PRIVATE KEY-----\n# X\n# -----END PRIVATE KEY-----\n# more",
                "# \"(redacted)\"\n# \"(redacted)\"\n# \"(redacted)\"\n# more",
            ),
            ("kafka.password_file = \"X\"", "kafka.password_file = \"(redacted)\""),
            ("a = [{ b = 1, secret = 4711 }, 2]", "a = [{ b = 1, secret = \"(redacted)\" }, 2]"),
            ("a = \"${DB_PASSWORD:-X}\"", "a = \"(redacted)\""),
            ("admin.token = \"${TOKEN:-X}\"", "admin.token = \"(redacted)\""),
            ("url = \"postgres://user:X@host/db\"", "url = \"(redacted)\""),
            ("# sasl.password = \"X\"\na = 1", "# sasl.password = \"(redacted)\"\na = 1"),
            ("a = 1 # export KAFKA_PASSWORD=X", "a = 1 # export KAFKA_PASSWORD= \"(redacted)\""),
            ("a = 'b#c' # password: X", "a = 'b#c' # password: \"(redacted)\""),
        ] {
            assert_eq!(redacted(&text.replace('X', CANARY)), expected);
        }
    }

    #[test]
    fn a_file_with_a_syntax_error_is_redacted_by_line() {
        for (text, kept) in [
            ("x =\n[kafka.client]\nsasl.password = \"X\"\nacks = 1", "\nacks = 1"),
            ("x =\n[kafka]\nclient.ssl.key.pem = \"\"\"\n-----BEGIN\nX=\n\"\"\"", "[kafka]"),
            ("[kafka.client]\nsasl.password \"X\"\nacks = 1", "\nacks = 1"),
            ("x =\napi_key = \"X\"\ny = 2", "\ny = 2"),
            ("x =\nurl = \"http://u:X@h\" \ny = 2", "\ny = 2"),
            ("x =\nurl = \"${PASSWORD:-X}\"\ny = 2", "\ny = 2"),
            ("a = 1\na = 2\n# my token = X\n# why", "\n# why"),
        ] {
            let found = redacted(&text.replace('X', CANARY));
            assert!(!found.contains(CANARY) && found.contains(kept), "{text}\n=>\n{found}");
        }
    }
}
