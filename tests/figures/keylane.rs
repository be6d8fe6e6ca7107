//! One run of `keylane run --until-end`, and when in it the work began and ended.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use keylane_tests::kafka::unique;
use keylane_tests::keylane::{Settings, binary};
use keylane_tests::{guests, janitor};
use serde_json::Value;

use crate::child::{self, Used};
use crate::options::Options;

/// What the log says of every partition that is assigned: from the first on there is something to do.
pub(crate) const BEGUN: &str = "partition assigned";

/// What the log says when everything is settled and committed.
const ENDED: &str = "drained";

/// What a run took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// From the assignment of the partitions to the last commit. Connecting and joining the group came before it.
    pub(crate) working: Duration,
    /// Of the whole process.
    pub(crate) used: Used,
}

/// The settings of a run: everything at its default but what keeps runs apart from each other and from their user.
pub(crate) fn settings(bootstrap: &str, topic: &str, guest: &str, options: &Options) -> Settings {
    let settings = Settings::new(bootstrap)
        .handler(&guests::guest(guest), topic, &unique("figures"))
        .set("handlers.t.retry", "on_exhausted", "skip")
        .set("runtime", "cache_dir", cache().display().to_string());
    match options.workers {
        Some(workers) => settings.set("runtime", "workers", workers),
        None => settings,
    }
}

/// Where compiled components are kept while this program runs; nobody else may write to it, or it is not used.
pub(crate) fn cache() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        let folder = janitor::folder("cache");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("the folder is ours");
        folder
    })
}

/// Runs Keylane until it has done everything that is in its topic.
pub(crate) fn until_end(settings: &Settings, options: &Options) -> Result<Run> {
    until_end_with(settings, options, &[])
}

/// The same, with variables in its environment.
pub(crate) fn until_end_with(
    settings: &Settings,
    options: &Options,
    environment: &[(&str, &str)],
) -> Result<Run> {
    let folder = janitor::folder("figures");
    let file = folder.join("keylane.toml");
    fs::write(&file, settings.to_toml())?;
    let log = folder.join("log");
    let mut command = Command::new(options.binary.as_deref().unwrap_or_else(|| binary()));
    command
        .args(["run", "--until-end", "--log-format", "json", "-c"])
        .arg(&file)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log)?);
    let run = child::run(&mut command).and_then(|used| Ok(Run { working: working(&log)?, used }));
    run.with_context(|| format!("keylane said\n{}", fs::read_to_string(&log).unwrap_or_default()))
}

/// Runs Keylane on an empty topic, so that its component is compiled and in the cache before anything is measured.
pub(crate) fn warm_up(settings: &Settings, options: &Options) -> Result<Used> {
    until_end(settings, options).map(|run| run.used)
}

fn working(log: &Path) -> Result<Duration> {
    let text = fs::read_to_string(log)?;
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    Ok(time_of(&lines, ENDED)?.duration_since(time_of(&lines, BEGUN)?)?)
}

/// Whether a line of the log has this message.
pub(crate) fn says(line: &Value, message: &str) -> bool {
    line.get("message").is_some_and(|said| said == message)
}

/// When the first line with this message was written.
fn time_of(lines: &[Value], message: &str) -> Result<SystemTime> {
    let line = lines.iter().find(|line| says(line, message));
    let line = line.with_context(|| format!("the log has no line {message:?}"))?;
    let time = line.get("timestamp").and_then(Value::as_str);
    let time = time.with_context(|| format!("{line} has no timestamp"))?;
    humantime::parse_rfc3339(time).with_context(|| format!("{time} is no time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_by_their_message() {
        let line = r#"{"timestamp":"2026-01-31T10:00:00.250000Z","level":"INFO","message":"hello"}"#;
        let lines = [serde_json::from_str(line).expect("JSON")];
        let time = time_of(&lines, "hello").expect("there is such a line");
        let midnight = humantime::parse_rfc3339("2026-01-31T00:00:00Z").expect("a time");
        assert_eq!(time.duration_since(midnight).ok(), Some(Duration::from_millis(36_000_250)));
        assert!(time_of(&lines, "goodbye").is_err());
    }
}
