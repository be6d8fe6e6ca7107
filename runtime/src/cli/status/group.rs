//! `keylane status --group`: the consumer groups of the configuration, as the brokers describe them.

use std::path::Path;

use super::super::{CommandFailure, Completion, stdout};
use super::group_table;
use crate::config::{self, Checked, Cluster, HandlerConfig};
use crate::status::GroupStatus;
use crate::{app, logging};

/// Shows the group of each handler, or only of the handler with this name. Problems of a group are reported after all
/// groups, so that one of them does not hide the others.
pub(super) fn execute(file: &Path, name: Option<&str>, json: bool) -> Result<Completion, CommandFailure> {
    let config = config::load(file)?;
    let Cluster::Brokers(servers) = &config.kafka.cluster else {
        return Err(CommandFailure::Usage {
            message: "the embedded broker runs inside `keylane run`, so its groups can't be described"
                .to_owned(),
            remedy: "use `keylane status` without --group, which shows the running process",
        });
    };
    let handlers = handlers(file, &config, name)?;
    let (mut texts, mut problems) = (Vec::new(), Vec::new());
    for group in app::group_statuses(&config, servers, &handlers)? {
        match group {
            Ok(group) => {
                problems.extend(
                    group.problems.iter().map(|problem| format!("handler `{}`: {problem}", group.handler)),
                );
                texts.push(if json { as_json(&group)? } else { group_table::of(&group) });
            }
            Err(error) => problems.push(format!("{error:#}")),
        }
    }
    let printed = stdout::print(&texts.join(if json { "" } else { "\n" }))?;
    for problem in &problems {
        logging::report(&format!("error: {problem}\n"));
    }
    Ok(if problems.is_empty() { printed } else { Completion::Failure })
}

fn handlers<'c>(
    file: &Path,
    config: &'c Checked,
    name: Option<&str>,
) -> Result<Vec<&'c HandlerConfig>, CommandFailure> {
    let Some(name) = name else { return Ok(config.handlers.iter().collect()) };
    match config.handlers.iter().find(|handler| handler.name == name) {
        Some(handler) => Ok(vec![handler]),
        None => {
            let names: Vec<String> =
                config.handlers.iter().map(|handler| format!("`{}`", handler.name)).collect();
            Err(CommandFailure::Usage {
                message: format!("{} has no handler `{name}`, but {}", file.display(), names.join(", ")),
                remedy: "name one of them, or leave out the name for all",
            })
        }
    }
}

fn as_json(group: &GroupStatus) -> anyhow::Result<String> {
    Ok(serde_json::to_string(group)? + "\n")
}
