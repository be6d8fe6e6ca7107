//! The command line: one file per command.
//!
//! Data goes to standard output, everything else to standard error. Exit codes: 0: success; 1: a failed start or run,
//! or findings (`check`, `inspect`); 2: refused before a group was joined, with an error that a restart can't resolve.

mod admin_server;
mod arguments;
mod check;
mod compile;
mod completion;
mod demo;
mod inspect;
mod print_outputs;
mod reference;
mod report;
mod run;
mod schema;
mod state;
mod status;
mod stdout;
mod version;

pub use crate::logging::end_on_panic;
use arguments::DEFAULT_CONFIG;
pub use arguments::{
    AdminArguments, Cli, Command, CompileArguments, InspectArguments, LogFormat, ReportArguments,
    RunArguments, SchemaArguments, StatusArguments,
};
pub use completion::{CommandFailure, Completion, exit_code};
pub use state::arguments::{
    OffsetsArguments, OffsetsCommand, PartitionArguments, StateAdoptArguments, StateArguments, StateCommand,
    StateCountArguments, StateGetArguments, StateListArguments, StateResetArguments,
};

impl Cli {
    /// Executes the command.
    ///
    /// # Errors
    ///
    /// The reason why the command could not be executed.
    pub fn execute(&self) -> Result<Completion, CommandFailure> {
        match &self.command {
            Command::Run(arguments) => run::execute(&self.config, self.log.as_deref(), arguments),
            Command::Check => check::execute(&self.config),
            Command::Inspect(arguments) => inspect::execute(&arguments.component),
            Command::Schema(arguments) => schema::execute(arguments.format),
            Command::Status(arguments) => status::execute(&self.config, arguments),
            Command::State(arguments) => state::execute(&self.config, arguments),
            Command::Offsets(arguments) => state::execute_offsets(&self.config, arguments),
            Command::Report(arguments) => report::execute(&self.config, arguments),
            Command::Demo => demo::execute(),
            Command::Compile(arguments) => compile::execute(arguments),
        }
    }
}
