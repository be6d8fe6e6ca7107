//! `keylane status`: the status of the processes on this machine, or of one elsewhere.

mod fetch;
mod table;

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;

use super::{CommandFailure, Completion, DEFAULT_CONFIG, StatusArguments, stdout};
use crate::config::{self, AdminAccess, AdminToken};
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
        if found.is_empty() {
            return Err(nothing_answers(&targets).into());
        }
        let mut refused = None;
        let mut answered = Vec::new();
        for Fetched { target, text } in found {
            match text {
                Ok(text) => answered.push((target, text)),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        let text = if arguments.json { as_json(answered) } else { as_text(answered)? };
        let is_repeated = arguments.watch && std::io::stdout().is_terminal();
        // On a terminal each status replaces the one before.
        let text = if is_repeated { format!("\x1b[H\x1b[2J{text}") } else { text };
        let printed = stdout::print(&text)?;
        if let Some(error) = refused {
            return Err(error.into());
        }
        if !arguments.watch || printed == Completion::Failure {
            return Ok(printed);
        }
        std::thread::sleep(INTERVAL);
    }
}

/// Returns the address in the file, or all default ones.
fn targets(access: &AdminAccess) -> Vec<Target> {
    match access.address.as_deref() {
        Some(address) => vec![Target::named(address)],
        None => keylane_admin::DEFAULT_PORTS.map(Target::on_loopback).collect(),
    }
}

fn nothing_answers(targets: &[Target]) -> anyhow::Error {
    match targets {
        [target] => anyhow!(
            "no Keylane answers at {target}: check the address, and that `admin.listen` of the process is not \"off\""
        ),
        _ => anyhow!(
            "no Keylane answers on 127.0.0.1, ports {} to {}: pass `--admin URL`, or `-c FILE` with its `[admin]`",
            keylane_admin::DEFAULT_PORTS.start(),
            keylane_admin::DEFAULT_PORTS.end()
        ),
    }
}

/// Returns the answers as they came, one line each.
fn as_json(answered: Vec<(Target, String)>) -> String {
    answered.into_iter().map(|(_, json)| json.trim_end().to_owned() + "\n").collect()
}

fn as_text(answered: Vec<(Target, String)>) -> anyhow::Result<String> {
    let mut text = String::new();
    for (target, json) in answered {
        let status: ProcessStatus = serde_json::from_str(&json)
            .map_err(|error| anyhow!("{target} did not answer with a status of this version: {error}"))?;
        if !text.is_empty() {
            text.push('\n');
        }
        write!(text, "{}", table::of(&status, &target.to_string())).expect("writing to a string can't fail");
    }
    Ok(text)
}
