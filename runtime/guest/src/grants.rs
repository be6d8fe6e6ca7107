//! What a handler may access besides its events and outputs: by default, nothing.

use std::fmt;
use std::sync::Arc;

use super::http::HttpGrant;

/// The grants of one handler.
#[derive(Clone, Default)]
pub struct Grants {
    /// Names and values of the environment variables.
    pub env: Vec<(String, String)>,
    /// The hosts to which it may send HTTP requests, and the client that sends them.
    pub http: Option<Arc<HttpGrant>>,
}

impl Grants {
    /// Returns what a component with these grants may import.
    pub fn allowed_imports(&self) -> AllowedImports {
        AllowedImports { http: self.http.is_some() }
    }
}

impl fmt::Debug for Grants {
    /// Omits the values of variables, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Grants").field("env", &names).field("http", &self.http).finish()
    }
}

/// What a component may import besides standard WASI and types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllowedImports {
    /// `wasi:http`, for outgoing requests.
    pub http: bool,
}
