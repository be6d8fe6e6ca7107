//! `keylane state reset` and `adopt`, and `keylane offsets accept`.

use std::io::{self, BufRead as _, IsTerminal as _};

use anyhow::Context as _;

use super::super::{CommandFailure, Completion, stdout};
use super::arguments::{PartitionArguments, StateAdoptArguments, StateResetArguments};
use super::{Cli, note};
use crate::app::{Accepted, Adopted, ResetPartition};
use crate::logging;

/// Deletes states and sets the group to the start of its topics, after a confirmation.
pub(super) fn reset(on: &Cli<'_>, arguments: &StateResetArguments) -> Result<Completion, CommandFailure> {
    let is_asked = io::stdin().is_terminal() && io::stderr().is_terminal();
    if !arguments.yes && !is_asked {
        return Err(CommandFailure::Usage {
            message:
                "`keylane state reset` deletes states, and there is no terminal to ask for a confirmation"
                    .to_owned(),
            remedy: "add `--yes`",
        });
    }
    let mut tools = on.open_any(&arguments.partitions)?;
    let plan = tools.plan_reset()?;
    if plan.is_empty() {
        return stdout::print("nothing to reset: there are no states and no committed offsets\n");
    }
    for line in &plan {
        note(&describe(line));
    }
    if !arguments.yes && !is_confirmed(&tools.group())? {
        note("nothing was changed");
        return Ok(Completion::Failure);
    }
    let deleted = tools.reset(&plan)?;
    let (count, group) = (plan.len(), tools.group());
    stdout::print(&format!(
        "{deleted} states deleted; the group `{group}` is at the start of the log in {count} partitions\n"
    ))
}

fn describe(reset: &ResetPartition) -> String {
    let ResetPartition { partition, keys, marks, committed, start } = reset;
    let (input, number) = (&partition.input, partition.number);
    let marks = if *marks > 0 { format!(" and {marks} marks of the gate") } else { String::new() };
    format!(
        "{input}/{number}: {keys} states{marks} are deleted, and the offset is set from {} to {start}",
        or_none(*committed)
    )
}

fn is_confirmed(group: &str) -> anyhow::Result<bool> {
    logging::report(&format!("Type the name of the group, {group}, to continue: "));
    let mut typed = String::new();
    io::stdin().lock().read_line(&mut typed).context("the confirmation can't be read")?;
    Ok(typed.trim() == group)
}

/// Sets the group to the offsets of the states.
pub(super) fn adopt(on: &Cli<'_>, arguments: &StateAdoptArguments) -> Result<Completion, CommandFailure> {
    let adopted = on.open_any(&arguments.partitions)?.adopt()?;
    if adopted.is_empty() {
        return stdout::print("nothing to adopt: the offsets are those of the states\n");
    }
    let line = |Adopted { partition, from, to }: &Adopted| {
        let (input, number) = (&partition.input, partition.number);
        format!("{input}/{number}: the offset was set from {} to {to}, that of the state\n", or_none(*from))
    };
    stdout::print(&adopted.iter().map(line).collect::<String>())
}

/// Commits offsets again without metadata that can't be read.
pub(super) fn accept(on: &Cli<'_>, arguments: &PartitionArguments) -> Result<Completion, CommandFailure> {
    let name = arguments.handler.as_deref();
    let handler = on.handler(name, "transactional delivery", |handler| handler.transactions.is_some())?;
    let mut tools = on.connect(handler, &arguments.selection())?;
    note(&format!("reading the committed offsets of the group `{}`, at {}", tools.group(), on.servers));
    let accepted = tools.accept()?;
    if accepted.is_empty() {
        return stdout::print("nothing to accept: all metadata of the committed offsets can be read\n");
    }
    let repeats = if handler.state.is_some() {
        "events beyond it that were done are processed again, on states that already contain them"
    } else {
        "events beyond it that were done are processed again"
    };
    let line = |Accepted { partition, offset }: &Accepted| {
        let (input, number) = (&partition.input, partition.number);
        format!("{input}/{number}: offset {offset} was committed without metadata; {repeats}\n")
    };
    stdout::print(&accepted.iter().map(line).collect::<String>())
}

fn or_none(offset: Option<i64>) -> String {
    offset.map_or_else(|| "none".to_owned(), |offset| offset.to_string())
}
