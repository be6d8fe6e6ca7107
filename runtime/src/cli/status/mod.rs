//! `keylane status`: the status of the processes on this machine, or of one elsewhere, or of consumer groups.

mod group;
mod group_table;
mod table;

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;

use super::admin_server::{AdminServers, Fetched, Target, nothing_answers};
use super::{CommandFailure, Completion, StatusArguments, stdout};
use crate::status::ProcessStatus;

/// Interval of `--watch`.
const INTERVAL: Duration = Duration::from_secs(1);

/// Shows the status.
pub(super) fn execute(file: &Path, arguments: &StatusArguments) -> Result<Completion, CommandFailure> {
    if let Some(handler) = &arguments.group {
        return group::execute(file, handler.as_deref(), arguments.json);
    }
    let servers = AdminServers::select(file, &arguments.admin)?;
    loop {
        let found = servers.fetch();
        let is_nothing = found.is_empty();
        let (mut text, error) = if arguments.json { as_json(found) } else { as_text(found) };
        let error = if is_nothing { Some(nothing_answers()) } else { error };
        if let Some(error) = error.as_ref().filter(|_| arguments.watch && !arguments.json) {
            // The process may respond again at the next interval.
            text += &format!("{error:#}\n");
        }
        let is_repeated = arguments.watch && std::io::stdout().is_terminal();
        // On a terminal each status replaces the one before.
        let text = if is_repeated { format!("\x1b[H\x1b[2J{text}") } else { text };
        let printed = stdout::print(&text)?;
        if printed == Completion::Failure {
            return Ok(printed);
        }
        if !arguments.watch {
            return error.map_or(Ok(printed), |error| Err(error.into()));
        }
        std::thread::sleep(INTERVAL);
    }
}

/// Returns the statuses as received, one line each, and the first error.
fn as_json(found: Vec<Fetched>) -> (String, Option<anyhow::Error>) {
    collect(found, |_, json| Ok(json.trim_end().to_owned() + "\n"), "")
}

/// Returns the statuses as text, and the first error.
fn as_text(found: Vec<Fetched>) -> (String, Option<anyhow::Error>) {
    let format = |target: &Target, json: &str| {
        let status: ProcessStatus = serde_json::from_str(json)
            .map_err(|error| anyhow!("{target} did not answer with a status of this version: {error}"))?;
        Ok(table::of(&status, &target.to_string()))
    };
    collect(found, format, "\n")
}

fn collect(
    found: Vec<Fetched>,
    format: impl Fn(&Target, &str) -> anyhow::Result<String>,
    separator: &str,
) -> (String, Option<anyhow::Error>) {
    let (mut texts, mut first_error) = (Vec::new(), None);
    for Fetched { target, status } in found {
        match status.and_then(|json| format(&target, &json)) {
            Ok(text) => texts.push(text),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    (texts.join(separator), first_error)
}
