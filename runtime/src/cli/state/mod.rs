//! `keylane state`: keyed state, as the changelogs have it. `keylane offsets`: the committed offsets.

pub(super) mod arguments;
mod changes;
mod dump;
mod get;
mod marks;
mod read;
mod text;

use std::path::Path;

use super::{CommandFailure, Completion};
use crate::app::{KeyedTools, Selection};
use crate::config::{self, Checked, Cluster, HandlerConfig};
use crate::logging;
use arguments::{OffsetsArguments, OffsetsCommand, PartitionArguments, StateArguments, StateCommand};

/// Executes a command for keyed state.
pub(super) fn execute(file: &Path, arguments: &StateArguments) -> Result<Completion, CommandFailure> {
    let config = config::load(file)?;
    let on = Cli { file, servers: servers(&config)?, config: &config };
    match &arguments.command {
        StateCommand::List(arguments) => read::list(&on, arguments),
        StateCommand::Get(arguments) => get::execute(&on, arguments),
        StateCommand::Count(arguments) => read::count(&on, arguments),
        StateCommand::Reset(arguments) => changes::reset(&on, arguments),
        StateCommand::Adopt(arguments) => changes::adopt(&on, arguments),
        StateCommand::SetMark(arguments) => marks::set_mark(&on, arguments),
        StateCommand::Seed(arguments) => marks::seed(&on, arguments),
    }
}

/// Executes a command for committed offsets.
pub(super) fn execute_offsets(
    file: &Path,
    arguments: &OffsetsArguments,
) -> Result<Completion, CommandFailure> {
    let config = config::load(file)?;
    let on = Cli { file, servers: servers(&config)?, config: &config };
    match &arguments.command {
        OffsetsCommand::Accept(arguments) => changes::accept(&on, arguments),
    }
}

/// What a command works on.
struct Cli<'c> {
    file: &'c Path,
    config: &'c Checked,
    servers: &'c str,
}

impl Cli<'_> {
    /// Returns the handler with this name, or the only one of those that `is_meant` selects. `what` describes them.
    fn handler(
        &self,
        name: Option<&str>,
        what: &str,
        is_meant: impl Fn(&HandlerConfig) -> bool,
    ) -> Result<&HandlerConfig, CommandFailure> {
        let handlers: Vec<&HandlerConfig> =
            self.config.handlers.iter().filter(|handler| is_meant(handler)).collect();
        let names: Vec<String> = handlers.iter().map(|handler| format!("`{}`", handler.name)).collect();
        let (file, names) = (self.file.display(), names.join(", "));
        match (name, handlers.as_slice()) {
            (_, []) => Err(CommandFailure::Usage {
                message: format!("{file} has no handler with {what}"),
                remedy: "name the configuration file with `-c FILE`",
            }),
            (None, [handler]) => Ok(handler),
            (None, _) => Err(CommandFailure::Usage {
                message: format!("{file} has several handlers with {what}: {names}"),
                remedy: "name one of them",
            }),
            (Some(name), handlers) => {
                handlers.iter().find(|handler| handler.name == name).copied().ok_or_else(|| {
                    CommandFailure::Usage {
                        message: format!("{file} has no handler `{name}` with {what}, but {names}"),
                        remedy: "name one of them",
                    }
                })
            }
        }
    }

    fn with_state(&self, name: Option<&str>) -> Result<&HandlerConfig, CommandFailure> {
        self.handler(name, "keyed state", |handler| handler.state.is_some())
    }

    fn with_marks(&self, name: Option<&str>) -> Result<&HandlerConfig, CommandFailure> {
        self.handler(name, "marks in a changelog", |handler| handler.order.is_durable())
    }

    fn connect(&self, handler: &HandlerConfig, selection: &Selection) -> Result<KeyedTools, CommandFailure> {
        Ok(KeyedTools::connect(self.config, self.servers, handler, selection)?)
    }

    /// Connects to the changelogs of the partitions, and prints what is read. The handler has keyed state.
    fn open(&self, arguments: &PartitionArguments) -> Result<KeyedTools, CommandFailure> {
        self.open_changelogs(self.with_state(arguments.handler.as_deref())?, arguments)
    }

    /// As [`Cli::open`], for a handler that has a changelog: of keyed state, or of the marks of its gate.
    fn open_any(&self, arguments: &PartitionArguments) -> Result<KeyedTools, CommandFailure> {
        let name = arguments.handler.as_deref();
        let handler =
            self.handler(name, "keyed state or marks in a changelog", |handler| handler.keys.is_some())?;
        self.open_changelogs(handler, arguments)
    }

    fn open_changelogs(
        &self,
        handler: &HandlerConfig,
        arguments: &PartitionArguments,
    ) -> Result<KeyedTools, CommandFailure> {
        let tools = self.connect(handler, &arguments.selection())?;
        note(&format!("reading the {}, at {}", tools.source(), self.servers));
        Ok(tools)
    }
}

impl PartitionArguments {
    fn selection(&self) -> Selection {
        Selection { topic: self.topic.clone(), partition: self.partition }
    }
}

fn servers(config: &Checked) -> Result<&str, CommandFailure> {
    match &config.kafka.cluster {
        Cluster::Brokers(servers) => Ok(servers),
        Cluster::Embedded(_) => Err(CommandFailure::Usage {
            message: "the embedded broker runs inside `keylane run`, and its states end with it".to_owned(),
            remedy: "set `kafka.bootstrap_servers` to the brokers that have the changelogs",
        }),
    }
}

/// Writes a line to standard error: standard output is for results.
fn note(text: &str) {
    logging::report(&format!("{text}\n"));
}
