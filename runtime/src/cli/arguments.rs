//! What can be said on the command line.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::CommandFailure;
use super::version::versions;
use crate::guest::compiler;
use crate::telemetry::{self, Format};

/// Kafka events through sandboxed WebAssembly handlers, in order per key.
#[derive(Debug, Parser)]
#[command(name = "keylane", version = versions())]
pub struct Cli {
    /// The configuration file.
    #[arg(
        long,
        short,
        global = true,
        value_name = "FILE",
        env = "KEYLANE_CONFIG",
        default_value = "keylane.toml"
    )]
    pub config: PathBuf,
    /// What is logged: a level (error, warn, info, debug, trace), or levels by module.
    #[arg(long, global = true, value_name = "FILTER", env = "KEYLANE_LOG", default_value = "info")]
    pub log: String,
    /// How log lines look [default: human on a terminal, json elsewhere].
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the handlers of the configuration.
    Run(RunArguments),
    /// Check the configuration and show what it comes to; nothing is started.
    Check,
    /// Show what a component is made of, and whether it can be run.
    Inspect(InspectArguments),
    /// Print the schema of the configuration.
    Schema(SchemaArguments),
    /// Run an example on a broker inside this process.
    Demo,
    /// Compile what is on standard input: what the other commands start, no one else.
    #[command(name = compiler::COMMAND, hide = true)]
    Compile(CompileArguments),
}

/// How to run.
#[derive(Args, Debug)]
pub struct RunArguments {
    /// Stop at what is the end of every partition when it is first assigned.
    #[arg(long)]
    pub until_end: bool,
}

/// What compiling may take.
#[derive(Args, Debug)]
pub struct CompileArguments {
    /// Bytes that the process may map.
    #[arg(long)]
    pub address_space: u64,
    /// Time on processors, over all threads.
    #[arg(long)]
    pub cpu_seconds: u64,
}

/// What to look at.
#[derive(Args, Debug)]
pub struct InspectArguments {
    /// The component.
    pub component: PathBuf,
}

/// How to print the schema.
#[derive(Args, Debug)]
pub struct SchemaArguments {
    /// For editors and validators, or for people.
    #[arg(long, value_name = "FORMAT", default_value = "json")]
    pub format: SchemaFormat,
}

/// How the schema looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemaFormat {
    /// JSON Schema.
    Json,
    /// The reference, as a page.
    Markdown,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text, for people.
    Human,
    /// One JSON object a line, for machines.
    Json,
}

impl Cli {
    /// Takes the arguments of this process. Help, the version and faults of usage end it here.
    #[must_use]
    pub fn from_process() -> Cli {
        Cli::parse()
    }

    /// Starts logging as asked for. What compiles for its parent has no log: it may not even have memory for its thread.
    ///
    /// # Errors
    ///
    /// The filter can't be understood.
    pub fn start_logging(&self) -> Result<(), CommandFailure> {
        if matches!(self.command, Command::Compile(_)) {
            return Ok(());
        }
        let format = match self.log_format {
            Some(LogFormat::Human) => Format::Human,
            Some(LogFormat::Json) => Format::Json,
            None if std::io::stderr().is_terminal() => Format::Human,
            None => Format::Json,
        };
        Ok(telemetry::start_logging(&self.log, format)?)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_before_or_after_the_command() {
        for line in
            ["keylane -c a.toml --log debug run --until-end", "keylane run --until-end --log debug -c a.toml"]
        {
            let cli = parse(line).expect(line);
            assert_eq!((cli.config.as_path(), cli.log.as_str()), (Path::new("a.toml"), "debug"));
            assert!(matches!(cli.command, Command::Run(RunArguments { until_end: true })), "{line}");
        }
    }

    #[test]
    fn faults_of_usage_have_exit_code_2() {
        for line in ["keylane", "keylane walk", "keylane check --until-end", "keylane run --log-format xml"] {
            assert_eq!(parse(line).map(|_| ()).expect_err(line).exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn the_version_names_what_is_inside() {
        let shown = parse("keylane --version").map(|_| ()).expect_err("it is shown instead").to_string();
        for part in ["keylane 0.", "wasmtime 48.", "librdkafka 2."] {
            assert!(shown.contains(part), "no {part:?} in {shown}");
        }
    }
}
