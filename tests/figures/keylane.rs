//! One run of `keylane run --until-end`, and the start and end of its work.

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

use crate::child::{self, Usage};
use crate::options::Options;

/// The log message of every assigned partition. The work begins with the first one.
pub(crate) const ASSIGNED: &str = "ownership started";

/// The log message when everything is settled and committed.
const DRAINED: &str = "drained";

/// The resource usage of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// From the assignment of the partitions to the last commit, without connecting and joining the group.
    pub(crate) working: Duration,
    /// The resource usage of the whole process.
    pub(crate) usage: Usage,
}

/// The settings of a run: the defaults, except for those that isolate the runs from each other and
/// from the user.
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

/// The cache of compiled components for all runs. Keylane ignores it if another user may write to
/// it.
pub(crate) fn cache() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        let folder = janitor::folder("cache");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("we own the folder");
        folder
    })
}

/// Runs Keylane until it has handled all events of its topic.
pub(crate) fn until_end(settings: &Settings, options: &Options) -> Result<Run> {
    until_end_with(settings, options, &[])
}

/// The same, with the lines of its log, those of level debug included.
pub(crate) fn until_end_with_log(settings: &Settings, options: &Options) -> Result<(Run, Vec<Value>)> {
    logged(settings, options, (&["--log", "info,keylane=debug"], &[]))
}

/// The same, with additional environment variables.
pub(crate) fn until_end_with(
    settings: &Settings,
    options: &Options,
    environment: &[(&str, &str)],
) -> Result<Run> {
    logged(settings, options, (&[], environment)).map(|(run, _)| run)
}

fn logged(
    settings: &Settings,
    options: &Options,
    (arguments, environment): (&[&str], &[(&str, &str)]),
) -> Result<(Run, Vec<Value>)> {
    let folder = janitor::folder("figures");
    let file = folder.join("keylane.toml");
    fs::write(&file, settings.to_toml())?;
    let log = folder.join("log");
    let mut command = Command::new(options.binary.as_deref().unwrap_or_else(|| binary()));
    command
        .args(["run", "--until-end", "--log-format", "json", "-c"])
        .arg(&file)
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log)?);
    let run = child::run(&mut command).and_then(|usage| {
        let lines = lines(&log)?;
        Ok((Run { working: working(&lines)?, usage }, lines))
    });
    run.with_context(|| format!("the log of keylane:\n{}", fs::read_to_string(&log).unwrap_or_default()))
}

/// Runs Keylane on an empty topic, so that its component is compiled and cached before the measurement.
pub(crate) fn warm_up(settings: &Settings, options: &Options) -> Result<Usage> {
    until_end(settings, options).map(|run| run.usage)
}

fn lines(log: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(log)?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn working(lines: &[Value]) -> Result<Duration> {
    Ok(time_of(lines, DRAINED)?.duration_since(time_of(lines, ASSIGNED)?)?)
}

/// Whether a line of the log has this message.
pub(crate) fn has_message(line: &Value, message: &str) -> bool {
    line.get("message").is_some_and(|text| text == message)
}

/// The time of the first line with this message.
fn time_of(lines: &[Value], message: &str) -> Result<SystemTime> {
    let line = lines.iter().find(|line| has_message(line, message));
    let line = line.with_context(|| format!("the log has no line {message:?}"))?;
    let time = line.get("timestamp").and_then(Value::as_str);
    let time = time.with_context(|| format!("{line} has no timestamp"))?;
    humantime::parse_rfc3339(time).with_context(|| format!("{time} is not a timestamp"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_by_their_message() {
        let line = r#"{"timestamp":"2026-01-31T10:00:00.250000Z","level":"INFO","message":"hello"}"#;
        let lines = [serde_json::from_str(line).expect("JSON")];
        let time = time_of(&lines, "hello").expect("the line exists");
        let midnight = humantime::parse_rfc3339("2026-01-31T00:00:00Z").expect("a time");
        assert_eq!(time.duration_since(midnight).ok(), Some(Duration::from_millis(36_000_250)));
        assert!(time_of(&lines, "goodbye").is_err());
    }
}
