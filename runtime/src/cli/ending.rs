//! How a command ends: an exit code, and for failures a message that ends with the remedy.

use std::fmt::Write as _;
use std::process::ExitCode;

use crate::app;
use crate::config::{self, Refused};
use crate::telemetry::{self, LoggingError};

/// How a command ended that could be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Nothing is wrong.
    Fine,
    /// It ran and failed, or it found something; people were told.
    Findings,
}

/// Why a command could not be carried out.
#[derive(Debug)]
pub enum Failure {
    /// The configuration is not there, or not sound.
    Config(config::Error),
    /// An argument can't be understood.
    Usage {
        /// What is wrong.
        message: String,
        /// The remedy.
        hint: &'static str,
    },
    /// Nothing could be run, or it could not go on.
    Run(anyhow::Error),
}

/// Tells people about a failure; gives the code that the process ends with.
#[must_use]
pub fn exit_code(ended: Result<Ending, Failure>) -> ExitCode {
    telemetry::flush();
    match ended {
        Ok(Ending::Fine) => ExitCode::SUCCESS,
        Ok(Ending::Findings) => ExitCode::from(1),
        Err(failure) => {
            telemetry::say(&failure.describe());
            ExitCode::from(failure.code())
        }
    }
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Failure::Config(_) | Failure::Usage { .. } => 2,
            Failure::Run(error) if error.is::<Refused>() || app::is_final(error) => 2,
            Failure::Run(_) => 1,
        }
    }

    fn describe(&self) -> String {
        let (message, hint) = match self {
            Failure::Config(error) => (error.to_string(), error.hint()),
            Failure::Usage { message, hint } => (message.clone(), Some(*hint)),
            Failure::Run(error) => {
                let hint = error.downcast_ref::<Refused>().and_then(|refused| refused.hint.as_deref());
                (format!("{error:#}"), hint)
            }
        };
        let mut text = format!("error: {}\n", message.trim_end());
        if let Some(hint) = hint {
            let _infallible = writeln!(text, "hint: {hint}");
        }
        text
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Failure {
        Failure::Config(error)
    }
}

impl From<LoggingError> for Failure {
    fn from(error: LoggingError) -> Failure {
        Failure::Usage {
            message: error.to_string(),
            hint: "--log takes a level (error, warn, info, debug, trace) or levels by module: keylane=debug,warn",
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Run(error)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_code_says_whose_fault_it_is() {
        let refused = || Refused { message: "no export".to_owned(), hint: Some("export it".to_owned()) };
        let missing =
            config::load(Path::new("/nowhere/keylane.toml")).map(|_| ()).expect_err("it is not there");
        for (failure, code, expected) in [
            (Failure::from(missing), 2, "error: can't read the configuration file /nowhere/keylane.toml: "),
            (Failure::Usage { message: "what?".to_owned(), hint: "that" }, 2, "error: what?\nhint: that\n"),
            (Failure::Run(anyhow::anyhow!("it broke")), 1, "error: it broke\n"),
            (Failure::Run(refused().into()), 2, "error: no export\nhint: export it\n"),
            (
                Failure::Run(Err::<(), _>(refused()).context("handler `a`").expect_err("it is one")),
                2,
                "error: handler `a`: no export\nhint: export it\n",
            ),
        ] {
            assert_eq!(failure.code(), code, "{failure:?}");
            assert!(failure.describe().starts_with(expected), "{}", failure.describe());
        }
    }
}
