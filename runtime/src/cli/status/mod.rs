//! `keylane status`: the status of the processes on this machine, or of one elsewhere.

mod fetch;
mod table;

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;

use super::{CommandFailure, Completion, DEFAULT_CONFIG, StatusArguments, stdout};
use crate::config::{self, AdminEndpoint, AdminToken};
use crate::status::ProcessStatus;
use fetch::{Fetched, Target};

/// Interval of `--watch`.
const INTERVAL: Duration = Duration::from_secs(1);

/// Shows the status. Without an address, the status of every default port is requested: several processes may run on
/// this machine.
pub(super) fn execute(file: &Path, arguments: &StatusArguments) -> Result<Completion, CommandFailure> {
    let (targets, token) = match &arguments.admin {
        Some(address) => (vec![Target::named(address)], arguments.token.clone()),
        None => {
            let access = config::load_admin(file, file == Path::new(DEFAULT_CONFIG))?;
            let token = match &arguments.token {
                Some(token) => Some(token.clone()),
                None => {
                    access.token.as_ref().map(AdminToken::read).transpose().map_err(anyhow::Error::new)?
                }
            };
            (targets(&access), token)
        }
    };
    loop {
        let found: Vec<Fetched> =
            targets.iter().filter_map(|target| target.fetch(token.as_deref())).collect();
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

/// Returns the address in the file, or all default ones.
fn targets(access: &AdminEndpoint) -> Vec<Target> {
    match access.address.as_deref() {
        Some(address) => vec![Target::named(address)],
        None => keylane_admin::DEFAULT_PORTS.map(Target::on_loopback).collect(),
    }
}

/// The error if none of the default ports has a status.
fn nothing_answers() -> anyhow::Error {
    anyhow!(
        "no Keylane process responds on 127.0.0.1, ports {} to {}: pass `--admin URL`, or `-c FILE` with its `[admin]`",
        keylane_admin::DEFAULT_PORTS.start(),
        keylane_admin::DEFAULT_PORTS.end()
    )
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
    for Fetched { target, text } in found {
        match text.and_then(|json| format(&target, &json)) {
            Ok(text) => texts.push(text),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    (texts.join(separator), first_error)
}
