//! Why Keylane does not start.

use std::fmt;
use std::path::PathBuf;

use super::Report;

/// Why there is no checked configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not there, or not for us.
    #[error("can't read the configuration file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file was read and is not sound.
    #[error(transparent)]
    Unsound(#[from] Report),
}

impl Error {
    /// The remedy, where it is not part of the message.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::Unreadable { .. } => Some("name the file with --config FILE or KEYLANE_CONFIG"),
            Error::Unsound(_) => None,
        }
    }
}

/// A fault of the configuration that only a look into a component can find: the right export is missing, an import is
/// not granted. The process ends as for any other fault of the configuration.
#[derive(Debug)]
pub struct Refused {
    /// What is wrong, and with what.
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
