//! The result of a command: an exit code, and for failures a message that ends with the remedy.

use std::fmt::Write as _;
use std::process::ExitCode;

use crate::app;
use crate::config;
use crate::guest::LoadError;
use crate::logging::{self, LoggingError};

/// The result of a command that was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// The command succeeded.
    Success,
    /// Exit code 1: a failed run, or findings.
    Failure,
}

/// Why a command could not be executed.
#[derive(Debug)]
pub enum CommandFailure {
    /// The configuration file can't be read, or is invalid.
    Config(config::Error),
    /// The command was called incorrectly.
    Usage {
        /// The error.
        message: String,
        /// The remedy.
        remedy: &'static str,
    },
    /// A component can't be inspected.
    Component(LoadError),
    /// Any other failure: a run that could not start, a failed write.
    Other(anyhow::Error),
}

/// Reports a failure and returns the exit code of the process.
#[must_use]
pub fn exit_code(ended: Result<Completion, CommandFailure>) -> ExitCode {
    logging::flush();
    match ended {
        Ok(Completion::Success) => ExitCode::SUCCESS,
        Ok(Completion::Failure) => ExitCode::from(1),
        Err(failure) => {
            logging::report(&failure.describe());
            ExitCode::from(failure.code())
        }
    }
}

impl CommandFailure {
    fn code(&self) -> u8 {
        match self {
            CommandFailure::Config(_) | CommandFailure::Usage { .. } | CommandFailure::Component(_) => 2,
            CommandFailure::Other(error) if app::is_permanent(error) => 2,
            CommandFailure::Other(_) => 1,
        }
    }

    /// Returns the message, with the remedy.
    pub(super) fn describe(&self) -> String {
        let (message, remedy) = match self {
            CommandFailure::Config(config::Error::Invalid(report)) => return report.to_string(),
            CommandFailure::Config(error) => (error.to_string(), error.remedy()),
            CommandFailure::Usage { message, remedy } => (message.clone(), Some(*remedy)),
            CommandFailure::Component(error) => (error.to_string(), None),
            CommandFailure::Other(error) => (format!("{error:#}"), None),
        };
        let mut text = format!("error: {}\n", message.trim_end());
        if let Some(remedy) = remedy {
            let _infallible = writeln!(text, "hint: {remedy}");
        }
        text
    }
}

impl From<config::Error> for CommandFailure {
    fn from(error: config::Error) -> CommandFailure {
        CommandFailure::Config(error)
    }
}

impl From<LoggingError> for CommandFailure {
    fn from(error: LoggingError) -> CommandFailure {
        CommandFailure::Usage {
            message: error.to_string(),
            remedy: "--log takes a level (error, warn, info, debug, trace) or levels by module: keylane=debug,warn",
        }
    }
}

impl From<anyhow::Error> for CommandFailure {
    fn from(error: anyhow::Error) -> CommandFailure {
        CommandFailure::Other(error)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn exit_codes_and_messages_depend_on_the_cause() {
        let missing = config::load(Path::new("/nowhere/keylane.toml"))
            .map(|_| ())
            .expect_err("the file does not exist");
        for (failure, code, expected) in [
            (
                CommandFailure::from(missing),
                2,
                "error: can't read the configuration file /nowhere/keylane.toml: ",
            ),
            (
                CommandFailure::Usage { message: "what?".to_owned(), remedy: "that" },
                2,
                "error: what?\nhint: that\n",
            ),
            (CommandFailure::Other(anyhow::anyhow!("it broke")), 1, "error: it broke\n"),
            (
                CommandFailure::Component(LoadError::CompiledCode { name: "a.cwasm".to_owned() }),
                2,
                "error: `a.cwasm` is compiled code",
            ),
        ] {
            assert_eq!(failure.code(), code, "{failure:?}");
            assert!(failure.describe().starts_with(expected), "{}", failure.describe());
        }
    }
}
