//! Tests with whole files, up to the checked configuration or the rendered report.

mod accepted;
mod authentication;
mod documents;
mod gates;
mod interpolation;
mod properties;
mod refused;
mod rendering;
mod secrets;
mod state;
mod transactions;

use std::num::NonZero;
use std::path::Path;

use super::{Checked, Environment};

/// A minimal file with one handler.
const MINIMAL: &str = "\
[kafka]
bootstrap_servers = \"localhost:9092\"

[handlers.orders]
component = \"orders.wasm\"
topics = [\"orders\"]
group_id = \"orders\"
";

/// Checks a text in an environment with a few variables. All files exist, except for `missing.wasm`
/// and `missing.jsonl`.
fn check(text: &str) -> Result<Checked, String> {
    let variables = |name: &str| match name {
        "HOST" => Some("broker.example:9092".to_owned()),
        "EMPTY" => Some(String::new()),
        "NESTED" => Some("${HOST}".to_owned()),
        "KAFKA_PASSWORD" => Some("canary-in-environment".to_owned()),
        "TABBED_PASSWORD" => Some("canary-\ttabbed".to_owned()),
        "PRIVATE_PEM" => Some("first line\ncanary-second\u{7}line\n".to_owned()),
        "HOME" => Some("/home/somebody".to_owned()),
        _ => None,
    };
    let environment = Environment {
        file: Path::new("etc/keylane.toml"),
        variable: &variables,
        is_file_or_pipe: &|path| !path.ends_with("missing.wasm") && !path.ends_with("missing.jsonl"),
        cores: NonZero::new(3).expect("3 is not 0"),
    };
    super::check(text, &environment).map_err(|report| report.to_string())
}

/// Returns the minimal file with one line for the handler and more sections.
fn with(handler_line: &str, sections: &str) -> String {
    format!("{MINIMAL}{handler_line}\n{sections}\n")
}

fn expect_accepted(text: &str) -> Checked {
    check(text).unwrap_or_else(|report| panic!("refused:\n{report}\n{text}"))
}

/// Checks that a text is refused and that the report contains every expected part. Returns the report.
fn expect_refused(text: &str, expected: &[&str]) -> String {
    let report = check(text).map(|_| ()).expect_err(text);
    for part in expected {
        assert!(report.contains(part), "no {part:?} in:\n{report}");
    }
    report
}
