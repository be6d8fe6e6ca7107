//! The configuration: one TOML file, parsed and validated.
//!
//! A file passes through five stages, each in its own module:
//!
//! 1. `document` parses it, keeps the span of every key and value, and replaces `${VAR}` (`interpolate`);
//! 2. `unsupported` refuses settings of later versions, with an error that names the setting;
//! 3. `written` deserializes the rest into the types that the schema and the reference describe;
//! 4. `rules` validates what types can't express, and collects every problem instead of stopping at the first;
//! 5. `checked` is the result. Only `rules` can construct it, so an unchecked configuration can't be run.
//!
//! Except for the command-line arguments, only [`load`] and [`load_admin`] read the environment.

mod admin_endpoint;
mod admin_token;
mod attempts;
mod checked;
mod checked_gate;
mod client_properties;
mod deserializer_messages;
mod document;
mod duration;
mod error;
mod event_field;
mod fetch;
mod forget_after;
mod gate_values;
mod granted_host;
mod interpolate;
mod known_properties;
mod lane_key;
mod problem;
mod redact;
mod rules;
mod scalar;
mod secret;
mod size;
mod start_policy;
mod unsupported;
mod written;
mod written_filter;
mod written_gate;
mod written_handler;
mod written_retry;
mod written_state;
mod written_transactions;

#[cfg(test)]
mod tests;

use std::num::NonZero;
use std::path::{Path, PathBuf};

pub use admin_endpoint::{AdminEndpoint, load_admin};
pub use admin_token::AdminToken;
pub use checked::{
    AdminConfig, AdminListen, Assignor, Checked, Cluster, DuplicatesConfig, EmbeddedConfig, EventField,
    FeedConfig, FeedSource, FilterRule, GateConfig, GrantedHost, GrantsConfig, HandlerConfig, HeaderTest,
    KafkaConfig, KeysConfig, LaneKey, LanesConfig, NoKey, OnRefusedOutput, OrderBy, OrderConfig, OrderFormat,
    Ordering, OutputConfig, OutputTime, RuntimeConfig,
};
pub use client_properties::ClientProperties;
pub use error::Error;
pub use fetch::{FETCH_MIN, FetchLimits};
pub use problem::ProblemReport;
pub use redact::load_redacted;
pub use size::HumanSize;
pub use start_policy::StartPolicy;

use sha2::{Digest as _, Sha256};

use document::Document;
use problem::Problems;

/// Reads and checks a configuration file, with the environment and the number of cores of this process.
///
/// # Errors
///
/// The file can't be read, or the configuration is invalid.
pub fn load(path: &Path) -> Result<Checked, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| Error::Unreadable { path: path.to_path_buf(), source })?;
    Ok(check(&text, &environment(path))?)
}

/// Returns the environment of this process for a check of this file.
fn environment(path: &Path) -> Environment<'_> {
    Environment {
        file: path,
        variable: &read_variable,
        // Not `is_file`: a feed may be a pipe.
        is_file_or_pipe: &|path| path.exists() && !path.is_dir(),
        cores: std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN),
    }
}

/// Checks the text of a configuration file.
///
/// # Errors
///
/// All problems that can be found in one pass.
pub fn check(text: &str, environment: &Environment<'_>) -> Result<Checked, ProblemReport> {
    let mut report = ProblemReport::new(environment.file, text);
    let mut document = Document::parse(text, &mut report)?;
    document.interpolate(environment.variable, &mut report)?;
    unsupported::refuse(&mut document, &mut report);
    let written = document.deserialize(&mut report)?;
    let mut problems = Problems::new(&document, &mut report);
    let mut checked = rules::checked(&written, environment, &mut problems);
    checked.sha256 = sha256(text);
    report.into_result(checked)
}

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the JSON Schema of the configuration file.
#[must_use]
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(written::Written)
}

/// The inputs of a check besides the text of the file. Only one check uses the real file system: whether a path is a
/// directory.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    /// The path of the file, for messages. Relative paths are resolved from its directory.
    pub file: &'a Path,
    /// Looks up an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Whether a path exists and is not a directory.
    pub is_file_or_pipe: &'a dyn Fn(&Path) -> bool,
    /// Number of cores that the process may use: the default of `runtime.workers`.
    pub cores: NonZero<usize>,
}

impl Environment<'_> {
    /// Resolves a path in the file to one relative to the working directory.
    fn resolve(&self, path: &Path) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }
}

#[expect(clippy::disallowed_methods, reason = "the only function that reads the environment")]
fn read_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
