//! Command-line arguments.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::CommandFailure;
use super::state::arguments::{OffsetsArguments, StateArguments};
use super::version::versions;
use crate::guest::compiler;
use crate::logging::{self, Format};

/// The configuration file, if no other is named.
pub(super) const DEFAULT_CONFIG: &str = "keylane.toml";
/// The log filter, if no other is given.
const DEFAULT_LOG: &str = "info";

/// Process Kafka events with sandboxed WebAssembly handlers, in order per key.
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
        default_value = DEFAULT_CONFIG
    )]
    pub config: PathBuf,
    /// Log filter: a level (error, warn, info, debug, trace), or levels by module [default: `log.filter` of the
    /// configuration, or info].
    #[arg(long, global = true, value_name = "FILTER", env = "KEYLANE_LOG")]
    pub log: Option<String>,
    /// Log format [default: human on a terminal, json elsewhere].
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the handlers of the configuration.
    Run(RunArguments),
    /// Check the configuration and show a summary, without starting anything.
    Check,
    /// Show the imports and exports of a component, and whether it can be run.
    Inspect(InspectArguments),
    /// Print the schema of the configuration.
    Schema(SchemaArguments),
    /// Show the status of running processes.
    Status(StatusArguments),
    /// Read and change keyed state, as the changelogs have it.
    State(StateArguments),
    /// Change committed offsets.
    Offsets(OffsetsArguments),
    /// Write one file for a support ticket: versions, limits, the status of running processes, and the configuration
    /// without secrets.
    Report(ReportArguments),
    /// Run an example on the embedded broker.
    Demo,
    /// Compile the component on standard input. Started only by the other commands.
    #[command(name = compiler::COMMAND, hide = true)]
    Compile(CompileArguments),
}

/// Arguments of `run`.
#[derive(Args, Debug)]
pub struct RunArguments {
    /// Stop when every partition is processed up to the end that it had when it was first assigned.
    #[arg(long)]
    pub until_end: bool,
    /// Address of the admin server, `host:port` or `off`; overrides `admin.listen`.
    #[arg(long, value_name = "ADDRESS")]
    pub admin_listen: Option<String>,
}

/// How to reach the admin server of a running process.
#[derive(Args, Debug)]
pub struct AdminArguments {
    /// Address of the admin server [default: `admin.listen` of the configuration, or every default port of this machine].
    #[arg(long, value_name = "URL", env = "KEYLANE_ADMIN")]
    pub admin: Option<String>,
    /// Token of the admin server [default: that of the configuration, if it also has the address].
    #[arg(long, value_name = "TOKEN", env = "KEYLANE_ADMIN_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

/// Arguments of `status`.
#[derive(Args, Debug)]
pub struct StatusArguments {
    /// The admin server.
    #[command(flatten)]
    pub admin: AdminArguments,
    /// Print the answer of each process as a line of JSON.
    #[arg(long)]
    pub json: bool,
    /// Show the status again every second.
    #[arg(long)]
    pub watch: bool,
    /// Show the consumer group of each handler of the configuration, or of one, as its brokers describe it: the members
    /// and their partitions, committed offsets and lag. Requests nothing from the admin server.
    #[arg(long, value_name = "HANDLER", num_args = 0..=1, conflicts_with = "watch")]
    pub group: Option<Option<String>>,
}

/// Arguments of `report`.
#[derive(Args, Debug)]
pub struct ReportArguments {
    /// The admin server.
    #[command(flatten)]
    pub admin: AdminArguments,
    /// The file to write, which must not exist; `-`: standard output [default: keylane-report-TIME.json, with the time
    /// in seconds since 1970].
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Resource limits of a compilation.
#[derive(Args, Debug)]
pub struct CompileArguments {
    /// Maximum address space in bytes.
    #[arg(long)]
    pub address_space: u64,
    /// Maximum CPU time in seconds, over all threads.
    #[arg(long)]
    pub cpu_seconds: u64,
}

/// Arguments of `inspect`.
#[derive(Args, Debug)]
pub struct InspectArguments {
    /// The component file.
    pub component: PathBuf,
}

/// Arguments of `schema`.
#[derive(Args, Debug)]
pub struct SchemaArguments {
    /// Output format.
    #[arg(long, value_name = "FORMAT", default_value = "json")]
    pub format: SchemaFormat,
}

/// Format of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemaFormat {
    /// JSON Schema, for editors and validators.
    Json,
    /// The reference page.
    Markdown,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Human-readable text.
    Human,
    /// One JSON object per line.
    Json,
}

impl Cli {
    /// Parses the arguments of this process. Help, version and usage errors end the process here.
    #[must_use]
    pub fn from_process() -> Cli {
        Cli::parse()
    }

    /// Starts logging as configured. A compiling child process has no log: it may lack the memory for the log's thread.
    ///
    /// # Errors
    ///
    /// The filter can't be parsed.
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
        Ok(logging::start_logging(self.log.as_deref().unwrap_or(DEFAULT_LOG), format)?)
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
    fn global_flags_are_allowed_before_and_after_the_command() {
        for line in
            ["keylane -c a.toml --log debug run --until-end", "keylane run --until-end --log debug -c a.toml"]
        {
            let cli = parse(line).expect(line);
            assert_eq!((cli.config.as_path(), cli.log.as_deref()), (Path::new("a.toml"), Some("debug")));
            assert!(matches!(cli.command, Command::Run(RunArguments { until_end: true, .. })), "{line}");
        }
    }

    #[test]
    fn usage_errors_have_exit_code_2() {
        for line in ["keylane", "keylane walk", "keylane check --until-end", "keylane run --log-format xml"] {
            assert_eq!(parse(line).map(|_| ()).expect_err(line).exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn the_version_includes_the_engines() {
        let shown =
            parse("keylane --version").map(|_| ()).expect_err("the version is shown instead").to_string();
        for part in ["keylane 0.", "wasmtime 48.", "librdkafka 2."] {
            assert!(shown.contains(part), "no {part:?} in {shown}");
        }
    }
}
