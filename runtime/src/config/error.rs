//! Errors of the configuration file.

use std::path::PathBuf;

use super::ProblemReport;

/// Why the configuration could not be loaded.
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
    Invalid(#[from] ProblemReport),
}

impl Error {
    /// Returns the remedy, if it is not part of the message.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Error::Unreadable { .. } => Some("name the file with --config FILE or KEYLANE_CONFIG"),
            Error::Invalid(_) => None,
        }
    }
}
