//! `keylane report`: one file for a support ticket. A part that can't be collected is replaced by its error.

mod processes;
mod system;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Value, json};

use super::version::versions;
use super::{CommandFailure, Completion, ReportArguments, stdout};
use crate::{config, logging};

/// The version of the format. Fields may be added without a change of it.
const FORMAT: u32 = 1;

/// The report. Each value is as described, or an object with only `error`.
#[derive(Serialize)]
struct Report {
    format: u32,
    /// The time in UTC.
    time: String,
    /// The lines of `keylane --version`.
    versions: Vec<String>,
    /// The machine on which the report was made, and the limits of this command.
    system: system::System,
    /// The processes that responded.
    processes: Value,
    /// The configuration file, without secrets.
    configuration: Value,
}

/// Writes the report.
pub(super) fn execute(file: &Path, arguments: &ReportArguments) -> Result<Completion, CommandFailure> {
    let since = now();
    let report = Report {
        format: FORMAT,
        time: humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string(),
        versions: format!("keylane {}", versions()).lines().map(str::to_owned).collect(),
        system: system::System::read(),
        processes: processes::collect(file, &arguments.admin),
        configuration: configuration(file),
    };
    let text = serde_json::to_string_pretty(&report).context("the report can't be formatted")? + "\n";
    let path = match &arguments.output {
        Some(path) if path == Path::new("-") => return stdout::print(&text),
        Some(path) => path.clone(),
        None => PathBuf::from(format!("keylane-report-{}.json", since.as_secs())),
    };
    write(&path, &text)?;
    let path = path.display();
    logging::report(&format!(
        "wrote {path}: secrets of the configuration are left out, but check it before you send it to others\n"
    ));
    Ok(Completion::Success)
}

/// Writes a new file that only this user can read.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    created.and_then(|mut file| file.write_all(text.as_bytes())).with_context(|| {
        format!("can't write the report to {}; name another file with `-o FILE`", path.display())
    })
}

fn configuration(file: &Path) -> Value {
    match config::load_redacted(file) {
        Ok(redacted) => json!({ "file": file, "sha256": redacted.sha256, "text": redacted.text }),
        Err(error) => json!({ "file": file, "error": error.to_string() }),
    }
}

/// Returns a value, or an object with its error.
fn or_error<T: Serialize>(result: anyhow::Result<T>) -> Value {
    let value = result.and_then(|value| Ok(serde_json::to_value(value)?));
    value.unwrap_or_else(|error| json!({ "error": format!("{error:#}") }))
}

#[expect(clippy::disallowed_methods, reason = "a report names the time at which it was made")]
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_report_is_readable_for_its_owner_and_never_overwritten() {
        let path = std::env::temp_dir().join(format!("keylane-report-{}.json", std::process::id()));
        write(&path, "first").expect("a temporary file can be written");
        let mode = std::fs::metadata(&path).expect("it exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = format!("{:#}", write(&path, "second").expect_err("it exists"));
        assert!(error.contains("name another file") && error.contains("exists"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).expect("it exists"), "first");
        std::fs::remove_file(&path).expect("it exists");
    }

    #[test]
    fn an_error_takes_the_place_of_a_value() {
        assert_eq!(or_error(Ok(7)), json!(7));
        let error = anyhow::anyhow!("inner").context("outer");
        assert_eq!(or_error(Err::<u8, _>(error)), json!({ "error": "outer: inner" }));
    }
}
