//! The configuration: one TOML file, from what is written to what is meant.
//!
//! A file goes through five stages, each in a module of its own:
//!
//! 1. `document` parses it, keeps the place of everything in it and replaces `${VAR}` (`interpolate`);
//! 2. `not_yet` refuses by name what later versions will have;
//! 3. `written` gives the rest its types: these are the fields that the schema and the reference describe;
//! 4. `rules` tests what types can't say, and gathers every problem instead of stopping at the first;
//! 5. `checked` is the result. It can't be made in any other way, so what was not checked can't be run.
//!
//! Only this module reads the environment, and only [`load`] does it.

mod attempts;
mod checked;
mod client_properties;
mod document;
mod duration;
mod error;
mod fetch;
mod http_host;
mod interpolate;
mod known_properties;
mod lane_key;
mod not_yet;
mod problem;
mod rules;
mod scalar;
mod secret;
mod size;
mod start;
mod unreadable;
mod written;
mod written_filter;
mod written_handler;
mod written_retry;

#[cfg(test)]
mod tests;

use std::num::NonZero;
use std::path::{Path, PathBuf};

pub use checked::{
    Assignor, Checked, Cluster, CommitConfig, DeadLettersConfig, EmbeddedConfig, FeedConfig, FeedSource,
    FilterRule, GrantsConfig, HandlerConfig, HeaderTest, HttpHost, KafkaConfig, LaneKey, LanesConfig, NoKey,
    Ordering, OutputConfig, OutputTime, RuntimeConfig, Variable,
};
pub use client_properties::Properties;
pub use error::{Error, Refused};
pub use fetch::{FETCH_MIN, FetchLimits};
pub use keylane_core::OutOfRange;
pub use problem::Report;
pub use size::HumanSize;
pub use start::Start;

use document::Document;
use problem::Problems;

/// Reads and checks a configuration file, with the environment and the machine of this process.
///
/// # Errors
///
/// The file can't be read, or it is not a sound configuration.
pub fn load(path: &Path) -> Result<Checked, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| Error::Unreadable { path: path.to_path_buf(), source })?;
    let surroundings = Surroundings {
        file: path,
        environment: &read_environment,
        // Not `is_file`: a feed may be a pipe.
        is_there: &|path| path.exists() && !path.is_dir(),
        cores: std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN),
    };
    Ok(check(&text, &surroundings)?)
}

/// Checks the text of a configuration file.
///
/// # Errors
///
/// Everything that is wrong with it, as far as it can be told in one go.
pub fn check(text: &str, surroundings: &Surroundings<'_>) -> Result<Checked, Report> {
    let mut report = Report::new(surroundings.file, text);
    let mut document = Document::parse(text, &mut report)?;
    document.interpolate(surroundings.environment, &mut report)?;
    not_yet::refuse(&mut document, &mut report);
    let written = document.read(&mut report)?;
    let mut problems = Problems::new(&document, &mut report);
    let checked = rules::checked(&written, surroundings, &mut problems);
    report.into_result(checked)
}

/// The JSON Schema of the configuration file.
#[must_use]
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(written::Written)
}

/// What a configuration depends on besides its own text.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The name of the file: for messages, and the place that relative paths start from.
    pub file: &'a Path,
    /// Looks up an environment variable.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// Whether a path leads to something that can be read like a file.
    pub is_there: &'a dyn Fn(&Path) -> bool,
    /// How many cores the process may use: the default of `runtime.workers`.
    pub cores: NonZero<usize>,
}

impl Surroundings<'_> {
    /// A path of the file as seen from the working directory.
    fn resolve(&self, path: &Path) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
fn read_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
