//! The token of the admin server.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use keylane_admin::TOKEN_MIN;

/// Where the token is.
#[derive(Clone, PartialEq, Eq)]
pub enum AdminToken {
    /// In the configuration.
    Value(String),
    /// In a file.
    File(PathBuf),
}

/// Why a token can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AdminTokenError {
    /// The file can't be read.
    #[error("the token of the admin server can't be read from {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The token is too short.
    #[error(
        "the token of the admin server in {path} is shorter than {TOKEN_MIN} characters; create one with \
         `openssl rand -hex 16`"
    )]
    TooShort {
        /// The file.
        path: PathBuf,
    },
}

impl AdminToken {
    /// Returns the token. A trailing newline of a file is not part of it.
    ///
    /// # Errors
    ///
    /// The file can't be read, or its token is too short.
    pub fn read(&self) -> Result<String, AdminTokenError> {
        match self {
            AdminToken::Value(token) => Ok(token.clone()),
            AdminToken::File(path) => read(path),
        }
    }
}

fn read(path: &Path) -> Result<String, AdminTokenError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| AdminTokenError::Unreadable { path: path.to_path_buf(), source })?;
    let token = text.strip_suffix('\n').unwrap_or(&text);
    let token = token.strip_suffix('\r').unwrap_or(token);
    if token.len() < TOKEN_MIN {
        return Err(AdminTokenError::TooShort { path: path.to_path_buf() });
    }
    Ok(token.to_owned())
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken")
    }
}
