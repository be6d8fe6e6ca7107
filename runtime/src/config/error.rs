//! Errors of the configuration file and of a component file.

use std::fmt;
use std::path::PathBuf;

use super::Report;

/// Why there is no checked configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file does not exist, or can't be read.
    #[error("can't read the configuration file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file was read, but the configuration is invalid.
    #[error(transparent)]
    Invalid(#[from] Report),
}

impl Error {
    /// Returns the remedy, if it is not part of the message.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::Unreadable { .. } => Some("name the file with --config FILE or KEYLANE_CONFIG"),
            Error::Invalid(_) => None,
        }
    }
}

/// A component file that `inspect` can't analyse. The exit code is that of a configuration problem.
#[derive(Debug)]
pub struct Refused {
    /// The problem, and the component.
    pub message: String,
    /// The remedy.
    pub hint: Option<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refused {}
